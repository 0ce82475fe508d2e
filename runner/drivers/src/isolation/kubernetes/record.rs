//! What this machine keeps of runs in a cluster: where the artifact is staged, and which cluster to ask what is left of a run.
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use drill::id::RunId;
use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;
use serde::{Deserialize, Serialize};

use crate::isolation::local::tree;

const CLUSTER: &str = "cluster.json";
const OWNER: &str = "owner";
const STAGING: &str = "staging";
const REMOVAL: Duration = Duration::from_secs(30);

/// `kubernetes/` in the state directory: one directory a run.
#[derive(Debug, Clone)]
pub(super) struct Records {
    path: PathBuf,
    /// Tells what this state directory made from what another did, in a cluster that both use.
    owner: String,
}

/// Written before anything is made in the cluster, and removed when nothing is left there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Where {
    pub(super) context: Option<String>,
    /// Whoever removes what a killed run left knows no drill.
    #[serde(default)]
    pub(super) remove_finalizers_after: Option<Duration>,
    /// What the run borrows for its backup, to be freed of it whatever became of its namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) volume: Option<String>,
}

impl Records {
    pub(super) fn open(state_root: &Path) -> Result<Self, Stop> {
        let path = state_root.join("kubernetes");
        let tried = || format!("making {}", path.display());
        DirBuilder::new().recursive(true).mode(0o700).create(&path).or_stop(Reason::Internal, tried())?;
        let owner = owner(&path).or_stop(Reason::Internal, tried())?;
        Ok(Self { path, owner })
    }

    pub(super) fn owner(&self) -> &str {
        &self.owner
    }

    pub(super) fn staging(&self, run: &RunId) -> PathBuf {
        self.run(run).join(STAGING)
    }

    pub(super) fn run(&self, run: &RunId) -> PathBuf {
        self.path.join(run.as_str())
    }

    /// Whole or not at all: a record without its cluster would hide what is left there.
    pub(super) fn make(&self, run: &RunId, place: &Where) -> Result<PathBuf, Stop> {
        let directory = self.run(run);
        let make = || -> io::Result<()> {
            if directory.exists() {
                return Err(io::Error::from(io::ErrorKind::AlreadyExists));
            }
            let temporary = self.path.join(format!(".tmp-{run}"));
            DirBuilder::new().mode(0o700).create(&temporary)?;
            DirBuilder::new().mode(0o700).create(temporary.join(STAGING))?;
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary.join(CLUSTER))?;
            file.write_all(&serde_json::to_vec(place)?)?;
            file.sync_all()?;
            std::fs::rename(&temporary, &directory)
        };
        make().or_stop(Reason::Internal, format!("making the run's directory {}", directory.display()))?;
        Ok(directory)
    }

    /// None where the run has no directory, and so nothing in any cluster.
    pub(super) fn read(&self, run: &RunId) -> Result<Option<Where>, Stop> {
        let path = self.run(run).join(CLUSTER);
        let tried = || format!("reading {}", path.display());
        match std::fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).or_stop(Reason::Internal, tried()),
            Ok(bytes) => serde_json::from_slice(&bytes).or_stop(Reason::Internal, tried()).map(Some),
        }
    }

    pub(super) fn runs(&self) -> Result<Vec<RunId>, Stop> {
        let tried = "looking for what runs left behind";
        let mut runs = Vec::new();
        for entry in std::fs::read_dir(&self.path).or_stop(Reason::Internal, tried)? {
            let entry = entry.or_stop(Reason::Internal, tried)?;
            runs.extend(
                entry
                    .file_name()
                    .to_str()
                    .and_then(|name| name.parse::<RunId>().ok())
                    .filter(|_| entry.path().is_dir()),
            );
        }
        runs.sort();
        Ok(runs)
    }

    /// Blocks. False where there was none. Somebody may still stage into it for a moment: what appears meanwhile goes, too.
    pub(super) fn remove(&self, run: &RunId) -> Result<bool, Stop> {
        let mut found = false;
        for path in [self.path.join(format!(".tmp-{run}")), self.run(run)] {
            let until = Instant::now() + REMOVAL;
            match tree::remove_path(&path, &|| Instant::now() < until) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => found |= removed.or_stop(Reason::Internal, format!("removing {}", path.display()))? > 0,
            }
        }
        Ok(found)
    }
}

/// Made once. A name of the machine would be another's, too, where two were installed from one image.
fn owner(directory: &Path) -> io::Result<String> {
    let path = directory.join(OWNER);
    if !path.exists() {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
        let temporary = directory.join(format!(".tmp-owner-{}", hex::encode(bytes)));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(hex::encode(bytes).as_bytes())?;
        file.sync_all()?;
        // Whoever comes second keeps the first one's.
        let kept = std::fs::hard_link(&temporary, &path);
        std::fs::remove_file(&temporary)?;
        kept.or_else(|error| if path.exists() { Ok(()) } else { Err(error) })?;
    }
    let owner = std::fs::read_to_string(&path)?;
    if owner.len() == 16 && owner.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(owner)
    } else {
        Err(io::Error::other(format!("{} does not hold what muster wrote", path.display())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_stays_and_a_run_is_found_by_its_name() {
        let state = tempfile::tempdir().expect("a directory");
        let records = Records::open(state.path()).expect("opened");
        assert_eq!(records.owner(), Records::open(state.path()).expect("again").owner());
        let run: RunId = "orders-20261122t021500z-k7x2".parse().expect("a run");
        assert_eq!(records.read(&run).expect("looked"), None);
        let place = Where {
            context: Some("prod".to_owned()),
            remove_finalizers_after: Some(Duration::from_mins(2)),
            volume: Some("backups".to_owned()),
        };
        records.make(&run, &place).expect("made");
        assert!(records.make(&run, &place).is_err(), "a run has one directory");
        assert_eq!(records.read(&run).expect("read"), Some(place));
        assert_eq!(records.runs().expect("listed"), std::slice::from_ref(&run));
        assert!(records.remove(&run).expect("removed"));
        assert!(!records.remove(&run).expect("nothing left"));
    }
}
