//! How much a drill needs somebody's look, and the words for it.
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use drill::id::DrillName;
use drill::schedule::Slots;
use drill::spec::Drill;
use drill::verdict::{Reason, Verdict};
use jiff::Timestamp;

use crate::cli::style::Mark;
use crate::dispatcher::DrillView;

/// Worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::http) enum Worry {
    Failed,
    /// Two slots of its schedule went by since its last success.
    Stale,
    Inconclusive,
    Running,
    NeverRan,
    Passed,
}

impl Worry {
    pub(in crate::http) const ALL: [Self; 6] =
        [Self::Failed, Self::Stale, Self::Inconclusive, Self::Running, Self::NeverRan, Self::Passed];

    /// A stable name.
    pub(in crate::http) fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Stale => "stale",
            Self::Inconclusive => "inconclusive",
            Self::Running => "running",
            Self::NeverRan => "never-ran",
            Self::Passed => "passed",
        }
    }

    pub(super) fn words(self) -> &'static str {
        match self {
            Self::NeverRan => "never ran",
            other => other.as_str(),
        }
    }

    /// What stands beside it, so that colour is never alone.
    pub(super) fn sign(self) -> &'static str {
        match self {
            Self::Running => "▸",
            other => other.mark().sign(),
        }
    }

    pub(super) fn mark(self) -> Mark {
        match self {
            Self::Failed => Mark::Bad,
            Self::Stale | Self::NeverRan => Mark::Warning,
            Self::Inconclusive => Mark::Unsure,
            Self::Running => Mark::None,
            Self::Passed => Mark::Good,
        }
    }
}

/// When drills become stale. Reading a schedule takes longer than looking at a drill, so what came of it is kept until the drill
/// or its last success is another.
#[derive(Default)]
pub(in crate::http) struct Worries(Mutex<HashMap<DrillName, Known>>);

struct Known {
    drill: Arc<Drill>,
    since: Timestamp,
    stale: Option<Timestamp>,
}

impl Worries {
    pub(in crate::http) fn of(&self, name: &DrillName, view: &DrillView, now: Timestamp) -> Worry {
        let last = view.last.as_ref().and_then(|last| last.verdict);
        match last {
            Some(Verdict::Failed) => Worry::Failed,
            _ if self.is_stale(name, view, now) => Worry::Stale,
            Some(Verdict::Inconclusive) => Worry::Inconclusive,
            _ if view.running.is_some() => Worry::Running,
            None => Worry::NeverRan,
            Some(Verdict::Passed) => Worry::Passed,
        }
    }

    fn is_stale(&self, name: &DrillName, view: &DrillView, now: Timestamp) -> bool {
        let since = view.last_success.as_ref().map_or(view.known_since, |success| success.started);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |known: &&Known| Arc::ptr_eq(&known.drill, &view.drill) && known.since == since;
        if let Some(known) = known.get(name).filter(same) {
            return known.stale.is_some_and(|stale| stale <= now);
        }
        let stale = stale_at(name, &view.drill, since);
        known.insert(name.clone(), Known { drill: Arc::clone(&view.drill), since, stale });
        stale.is_some_and(|stale| stale <= now)
    }

    /// Forgets drills that are gone.
    pub(super) fn keep(&self, is_known: impl Fn(&DrillName) -> bool, number: usize) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() > number {
            known.retain(|name, _| is_known(name));
        }
    }
}

/// One slot may be late or missed; with the second one nobody may believe that all is well.
fn stale_at(name: &DrillName, drill: &Drill, since: Timestamp) -> Option<Timestamp> {
    let slots = Slots::of(drill.schedule.as_ref()?, name).ok()?;
    let first = slots.next(since)?;
    Some(slots.next(first.scheduled_for)?.starts)
}

/// Why a run ended as it did, for people.
pub(super) fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::Proven => "everything asked for was seen",
        Reason::ArtifactRefused => "the backup is not what was signed",
        Reason::RestoreFailed => "it does not restore",
        Reason::CheckFailed => "a check failed",
        Reason::ObjectiveExceeded => "beyond its objective",
        Reason::DeadlineAfterObjective => "not restored when its objective had passed",
        Reason::DamageUnnoticed => "a damaged copy was not noticed",
        Reason::SandboxUnfit => "this machine lacks what the backup needs",
        Reason::TemplateDrift => "the isolation's template is not the approved one",
        Reason::IsolationUnproven => "isolation was not proven",
        Reason::IsolationBreached => "its isolation was broken while it ran",
        Reason::LimitReached => "a limit was reached",
        Reason::Credentials => "its login could not be made safe",
        Reason::Deadline => "a deadline ended it",
        Reason::Interrupted => "it was interrupted",
        Reason::Quarantined => "the backup is in quarantine",
        Reason::ArtifactChanged => "the backup was changed while it was restored",
        Reason::SourceUnreachable => "the backup's place did not answer",
        Reason::CheckInconclusive => "a check could not tell",
        Reason::SelfTestInconclusive => "the self-test could not tell",
        Reason::AlreadyRunning => "it was running already",
        Reason::Internal => "muster's own trouble",
    }
}
