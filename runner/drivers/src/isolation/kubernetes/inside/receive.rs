//! Files from the runner: each announced with its size, written beneath one directory, and answered with the digest of what
//! was written.
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path};
use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{frame, not_to_be_typed};

/// What the runner says before a file's bytes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Sent {
    /// Beneath the directory.
    pub(in super::super) path: String,
    pub(in super::super) size: u64,
    pub(in super::super) mode: u32,
}

/// What came of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Received {
    pub(in super::super) path: String,
    pub(in super::super) size: u64,
    /// Hexadecimal.
    pub(in super::super) sha256: String,
}

/// The argument is the directory. Answers with a frame a file, and with [`frame::RESULT`] when the runner said that it was all.
pub(super) fn main(arguments: &[String]) -> io::Result<ExitCode> {
    let [directory] = arguments else { return Err(not_to_be_typed()) };
    let (mut input, mut out) = (io::stdin().lock(), io::stdout().lock());
    let mut payload = Vec::new();
    loop {
        match frame::read(&mut input, &mut payload)? {
            frame::END => break,
            frame::HEADER => {
                let sent: Sent = serde_json::from_slice(&payload).map_err(io::Error::other)?;
                let received = receive(Path::new(directory), sent, &mut input, &mut payload)?;
                frame::write(&mut out, frame::STDOUT, &serde_json::to_vec(&received)?)?;
            }
            _ => return Err(io::Error::other("bytes came that belong to no file")),
        }
    }
    frame::write(&mut out, frame::RESULT, b"")?;
    Ok(ExitCode::SUCCESS)
}

fn receive(directory: &Path, sent: Sent, input: &mut impl io::Read, payload: &mut Vec<u8>) -> io::Result<Received> {
    let path = Path::new(&sent.path);
    if sent.path.is_empty() || !path.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(io::Error::other(format!("`{}` is no path beneath {}", sent.path, directory.display())));
    }
    let path = directory.join(path);
    if let Some(parent) = path.parent().filter(|parent| !parent.is_dir()) {
        DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    let (sha256, size) = write(&mut file, sent.size, input, payload)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(sent.mode & 0o777))?;
    Ok(Received { path: sent.path, size, sha256 })
}

fn write(file: &mut File, size: u64, input: &mut impl io::Read, payload: &mut Vec<u8>) -> io::Result<(String, u64)> {
    let mut hash = Sha256::new();
    let mut written = 0;
    while written < size {
        if frame::read(input, payload)? != frame::DATA {
            return Err(io::Error::other("a file ended before its size"));
        }
        written += payload.len() as u64;
        hash.update(&payload[..]);
        file.write_all(payload)?;
    }
    if written > size {
        return Err(io::Error::other("a file went on beyond its size"));
    }
    Ok((hex::encode(hash.finalize()), written))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(directory: &Path, path: &str, size: u64, bytes: &[u8]) -> io::Result<Received> {
        let mut stream = Vec::new();
        frame::write(&mut stream, frame::DATA, bytes).expect("written");
        let sent = Sent { path: path.to_owned(), size, mode: 0o444 };
        receive(directory, sent, &mut stream.as_slice(), &mut Vec::new())
    }

    #[test]
    fn a_file_is_answered_with_the_digest_of_what_was_written() {
        let directory = tempfile::tempdir().expect("a directory");
        let received = one(directory.path(), "orders/toc.dat", 3, b"abc").expect("received");
        assert_eq!(received.sha256, drill::id::Sha256Digest::of(b"abc").hex());
        assert_eq!(fs::read(directory.path().join("orders/toc.dat")).expect("there"), b"abc");
    }

    #[test]
    fn what_is_cut_or_leaves_the_directory_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        for path in ["", "../out", "/etc/passwd", "a/../../b"] {
            assert!(one(directory.path(), path, 3, b"abc").is_err(), "{path}");
        }
        assert!(one(directory.path(), "short", 4, b"abc").is_err());
        assert!(one(directory.path(), "long", 2, b"abc").is_err());
    }
}
