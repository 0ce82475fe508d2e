//! Which process a run belongs to, and whether it lives.
//!
//! Each muster holds a lock on a file of its own in the state directory for as long as it lives; the kernel lets go of it
//! however the process ends, and it means the same in every PID namespace that shares the directory.
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use drill::ledger::Owner;
use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;
use rustix::fs::{FlockOperation, flock};

const DIRECTORY: &str = "owners";

/// This process, as runs know it. Dropping it says that the process is gone.
pub struct ThisProcess {
    pub owner: Owner,
    path: PathBuf,
    _lock: File,
}

impl ThisProcess {
    pub fn register(state_directory: &Path) -> Result<Self, Stop> {
        let owner = describe()?;
        let path = lock_path(state_directory, &owner);
        let tried = format!("locking {}", path.display());
        fs::create_dir_all(state_directory.join(DIRECTORY)).or_stop(Reason::Internal, &tried)?;
        // Whoever asked whether this process lives, between the making of the file and its lock, has removed it: once more.
        for _ in 0..8 {
            let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
            let file = file.or_stop(Reason::Internal, &tried)?;
            flock(&file, FlockOperation::NonBlockingLockExclusive).or_stop(Reason::Internal, &tried)?;
            if is_still_there(&path, &file) {
                return Ok(Self { owner, path, _lock: file });
            }
        }
        Err(Stop::internal(format!("{tried}: it was removed again and again")))
    }
}

impl Drop for ThisProcess {
    fn drop(&mut self) {
        // What stays is a file that nobody holds, which the next one who asks removes.
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether the owner's lock is held. Where that cannot be found out, it is taken for alive.
pub fn is_alive(state_directory: &Path, owner: &Owner) -> bool {
    let path = lock_path(state_directory, owner);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) => return error.kind() != std::io::ErrorKind::NotFound,
    };
    let held = flock(&file, FlockOperation::NonBlockingLockExclusive).is_err();
    if !held && is_still_there(&path, &file) {
        // Nobody's any more; an owner that is just being made notices that it is gone.
        let _ = fs::remove_file(&path);
    }
    held
}

fn is_still_there(path: &Path, file: &File) -> bool {
    let Ok(Ok(held)) = file.metadata().map(|held| fs::metadata(path).map(|named| (held, named))) else { return false };
    let (held, named) = held;
    (held.dev(), held.ino()) == (named.dev(), named.ino())
}

fn lock_path(state_directory: &Path, owner: &Owner) -> PathBuf {
    // A boot id that somebody else wrote is never part of a path.
    let boot: String = owner.boot_id.chars().filter(char::is_ascii_alphanumeric).take(32).collect();
    state_directory.join(DIRECTORY).join(format!("{}-{}-{boot}", owner.pid, owner.start_ticks))
}

fn describe() -> Result<Owner, Stop> {
    let boot_id =
        fs::read_to_string("/proc/sys/kernel/random/boot_id").or_stop(Reason::Internal, "reading the boot id")?;
    let stat = fs::read_to_string("/proc/self/stat").or_stop(Reason::Internal, "reading /proc/self/stat")?;
    let start_ticks = start_ticks(&stat).ok_or_else(|| Stop::internal("/proc/self/stat has another form"))?;
    Ok(Owner { pid: std::process::id(), start_ticks, boot_id: boot_id.trim().to_owned() })
}

/// Field 22 of `/proc/PID/stat`; the name in field 2 may hold spaces and brackets.
fn start_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_lives_until_it_lets_go() {
        let directory = tempfile::tempdir().expect("a directory");
        let me = ThisProcess::register(directory.path()).expect("it can be locked");
        let owner = me.owner.clone();
        assert!(is_alive(directory.path(), &owner));
        assert!(!is_alive(directory.path(), &Owner { start_ticks: owner.start_ticks + 1, ..owner.clone() }));
        assert!(!is_alive(directory.path(), &Owner { boot_id: "../another".to_owned(), ..owner.clone() }));
        drop(me);
        assert!(!is_alive(directory.path(), &owner));
        assert_eq!(fs::read_dir(directory.path().join(DIRECTORY)).expect("it is there").count(), 0);
    }

    #[test]
    fn what_a_killed_process_left_is_nobodys_and_is_removed() {
        let directory = tempfile::tempdir().expect("a directory");
        let owner = Owner { pid: 4711, start_ticks: 1, boot_id: "boot".to_owned() };
        let path = lock_path(directory.path(), &owner);
        fs::create_dir(directory.path().join(DIRECTORY)).expect("it is new");
        fs::write(&path, "").expect("it is new");
        assert!(!is_alive(directory.path(), &owner));
        assert!(!path.exists());
    }

    #[test]
    fn a_name_may_hold_brackets() {
        let stat = "4711 (a) b (c) R 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 98765 20";
        assert_eq!(start_ticks(stat), Some(98_765));
    }
}
