//! What a drill is and what must be true of it. Decides; never does: no I/O, no runtime, no clock.
//!
//! Start at [`spec::Drill`] (what is asked for), [`ledger`] (what a run owes) and [`port`] (what the outside must offer).
pub mod agent;
pub mod baseline;
pub mod conclude;
pub mod config;
pub mod content;
pub mod evidence;
pub mod file;
pub mod finding;
pub mod guard;
pub mod id;
pub mod ledger;
pub mod manifest;
pub mod network;
pub mod phase;
pub mod port;
pub mod proof;
pub mod schedule;
pub mod schema;
pub mod secret;
pub mod spec;
pub mod stop;
pub mod unit;
pub mod verdict;
