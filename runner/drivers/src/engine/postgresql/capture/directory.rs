//! The backup's directory: invisible until it is whole, then there at once.
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use drill::id::Sha256Digest;
use drill::manifest::{ChunkTree, FileEntry};
use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;
use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use sha2::{Digest, Sha256};

use super::tools::create_private;
use crate::artifact::stamp;
use crate::artifact::tree::{self, CHUNK_SIZE, HashError, Meter, SIDE_FILE_SUFFIX};

const PREFIX: &str = ".tmp-";
const LATEST: &str = "latest";

/// `.tmp-<stamp>-<pid>`; removed when dropped, unless it was published.
#[derive(Debug)]
pub(crate) struct WorkDirectory {
    out: PathBuf,
    path: PathBuf,
    published: bool,
    /// Locked as long as this process works in it, so that another capture does not take it for a dead one's.
    _lock: File,
}

impl WorkDirectory {
    pub(crate) fn create(out: &Path) -> Result<Self, Stop> {
        let tried = || format!("making a backup directory in `{}`", out.display());
        let unfit = Reason::SandboxUnfit;
        DirBuilder::new().recursive(true).mode(0o700).create(out).or_stop(unfit, tried())?;
        let out = out.canonicalize().or_stop(unfit, tried())?;
        if out.join(LATEST).symlink_metadata().is_ok_and(|metadata| !metadata.is_symlink()) {
            let problem = format!("`{}` is not a symbolic link, so it cannot be swapped", out.join(LATEST).display());
            return Err(Stop::new(unfit, problem).advise("move it away, or capture into another directory"));
        }
        clean_stale(&out);
        let name = format!("{PREFIX}{}-{}", stamp::of(jiff::Timestamp::now()), std::process::id());
        let path = free_name(&out, &name);
        DirBuilder::new().mode(0o700).create(&path).or_stop(unfit, tried())?;
        let lock = File::open(&path).or_stop(unfit, tried())?;
        // A file system without locks only loses the tidying up after a crash.
        let _ = flock(&lock, FlockOperation::NonBlockingLockExclusive);
        Ok(Self { out, path, published: false, _lock: lock })
    }

