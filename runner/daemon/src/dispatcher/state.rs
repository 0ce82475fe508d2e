//! What is due, waits and goes on, and what follows from it. Decides only: the clock, the store and the runs are the caller's.
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use drill::config::Concurrency;
use drill::id::{DrillName, RunId};
use drill::ledger::Trigger;
use drill::port::{DrillHistory, RunSummary};
use drill::schedule::{Calendar, Slot};
use drill::spec::{Drill, Source};
use drill::verdict::Verdict;
use jiff::{SignedDuration, Timestamp};

use super::Job;
use super::event::{CancelError, StartError};
use super::happening::Skip;
use super::view::{DrillView, FileView, Running, View};
use crate::book::Book;

/// A clock that was set back by more than this makes all due times anew; claims keep a slot from being run twice.
const SET_BACK: SignedDuration = SignedDuration::from_secs(2);
/// A run that could not begin is tried again after this.
const AGAIN: SignedDuration = SignedDuration::from_secs(10);

/// What the caller is to do.
#[derive(Debug)]
pub(super) enum Action {
    Begin(Job),
    Skip { drill: DrillName, slot: Slot, why: Skip, count: u64 },
    Cancel(DrillName),
}

/// What a run that ended, or that did not begin, means for its drill.
#[derive(Debug)]
pub(super) enum Outcome {
    Ended(RunSummary),
    /// The slot was taken by somebody else.
    Taken,
    NotBegun,
}

pub(super) struct State {
    concurrency: Concurrency,
    drills: BTreeMap<DrillName, Known>,
    /// What the store knew of drills that have not been seen yet.
    histories: BTreeMap<DrillName, DrillHistory>,
    /// By the time at which each drill's next slot starts.
    due: BTreeSet<(Timestamp, DrillName)>,
    /// Slots that are due and wait, oldest first.
    waiting: BTreeSet<(Timestamp, DrillName)>,
    running: u32,
    targets: BTreeMap<String, u32>,
    files: Arc<Vec<FileView>>,
    now: Timestamp,
    ticked: Option<Timestamp>,
    stalled: bool,
    stopping: bool,
    views: Arc<BTreeMap<DrillName, Arc<DrillView>>>,
    changed: BTreeSet<DrillName>,
}

struct Known {
    drill: Arc<Drill>,
    file: PathBuf,
    calendar: Option<Calendar>,
    since: Timestamp,
    next: Option<Slot>,
    waiting: Option<Slot>,
    /// Not before this is a waiting slot tried again.
    not_before: Timestamp,
    running: Option<Active>,
    last: Option<RunSummary>,
    last_success: Option<RunSummary>,
}

struct Active {
    run: Option<RunId>,
    since: Timestamp,
    trigger: Trigger,
    target: String,
    cancelled: bool,
}

impl State {
    pub(super) fn new(concurrency: Concurrency, histories: Vec<DrillHistory>, now: Timestamp) -> Self {
        Self {
            concurrency,
            drills: BTreeMap::new(),
            histories: histories.into_iter().map(|history| (history.drill.clone(), history)).collect(),
            due: BTreeSet::new(),
            waiting: BTreeSet::new(),
            running: 0,
            targets: BTreeMap::new(),
            files: Arc::default(),
            now,
            ticked: None,
            stalled: false,
            stopping: false,
            views: Arc::default(),
            changed: BTreeSet::new(),
        }
    }

    /// Takes the book's drills for its own. Runs that go on keep theirs.
    pub(super) fn drills(&mut self, book: &Book, now: Timestamp) {
        self.files = Arc::new(book.problems.clone());
        let gone: Vec<_> = self.drills.keys().filter(|name| !book.drills.contains_key(*name)).cloned().collect();
        for name in gone {
            // One that still runs is forgotten when its run ends.
            if self.drills.get(&name).is_some_and(|known| known.running.is_none()) {
                self.forget(&name);
            } else if let Some(known) = self.drills.get_mut(&name) {
                known.calendar = None;
                self.unschedule(&name);
            }
        }
        for (name, entry) in &book.drills {
            let same = self.drills.get(name).is_some_and(|known| Arc::ptr_eq(&known.drill, &entry.drill));
            if !same {
                self.take(name, entry.drill.clone(), entry.file.clone(), now);
            }
        }
    }

    fn take(&mut self, name: &DrillName, drill: Arc<Drill>, file: PathBuf, now: Timestamp) {
        // What cannot be computed was refused when the file was read.
        let calendar = drill.schedule.as_ref().and_then(|schedule| Calendar::new(schedule, name).ok());
        if let Some(known) = self.drills.get_mut(name) {
            let same_schedule = known.drill.schedule == drill.schedule;
            (known.drill, known.file, known.calendar) = (drill, file, calendar);
            if !same_schedule {
                self.unschedule(name);
                self.schedule(name, now);
            }
        } else {
            let history = self.histories.remove(name);
            // A slot after now was claimed by a clock that was wrong.
            let last_slot = history.as_ref().and_then(|history| history.last_slot).filter(|slot| *slot <= now);
            let (last, last_success) = history.map_or((None, None), |history| (history.last, history.last_success));
            let known = Known {
                drill,
                file,
                calendar,
                since: last.as_ref().map_or(now, |last| last.started.min(now)),
                next: None,
                waiting: None,
                not_before: now,
                running: None,
                last,
                last_success,
            };
            self.drills.insert(name.clone(), known);
            self.schedule(name, last_slot.unwrap_or(now));
        }
        self.changed.insert(name.clone());
    }

