//! Directories whose contents are hostile: removed, measured and copied by descriptor, without ever following a link.
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;

/// Descriptors held at one time while removing. What lies deeper is first moved up.
const MAX_OPEN: usize = 32;
/// Depth and number of entries beyond which a data directory is not one.
const MAX_DEPTH: usize = 64;
const MAX_ENTRIES: u64 = 5_000_000;
/// What an entry takes at least: an empty file has no block, but an inode of the host's, of which there is an end too.
pub(super) const ENTRY: u64 = 4096;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

pub(super) fn open_directory(parent: impl AsFd, name: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(parent, name, DIRECTORY, Mode::empty())
}

/// Leaves no time of access, by which those inside would see which directories have been read and which are still to be.
fn open_unseen(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    match rustix::fs::openat(parent, name, DIRECTORY | OFlags::NOATIME, Mode::empty()) {
        // Root may lack the capability.
        Err(Errno::PERM) => open_directory(parent, name),
        other => other,
    }
}

/// [`remove`] of what has a path. Its directory must be there.
pub(in crate::isolation) fn remove_path(path: &Path, go_on: &dyn Fn() -> bool) -> io::Result<u64> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(0) };
    remove(File::open(parent)?.as_fd(), &CString::new(name.as_bytes())?, go_on)
}

/// Removes `name` in `parent` with all that is in it, and says how many entries that were. Absent is fine (0). `go_on` is asked
/// often and may end it. Somebody may still write: what appears meanwhile goes, too, and nothing can appear in what is gone.
fn remove(parent: BorrowedFd<'_>, name: &CStr, go_on: &dyn Fn() -> bool) -> io::Result<u64> {
    let stat = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(0),
        other => other?,
    };
    if !is_directory(&stat) {
        rustix::fs::unlinkat(parent, name, AtFlags::empty())?;
        return Ok(1);
    }
    let mut removal = Removal { go_on, removed: 0, moved: 0, stack: Vec::new() };
    removal.enter(parent, name)?;
    while let Some((fd, _)) = removal.stack.last() {
        let here = rustix::io::fcntl_dupfd_cloexec(fd, 3)?;
        if removal.empty_or_descend(here.as_fd())? {
            removal.ask()?;
            let (fd, name) = removal.stack.pop().ok_or_else(|| io::Error::other("the stack was not empty"))?;
            let above = removal.stack.last().map_or(parent, |(fd, _)| fd.as_fd());
            match rustix::fs::unlinkat(above, &name, AtFlags::REMOVEDIR) {
                Err(Errno::NOTEMPTY | Errno::EXIST) => removal.stack.push((fd, name)),
                other => {
                    other?;
                    removal.removed += 1;
                }
            }
        }
    }
    Ok(removal.removed)
}

struct Removal<'a> {
    go_on: &'a dyn Fn() -> bool,
    removed: u64,
    moved: u64,
    stack: Vec<(OwnedFd, CString)>,
}

impl Removal<'_> {
    fn enter(&mut self, parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
        own(parent, name)?;
        self.stack.push((open_directory(parent, name)?, name.to_owned()));
        Ok(())
    }

    fn ask(&self) -> io::Result<()> {
        if (self.go_on)() {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "removal was ended before it was done"))
    }

    /// True when the directory is empty; false when there is one more on the stack, or it must be read again.
    fn empty_or_descend(&mut self, here: BorrowedFd<'_>) -> io::Result<bool> {
        let mut found = false;
        for entry in Dir::read_from(here)? {
            self.ask()?;
            let entry = entry?;
            let name = entry.file_name();
            if is_dot(name) {
                continue;
            }
            found = true;
            if !directory_entry(here, &entry)? {
                ignore_absent(rustix::fs::unlinkat(here, name, AtFlags::empty()))?;
                self.removed += 1;
            } else if self.stack.len() < MAX_OPEN {
                self.enter(here, name)?;
                return Ok(false);
            } else {
                self.move_up(here, name)?;
            }
        }
        Ok(!found)
    }

    fn move_up(&mut self, here: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
        own(here, name)?;
        let top = self.stack.first().map(|(fd, _)| fd.as_fd()).ok_or_else(|| io::Error::other("nothing is open"))?;
        loop {
            self.moved += 1;
            match rustix::fs::renameat(here, name, top, format!(".muster-removal-{}", self.moved)) {
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
                other => return Ok(other?),
            }
        }
    }
}

