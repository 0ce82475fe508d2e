//! Where muster keeps what must survive: the ledger, the evidence and its key, the directories of runs.
use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use drill::stop::Stop;

/// `$MUSTER_STATE_DIR`, else `/var/lib/muster` for root and `$XDG_STATE_HOME/muster` for others. Made where it is not there
/// (0711: the user that a sandbox runs as must get through to its own run), and refused where others may write to it.
pub fn resolve() -> Result<PathBuf, Stop> {
    make(&find()?)
}

/// One that a configuration names, made and looked at in the same way.
pub fn make(directory: &Path) -> Result<PathBuf, Stop> {
    see_to(directory)?;
    Ok(directory.to_owned())
}

/// The same, for whoever only looks: nothing is made.
pub fn find() -> Result<PathBuf, Stop> {
    let is_root = rustix::process::geteuid().is_root();
    choose(|name| std::env::var_os(name).map(PathBuf::from).filter(|value| !value.as_os_str().is_empty()), is_root)
}

fn choose(variable: impl Fn(&str) -> Option<PathBuf>, is_root: bool) -> Result<PathBuf, Stop> {
    if let Some(directory) = variable("MUSTER_STATE_DIR") {
        // The ledger and its runs hold absolute paths.
        return std::path::absolute(&directory)
            .map_err(|error| Stop::internal(format!("MUSTER_STATE_DIR={}: {error}", directory.display())));
    }
    if is_root {
        return Ok(PathBuf::from("/var/lib/muster"));
    }
    // A relative path is no value: https://specifications.freedesktop.org/basedir-spec/latest/#basics
    let state_home = variable("XDG_STATE_HOME").filter(|directory| directory.is_absolute());
    let state_home = state_home.or_else(|| variable("HOME").map(|home| home.join(".local/state")));
    state_home.map(|directory| directory.join("muster")).ok_or_else(|| {
        Stop::internal("there is no place for muster's state: neither MUSTER_STATE_DIR nor HOME is set")
            .advise("set MUSTER_STATE_DIR to a directory of yours")
    })
}

fn see_to(directory: &Path) -> Result<(), Stop> {
    let refuse = |what: String, advice: String| Err(Stop::internal(what).advise(advice));
    let shown = directory.display();
    let found = if let Ok(found) = directory.metadata() {
        found
    } else {
        let made = directory.parent().map_or(Ok(()), |parent| DirBuilder::new().recursive(true).create(parent));
        let made = made.and_then(|()| DirBuilder::new().recursive(true).mode(0o711).create(directory));
        // Whatever the umask.
        let made = made.and_then(|()| std::fs::set_permissions(directory, PermissionsExt::from_mode(0o711)));
        match made.and_then(|()| directory.metadata()) {
            Ok(found) => found,
            Err(error) => {
                let advice = "make it yourself, or name another with MUSTER_STATE_DIR".to_owned();
                return refuse(format!("state directory {shown} cannot be made: {error}"), advice);
            }
        }
    };
    if !found.is_dir() {
        return refuse(
            format!("state directory {shown} is not a directory"),
            "move that file away, or name another with MUSTER_STATE_DIR".to_owned(),
        );
    }
    let me = rustix::process::geteuid().as_raw();
    if found.uid() != me && me != 0 {
        return refuse(
            format!("state directory {shown} belongs to user {}, and this is user {me}", found.uid()),
            "run muster as that user, or name another with MUSTER_STATE_DIR".to_owned(),
        );
    }
    if found.mode() & 0o022 != 0 {
        return refuse(
            format!("others may write to state directory {shown} (mode {:o})", found.mode() & 0o7777),
            format!("make sure that nobody changed what is in it, then `chmod 711 {shown}`"),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn chosen(variables: &[(&str, &str)], is_root: bool) -> String {
        let variable = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| PathBuf::from(value));
        choose(variable, is_root).map_or_else(|stop| stop.message, |path| path.display().to_string())
    }

    #[test]
    fn the_nearest_wish_wins() {
        let home = [("HOME", "/home/a")];
        assert_eq!(chosen(&[("MUSTER_STATE_DIR", "/x"), ("HOME", "/home/a")], true), "/x");
        assert_eq!(chosen(&home, true), "/var/lib/muster");
        assert_eq!(chosen(&home, false), "/home/a/.local/state/muster");
        assert_eq!(chosen(&[("XDG_STATE_HOME", "/s"), ("HOME", "/home/a")], false), "/s/muster");
        assert_eq!(chosen(&[("XDG_STATE_HOME", "s"), ("HOME", "/home/a")], false), "/home/a/.local/state/muster");
        assert!(chosen(&[], false).contains("MUSTER_STATE_DIR"));
        assert!(chosen(&[("MUSTER_STATE_DIR", "x")], false).starts_with('/'));
    }

    #[test]
    fn it_is_made_with_a_way_through_and_refused_where_others_write() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("a/b");
        see_to(&directory).unwrap();
        see_to(&directory).unwrap();
        assert_eq!(directory.metadata().unwrap().mode() & 0o7777, 0o711);
        std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o777)).unwrap();
        assert!(see_to(&directory).unwrap_err().advice.unwrap().contains("chmod 711"));
        std::fs::write(place.path().join("file"), "").unwrap();
        assert!(see_to(&place.path().join("file")).unwrap_err().message.contains("not a directory"));
    }
}
