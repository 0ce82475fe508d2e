//! What is due, waits and goes on, and what follows from it. Decides only: the clock, the store and the runs are the caller's.
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::Arc;

use drill::config::Concurrency;
use drill::id::{DrillName, RunId};
use drill::ledger::{Damage, Trigger};
use drill::port::{DrillHistory, RunSummary};
use drill::schedule::Slot;
use drill::verdict::Verdict;
use jiff::{SignedDuration, Timestamp};

use super::Job;
use super::event::{CancelError, StartError};
use super::happening::Skip;
use super::known::{Active, Known, Waiting};
use super::self_tests::SelfTests;
use super::view::{DrillView, FileView, View};

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
    Skip {
        drill: DrillName,
        /// None: a slot of the drill's own schedule.
        self_test: Option<Damage>,
        slot: Slot,
        why: Skip,
        count: u64,
    },
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
    /// Boxed: a map that is filled in order is half empty.
    pub(super) drills: BTreeMap<DrillName, Box<Known>>,
    /// What the store knew of drills that have not been seen yet.
    pub(super) histories: BTreeMap<DrillName, DrillHistory>,
    /// By the time at which each drill's next slot starts.
    pub(super) due: BTreeSet<(Timestamp, DrillName)>,
    /// Slots that are due and wait, oldest first.
    pub(super) waiting: BTreeSet<(Timestamp, DrillName)>,
    pub(super) tests: SelfTests,
    running: u32,
    targets: BTreeMap<PathBuf, u32>,
    pub(super) files: Arc<Vec<FileView>>,
    now: Timestamp,
    ticked: Option<Timestamp>,
    stalled: bool,
    stopping: bool,
    /// The store refuses: nothing new begins.
    held: bool,
    views: Arc<BTreeMap<DrillName, Arc<DrillView>>>,
    pub(super) changed: BTreeSet<DrillName>,
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
        actions.extend(self.tests.tick(now));
        actions.extend(self.begin_tests(now));
        actions
    }

    /// Self-tests come after what waits of the drills themselves.
    fn begin_tests(&mut self, now: Timestamp) -> Vec<Action> {
        let mut actions = Vec::new();
        let mut after = None;
        while !self.held && self.running < self.concurrency.total {
            let Some(test) = self.tests.next_waiting(after.as_ref()) else { break };
            let is_free = |known: &Known| known.running.is_none() && known.waiting.is_none() && self.has_room(known);
            if self.drills.get(&test.drill).is_some_and(|known| is_free(known)) {
                self.tests.begun(&test);
                let trigger = Trigger::SelfTest { damage: test.damage, scheduled_for: Some(test.slot.scheduled_for) };
                actions.extend(self.begin(&test.drill, trigger, None, now).map(Action::Begin));
            }
            after = Some(test);
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
        let mut skip =
            |slot, why, count| actions.push(Action::Skip { drill: name.clone(), self_test: None, slot, why, count });
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
                known.waiting = Some(Box::new(Waiting { slot, until, not_before: now, attempts: 0 }));
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
                actions.push(skip(&name, waiting.slot, why));
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

    fn begin(
        &mut self,
        name: &DrillName,
        trigger: Trigger,
        waited: Option<Box<Waiting>>,
        now: Timestamp,
    ) -> Option<Job> {
        let known = self.drills.get_mut(name)?;
        let target = known.target.clone();
        *self.targets.entry(target.clone()).or_default() += 1;
        self.running += 1;
        known.running = Some(Box::new(Active {
            run: None,
            since: now,
            trigger: trigger.clone(),
            waited,
            target,
            cancelled: false,
        }));
        self.changed.insert(name.clone());
        Some(Job { drill: Arc::clone(&known.drill), file: known.file.clone(), trigger })
    }

    /// Somebody asks for a run at once, whatever the schedule says; with a damage, for a self-test.
    pub(super) fn start(
        &mut self,
        name: &DrillName,
        self_test: Option<Damage>,
        by: &str,
        now: Timestamp,
    ) -> Result<Job, StartError> {
        if self.stopping {
            return Err(StartError::Stopping);
        }
        let known = self.drills.get(name).ok_or_else(|| StartError::NoSuchDrill(name.clone()))?;
        if let Some(damage) = self_test.filter(|damage| !known.drill.can_notice(*damage)) {
            return Err(StartError::CannotNotice { drill: name.clone(), damage });
        }
        if let Some(active) = &known.running {
            return Err(StartError::Running { drill: name.clone(), run: active.run.clone() });
        }
        if !self.has_room(known) {
            return Err(StartError::NoSlot);
        }
        let trigger = match self_test {
            Some(damage) => Trigger::SelfTest { damage, scheduled_for: None },
            None => Trigger::Operator { by: by.to_owned() },
        };
        self.begin(name, trigger, None, now).ok_or_else(|| StartError::NoSuchDrill(name.clone()))
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
                let summary = Arc::new(summary);
                if summary.verdict == Some(Verdict::Passed) {
                    known.last_success = Some(Arc::clone(&summary));
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
                actions.push(skip(name, waited.slot, Skip::Overlap));
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

/// One slot of a drill's own schedule.
fn skip(drill: &DrillName, slot: Slot, why: Skip) -> Action {
    Action::Skip { drill: drill.clone(), self_test: None, slot, why, count: 1 }
}
