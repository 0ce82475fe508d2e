//! Which drills start when: the slots of many schedules, one after the other.
use std::cmp::Reverse;
use std::collections::BinaryHeap;

use drill::id::DrillName;
use drill::schedule::{Calendar, Slot};
use drill::spec::Drill;
use drill::stop::Stop;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// So many are computed at once, and no more.
pub(crate) const MOST: u32 = 10_000;

/// One time at which a drill starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Fire {
    pub(crate) drill: DrillName,
    pub(crate) starts: Timestamp,
    pub(crate) scheduled_for: Timestamp,
    pub(crate) timezone: String,
}

/// The first `count` of all. `next` is the next slot of each drill that has one.
pub(crate) fn first<'a>(next: impl IntoIterator<Item = (&'a Drill, Slot)>, count: usize) -> Result<Vec<Fire>, Stop> {
    let (mut drills, mut heap) = (Vec::new(), BinaryHeap::new());
    for (index, (drill, slot)) in next.into_iter().enumerate() {
        drills.push((drill, None));
        heap.push(Reverse((slot.starts, &drill.name, slot, index)));
    }
    let mut fires = Vec::new();
    while fires.len() < count
        && let Some(Reverse((starts, name, slot, index))) = heap.pop()
    {
        let (drill, calendar) = &mut drills[index];
        let Some(schedule) = &drill.schedule else { continue };
        let timezone = schedule.timezone.clone();
        fires.push(Fire { drill: name.clone(), starts, scheduled_for: slot.scheduled_for, timezone });
        // Most drills of many are never asked for a second slot.
        let calendar = match calendar {
            Some(calendar) => calendar,
            None => calendar.insert(
                Calendar::new(schedule, name)
                    .map_err(|why| Stop::internal(format!("the schedule of {name} cannot be computed: {why}")))?,
            ),
        };
        if let Some(next) = calendar.next(slot.scheduled_for) {
            heap.push(Reverse((next.starts, name, next, index)));
        }
    }
    Ok(fires)
}
