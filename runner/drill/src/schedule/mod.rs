//! When a drill is due. Pure: a calendar and a time in, slots out; what `muster next` prints and what fires come from the same
//! call.
use jiff::Timestamp;

use crate::id::DrillName;
use crate::spec::Schedule;

/// A schedule that was understood.
#[derive(Debug, Clone)]
pub struct Calendar {}

/// One time at which a drill is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot {
    /// What cron says; with the drill's name the key of a claim.
    pub scheduled_for: Timestamp,
    /// That, and the drill's jitter for this slot.
    pub starts: Timestamp,
}

impl Calendar {
    /// An error says what of the schedule is not understood, or that it never comes.
    pub fn new(_schedule: &Schedule, _drill: &DrillName) -> Result<Self, String> {
        Err("not built yet".to_owned())
    }

    /// The first slot that is scheduled after `after` and lies in no blackout.
    pub fn next(&self, _after: Timestamp) -> Option<Slot> {
        None
    }
}
