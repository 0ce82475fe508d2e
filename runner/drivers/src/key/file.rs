//! Small files that hold keys: read with a bound, written so that nothing is ever replaced.
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;
use zeroize::Zeroizing;

/// Bytes a key file may have; real ones have about 300.
const MAX_SIZE: u64 = 4096;

pub(super) fn read_public(path: &Path, what: &str) -> Result<String, Stop> {
    let file = open(path, what)?;
    read(file, path, what).map(|text| text.to_string())
}

/// Refuses a file that every user of the machine could have read.
pub(super) fn read_secret(path: &Path, what: &str) -> Result<Zeroizing<String>, Stop> {
    let file = open(path, what)?;
    let mode = file.metadata().or_stop(Reason::Internal, format!("reading {what} `{}`", path.display()))?;
    if mode.permissions().mode() & 0o007 != 0 {
        let problem = format!("{what} `{}` is open to every user of this machine", path.display());
        return Err(Stop::new(Reason::Internal, problem).advise(format!("chmod 600 {}", path.display())));
    }
    read(file, path, what)
}

/// Creates the file, synced to disk; an existing one is an error of kind `AlreadyExists`.
pub(super) fn create(path: &Path, mode: u32, content: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    let written = file.write_all(content.as_bytes()).and_then(|()| file.sync_all());
    if written.is_err() {
        // A half-written key that is found later would be worse than none; the first error is the one to tell.
        let _ = std::fs::remove_file(path);
    }
    written
}

fn open(path: &Path, what: &str) -> Result<File, Stop> {
    let tried = || format!("reading {what} `{}`", path.display());
    // A pipe in the place of a key must not block.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path);
    let file = file.or_stop(Reason::Internal, tried())?;
    let metadata = file.metadata().or_stop(Reason::Internal, tried())?;
    if !metadata.is_file() || metadata.len() > MAX_SIZE {
        return Err(Stop::new(Reason::Internal, format!("{what} `{}` is not a key file", path.display())));
    }
    Ok(file)
}

fn read(file: File, path: &Path, what: &str) -> Result<Zeroizing<String>, Stop> {
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_SIZE)
        .read_to_string(&mut text)
        .or_stop(Reason::Internal, format!("reading {what} `{}`", path.display()))?;
    Ok(text)
}
