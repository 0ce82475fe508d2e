//! What is due, waits and goes on, and what follows from it. Decides only: the clock, the store and the runs are the caller's.
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::{Path, PathBuf};
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
use super::self_tests::SelfTests;
use super::view::{DrillView, FileView, Running, View};
use crate::book::Book;

/// A clock that was set back by more than this makes all due times anew; claims keep a slot from being run twice.
const SET_BACK: SignedDuration = SignedDuration::from_secs(2);
/// A run that could not begin is tried again after this, and then after twice as long each time.
const AGAIN: SignedDuration = SignedDuration::from_secs(10);
/// So often is that time doubled.
const DOUBLED: u32 = 6;

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
    tests: SelfTests,
    running: u32,
    targets: BTreeMap<PathBuf, u32>,
    files: Arc<Vec<FileView>>,
    now: Timestamp,
    ticked: Option<Timestamp>,
    stalled: bool,
    stopping: bool,
    /// The store refuses: nothing new begins.
    held: bool,
    views: Arc<BTreeMap<DrillName, Arc<DrillView>>>,
    changed: BTreeSet<DrillName>,
}

struct Known {
    drill: Arc<Drill>,
    file: PathBuf,
    calendar: Option<Calendar>,
    /// The place of the backup.
    target: PathBuf,
    since: Timestamp,
    next: Option<Slot>,
    waiting: Option<Waiting>,
    running: Option<Active>,
    last: Option<RunSummary>,
    last_success: Option<RunSummary>,
}

struct Waiting {
    slot: Slot,
    /// Its start deadline.
    until: Timestamp,
    not_before: Timestamp,
    /// How often it could not begin.
    attempts: u32,
}

