use std::sync::{Arc, Mutex, PoisonError};

use drill::id::{DrillName, RunId};
use drill::ledger::{Damage, Stamped, Summary, Trigger};
use drill::phase::Phase;
use drill::schedule::Slot;
use jiff::Timestamp;

use crate::executor::{Observer, Update};

/// What is heard of the daemon's work as it happens. Owned, so that it can be handed on.
#[derive(Debug, Clone)]
pub enum Happening {
    /// A run that goes on says something.
    Run { drill: DrillName, run: RunId, update: RunUpdate },
    /// A slot of a schedule was not run.
    Skipped {
        drill: DrillName,
        /// None: a slot of the drill's own schedule.
        self_test: Option<Damage>,
        /// The newest of them.
        slot: Slot,
        why: Skip,
        count: u64,
    },
    /// A run was to begin and was not; nothing of it is in the ledger.
    NotBegun { drill: DrillName, why: String },
    /// A run that its process did not end was ended in its stead.
    Recovered { drill: DrillName, run: RunId, trigger: Trigger, summary: Summary },
}

#[derive(Debug, Clone)]
pub enum RunUpdate {
    /// The ledger has it.
    Event(Arc<Stamped>),
    Progress {
        phase: Phase,
        done: u64,
        total: Option<u64>,
        unit: String,
    },
    Check {
        name: String,
        database: String,
        done: u64,
        total: Option<u64>,
        unit: String,
    },
    /// A login works until then.
    Lease {
        expires_at: Timestamp,
        renewed: bool,
    },
}

/// Why a slot was not run. Stable names: they are a metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Skip {
    /// The drill's own run went on.
    Overlap,
    Blackout,
    /// muster was down, or the clock jumped, and the drill skips what it missed.
    Missed,
    /// It waited for a slot of concurrency until its start deadline.
    StartDeadline,
}

impl Skip {
    pub const ALL: [Self; 4] = [Self::Overlap, Self::Blackout, Self::Missed, Self::StartDeadline];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Overlap => "overlap",
            Self::Blackout => "blackout",
            Self::Missed => "missed",
            Self::StartDeadline => "start-deadline",
        }
    }
}

/// Told as things happen, from many tasks; must return at once.
pub trait Listener: Send + Sync {
    fn heard(&self, happening: &Happening);
}

/// Tells all of them.
#[derive(Clone, Default)]
pub struct Listeners(Arc<Vec<Arc<dyn Listener>>>);

impl Listeners {
    pub fn new(listeners: Vec<Arc<dyn Listener>>) -> Self {
        Self(Arc::new(listeners))
    }

    /// What an executor tells of one run of `drill`.
    pub fn observer(&self, drill: DrillName) -> Arc<dyn Observer> {
        Arc::new(OfRun { listeners: self.clone(), drill, run: Mutex::default() })
    }
}

impl Listener for Listeners {
    fn heard(&self, happening: &Happening) {
        for listener in self.0.iter() {
            listener.heard(happening);
        }
    }
}

struct OfRun {
    listeners: Listeners,
    drill: DrillName,
    /// Known with a run's first event. A drill of several sources has one run after the other.
    run: Mutex<Option<RunId>>,
}

impl Observer for OfRun {
    fn update(&self, update: Update<'_>) {
        let update = match update {
            Update::Event(stamped) => {
                if let drill::ledger::Event::Started(started) = &stamped.event {
                    *self.run.lock().unwrap_or_else(PoisonError::into_inner) = Some(started.run.clone());
                }
                RunUpdate::Event(Arc::new(stamped.clone()))
            }
            Update::Progress { phase, done, total, unit } => {
                RunUpdate::Progress { phase, done, total, unit: unit.to_owned() }
            }
            Update::Check { name, database, done, total, unit } => RunUpdate::Check {
                name: name.to_owned(),
                database: database.to_owned(),
                done,
                total,
                unit: unit.to_owned(),
            },
            Update::Lease { expires_at, renewed } => RunUpdate::Lease { expires_at, renewed },
            Update::Log { .. } | Update::Alert(_) | Update::NotWritten(_) | Update::KeyMade { .. } => return,
        };
        let run = self.run.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(run) = run {
            self.listeners.heard(&Happening::Run { drill: self.drill.clone(), run, update });
        }
    }
}
