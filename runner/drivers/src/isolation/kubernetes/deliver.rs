//! Files into a pod, over `exec`: what was sent is compared with what the receiver has written, by digest.
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use drill::port::InputFile;
use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;
use rustix::fs::{FileType, Mode, OFlags};
use sha2::{Digest, Sha256};
use tokio_util::task::TaskTracker;

use super::channel::{self, Channel, Input, Place};
use super::inside::{self, Received, Sent, frame};
use crate::isolation::local::exec::clean;

const DEEPEST: usize = 16;

/// One file on its way.
pub(super) struct Outgoing {
    path: String,
    mode: u32,
    bytes: Bytes,
}

enum Bytes {
    Here(Vec<u8>),
    In(OwnedFd),
}

impl Bytes {
    fn size(&self) -> std::io::Result<u64> {
        match self {
            Self::Here(bytes) => Ok(bytes.len() as u64),
            Self::In(fd) => u64::try_from(rustix::fs::fstat(fd)?.st_size).map_err(std::io::Error::other),
        }
    }

    fn reader(self) -> Box<dyn Read + Send> {
        match self {
            Self::Here(bytes) => Box::new(std::io::Cursor::new(bytes)),
            Self::In(fd) => Box::new(File::from(fd)),
        }
    }
}

/// The engine's files; only their user may read the secret ones.
pub(super) fn inputs(files: &[InputFile]) -> Vec<Outgoing> {
    let outgoing = |file: &InputFile| Outgoing {
        path: file.name.clone(),
        mode: if file.secret { 0o600 } else { 0o644 },
        bytes: Bytes::Here(file.contents.clone()),
    };
    files.iter().map(outgoing).collect()
}

/// Everything that was staged. Blocks.
pub(super) fn staged(directory: &Path) -> Result<Vec<Outgoing>, Stop> {
    let tried = "reading the staged backup";
    let mut files = Vec::new();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = rustix::fs::open(directory, flags, Mode::empty()).or_stop(Reason::Internal, tried)?;
    walk(&root, &PathBuf::new(), 0, &mut files).or_stop(Reason::Internal, tried)?;
    Ok(files)
}

fn walk(directory: &OwnedFd, below: &Path, depth: usize, files: &mut Vec<Outgoing>) -> std::io::Result<()> {
    if depth > DEEPEST {
        return Err(std::io::Error::other("it is more than 16 directories deep"));
    }
    for entry in rustix::fs::Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(directory.as_fd(), name, flags, Mode::empty())?;
        let path = below.join(name.to_str().map_err(std::io::Error::other)?);
        match FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) {
            FileType::Directory => walk(&fd, &path, depth + 1, files)?,
            FileType::RegularFile => {
                files.push(Outgoing { path: path.display().to_string(), mode: 0o444, bytes: Bytes::In(fd) });
            }
            other => return Err(std::io::Error::other(format!("{} is a {other:?}", path.display()))),
        }
    }
    Ok(())
}

/// Sends `files` beneath `directory`. Returns how many bytes; an error where one digest differs, or one answer is missing.
pub(super) async fn send(
    place: &Place,
    directory: &str,
    files: Vec<Outgoing>,
    leaving: &TaskTracker,
) -> Result<u64, Stop> {
    let mut channel = place.open(&[drill::port::PROGRAM, inside::RECEIVE, directory], leaving).await?;
    let mut input = channel.take_input().ok_or_else(|| Stop::internal("a command in a pod has no input"))?;
    let count = files.len();
    let (sent, received) = tokio::join!(send_all(&mut input, files), answers(&mut channel, count));
    // What the receiver says of its end is the cause; that our stream broke follows from it.
    let received = received?;
    let sent = sent?;
    compare(&sent, &received)?;
    Ok(sent.iter().map(|file| file.size).sum())
}

async fn send_all(input: &mut Input, files: Vec<Outgoing>) -> Result<Vec<Received>, Stop> {
    let mut sent = Vec::new();
    for file in files {
        sent.push(send_one(input, file).await?);
    }
    channel::write(input, frame::END, b"").await?;
    Ok(sent)
}

/// Hashed again on the way: what the receiver must have is what was read here.
async fn send_one(input: &mut Input, file: Outgoing) -> Result<Received, Stop> {
    let tried = format!("sending {} to the sandbox", file.path);
    let size = file.bytes.size().or_stop(Reason::Internal, &tried)?;
    let header = Sent { path: file.path.clone(), size, mode: file.mode };
    let header = serde_json::to_vec(&header).or_stop(Reason::Internal, &tried)?;
    channel::write(input, frame::HEADER, &header).await?;
    let mut hash = Sha256::new();
    let mut left = size;
    let mut reader = file.bytes.reader();
    while left > 0 {
        // Reading blocks, for a piece at a time.
        let reading = tokio::task::spawn_blocking(move || {
            let mut piece = vec![0; left.min(frame::MAX as u64) as usize];
            reader.read_exact(&mut piece).map(|()| (reader, piece))
        });
        let (back, piece) = reading.await.or_stop(Reason::Internal, &tried)?.or_stop(Reason::Internal, &tried)?;
        reader = back;
        hash.update(&piece);
        left -= piece.len() as u64;
        channel::write(input, frame::DATA, &piece).await?;
    }
    Ok(Received { path: file.path, size, sha256: hex::encode(hash.finalize()) })
}

/// Until the receiver says that it was all. Bounded by what was sent.
async fn answers(channel: &mut Channel, count: usize) -> Result<Vec<Received>, Stop> {
    let mut received = Vec::new();
    loop {
        let (kind, payload) = channel.next().await?;
        match kind {
            frame::STDOUT if received.len() < count => {
                let answer = serde_json::from_slice(&payload);
                received.push(answer.or_stop(Reason::Internal, "reading what the sandbox received")?);
            }
            frame::RESULT => return Ok(received),
            _ => return Err(Stop::internal("the receiver in the sandbox answered nonsense")),
        }
    }
}

fn compare(sent: &[Received], received: &[Received]) -> Result<(), Stop> {
    if let Some((ours, theirs)) = sent.iter().zip(received).find(|(ours, theirs)| ours != theirs) {
        let message = format!(
            "sending {} to the sandbox: it has {} bytes of digest {} there, and {} of {} were sent",
            ours.path,
            theirs.size,
            clean(&theirs.sha256),
            ours.size,
            ours.sha256
        );
        return Err(Stop::internal(message));
    }
    if sent.len() == received.len() {
        Ok(())
    } else {
        Err(Stop::internal(format!("{} files were sent to the sandbox, and {} arrived", sent.len(), received.len())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, sha256: &str) -> Received {
        Received { path: path.to_owned(), size: 3, sha256: sha256.to_owned() }
    }

    #[test]
    fn a_digest_that_differs_or_is_missing_stops_the_run() {
        let sent = [file("a", "1"), file("b", "2")];
        compare(&sent, &sent).expect("the same");
        assert!(compare(&sent, &sent[..1]).is_err());
        assert!(compare(&sent, &[file("a", "1"), file("b", "3")]).is_err());
    }

    #[test]
    fn what_was_staged_is_found_with_its_directories_and_no_link_is_followed() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(directory.path().join("orders")).expect("made");
        std::fs::write(directory.path().join("orders/toc.dat"), "x").expect("written");
        let found = staged(directory.path()).expect("walked");
        assert_eq!(found.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), ["orders/toc.dat"]);
        std::os::unix::fs::symlink("/etc/passwd", directory.path().join("link")).expect("linked");
        assert!(staged(directory.path()).is_err());
    }
}