    pub(crate) fn file(&self, name: &str) -> Result<PathBuf, Stop> {
        let path = self.path.join(name);
        create_private(&path)?;
        Ok(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Renames the directory to its stamp and swaps `latest`. Either both, or nothing is left.
    pub(crate) fn publish(mut self, time: jiff::Timestamp) -> Result<PathBuf, Stop> {
        let tried = || format!("publishing the backup in `{}`", self.out.display());
        sync_directory(&self.path).or_stop(Reason::SandboxUnfit, tried())?;
        let target = self.rename(time).or_stop(Reason::SandboxUnfit, tried())?;
        self.path.clone_from(&target);
        swap_latest(&self.out, &target).or_stop(Reason::SandboxUnfit, tried())?;
        self.published = true;
        sync_directory(&self.out).or_stop(Reason::SandboxUnfit, tried())?;
        Ok(target)
    }

    /// Two captures within one second get names one second apart: the manifest's time is what counts.
    fn rename(&self, time: jiff::Timestamp) -> io::Result<PathBuf> {
        for second in 0..60 {
            let target = self.out.join(stamp::of(time + jiff::SignedDuration::from_secs(second)));
            match renameat_with(CWD, &self.path, CWD, &target, RenameFlags::NOREPLACE) {
                Ok(()) => return Ok(target),
                Err(rustix::io::Errno::EXIST) => {}
                // Not every file system knows the flag; a directory that is not empty is not replaced by a plain rename.
                Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) if !target.exists() => {
                    return std::fs::rename(&self.path, &target).map(|()| target);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(io::Error::other("there are 60 backups of the same minute"))
    }
}

impl Drop for WorkDirectory {
    fn drop(&mut self) {
        if !self.published {
            // The next capture tries again.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// Two attempts of one process within one second.
fn free_name(out: &Path, name: &str) -> PathBuf {
    let plain = out.join(name);
    let numbered = (2..).map(|number: u32| out.join(format!("{name}.{number}")));
    std::iter::once(plain)
        .chain(numbered)
        .find(|path| path.symlink_metadata().is_err())
        .unwrap_or_else(|| out.join(name))
}

/// What a killed capture left: nobody holds its lock.
fn clean_stale(out: &Path) {
    for entry in std::fs::read_dir(out).into_iter().flatten().filter_map(Result::ok) {
        let is_work = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        if !is_work || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if let Ok(directory) = File::open(entry.path())
            && flock(&directory, FlockOperation::NonBlockingLockExclusive).is_ok()
        {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// One rename. A later backup that was published meanwhile stays the latest.
fn swap_latest(out: &Path, target: &Path) -> io::Result<()> {
    let latest = out.join(LATEST);
    let name = target.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let current = std::fs::read_link(&latest).ok();
    let stamp_of = |path: &Path| path.file_name().and_then(|name| name.to_str()).and_then(stamp::parse);
    if current.as_deref().and_then(stamp_of) > stamp_of(target) && latest.exists() {
        return Ok(());
    }
    let temporary = out.join(format!(".latest-{}", std::process::id()));
    let _ = std::fs::remove_file(&temporary);
    symlink(name, &temporary)?;
    std::fs::rename(&temporary, &latest).inspect_err(|_| {
        let _ = std::fs::remove_file(&temporary);
    })
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Writes, syncs.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<(), Stop> {
    use std::io::Write as _;
    create_private(path)?;
    let written = std::fs::OpenOptions::new().write(true).open(path).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()
    });
    written.or_stop(Reason::SandboxUnfit, format!("writing `{}`", path.display()))
}

/// Syncs the file and says what the manifest says of it. A file of several chunks gets its side file.
pub(crate) async fn entry(directory: &Path, name: &str) -> Result<FileEntry, Stop> {
    let (directory, name) = (directory.to_owned(), name.to_owned());
    let meter = Arc::new(Meter::default());
    let guard = super::StopOnDrop(meter.clone());
    let hashed = tokio::task::spawn_blocking(move || describe(&directory, &name, &meter)).await;
    drop(guard);
    hashed.or_stop(Reason::Internal, "hashing a backup")?
}

fn describe(directory: &Path, name: &str, meter: &Meter) -> Result<FileEntry, Stop> {
    let path = directory.join(name);
    let tried = || format!("hashing `{}`", path.display());
    let failed = |error: io::Error| Stop::new(Reason::SandboxUnfit, format!("{}: {error}", tried()));
    let file = File::open(&path).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    let whole = || -> io::Result<[u8; 32]> {
        let mut hasher = HashWriter(Sha256::new());
        io::copy(&mut File::open(&path)?, &mut hasher)?;
        Ok(hasher.0.finalize().into())
    };
    let (chunks, whole) = std::thread::scope(|scope| {
        let whole = scope.spawn(whole);
        let chunks = tree::hash(&file, None, size, CHUNK_SIZE, None, meter);
        (chunks, whole.join().unwrap_or_else(|_| Err(io::Error::other("a worker panicked"))))
    });
    let chunks = chunks.map_err(|error| match error {
        HashError::Read(error) | HashError::Write(error) => failed(error),
        HashError::Differs { .. } | HashError::Stopped => Stop::new(Reason::Interrupted, tried()),
    })?;
    if chunks.0.len() > 1 {
        write(&directory.join(format!("{name}{SIDE_FILE_SUFFIX}")), &chunks.to_bytes())?;
    }
    Ok(FileEntry {
        path: name.to_owned(),
        size,
        sha256: Sha256Digest::from_bytes(whole.map_err(failed)?),
        tree: ChunkTree { chunk_size: CHUNK_SIZE, root: chunks.root() },
    })
}

struct HashWriter(Sha256);

impl io::Write for HashWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(out: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(out)
            .expect("a directory")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn nothing_is_left_of_a_capture_that_was_given_up() {
        let place = tempfile::tempdir().expect("a directory");
        let work = WorkDirectory::create(place.path()).expect("made");
        write(&work.path().join("x"), b"x").expect("written");
        assert_eq!(names(place.path()).len(), 1);
        drop(work);
        assert_eq!(names(place.path()), Vec::<String>::new());
    }

    #[test]
    fn a_dead_captures_directory_is_cleaned_and_a_live_ones_is_not() {
        let place = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(place.path().join(".tmp-20200101T000000Z-1")).expect("a directory");
        let live = WorkDirectory::create(place.path()).expect("made");
        let other = WorkDirectory::create(place.path()).expect("made");
        assert_eq!(names(place.path()).len(), 2);
        assert!(live.path().exists() && other.path().exists());
    }

    #[test]
    fn latest_is_swapped_but_never_back() {
        let place = tempfile::tempdir().expect("a directory");
        let at = |text: &str| text.parse().expect("a time");
        let publish = |time| WorkDirectory::create(place.path()).expect("made").publish(at(time)).expect("published");
        publish("2026-11-22T02:15:00Z");
        let latest = || std::fs::read_link(place.path().join("latest")).expect("a link");
        assert_eq!(latest(), Path::new("20261122T021500Z"));
        publish("2026-11-21T02:15:00Z");
        assert_eq!(latest(), Path::new("20261122T021500Z"));
        publish("2026-11-22T02:15:00Z");
        assert_eq!(latest(), Path::new("20261122T021501Z"));
        let expected = ["20261121T021500Z", "20261122T021500Z", "20261122T021501Z", "latest"];
        assert_eq!(names(place.path()), expected);
    }

    #[test]
    fn a_latest_that_is_no_link_is_said_before_anything_is_done() {
        let place = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(place.path().join("latest")).expect("a directory");
        assert!(WorkDirectory::create(place.path()).expect_err("refused").message.contains("not a symbolic link"));
    }
}