/// As a plain user a directory without permissions must be given some first. Root needs none, and must not change the mode of
/// what a living process could have replaced by a link.
fn own(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if is_directory(&stat) && stat.st_mode & 0o700 != 0o700 {
        rustix::fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Usage {
    Bytes(u64),
    /// Made so that it cannot be measured; only something hostile does that.
    Unmeasurable(&'static str),
}

const UNREADABLE: Usage = Usage::Unmeasurable("one of its directories cannot be read");

/// Bytes on disk of everything beneath `directory`, which may change meanwhile.
pub(super) fn usage(directory: BorrowedFd<'_>) -> io::Result<Usage> {
    let mut stack = match open_unseen(directory, c".").and_then(Dir::new) {
        Err(Errno::ACCESS) => return Ok(UNREADABLE),
        top => vec![top?],
    };
    let (mut bytes, mut entries) = (0, 0);
    loop {
        let depth = stack.len();
        let Some(top) = stack.last_mut() else { break };
        let Some(entry) = top.read() else {
            stack.pop();
            continue;
        };
        let entry = entry?;
        let name = entry.file_name();
        if is_dot(name) {
            continue;
        }
        entries += 1;
        if entries > MAX_ENTRIES {
            return Ok(Usage::Unmeasurable("it has more than 5,000,000 entries"));
        }
        let here = top.fd()?;
        let stat = match rustix::fs::statat(here, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            // It may be read and not be entered: names without sizes.
            Err(Errno::ACCESS) => return Ok(UNREADABLE),
            other => other?,
        };
        bytes += (u64::try_from(stat.st_blocks).unwrap_or(0) * 512).max(ENTRY);
        if is_directory(&stat) {
            if depth >= MAX_DEPTH {
                return Ok(Usage::Unmeasurable("it is more than 64 directories deep"));
            }
            match open_unseen(here, name).and_then(Dir::new) {
                Ok(deeper) => stack.push(deeper),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(Errno::ACCESS) => return Ok(UNREADABLE),
                Err(other) => return Err(other.into()),
            }
        }
    }
    Ok(Usage::Bytes(bytes))
}

/// Copies what is in `from` into `to`, sharing blocks where the file system can. Modes are kept, `owner` gets it all. For
/// directories that muster made; refuses what is neither file, directory nor symbolic link.
pub(super) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>, owner: u32) -> io::Result<()> {
    copy_below(from, to, owner, 0)
}

fn copy_below(from: BorrowedFd<'_>, to: BorrowedFd<'_>, owner: u32, depth: usize) -> io::Result<()> {
    if depth > MAX_OPEN {
        return Err(io::Error::other("the template is too deep"));
    }
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if is_dot(name) {
            continue;
        }
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let mode = Mode::from_raw_mode(stat.st_mode & 0o777);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                rustix::fs::mkdirat(to, name, Mode::RWXU)?;
                let below = open_directory(to, name)?;
                copy_below(open_directory(from, name)?.as_fd(), below.as_fd(), owner, depth + 1)?;
                give(below.as_fd(), mode, owner)?;
            }
            FileType::RegularFile => {
                let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let source = rustix::fs::openat(from, name, read, Mode::empty())?;
                let target = rustix::fs::openat(to, name, write, Mode::RUSR | Mode::WUSR)?;
                if rustix::fs::ioctl_ficlone(&target, &source).is_err() {
                    io::copy(&mut File::from(source), &mut File::from(target.try_clone()?))?;
                }
                give(target.as_fd(), mode, owner)?;
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(from, name, Vec::new())?;
                rustix::fs::symlinkat(target, to, name)?;
                let (uid, gid) = ids(owner);
                rustix::fs::chownat(to, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            other => return Err(io::Error::other(format!("{} is a {other:?}", name.to_string_lossy()))),
        }
    }
    Ok(())
}

pub(super) fn give(fd: BorrowedFd<'_>, mode: Mode, owner: u32) -> io::Result<()> {
    let (uid, gid) = ids(owner);
    rustix::fs::fchown(fd, uid, gid)?;
    Ok(rustix::fs::fchmod(fd, mode)?)
}

/// Only root gives a group, too: whoever is not has just its own, and that need not have its user's number.
pub(super) fn ids(owner: u32) -> (Option<Uid>, Option<Gid>) {
    let group = rustix::process::geteuid().is_root().then(|| Gid::from_raw(owner));
    (Some(Uid::from_raw(owner)), group)
}

fn directory_entry(parent: BorrowedFd<'_>, entry: &rustix::fs::DirEntry) -> io::Result<bool> {
    Ok(match entry.file_type() {
        FileType::Directory => true,
        FileType::Unknown => match rustix::fs::statat(parent, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => false,
            other => is_directory(&other?),
        },
        _ => false,
    })
}

fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

fn is_dot(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

fn ignore_absent(result: Result<(), Errno>) -> io::Result<()> {
    match result {
        Err(Errno::NOENT) => Ok(()),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn what_is_written_while_it_is_removed_goes_too() {
        let top = tempfile::tempdir().expect("a directory");
        let run = top.path().join("run");
        let parent = File::open(top.path()).expect("opened");
        // A copy that nobody waits for any more. Some of these moments are after a directory was seen empty.
        for moment in 1..30 {
            std::fs::create_dir_all(run.join("data/base")).expect("made");
            let asked = std::cell::Cell::new(0);
            let copying = || {
                asked.set(asked.get() + 1);
                if asked.get() == moment {
                    for directory in ["data/base", "data", "."] {
                        let _ = std::fs::write(run.join(directory).join("copied"), "");
                    }
                }
                true
            };
            remove(parent.as_fd(), c"run", &copying).expect("removed");
            assert!(!run.exists());
        }
    }

    #[test]
    fn a_tree_deeper_than_any_stack_goes_and_what_its_links_name_stays() {
        let top = tempfile::tempdir().expect("a directory");
        let outside = top.path().join("outside");
        std::fs::create_dir(&outside).expect("made");
        std::fs::write(outside.join("kept"), "kept").expect("written");
        std::fs::create_dir(top.path().join("run")).expect("made");
        let parent = File::open(top.path()).expect("opened");
        let mut here = open_directory(&parent, "run").expect("opened");
        for _ in 0..500 {
            rustix::fs::mkdirat(&here, "deep", Mode::RWXU).expect("made");
            rustix::fs::symlinkat(&outside, &here, "link").expect("linked");
            here = open_directory(&here, "deep").expect("opened");
        }
        let fifo = FileType::Fifo;
        rustix::fs::mknodat(&here, "fifo", fifo, Mode::RWXU, 0).expect("a FIFO");
        std::fs::set_permissions(top.path().join("run/deep/deep"), PermissionsExt::from_mode(0o000)).expect("closed");
        assert!(matches!(usage(open_directory(&parent, "run").expect("opened").as_fd()), Ok(Usage::Unmeasurable(_))));
        let removed = remove(parent.as_fd(), c"run", &|| true).expect("removed");
        assert_eq!(removed, 1002);
        assert_eq!(remove(parent.as_fd(), c"run", &|| true).expect("absent is fine"), 0);
        assert_eq!(std::fs::read_to_string(outside.join("kept")).expect("still there"), "kept");
    }

    #[test]
    fn a_look_leaves_no_time_of_access() {
        let top = tempfile::tempdir().expect("a directory");
        let below = top.path().join("below");
        std::fs::create_dir(&below).expect("made");
        let long_ago = std::time::SystemTime::UNIX_EPOCH;
        for directory in [top.path(), &below] {
            let times = std::fs::FileTimes::new().set_accessed(long_ago);
            File::open(directory).expect("opened").set_times(times).expect("set");
        }
        let accessed = |directory: &Path| std::fs::metadata(directory).expect("stat").accessed().expect("a time");
        let _ = usage(open_directory(rustix::fs::CWD, top.path()).expect("opened").as_fd()).expect("measured");
        assert_eq!((accessed(top.path()), accessed(&below)), (long_ago, long_ago));
        // The control: here, reading leaves one.
        assert_eq!(std::fs::read_dir(top.path()).expect("opened").count(), 1);
        if accessed(top.path()) == long_ago {
            eprintln!("NOT TESTED: times of access: this file system keeps none");
        }
    }

    #[test]
    fn a_symlink_in_place_of_the_directory_is_unlinked_not_followed() {
        let top = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(top.path().join("victim")).expect("made");
        std::fs::write(top.path().join("victim/file"), "kept").expect("written");
        symlink("victim", top.path().join("run")).expect("linked");
        let parent = File::open(top.path()).expect("opened");
        assert_eq!(remove(parent.as_fd(), c"run", &|| true).expect("removed"), 1);
        assert!(top.path().join("victim/file").exists());
    }

    #[test]
    fn a_copy_keeps_modes_and_usage_counts_blocks() {
        let top = tempfile::tempdir().expect("a directory");
        for name in ["from/sub", "to"] {
            std::fs::create_dir_all(top.path().join(name)).expect("made");
        }
        std::fs::write(top.path().join("from/sub/file"), vec![7; 10_000]).expect("written");
        std::fs::set_permissions(top.path().join("from/sub/file"), PermissionsExt::from_mode(0o640)).expect("mode");
        let open = |name: &str| File::open(top.path().join(name)).expect("opened");
        let own = rustix::process::geteuid().as_raw();
        copy(open("from").as_fd(), open("to").as_fd(), own).expect("copied");
        let copied = top.path().join("to/sub/file");
        assert_eq!(std::fs::read(&copied).expect("read"), vec![7; 10_000]);
        assert_eq!(std::fs::metadata(&copied).expect("stat").permissions().mode() & 0o777, 0o640);
        let Ok(Usage::Bytes(bytes)) = usage(open("to").as_fd()) else { panic!("measured") };
        assert!(bytes >= 10_000, "{bytes}");
        for empty in 0..50 {
            std::fs::write(top.path().join(format!("from/{empty}")), "").expect("written");
        }
        let Ok(Usage::Bytes(bytes)) = usage(open("from").as_fd()) else { panic!("measured") };
        assert!(bytes >= 50 * ENTRY, "an empty file takes an inode: {bytes}");
    }
}
