//! A directory held open, and regular files beneath it. Nothing is ever looked up by a full path again.
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, openat, openat2, statat};

#[derive(Debug)]
pub(super) struct Directory {
    descriptor: OwnedFd,
}

/// What must stay the same while a file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    pub(super) size: u64,
    modified: (i64, i64),
    /// The one time that nobody can set.
    changed: (i64, i64),
}

impl Identity {
    pub(super) fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

impl Directory {
    /// The one time that symbolic links are followed.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { descriptor: openat(CWD, path, flags, Mode::empty())? })
    }

    /// Where it really is, as the kernel says it.
    pub(super) fn location(&self) -> io::Result<PathBuf> {
        use std::os::fd::AsRawFd as _;
        std::fs::read_link(format!("/proc/self/fd/{}", self.descriptor.as_raw_fd()))
    }

    /// A regular file beneath, through no symbolic link. Never blocks on a pipe.
    pub(super) fn file(&self, path: &str) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let file = File::from(self.resolve(path, flags)?);
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a regular file")) }
    }

    /// Names in the directory `below`, which is none itself for the whole; through no symbolic link.
    pub(super) fn names(&self, below: &str) -> io::Result<Vec<(CString, FileType)>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = self.resolve(if below.is_empty() { "." } else { below }, flags)?;
        let mut names = Vec::new();
        for entry in Dir::read_from(&directory)? {
            let name = entry?.file_name().to_owned();
            if !matches!(name.to_bytes(), b"." | b"..") {
                let found = statat(&directory, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW)?;
                names.push((name, FileType::from_raw_mode(found.st_mode)));
            }
        }
        Ok(names)
    }

    fn resolve(&self, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..16 {
            match openat2(self.descriptor.as_fd(), path, flags, Mode::empty(), beneath) {
                // A rename elsewhere raced with the look-up (openat2(2)).
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
        Err(io::Error::other("it is being renamed all the time"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_beneath_are_opened() {
        let place = tempfile::tempdir().expect("a directory");
        let inner = place.path().join("backup");
        std::fs::create_dir_all(inner.join("sub")).expect("directories");
        std::fs::write(place.path().join("outside"), "x").expect("a file");
        std::fs::write(inner.join("sub/file"), "x").expect("a file");
        std::os::unix::fs::symlink("sub/file", inner.join("link")).expect("a link");
        std::os::unix::fs::symlink("sub", inner.join("linked")).expect("a link");
        rustix::fs::mkfifoat(CWD, inner.join("fifo"), Mode::RUSR | Mode::WUSR).expect("a fifo");
        let directory = Directory::open(&inner).expect("a directory");
        assert!(directory.file("sub/file").is_ok());
        for bad in ["../outside", "link", "linked/file", "fifo", "sub", "/etc/passwd", "absent", "sub/../../outside"] {
            assert!(directory.file(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_whose_times_were_put_back_is_another_one() {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(1).expect("written");
        let modified = file.metadata().and_then(|metadata| metadata.modified()).expect("a time");
        let before = Identity::of(&file).expect("its identity");
        // The kernel's clock for files ticks a few hundred times a second.
        let noticed = (0..1000).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(2));
            std::os::unix::fs::FileExt::write_all_at(&file, b"x", 0).expect("written");
            file.set_modified(modified).expect("put back");
            Identity::of(&file).expect("its identity") != before
        });
        assert!(noticed);
    }

    #[test]
    fn the_directory_stays_the_one_that_was_opened() {
        let place = tempfile::tempdir().expect("a directory");
        for name in ["one", "two"] {
            std::fs::create_dir(place.path().join(name)).expect("a directory");
            std::fs::write(place.path().join(name).join("file"), name).expect("a file");
        }
        let latest = place.path().join("latest");
        std::os::unix::fs::symlink("one", &latest).expect("a link");
        let directory = Directory::open(&latest).expect("a directory");
        std::fs::remove_file(&latest).expect("removed");
        std::os::unix::fs::symlink("two", &latest).expect("a link");
        assert_eq!(std::io::read_to_string(directory.file("file").expect("a file")).expect("text"), "one");
        assert!(directory.location().expect("a place").ends_with("one"));
    }
}
