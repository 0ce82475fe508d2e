//! The durable journal of a run: what was intended, what is held, what was seen gone, and all that evidence says.
//!
//! [`Event`] is written before and after each effect; [`State`] is what the events add up to; [`plan_teardown`] decides, from
//! the state alone, what is still owed. The normal end, a cancel, a crash and `muster reap` execute the same plan.
mod event;
mod figure;
mod plan;
mod state;

pub use event::{
    Answer, Artifact, CheckEnded, Damage, Damaged, Event, Owner, PhaseOutcome, Plugin, Resource, RunStarted, Stamped,
    Summary, Trigger, Vouched,
};
pub use figure::{FIGURES, Figure};
pub use plan::{Database, plan_teardown};
pub use state::{Held, IllegalEvent, PhaseRecord, State};
