//! Files of a sandbox that have lost their names and are still open: they take the disk, and no walk through directories meets them.
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, CWD};
use rustix::io::Errno;

use super::process::{self, numbers, there};
use super::tree::{ENTRY, Usage, open_directory};

/// Beyond which looking through them takes too long; a server with a hundred sessions has a tenth of it.
const MAX_DESCRIPTORS: usize = 1_000_000;

/// Where to look for them: processes of one namespace, files of one file system.
pub(super) struct Unlinked {
    first: i32,
    namespace: u64,
    device: u64,
}

impl Unlinked {
    /// Of the namespace whose first process is `first`, on the file system of `data`.
    pub(super) fn of(first: i32, data: impl AsFd) -> io::Result<Self> {
        let process = open_directory(CWD, format!("/proc/{first}"))?;
        Ok(Self { first, namespace: namespace(&process)?, device: rustix::fs::fstat(data)?.st_dev })
    }

    /// What they take on disk, each counted once, however many hold it. A descriptor on its way through a socket, and a file that
    /// is only mapped, are not met. An error where a process does not show what it holds, unless the others hold more than `enough`.
    pub(super) fn usage(&self, enough: u64) -> io::Result<Usage> {
        let mut held = Held { device: self.device, files: BTreeMap::new(), descriptors: 0 };
        let mut hidden = Ok(());
        for pid in process::pids()? {
            let Some(process) = there(open_directory(CWD, format!("/proc/{pid}")))? else { continue };
            let seen = match namespace(&process) {
                Ok(namespace) if namespace == self.namespace => held.add(&process),
                // Of other users' processes a plain user learns nothing, and what has run a program of theirs that it may not
                // read passes for one.
                Err(Errno::ACCESS) if process::descends(pid, self.first) => Err(Errno::ACCESS),
                _ => Ok(()),
            };
            match seen {
                // muster's own first command in there lets nobody look into it.
                Err(Errno::ACCESS) if process::number_inside(&process) == Some(process::INIT_INSIDE) => {}
                other => hidden = hidden.and(other),
            }
            if held.descriptors > MAX_DESCRIPTORS {
                return Ok(Usage::Unmeasurable("its threads hold more than 1,000,000 descriptors, each for itself"));
            }
        }
        let bytes = held.files.into_values().sum();
        if bytes <= enough {
            hidden?;
        }
        Ok(Usage::Bytes(bytes))
    }
}

struct Held {
    device: u64,
    /// By inode.
    files: BTreeMap<u64, u64>,
    descriptors: usize,
}

impl Held {
    /// What is gone by now holds nothing any more.
    fn add(&mut self, process: &OwnedFd) -> Result<(), Errno> {
        let Some(threads) = there(open_directory(process, "task"))? else { return Ok(()) };
        // A thread may have descriptors of its own.
        for thread in numbers(&threads)? {
            let table = match open_directory(&threads, format!("{thread}/fd")) {
                // It waits for whoever started it, and what it held is gone.
                Err(Errno::ACCESS) if process::has_ended(&threads, thread) => continue,
                other => there(other)?,
            };
            let Some(table) = table else { continue };
            for descriptor in numbers(&table)? {
                self.descriptors += 1;
                if self.descriptors > MAX_DESCRIPTORS {
                    return Ok(());
                }
                // Followed: what it stands for, not the link.
                let Some(file) = there(rustix::fs::statat(&table, descriptor.to_string(), AtFlags::empty()))? else {
                    continue;
                };
                if file.st_nlink == 0 && file.st_dev == self.device {
                    let bytes = u64::try_from(file.st_blocks).unwrap_or(0) * 512;
                    self.files.insert(file.st_ino, bytes.max(ENTRY));
                }
            }
        }
        Ok(())
    }
}

fn namespace(process: &OwnedFd) -> Result<u64, Errno> {
    Ok(rustix::fs::statat(process, "ns/pid", AtFlags::empty())?.st_ino)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_counts_once_from_its_last_name_to_its_last_descriptor() {
        let top = tempfile::tempdir().expect("a directory");
        let own = i32::try_from(std::process::id()).expect("a pid");
        let device = rustix::fs::stat(top.path()).expect("stat").st_dev;
        let process = open_directory(CWD, format!("/proc/{own}")).expect("it lives");
        let mut file = File::create(top.path().join("file")).expect("made");
        file.write_all(&vec![7; 10 << 20]).expect("written");
        file.sync_all().expect("its blocks are allocated");
        let inode = rustix::fs::fstat(&file).expect("stat").st_ino;
        // Other tests of this process have files of their own.
        let held = || {
            let mut held = Held { device, files: BTreeMap::new(), descriptors: 0 };
            held.add(&process).expect("looked");
            held.files.get(&inode).copied()
        };
        assert_eq!(held(), None, "it has a name");
        let second = file.try_clone().expect("another descriptor");
        std::fs::remove_file(top.path().join("file")).expect("removed");
        let bytes = held().expect("it has no name");
        assert!((10 << 20..11 << 20).contains(&bytes), "{bytes}");
        drop(file);
        assert_eq!(held(), Some(bytes), "the other descriptor holds it");
        drop(second);
        assert_eq!(held(), None);
    }

    #[test]
    fn an_empty_file_and_a_directory_take_an_inode() {
        let top = tempfile::tempdir().expect("a directory");
        let own = i32::try_from(std::process::id()).expect("a pid");
        let process = open_directory(CWD, format!("/proc/{own}")).expect("it lives");
        let file = File::create(top.path().join("file")).expect("made");
        std::fs::create_dir(top.path().join("directory")).expect("made");
        let directory = File::open(top.path().join("directory")).expect("opened");
        std::fs::remove_file(top.path().join("file")).expect("removed");
        std::fs::remove_dir(top.path().join("directory")).expect("removed");
        let stat = |file: &File| rustix::fs::fstat(file).expect("stat");
        let mut held = Held { device: stat(&file).st_dev, files: BTreeMap::new(), descriptors: 0 };
        held.add(&process).expect("looked");
        for file in [&file, &directory] {
            assert!(held.files.get(&stat(file).st_ino).is_some_and(|bytes| *bytes >= ENTRY), "{file:?}");
        }
    }
}
