//! When self-tests are due: each damage of a drill has a schedule of its own. They wait for the drill's own runs, and what was
//! missed while muster was down is not made up for.
use std::collections::BTreeMap;

use drill::id::DrillName;
use drill::ledger::Damage;
use drill::schedule::{Calendar, Slot};
use drill::spec::Drill;
use jiff::Timestamp;

#[derive(Default)]
pub(super) struct SelfTests(BTreeMap<(DrillName, Damage), Test>);

struct Test {
    calendar: Calendar,
    next: Option<Slot>,
}

/// One that may begin, if there is room.
pub(super) struct DueTest {
    pub(super) drill: DrillName,
    pub(super) damage: Damage,
    pub(super) slot: Slot,
}

impl SelfTests {
    /// Those of a drill as it is now.
    pub(super) fn take(&mut self, drill: &Drill, now: Timestamp) {
        self.forget(&drill.name);
        for (damage, schedule) in drill.self_tests() {
            // What cannot be computed was refused when the file was read.
            if let Ok(calendar) = Calendar::new(&schedule, &drill.name) {
                let next = calendar.upcoming(now);
                self.0.insert((drill.name.clone(), damage), Test { calendar, next });
            }
        }
    }

    pub(super) fn forget(&mut self, drill: &DrillName) {
        for damage in Damage::ALL {
            self.0.remove(&(drill.clone(), damage));
        }
    }

    /// All due times anew.
    pub(super) fn anew(&mut self, now: Timestamp) {
        for test in self.0.values_mut() {
            test.next = test.calendar.upcoming(now);
        }
    }

    /// What is due and not too late; the others of them are given up.
    pub(super) fn due(&mut self, now: Timestamp) -> Vec<DueTest> {
        let mut due = Vec::new();
        for ((drill, damage), test) in &mut self.0 {
            let Some(slot) = test.next.filter(|slot| slot.starts <= now) else { continue };
            if now < test.calendar.deadline(slot) && test.calendar.blackout_end(now).is_none() {
                due.push(DueTest { drill: drill.clone(), damage: *damage, slot });
            } else {
                tracing::warn!(drill = drill.as_str(), %damage, slot = %slot.scheduled_for, "a self-test was not run in time");
                test.next = test.calendar.upcoming(now);
            }
        }
        due
    }

    /// It has begun.
    pub(super) fn begun(&mut self, begun: &DueTest) {
        if let Some(test) = self.0.get_mut(&(begun.drill.clone(), begun.damage)) {
            test.next = test.calendar.next(begun.slot.scheduled_for);
        }
    }
}
