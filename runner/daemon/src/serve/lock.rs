//! One daemon for each state directory: two would run each other's drills.
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;
use rustix::fs::{FlockOperation, flock};

/// Held for as long as it lives; the kernel lets go of it however the process ends.
pub(super) struct Lock(#[expect(dead_code, reason = "the lock goes with the file")] File);

pub(super) fn take(state_directory: &Path) -> Result<Lock, Stop> {
    let path = state_directory.join("daemon.lock");
    let tried = format!("locking {}", path.display());
    let file =
        OpenOptions::new().create(true).append(true).mode(0o600).open(&path).or_stop(Reason::Internal, &tried)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Lock(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err(Stop::internal(format!("another muster serves the drills of {}", state_directory.display())).advise(
                "talk to it with `muster runs`, `muster start` and `muster cancel`, or name another `stateDirectory`",
            ))
        }
        Err(error) => Err(error).or_stop(Reason::Internal, &tried),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_until_the_first_is_gone() {
        let place = tempfile::tempdir().expect("a directory");
        let first = take(place.path()).expect("nobody else is here");
        let refused = take(place.path()).err().expect("it is taken");
        assert!(refused.message.contains("another muster serves"), "{refused}");
        drop(first);
        take(place.path()).expect("it is free again");
    }
}
