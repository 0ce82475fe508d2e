use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use drill::id::{DrillName, RunId};
use drill::ledger::Trigger;
use drill::port::RunSummary;
use drill::schedule::Slot;
use drill::spec::Drill;
use jiff::Timestamp;

/// What the dispatcher knows, as others may see it. Never changes; a new one replaces it.
#[derive(Debug, Clone)]
pub struct View {
    pub at: Timestamp,
    /// When the scheduler's bell rang last; None before the first time.
    pub ticked: Option<Timestamp>,
    /// No new runs begin.
    pub stopping: bool,
    pub drills: Arc<BTreeMap<DrillName, Arc<DrillView>>>,
    /// Drill files that could not be used as they are, with what is used instead.
    pub files: Arc<Vec<FileView>>,
    /// Runs that may go on at one time.
    pub slots: u32,
    /// The scheduler's bell fell silent, and the dispatcher rings for itself.
    pub stalled: bool,
}

#[derive(Debug, Clone)]
pub struct DrillView {
    /// As it was read last and was good.
    pub drill: Arc<Drill>,
    pub file: PathBuf,
    /// When this daemon, or its ledger, first knew of it: a drill that never ran is as loud as one that failed.
    pub known_since: Timestamp,
    /// None without a schedule.
    pub next: Option<Slot>,
    /// A slot that is due and waits for a run to end.
    pub waiting: Option<Slot>,
    pub running: Option<Running>,
    pub last: Option<Arc<RunSummary>>,
    /// The last run that passed.
    pub last_success: Option<Arc<RunSummary>>,
}

#[derive(Debug, Clone)]
pub struct Running {
    /// None until it is in the ledger.
    pub run: Option<RunId>,
    pub since: Timestamp,
    pub trigger: Trigger,
    /// Somebody asked for its end.
    pub cancelled: bool,
}

/// A drill file that is bad, or gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileView {
    pub path: PathBuf,
    /// The drill whose last good version is still in use.
    pub keeps: Option<DrillName>,
    /// For people; several lines where it shows the place in the file.
    pub problem: String,
    pub since: Timestamp,
}
