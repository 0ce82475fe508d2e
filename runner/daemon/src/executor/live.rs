//! Which runs this process is busy with. The ledger says whose a run is; only the process itself knows whether it still works
//! on it, and a reconciliation must not tear down what another task of the same process drills.
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use drill::id::RunId;

/// Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct LiveRuns(Arc<Mutex<BTreeSet<RunId>>>);

impl LiveRuns {
    /// None where somebody in this process has the run already.
    pub fn begin(&self, run: &RunId) -> Option<LiveRun> {
        let mut runs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        runs.insert(run.clone()).then(|| LiveRun { runs: self.clone(), run: run.clone() })
    }

    pub fn contains(&self, run: &RunId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(run)
    }
}

/// Ends when it is dropped, however the work ends.
#[derive(Debug)]
pub struct LiveRun {
    runs: LiveRuns,
    run: RunId,
}

impl Drop for LiveRun {
    fn drop(&mut self) {
        self.runs.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.run);
    }
}
