//! What is wrong with a database, in words that say what to do.
use std::path::Path;

use drill::stop::Stop;
use rusqlite::ErrorCode;

use crate::store::fold::DAMAGED_ADVICE;

pub(super) enum Failure {
    Sqlite(rusqlite::Error),
    Stop(Stop),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<Stop> for Failure {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

/// `done` completes "… could not be", such as `opened` or `written`.
pub(super) fn stop(path: &Path, done: &str, failure: Failure) -> Stop {
    let shown = path.display();
    let error = match failure {
        Failure::Stop(stop) => return stop,
        Failure::Sqlite(error) => error,
    };
    let (what, advice) = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => ("its file system is full".to_owned(), "free some space there".to_owned()),
        Some(ErrorCode::ReadOnly) => (
            "it may only be read".to_owned(),
            format!("check its owner and mode, and whether {} is mounted read-only", parent(path)),
        ),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            (format!("it is damaged ({error})"), DAMAGED_ADVICE.to_owned())
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => (
            "another process kept it locked for too long".to_owned(),
            format!("see who holds it with `fuser -v {shown}`, and try again"),
        ),
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            (format!("{error}"), format!("check the owner and mode of {} and what is in it", parent(path)))
        }
        Some(ErrorCode::SystemIoFailure) => {
            (format!("reading or writing it failed ({error})"), "look for disk errors with `dmesg`".to_owned())
        }
        Some(_) | None => (format!("{error}"), DAMAGED_ADVICE.to_owned()),
    };
    Stop::internal(format!("{shown} could not be {done}: {what}")).advise(advice)
}

fn parent(path: &Path) -> String {
    path.parent().unwrap_or(path).display().to_string()
}
