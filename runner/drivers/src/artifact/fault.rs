//! Which reason an I/O error is: wrong on the source's side, on the network's, or here.
use std::fmt::Display;
use std::io;

use drill::stop::Stop;
use drill::verdict::Reason;

/// Of reading a backup: what a network or a dying disk causes says nothing about the backup.
pub(crate) fn reading(error: &io::Error, what: impl Display) -> Stop {
    let reason = match error.raw_os_error() {
        Some(
            libc::EIO
            | libc::ESTALE
            | libc::ETIMEDOUT
            | libc::EHOSTUNREACH
            | libc::EHOSTDOWN
            | libc::ENETUNREACH
            | libc::ENETDOWN
            | libc::ENETRESET
            | libc::ECONNRESET
            | libc::ECONNREFUSED
            | libc::ECONNABORTED
            | libc::ENOTCONN
            | libc::EREMOTEIO
            | libc::ENOLINK
            | libc::ECOMM,
        ) => Reason::SourceUnreachable,
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM) => Reason::Internal,
        Some(libc::ENOSYS) => {
            return Stop::new(Reason::SandboxUnfit, format!("opening {what}: this kernel has no openat2"))
                .advise("muster needs Linux 5.6 or later, and a container runtime that lets openat2 through");
        }
        _ => Reason::ArtifactRefused,
    };
    let why = match error.raw_os_error() {
        Some(libc::ENOENT) => "it does not exist".to_owned(),
        Some(libc::ELOOP) => "it is, or lies behind, a symbolic link".to_owned(),
        Some(libc::EXDEV) => "it leads out of the backup's directory".to_owned(),
        Some(libc::ENXIO) => "it is not a regular file".to_owned(),
        _ => error.to_string(),
    };
    let stop = Stop::new(reason, format!("reading {what}: {why}"));
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => stop.advise(
            "let the user that muster runs as read the backup: its files, and each directory on the way to them",
        ),
        _ => stop,
    }
}

/// Of writing into staging.
pub(super) fn staging(error: &io::Error, what: impl Display) -> Stop {
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => {
            Stop::new(Reason::SandboxUnfit, format!("staging {what}: {error}"))
                .advise("free space where muster keeps its runs, or move MUSTER_STATE_DIR to a larger disk")
        }
        _ => Stop::new(Reason::Internal, format!("staging {what}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_not_the_backup_and_a_full_disk_is_not_either() {
        let of = |errno| reading(&io::Error::from_raw_os_error(errno), "x").reason;
        assert_eq!(of(libc::ENOENT), Reason::ArtifactRefused);
        assert_eq!(of(libc::EACCES), Reason::ArtifactRefused);
        let closed = reading(&io::Error::from_raw_os_error(libc::EACCES), "x");
        assert!(closed.advice.is_some_and(|advice| advice.contains("user that muster runs as")));
        assert_eq!(of(libc::ESTALE), Reason::SourceUnreachable);
        assert_eq!(of(libc::EIO), Reason::SourceUnreachable);
        assert_eq!(of(libc::EMFILE), Reason::Internal);
        assert_eq!(staging(&io::Error::from_raw_os_error(libc::ENOSPC), "x").reason, Reason::SandboxUnfit);
        assert_eq!(staging(&io::Error::from_raw_os_error(libc::EACCES), "x").reason, Reason::Internal);
    }
}
