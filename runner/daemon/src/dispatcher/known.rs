//! What the dispatcher keeps of one drill.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use drill::id::RunId;
use drill::ledger::Trigger;
use drill::port::{DrillHistory, RunSummary};
use drill::schedule::{Calendar, Slot};
use drill::spec::{Drill, Source};
use jiff::Timestamp;

use super::view::{DrillView, Running};

pub(super) struct Known {
    pub(super) drill: Arc<Drill>,
    pub(super) file: PathBuf,
    pub(super) calendar: Option<Calendar>,
    /// The place of the backup.
    pub(super) target: PathBuf,
    since: Timestamp,
    pub(super) next: Option<Slot>,
    /// Few wait or run at one time, and there may be thousands.
    pub(super) waiting: Option<Box<Waiting>>,
    pub(super) running: Option<Box<Active>>,
    /// Shared with the views of it, as is the next: often they are one.
    pub(super) last: Option<Arc<RunSummary>>,
    pub(super) last_success: Option<Arc<RunSummary>>,
}

pub(super) struct Waiting {
    pub(super) slot: Slot,
    /// Its start deadline.
    pub(super) until: Timestamp,
    pub(super) not_before: Timestamp,
    /// How often it could not begin.
    pub(super) attempts: u32,
}

pub(super) struct Active {
    pub(super) run: Option<RunId>,
    pub(super) since: Timestamp,
    pub(super) trigger: Trigger,
    /// What it waited as, where a schedule triggered it.
    pub(super) waited: Option<Box<Waiting>>,
    pub(super) target: PathBuf,
    pub(super) cancelled: bool,
}

impl Known {
    pub(super) fn new(
        drill: Arc<Drill>,
        file: PathBuf,
        calendar: Option<Calendar>,
        history: Option<DrillHistory>,
        now: Timestamp,
    ) -> Self {
        let (first_seen, last, last_success) =
            history.map_or((None, None, None), |history| (history.first_seen, history.last, history.last_success));
        let since = first_seen.or_else(|| last.as_ref().map(|last| last.started));
        let last = last.map(Arc::new);
        let last_success = match (last_success, &last) {
            (Some(success), Some(last)) if success == **last => Some(Arc::clone(last)),
            (success, _) => success.map(Arc::new),
        };
        Self {
            target: target(&drill, &file),
            drill,
            file,
            calendar,
            // By a clock that was wrong, where it lies after now.
            since: since.map_or(now, |since| since.min(now)),
            next: None,
            waiting: None,
            running: None,
            last,
            last_success,
        }
    }

    /// Its file changed.
    pub(super) fn drill_is(&mut self, drill: Arc<Drill>, file: PathBuf, calendar: Option<Calendar>) {
        self.target = target(&drill, &file);
        (self.drill, self.file, self.calendar) = (drill, file, calendar);
    }

    /// What is worth keeping of a drill that is gone.
    pub(super) fn history(self) -> DrillHistory {
        DrillHistory {
            drill: self.drill.name.clone(),
            first_seen: Some(self.since),
            schedules: BTreeMap::new(),
            last: self.last.as_deref().cloned(),
            last_success: self.last_success.as_deref().cloned(),
        }
    }

    pub(super) fn view(&self) -> DrillView {
        DrillView {
            drill: Arc::clone(&self.drill),
            file: self.file.clone(),
            known_since: self.since,
            next: self.next,
            waiting: self.waiting.as_ref().map(|waiting| waiting.slot),
            running: self.running.as_ref().map(|active| Running {
                run: active.run.clone(),
                since: active.since,
                trigger: active.trigger.clone(),
                cancelled: active.cancelled,
            }),
            last: self.last.clone(),
            last_success: self.last_success.clone(),
        }
    }
}

/// What a drill names is relative to its file.
fn target(drill: &Drill, file: &Path) -> PathBuf {
    let named = match &drill.source {
        Source::Manifest { path, .. } => path,
        Source::Dump(dump) => &dump.path,
    };
    file.parent().unwrap_or(Path::new("/")).join(named)
}
