//! When self-tests are due: each damage of a drill has a schedule of its own. What is missed follows the same policy as the
//! drill's own slots; what is due waits for the drill's own runs.
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use drill::id::DrillName;
use drill::ledger::Damage;
use drill::port::{ScheduleHistory, SeenSchedule};
use drill::schedule::{Calendar, Slot};
use drill::spec::Drill;
use jiff::Timestamp;

use super::files::{first_slot, words};
use super::happening::Skip;
use super::state::Action;

#[derive(Default)]
pub(super) struct SelfTests {
    tests: BTreeMap<(DrillName, Damage), Test>,
    /// By the time at which the next slot of each starts.
    due: BTreeSet<(Timestamp, DrillName, Damage)>,
    /// Slots that are due and wait for room, oldest first.
    waiting: BTreeSet<(Timestamp, DrillName, Damage)>,
}

struct Test {
    calendar: Calendar,
    next: Option<Slot>,
    /// A slot that is due, and its start deadline.
    waiting: Option<(Slot, Timestamp)>,
}

/// One that may begin, if there is room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DueTest {
    pub(super) drill: DrillName,
    pub(super) damage: Damage,
    pub(super) slot: Slot,
}

impl SelfTests {
    /// Those of a drill as it is now. Answers with the schedules that are new or other than they were.
    pub(super) fn take(
        &mut self,
        drill: &Drill,
        histories: &BTreeMap<Option<Damage>, ScheduleHistory>,
        now: Timestamp,
    ) -> Vec<SeenSchedule> {
        let mut seen = Vec::new();
        let schedules: BTreeMap<Damage, _> = drill.self_tests().into_iter().collect();
        for damage in Damage::ALL.into_iter().filter(|damage| !schedules.contains_key(damage)) {
            self.remove(&drill.name, damage);
        }
        for (damage, schedule) in schedules {
            let key = (drill.name.clone(), damage);
            if self.tests.get(&key).is_some_and(|test| *test.calendar.schedule() == schedule) {
                continue;
            }
            // What cannot be computed was refused when the file was read.
            let Ok(calendar) = Calendar::new(&schedule, &drill.name) else { continue };
            let history = histories.get(&Some(damage)).filter(|_| !self.tests.contains_key(&key));
            let words = words(Some(&schedule));
            let next = first_slot(&calendar, &words, history, now);
            if history.and_then(|history| history.seen.as_ref()).is_none_or(|(seen, _)| *seen != words) {
                seen.push(SeenSchedule { drill: drill.name.clone(), self_test: Some(damage), words, at: now });
            }
            self.remove(&drill.name, damage);
            self.tests.insert(key, Test { calendar, next: None, waiting: None });
            self.schedule(&drill.name, damage, next);
        }
        seen
    }

    pub(super) fn forget(&mut self, drill: &DrillName) {
        for damage in Damage::ALL {
            self.remove(drill, damage);
        }
    }

    fn remove(&mut self, drill: &DrillName, damage: Damage) {
        let Some(test) = self.tests.remove(&(drill.clone(), damage)) else { return };
        if let Some(next) = test.next {
            self.due.remove(&(next.starts, drill.clone(), damage));
        }
        if let Some((slot, _)) = test.waiting {
            self.waiting.remove(&(slot.starts, drill.clone(), damage));
        }
    }

    fn schedule(&mut self, drill: &DrillName, damage: Damage, next: Option<Slot>) {
        let Some(test) = self.tests.get_mut(&(drill.clone(), damage)) else { return };
        if let Some(old) = std::mem::replace(&mut test.next, next) {
            self.due.remove(&(old.starts, drill.clone(), damage));
        }
        if let Some(next) = next {
            self.due.insert((next.starts, drill.clone(), damage));
        }
    }

    /// All due times anew: the clock was set back. What waits was due by the clock as it was.
    pub(super) fn anew(&mut self, now: Timestamp) {
        let next: Vec<_> = self.tests.iter().map(|(key, test)| (key.clone(), test.calendar.upcoming(now))).collect();
        for ((drill, damage), next) in next {
            self.schedule(&drill, damage, next);
        }
    }

    /// What has fallen due waits from now on; answers with slots that are given up.
    pub(super) fn tick(&mut self, now: Timestamp) -> Vec<Action> {
        let mut skipped = Vec::new();
        while let Some((starts, drill, damage)) = self.due.first().cloned()
            && starts <= now
        {
            self.due.pop_first();
            self.fall_due(&drill, damage, now, &mut skipped);
        }
        self.expire(now, &mut skipped);
        skipped
    }

    fn fall_due(&mut self, drill: &DrillName, damage: Damage, now: Timestamp, skipped: &mut Vec<Action>) {
        let Some(test) = self.tests.get_mut(&(drill.clone(), damage)) else { return };
        let Some(first) = test.next.take() else { return };
        let due = test.calendar.due(first, now);
        if let Some(missed) = due.missed {
            skipped.push(skip(drill, damage, missed, Skip::Missed, due.missed_count));
        }
        if let Some(slot) = due.run {
            let until = test.calendar.deadline(slot);
            // One that still waits had until now.
            if let Some((late, _)) = test.waiting.replace((slot, until)) {
                self.waiting.remove(&(late.starts, drill.clone(), damage));
                skipped.push(skip(drill, damage, late, Skip::StartDeadline, 1));
            }
            self.waiting.insert((slot.starts, drill.clone(), damage));
        }
        self.schedule(drill, damage, due.next);
    }

    /// Slots that have waited in vain.
    fn expire(&mut self, now: Timestamp, skipped: &mut Vec<Action>) {
        let over = self.waiting.iter().filter_map(|(starts, drill, damage)| {
            let test = self.tests.get(&(drill.clone(), *damage))?;
            let why = match test.waiting {
                Some((_, until)) if now >= until => Skip::StartDeadline,
                Some(_) if test.calendar.blackout_end(now).is_some() => Skip::Blackout,
                _ => return None,
            };
            Some(((*starts, drill.clone(), *damage), why))
        });
        for (key, why) in over.collect::<Vec<_>>() {
            self.waiting.remove(&key);
            let (_, drill, damage) = key;
            let test = self.tests.get_mut(&(drill.clone(), damage));
            if let Some((slot, _)) = test.and_then(|test| test.waiting.take()) {
                skipped.push(skip(&drill, damage, slot, why, 1));
            }
        }
    }

    /// The one that has waited longest, or that which comes after another.
    pub(super) fn next_waiting(&self, after: Option<&DueTest>) -> Option<DueTest> {
        let after =
            after.map_or(Bound::Unbounded, |test| Bound::Excluded((test.slot.starts, test.drill.clone(), test.damage)));
        let (_, drill, damage) = self.waiting.range((after, Bound::Unbounded)).next()?;
        let (slot, _) = self.tests.get(&(drill.clone(), *damage))?.waiting?;
        Some(DueTest { drill: drill.clone(), damage: *damage, slot })
    }

    /// It has begun.
    pub(super) fn begun(&mut self, begun: &DueTest) {
        self.waiting.remove(&(begun.slot.starts, begun.drill.clone(), begun.damage));
        if let Some(test) = self.tests.get_mut(&(begun.drill.clone(), begun.damage)) {
            test.waiting = None;
        }
    }
}

fn skip(drill: &DrillName, damage: Damage, slot: Slot, why: Skip, count: u64) -> Action {
    Action::Skip { drill: drill.clone(), self_test: Some(damage), slot, why, count }
}
