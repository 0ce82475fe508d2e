//! What monitoring sees: `/metrics` in the text format of Prometheus.
//!
//! [`Metrics`] hears of runs as a [`Listener`] and looks at the dispatcher's [`View`] when it is scraped, so that a drill that
//! never ran has its series and a drill that is gone has none. [`Timed`] puts a clock on the store. What outlives a process,
//! and what other processes change, is read from the store: [`Metrics::remember`] once, [`Metrics::refresh`] again and again.
//!
//! Labels have bounds: drills and their checks, words of muster's own, and so many figures of plugins. A run's id is never one. Series by drill are kept in
//! little memory and written as text directly: a family of the `prometheus` crate would hold each name and label of ten
//! thousand drills twice while it is scraped.
mod fixed;
mod of_check;
mod of_drill;
mod of_leases;
mod render;
mod stored;
#[cfg(test)]
mod tests;
mod text;
mod timed;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use drill::id::{DrillName, RunId, Sha256Digest};
use drill::ledger::{Event, Resource, RunStarted, Stamped, Trigger};
use drill::schedule::Slots;
use drill::stop::Stop;
use drill::verdict::Reason;
use jiff::{SignedDuration, Timestamp};

pub use self::timed::Timed;

use self::fixed::Fixed;
use self::of_drill::{Going, OfDrill, damage_of};
use crate::dispatcher::{Happening, Listener, RunUpdate, Skip, View};

/// What `/metrics` is sent as.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

type Source = Box<dyn Fn() -> Arc<View> + Send + Sync>;

/// All that is measured of one daemon.
pub struct Metrics {
    fixed: Fixed,
    source: OnceLock<Source>,
    drills: Mutex<BTreeMap<DrillName, Arc<Mutex<OfDrill>>>>,
    /// Of each drill the one run that goes on.
    going: Mutex<HashMap<DrillName, Going>>,
    ledger: Mutex<Ledger>,
    /// Whether the store was asked what is owed.
    asked: AtomicBool,
    /// Bytes of the last answer: the next one will need about as many.
    size: AtomicUsize,
}

/// What the store says beyond the runs that go on.
#[derive(Default)]
struct Ledger {
    /// What ended runs, and teardowns that failed, still owe.
    owed: BTreeMap<RunId, Owed>,
    head: Option<Head>,
    quarantined: Option<usize>,
    alerts: Option<BTreeMap<String, u64>>,
}

struct Owed {
    drill: DrillName,
    resources: BTreeSet<Resource>,
}

struct Head {
    sequence: u64,
    digest: Option<Sha256Digest>,
}

impl Metrics {
    pub fn new() -> Result<Self, Stop> {
        Ok(Self {
            fixed: Fixed::new()?,
            source: OnceLock::new(),
            drills: Mutex::default(),
            going: Mutex::default(),
            ledger: Mutex::default(),
            asked: AtomicBool::new(false),
            size: AtomicUsize::new(0),
        })
    }

    /// From now on scrapes show what this says: the dispatcher's view. The first call counts.
    pub fn follow(&self, view: impl Fn() -> Arc<View> + Send + Sync + 'static) {
        // Whoever comes second has the same view: there is one dispatcher.
        let _ = self.source.set(Box::new(view));
    }

    fn view(&self) -> Option<Arc<View>> {
        self.source.get().map(|view| view())
    }

    fn of(&self, drill: &DrillName) -> Arc<Mutex<OfDrill>> {
        let mut drills = lock(&self.drills);
        match drills.get(drill) {
            Some(known) => Arc::clone(known),
            None => Arc::clone(drills.entry(drill.clone()).or_default()),
        }
    }

