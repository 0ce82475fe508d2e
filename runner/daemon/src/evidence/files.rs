//! Evidence on disk: prepared under a hidden name, then renamed.
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use drill::evidence::{FILE_SUFFIX, MAX_SIZE};
use drill::id::{RunId, Sha256Digest};
use drill::stop::Stop;
use rustix::fs::OFlags;

const PENDING_SUFFIX: &str = ".pending";

pub(super) fn path_of(directory: &Path, run: &RunId) -> PathBuf {
    directory.join(format!("{run}{FILE_SUFFIX}"))
}

/// Named by its digest too, so that of two processes neither renames what the other wrote.
pub(super) fn pending(path: &Path, run: &RunId, digest: &Sha256Digest) -> PathBuf {
    path.with_file_name(format!(".{run}.{}{PENDING_SUFFIX}", &digest.hex()[..16]))
}

/// Durable when it returns, under its hidden name. All that a full disk can spoil is spoilt here, before the chain grows.
pub(super) fn prepare(path: &Path, pending: &Path, bytes: &[u8]) -> Result<(), Stop> {
    if bytes.len() as u64 > MAX_SIZE {
        return Err(Stop::internal(format!("evidence has {} bytes, and {MAX_SIZE} are allowed", bytes.len())));
    }
    if path.symlink_metadata().is_ok() {
        return Err(Stop::internal(format!("{} is there already and is not in the chain of evidence", path.display()))
            .advise("find out where it came from and move it away; muster overwrites no evidence"));
    }
    let written = || -> io::Result<()> {
        let directory = parent(path);
        DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
        remove(pending)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(pending)?;
        file.write_all(bytes)?;
        // Evidence is for others to read, whatever the umask.
        file.set_permissions(PermissionsExt::from_mode(0o644))?;
        file.sync_all()?;
        File::open(directory)?.sync_all()
    };
    written().map_err(|error| trouble("prepared", path, &error))
}

/// Gives it its name. Doing it twice is fine.
pub(super) fn publish(path: &Path, pending: &Path, run: &RunId) -> Result<(), Stop> {
    let published = || -> io::Result<()> {
        if pending.symlink_metadata().is_ok() {
            std::fs::rename(pending, path)?;
        }
        File::open(parent(path))?.sync_all()?;
        discard_others(path, run)
    };
    published().map_err(|error| trouble("given its name", path, &error))
}

/// Puts a file in the place of the one before it, durably and whole.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), Stop> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let pending = path.with_file_name(format!(".{name}{PENDING_SUFFIX}"));
    let replaced = || -> io::Result<()> {
        remove(&pending)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&pending)?;
        file.write_all(bytes)?;
        file.set_permissions(PermissionsExt::from_mode(0o644))?;
        file.sync_all()?;
        std::fs::rename(&pending, path)?;
        File::open(parent(path))?.sync_all()
    };
    replaced().map_err(|error| {
        Stop::internal(format!("tombstone {} could not be written: {error}", path.display()))
            .advise("let muster write to that directory and free some space there; until then no evidence is deleted")
    })
}

pub(super) fn delete(path: &Path) -> Result<(), Stop> {
    remove(path).map_err(|error| {
        Stop::internal(format!("evidence {} could not be deleted: {error}", path.display()))
            .advise("let muster write to that directory; it tries again")
    })
}

pub(super) fn sync(directory: &Path) -> Result<(), Stop> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| Stop::internal(format!("{} could not be synced: {error}", directory.display())))
}

pub(super) fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What earlier tries of this run left.
fn discard_others(path: &Path, run: &RunId) -> io::Result<()> {
    let prefix = format!(".{run}.");
    for entry in std::fs::read_dir(parent(path))? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with(&prefix) && name.ends_with(PENDING_SUFFIX)) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// None where there is no such file.
pub(super) fn digest_of(path: &Path) -> Result<Option<Sha256Digest>, Stop> {
    match read(path) {
        Ok(bytes) => Ok(Some(Sha256Digest::of(&bytes))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(trouble("read", path, &error)),
    }
}

/// A regular file of at most [`MAX_SIZE`].
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    // Without it, opening a FIFO waits for somebody to write.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(found.len().min(MAX_SIZE)).unwrap_or(0));
    file.take(MAX_SIZE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err(io::Error::other(format!("it is larger than {MAX_SIZE} bytes, which no evidence is")));
    }
    Ok(bytes)
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn trouble(done: &str, path: &Path, error: &io::Error) -> Stop {
    let advice = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "free some space there, then `muster reap` writes it",
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "let muster write to that directory, then `muster reap` writes it"
        }
        _ => "mend that directory, then `muster reap` writes it",
    };
    Stop::internal(format!("evidence {} could not be {done}: {error}", path.display())).advise(advice)
}