    fn forget(&mut self, name: &DrillName) {
        self.unschedule(name);
        self.drills.remove(name);
        self.changed.insert(name.clone());
    }

    fn unschedule(&mut self, name: &DrillName) {
        let Some(known) = self.drills.get_mut(name) else { return };
        if let Some(next) = known.next.take() {
            self.due.remove(&(next.starts, name.clone()));
        }
        if let Some(waiting) = known.waiting.take() {
            self.waiting.remove(&(waiting.starts, name.clone()));
        }
        self.changed.insert(name.clone());
    }

    /// The next slot after one that was dealt with.
    fn schedule(&mut self, name: &DrillName, after: Timestamp) {
        let Some(known) = self.drills.get_mut(name) else { return };
        known.next = known.calendar.as_ref().and_then(|calendar| calendar.next(after));
        if let Some(next) = known.next {
            self.due.insert((next.starts, name.clone()));
        }
        self.changed.insert(name.clone());
    }

    pub(super) fn tick(&mut self, now: Timestamp, stalled: bool) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.now.duration_since(now) > SET_BACK {
            self.anew(now);
        }
        (self.now, self.ticked, self.stalled) = (now, Some(now), stalled);
        while let Some((starts, name)) = self.due.first().cloned()
            && starts <= now
        {
            self.due.pop_first();
            self.fall_due(&name, now, &mut actions);
        }
        self.begin_waiting(now, &mut actions);
        actions
    }

    fn anew(&mut self, now: Timestamp) {
        let names: Vec<DrillName> = self.drills.keys().cloned().collect();
        for name in names {
            let Some(known) = self.drills.get_mut(&name) else { continue };
            if let Some(next) = known.next.take() {
                self.due.remove(&(next.starts, name.clone()));
            }
            known.not_before = now;
            self.schedule(&name, now);
        }
    }

    fn fall_due(&mut self, name: &DrillName, now: Timestamp, actions: &mut Vec<Action>) {
        let Some(known) = self.drills.get_mut(name) else { return };
        let (Some(calendar), Some(first)) = (&known.calendar, known.next.take()) else { return };
        let due = calendar.due(first, now);
        let mut skip = |slot, why, count| actions.push(Action::Skip { drill: name.clone(), slot, why, count });
        if let Some(missed) = due.missed {
            skip(missed, Skip::Missed, due.missed_count);
        }
        if let Some(slot) = due.run {
            // One that still waits had until now.
            if let Some(late) = known.waiting.take() {
                self.waiting.remove(&(late.starts, name.clone()));
                skip(late, Skip::StartDeadline, 1);
            }
            if self.stopping {
                skip(slot, Skip::Stopping, 1);
            } else if known.running.is_some() {
                skip(slot, Skip::Overlap, 1);
            } else {
                known.waiting = Some(slot);
                known.not_before = now;
                self.waiting.insert((slot.starts, name.clone()));
            }
        }
        let last = due.run.or(due.missed).unwrap_or(first);
        self.schedule(name, last.scheduled_for);
    }

    fn begin_waiting(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if self.stopping {
            return;
        }
        for (starts, name) in self.waiting.clone() {
            let Some(known) = self.drills.get_mut(&name) else { continue };
            let (Some(calendar), Some(slot)) = (&known.calendar, known.waiting) else { continue };
            let why = if calendar.blackout_end(now).is_some() {
                Some(Skip::Blackout)
            } else if known.running.is_some() {
                Some(Skip::Overlap)
            } else if now >= calendar.deadline(slot) && now.duration_since(slot.starts) > drill::schedule::PUNCTUAL {
                Some(Skip::StartDeadline)
            } else {
                None
            };
            if let Some(why) = why {
                known.waiting = None;
                actions.push(Action::Skip { drill: name.clone(), slot, why, count: 1 });
            } else if known.not_before <= now && has_room(self.concurrency, self.running, &self.targets, &known.drill) {
                known.waiting = None;
                let trigger = Trigger::Schedule { scheduled_for: slot.scheduled_for };
                actions.push(Action::Begin(self.begin(&name, trigger, now)));
            } else {
                continue;
            }
            self.waiting.remove(&(starts, name.clone()));
            self.changed.insert(name);
        }
    }

    fn begin(&mut self, name: &DrillName, trigger: Trigger, now: Timestamp) -> Job {
        let known = self.drills.get_mut(name).expect("whoever begins a drill has just looked at it");
        let target = target(&known.drill);
        *self.targets.entry(target.clone()).or_default() += 1;
        self.running += 1;
        known.running = Some(Active { run: None, since: now, trigger: trigger.clone(), target, cancelled: false });
        self.changed.insert(name.clone());
        Job { drill: Arc::clone(&known.drill), file: known.file.clone(), trigger }
    }

    /// Somebody asks for a run at once, whatever the schedule says.
    pub(super) fn start(&mut self, name: &DrillName, by: &str, now: Timestamp) -> Result<Job, StartError> {
        if self.stopping {
            return Err(StartError::Stopping);
        }
        let known = self.drills.get(name).ok_or_else(|| StartError::NoSuchDrill(name.clone()))?;
        if let Some(active) = &known.running {
            return Err(StartError::Running { drill: name.clone(), run: active.run.clone() });
        }
        if !has_room(self.concurrency, self.running, &self.targets, &known.drill) {
            return Err(StartError::NoSlot);
        }
        Ok(self.begin(name, Trigger::Operator { by: by.to_owned() }, now))
    }

    pub(super) fn begun(&mut self, name: &DrillName, run: RunId) {
        if let Some(active) = self.drills.get_mut(name).and_then(|known| known.running.as_mut()) {
            active.run = Some(run);
            self.changed.insert(name.clone());
        }
    }

    pub(super) fn ended(&mut self, name: &DrillName, outcome: Outcome, gone: bool) {
        let Some(known) = self.drills.get_mut(name) else { return };
        let Some(active) = known.running.take() else { return };
        self.running = self.running.saturating_sub(1);
        if let Some(count) = self.targets.get_mut(&active.target) {
            *count -= 1;
            if *count == 0 {
                self.targets.remove(&active.target);
            }
        }
        match outcome {
            Outcome::Ended(summary) => {
                if summary.verdict == Some(Verdict::Passed) {
                    known.last_success = Some(summary.clone());
                }
                known.last = Some(summary);
            }
            Outcome::NotBegun => {
                // Its slot waits on, until its deadline.
                if let (Trigger::Schedule { scheduled_for }, Some(_)) = (&active.trigger, &known.calendar) {
                    let slot = Slot { scheduled_for: *scheduled_for, starts: active.since.min(self.now) };
                    known.waiting = Some(slot);
                    known.not_before = self.now.saturating_add(AGAIN).unwrap_or(self.now);
                    self.waiting.insert((slot.starts, name.clone()));
                }
            }
            Outcome::Taken => {}
        }
        self.changed.insert(name.clone());
        if gone {
            self.forget(name);
        }
    }

    pub(super) fn cancel(&mut self, run: &RunId) -> Result<Action, CancelError> {
        let found = self.drills.iter_mut().find_map(|(name, known)| {
            let active = known.running.as_mut().filter(|active| active.run.as_ref() == Some(run))?;
            active.cancelled = true;
            Some(name.clone())
        });
        let name = found.ok_or_else(|| CancelError::NotRunning(run.clone()))?;
        self.changed.insert(name.clone());
        Ok(Action::Cancel(name))
    }

    /// No new runs from now on. What waits stays unclaimed: the next daemon sees what becomes of it.
    pub(super) fn stop(&mut self) {
        self.stopping = true;
    }

    pub(super) fn cancel_all(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        for (name, known) in &mut self.drills {
            if let Some(active) = &mut known.running {
                active.cancelled = true;
                self.changed.insert(name.clone());
                actions.push(Action::Cancel(name.clone()));
            }
        }
        actions
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping
    }

    pub(super) fn running(&self) -> u32 {
        self.running
    }

    /// Only what changed is made anew.
    pub(super) fn view(&mut self) -> View {
        if !self.changed.is_empty() {
            let views = Arc::make_mut(&mut self.views);
            for name in std::mem::take(&mut self.changed) {
                match self.drills.get(&name) {
                    Some(known) => drop(views.insert(name, Arc::new(known.view()))),
                    None => drop(views.remove(&name)),
                }
            }
        }
        View {
            at: self.now,
            ticked: self.ticked,
            stopping: self.stopping,
            drills: Arc::clone(&self.views),
            files: Arc::clone(&self.files),
            slots: self.concurrency.total,
            stalled: self.stalled,
        }
    }
}

impl Known {
    fn view(&self) -> DrillView {
        DrillView {
            drill: Arc::clone(&self.drill),
            file: self.file.clone(),
            known_since: self.since,
            next: self.next,
            waiting: self.waiting,
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

fn has_room(concurrency: Concurrency, running: u32, targets: &BTreeMap<String, u32>, drill: &Drill) -> bool {
    running < concurrency.total && targets.get(&target(drill)).copied().unwrap_or(0) < concurrency.per_target
}

/// The place of the backup, as the drill names it.
fn target(drill: &Drill) -> String {
    match &drill.source {
        Source::Manifest { path, .. } => path.clone(),
        Source::Dump(dump) => dump.path.clone(),
    }
}