    fn event(&self, drill: &DrillName, run: &RunId, stamped: &Stamped) {
        if let Event::Started(started) = &stamped.event {
            self.started(started, stamped.at);
        }
        self.owes(drill, run, &stamped.event);
        let mut all = lock(&self.going);
        // An earlier run that is torn down after its end does not go on.
        let Some(going) = all.get_mut(drill).filter(|going| going.run == *run) else { return };
        let before = std::mem::replace(&mut going.before, stamped.at);
        going.event(stamped);
        self.fixed.leases.event(stamped, before);
        match &stamped.event {
            Event::PhaseEnded { phase, duration, .. } if going.self_test.is_none() => {
                self.fixed.phase_duration.with_label_values(&[phase.as_str()]).observe(duration.as_secs_f64());
            }
            Event::Isolation(proof) if proof.judge().is_err() => self.unproven(going),
            Event::Concluded(summary) => {
                match summary.reason {
                    Reason::IsolationUnproven => self.unproven(going),
                    Reason::IsolationBreached => self.fixed.isolation_breached.inc(),
                    _ => {}
                }
                let self_test = going.self_test;
                lock(&self.of(drill)).concluded(self_test, summary);
            }
            Event::EvidenceWritten { digest, sequence, .. } => {
                lock(&self.ledger).head = Some(Head { sequence: *sequence, digest: Some(*digest) });
            }
            Event::Ended { .. } => {
                if let Some(ended) = all.remove(drill)
                    && ended.self_test.is_none()
                {
                    lock(&self.of(drill)).last = Some(ended.seen.kept());
                }
            }
            _ => {}
        }
    }

    fn started(&self, started: &RunStarted, at: Timestamp) {
        // A run whose end could not be written is over when the next one of its drill begins.
        lock(&self.going).insert(started.drill.clone(), Going::new(started, at));
        let Trigger::Schedule { scheduled_for } = started.trigger else { return };
        let due = self.view().and_then(|view| {
            let schedule = view.drills.get(&started.drill)?.drill.schedule.clone()?;
            let before = scheduled_for.checked_sub(SignedDuration::from_nanos(1)).ok()?;
            Slots::of(&schedule, &started.drill).ok()?.next(before)
        });
        // None where the file has another schedule by now.
        if let Some(slot) = due.filter(|slot| slot.scheduled_for == scheduled_for) {
            self.fixed.schedule_lag.observe(seconds(at.duration_since(slot.starts)));
        }
    }

    fn owes(&self, drill: &DrillName, run: &RunId, event: &Event) {
        match event {
            Event::ReleaseFailed { resource, .. } => {
                let mut ledger = lock(&self.ledger);
                let owed = ledger.owed.entry(run.clone());
                let owed = owed.or_insert_with(|| Owed { drill: drill.clone(), resources: BTreeSet::new() });
                owed.resources.insert(*resource);
            }
            Event::Released { resource, .. } => {
                let mut ledger = lock(&self.ledger);
                if let Some(owed) = ledger.owed.get_mut(run) {
                    owed.resources.remove(resource);
                    if owed.resources.is_empty() {
                        ledger.owed.remove(run);
                    }
                }
            }
            _ => {}
        }
    }

    fn unproven(&self, going: &mut Going) {
        if !std::mem::replace(&mut going.unproven, true) {
            self.fixed.isolation_failed.inc();
        }
    }
}

impl Listener for Metrics {
    fn heard(&self, happening: &Happening) {
        match happening {
            Happening::Run { drill, run, update: RunUpdate::Event(stamped) } => self.event(drill, run, stamped),
            Happening::Run { drill, run, update: RunUpdate::Lease { expires_at, renewed } } => {
                if let Some(going) = lock(&self.going).get_mut(drill).filter(|going| going.run == *run) {
                    going.lease_expires = Some(*expires_at);
                }
                if *renewed {
                    self.fixed.leases.renewed();
                }
            }
            Happening::Run { update: RunUpdate::Progress { .. } | RunUpdate::Check { .. }, .. } => {}
            Happening::Skipped { drill, why, count, .. } => {
                if let Some(place) = Skip::ALL.iter().position(|known| known == why) {
                    lock(&self.of(drill)).skipped[place] += count;
                }
            }
            Happening::NotBegun { drill, .. } => lock(&self.of(drill)).not_begun += 1,
            Happening::Recovered { drill, trigger, summary, .. } => {
                lock(&self.of(drill)).concluded(damage_of(trigger), summary);
            }
        }
    }
}

/// What is behind the lock is counted, not built up: a panic elsewhere leaves it usable.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A clock that was set back makes no negative wait.
fn seconds(duration: SignedDuration) -> f64 {
    duration.as_secs_f64().max(0.0)
}
