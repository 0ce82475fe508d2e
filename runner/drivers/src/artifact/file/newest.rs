//! `latest` is resolved once, and must lead to the newest backup beside it: an old one is a silent rollback.
use std::path::{Path, PathBuf};
use std::time::Duration;

use drill::manifest::{FILE_NAME, SIGNATURE_FILE_NAME};
use drill::stop::Stop;
use drill::verdict::Reason;

use super::super::beneath::Directory;
use super::super::{fault, stamp};

/// A capture renames its directory, then swaps `latest`; between the two, a newer backup is no rollback.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(200);

/// The directory, held open, and where it really is.
pub(super) fn resolve(path: &Path) -> Result<(Directory, PathBuf), Stop> {
    let mut attempt = 1;
    loop {
        let directory = Directory::open(path).map_err(|error| opening(&error, path))?;
        let location = directory.location().map_err(|error| fault::reading(&error, path.display()))?;
        if !path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink()) {
            // Whoever names a directory means that one.
            return Ok((directory, location));
        }
        let Some(newer) = newer_sibling(&location) else { return Ok((directory, location)) };
        if attempt == ATTEMPTS {
            let problem = format!(
                "`{}` leads to `{}`, and `{}` beside it is newer: this is not the newest backup",
                path.display(),
                location.display(),
                newer.display()
            );
            return Err(Stop::new(Reason::ArtifactRefused, problem)
                .advise("find out who moved the link back; to drill an older backup, name its directory"));
        }
        attempt += 1;
        std::thread::sleep(PAUSE);
    }
}

fn opening(error: &std::io::Error, path: &Path) -> Stop {
    let stop = fault::reading(error, format!("`{}`", path.display()));
    match path.symlink_metadata() {
        Ok(metadata) if metadata.is_symlink() => {
            Stop { message: format!("{} (it is a link that leads nowhere)", stop.message), ..stop }
        }
        _ => stop,
    }
}

/// The newest complete backup beside this one that is newer than it.
fn newer_sibling(location: &Path) -> Option<PathBuf> {
    let own = stamp::parse(location.file_name()?.to_str()?)?;
    let parent = location.parent()?;
    let newest = std::fs::read_dir(parent)
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| stamp::parse(name).is_some_and(|time| time > own))
        .filter(|name| {
            [FILE_NAME, SIGNATURE_FILE_NAME].iter().all(|file| parent.join(name).join(file).symlink_metadata().is_ok())
        })
        .max()?;
    Some(parent.join(newest))
}