struct Active {
    run: Option<RunId>,
    since: Timestamp,
    trigger: Trigger,
    /// What it waited as, where a schedule triggered it.
    waited: Option<Waiting>,
    target: PathBuf,
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
            tests: SelfTests::default(),
            running: 0,
            targets: BTreeMap::new(),
            files: Arc::default(),
            now,
            ticked: None,
            stalled: false,
            stopping: false,
            held: false,
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
                self.tests.forget(&name);
                self.unschedule(&name);
            }
        }
        for (name, entry) in &book.drills {
            let same = self
                .drills
                .get(name)
                .is_some_and(|known| Arc::ptr_eq(&known.drill, &entry.drill) && known.file == entry.file);
            if !same {
                self.take(name, entry.drill.clone(), entry.file.clone(), now);
            }
        }
    }

    fn take(&mut self, name: &DrillName, drill: Arc<Drill>, file: PathBuf, now: Timestamp) {
        self.tests.take(&drill, now);
        // What cannot be computed was refused when the file was read.
        let calendar = drill.schedule.as_ref().and_then(|schedule| Calendar::new(schedule, name).ok());
        let target = target(&drill, &file);
        let upcoming = calendar.as_ref().and_then(|calendar| calendar.upcoming(now));
        if let Some(known) = self.drills.get_mut(name) {
            let same_schedule =
                known.drill.schedule == drill.schedule && known.calendar.is_some() == calendar.is_some();
            if let (Some(waiting), Some(calendar)) = (&mut known.waiting, &calendar) {
                waiting.until = calendar.deadline(waiting.slot);
            }
            (known.drill, known.file, known.calendar, known.target) = (drill, file, calendar, target);
            if known.calendar.is_none() {
                self.unschedule(name);
            } else if !same_schedule {
                self.schedule(name, upcoming);
            }
        } else {
            let history = self.histories.remove(name);
            // A slot after now was claimed by a clock that was wrong.
            let last_slot = history.as_ref().and_then(|history| history.last_slot).filter(|slot| *slot <= now);
            let next = match (&calendar, last_slot) {
                (Some(calendar), Some(last)) => calendar.next(last),
                (_, None) | (None, _) => upcoming,
            };
            let (last, last_success) = history.map_or((None, None), |history| (history.last, history.last_success));
            let known = Known {
                drill,
                file,
                calendar,
                target,
                since: last.as_ref().map_or(now, |last| last.started.min(now)),
                next: None,
                waiting: None,
                running: None,
                last,
                last_success,
            };
            self.drills.insert(name.clone(), known);
            self.schedule(name, next);
        }
        self.changed.insert(name.clone());
    }

    fn forget(&mut self, name: &DrillName) {
        self.unschedule(name);
        self.tests.forget(name);
        if let Some(known) = self.drills.remove(name) {
            // It may come back.
            let (last, last_success) = (known.last, known.last_success);
            let history = DrillHistory { drill: name.clone(), last_slot: None, last, last_success };
            self.histories.insert(name.clone(), history);
        }
        self.changed.insert(name.clone());
    }

    fn unschedule(&mut self, name: &DrillName) {
        self.schedule(name, None);
        let waiting = self.drills.get_mut(name).and_then(|known| known.waiting.take());
        if let Some(waiting) = waiting {
            self.waiting.remove(&(waiting.slot.starts, name.clone()));
        }
    }

    fn schedule(&mut self, name: &DrillName, next: Option<Slot>) {
        let Some(known) = self.drills.get_mut(name) else { return };
        if let Some(old) = std::mem::replace(&mut known.next, next) {
            self.due.remove(&(old.starts, name.clone()));
        }
        if let Some(next) = next {
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
        if self.stopping {
            // What falls due now stays unclaimed: the next daemon sees what becomes of it.
            return actions;
        }
        while let Some((starts, name)) = self.due.first().cloned()
            && starts <= now
        {
            self.due.pop_first();
            self.fall_due(&name, now, &mut actions);
        }
        self.expire(now, &mut actions);
        actions.extend(self.fill(now));
        actions.extend(self.begin_tests(now));
        actions
    }

    /// Self-tests come after what waits of the drills themselves.
    fn begin_tests(&mut self, now: Timestamp) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.held {
            return actions;
        }
        for test in self.tests.due(now) {
            let Some(known) = self.drills.get(&test.drill) else { continue };
            if known.running.is_none() && known.waiting.is_none() && self.has_room(known) {
                self.tests.begun(&test);
                let trigger = Trigger::SelfTest { damage: test.damage, scheduled_for: Some(test.slot.scheduled_for) };
                actions.extend(self.begin(&test.drill, trigger, None, now).map(Action::Begin));
            }
        }
        actions
    }

    /// The clock was set back: what has started by it, and waits, may; all else is computed anew.
    fn anew(&mut self, now: Timestamp) {
        self.tests.anew(now);
        let names: Vec<DrillName> = self.drills.keys().cloned().collect();
        for name in names {
            let Some(known) = self.drills.get_mut(&name) else { continue };
            if let Some(early) = known.waiting.take_if(|waiting| waiting.slot.starts > now) {
                self.waiting.remove(&(early.slot.starts, name.clone()));
            }
            if let Some(waiting) = &mut known.waiting {
                waiting.not_before = now;
            }
            let next = known.calendar.as_ref().and_then(|calendar| calendar.upcoming(now));
            self.schedule(&name, next);
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
                self.waiting.remove(&(late.slot.starts, name.clone()));
                skip(late.slot, Skip::StartDeadline, 1);
            }
            if known.running.is_some() {
                skip(slot, Skip::Overlap, 1);
            } else {
                let until = calendar.deadline(slot);
                known.waiting = Some(Waiting { slot, until, not_before: now, attempts: 0 });
                self.waiting.insert((slot.starts, name.clone()));
            }
        }
        self.schedule(name, due.next);
    }

    /// Slots that have waited in vain.
    fn expire(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        let over = self.waiting.iter().filter_map(|key| {
            let known = self.drills.get(&key.1)?;
            let why = match (&known.calendar, &known.waiting, &known.running) {
                (Some(_), Some(_), Some(_)) => Skip::Overlap,
                (Some(calendar), Some(_), None) if calendar.blackout_end(now).is_some() => Skip::Blackout,
                (Some(_), Some(waiting), None) if now >= waiting.until => Skip::StartDeadline,
                _ => return None,
            };
            Some((key.clone(), why))
        });
        for (key, why) in over.collect::<Vec<_>>() {
            self.waiting.remove(&key);
            let name = key.1;
            if let Some(waiting) = self.drills.get_mut(&name).and_then(|known| known.waiting.take()) {
                actions.push(Action::Skip { drill: name.clone(), slot: waiting.slot, why, count: 1 });
            }
            self.changed.insert(name);
        }
    }

    /// Begins what waits, oldest first, for as long as there is room.
    fn fill(&mut self, now: Timestamp) -> Vec<Action> {
        let mut actions = Vec::new();
        let mut after = Bound::Unbounded;
        while !self.stopping && !self.held && self.running < self.concurrency.total {
            let Some(key) = self.waiting.range((after, Bound::Unbounded)).next().cloned() else { break };
            if self.may_begin(&key.1, now) {
                self.waiting.remove(&key);
                let waited = self.drills.get_mut(&key.1).and_then(|known| known.waiting.take());
                if let Some(waited) = waited {
                    let trigger = Trigger::Schedule { scheduled_for: waited.slot.scheduled_for };
                    actions.extend(self.begin(&key.1, trigger, Some(waited), now).map(Action::Begin));
                }
            }
            after = Bound::Excluded(key);
        }
        actions
    }

    fn may_begin(&self, name: &DrillName, now: Timestamp) -> bool {
        let Some(known) = self.drills.get(name) else { return false };
        let (Some(calendar), Some(waiting)) = (&known.calendar, &known.waiting) else { return false };
        let in_time = (waiting.not_before..waiting.until).contains(&now);
        in_time && known.running.is_none() && self.has_room(known) && calendar.blackout_end(now).is_none()
    }

    fn has_room(&self, known: &Known) -> bool {
        let of_target = self.targets.get(&known.target).copied().unwrap_or(0);
        self.running < self.concurrency.total && of_target < self.concurrency.per_target
    }

    fn begin(&mut self, name: &DrillName, trigger: Trigger, waited: Option<Waiting>, now: Timestamp) -> Option<Job> {
        let known = self.drills.get_mut(name)?;
        let target = known.target.clone();
        *self.targets.entry(target.clone()).or_default() += 1;
        self.running += 1;
        known.running =
            Some(Active { run: None, since: now, trigger: trigger.clone(), waited, target, cancelled: false });
        self.changed.insert(name.clone());
        Some(Job { drill: Arc::clone(&known.drill), file: known.file.clone(), trigger })
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
        if !self.has_room(known) {
            return Err(StartError::NoSlot);
        }
        let job = self.begin(name, Trigger::Operator { by: by.to_owned() }, None, now);
        job.ok_or_else(|| StartError::NoSuchDrill(name.clone()))
    }

    pub(super) fn begun(&mut self, name: &DrillName, run: RunId) {
        if let Some(active) = self.drills.get_mut(name).and_then(|known| known.running.as_mut()) {
            active.run = Some(run);
            self.changed.insert(name.clone());
        }
    }

    /// There is room for what waits.
    pub(super) fn ended(&mut self, name: &DrillName, outcome: Outcome, gone: bool, now: Timestamp) -> Vec<Action> {
        let Some(known) = self.drills.get_mut(name) else { return Vec::new() };
        let Some(active) = known.running.take() else { return Vec::new() };
        self.running = self.running.saturating_sub(1);
        if let Some(count) = self.targets.get_mut(&active.target) {
            *count -= 1;
            if *count == 0 {
                self.targets.remove(&active.target);
            }
        }
        let mut actions = Vec::new();
        match (outcome, active.waited) {
            // A self-test says nothing of when the drill last ran or passed.
            (Outcome::Ended(summary), _) if matches!(summary.trigger, Trigger::SelfTest { .. }) => {}
            (Outcome::Ended(summary), _) => {
                if summary.verdict == Some(Verdict::Passed) {
                    known.last_success = Some(summary.clone());
                }
                known.last = Some(summary);
            }
            // Its slot waits on, until its deadline.
            (Outcome::NotBegun, Some(mut waiting)) if known.calendar.is_some() && known.waiting.is_none() => {
                let pause = AGAIN.checked_mul(1 << waiting.attempts.min(DOUBLED)).unwrap_or(AGAIN);
                waiting.not_before = now.checked_add(pause).unwrap_or(now);
                waiting.attempts += 1;
                self.waiting.insert((waiting.slot.starts, name.clone()));
                known.waiting = Some(waiting);
            }
            // Another process runs the drill. Where the slot itself was taken before, the store says so.
            (Outcome::Taken, Some(waited)) => {
                actions.push(Action::Skip { drill: name.clone(), slot: waited.slot, why: Skip::Overlap, count: 1 });
            }
            (Outcome::NotBegun | Outcome::Taken, _) => {}
        }
        self.changed.insert(name.clone());
        if gone {
            self.forget(name);
        }
        actions.extend(self.fill(now));
        actions
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

    /// Whether the store refuses to be written.
    pub(super) fn hold(&mut self, held: bool) {
        self.held = held;
    }

    pub(super) fn is_held(&self) -> bool {
        self.held
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

/// The place of the backup: what a drill names is relative to its file.
fn target(drill: &Drill, file: &Path) -> PathBuf {
    let named = match &drill.source {
        Source::Manifest { path, .. } => path,
        Source::Dump(dump) => &dump.path,
    };
    file.parent().unwrap_or(Path::new("/")).join(named)
}
