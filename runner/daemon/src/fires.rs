//! Which drills start when: the slots of many schedules, one after the other.
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use drill::id::DrillName;
use drill::schedule::{Slot, Slots};
use drill::spec::Drill;
use drill::stop::Stop;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// So many are computed at once, and no more.
pub(crate) const MOST: u32 = 10_000;
/// Schedules that are kept in the form that slots are computed with, some five thousand bytes each. Of more drills than these, each
/// is read anew when its next slot is looked for.
const KEPT: usize = 100;

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
    let next: Vec<_> = next.into_iter().collect();
    let entry = |index: usize, drill: &'a Drill, slot: Slot| Reverse((slot.starts, &drill.name, slot, index));
    let mut heap: BinaryHeap<_> =
        next.iter().enumerate().map(|(index, (drill, slot))| entry(index, drill, *slot)).collect();
    let (mut fires, mut kept) = (Vec::new(), HashMap::new());
    while let Some(Reverse((.., slot, index))) = heap.pop() {
        let drill = next[index].0;
        let Some(schedule) = &drill.schedule else { continue };
        let (name, timezone) = (drill.name.clone(), schedule.timezone.clone());
        fires.push(Fire { drill: name, starts: slot.starts, scheduled_for: slot.scheduled_for, timezone });
        if fires.len() >= count {
            break;
        }
        let slots = match kept.remove(&index) {
            Some(slots) => slots,
            None => Slots::of(schedule, &drill.name)
                .map_err(|why| Stop::internal(format!("the schedule of {} cannot be computed: {why}", drill.name)))?,
        };
        if let Some(slot) = slots.next(slot.scheduled_for) {
            heap.push(entry(index, drill, slot));
        }
        if kept.len() < KEPT {
            kept.insert(index, slots);
        }
    }
    Ok(fires)
}
