//! The agent: the process that holds the lease and the plugins, and the runner's side of talking to it.
//!
//! Both sides speak [`frame`]s that hold the messages of [`drill::agent`]. The agent's side starts at [`process::main`], the
//! runner's at [`link::AgentLink`]. Neither side trusts the other's bytes, and the agent trusts the database least of all.
pub mod frame;
mod host;
pub mod link;
pub mod process;

#[cfg(test)]
#[path = "../../../../fuzz/properties/agent.rs"]
mod agent_property;
mod baseline;
mod blobs;
mod checks;
mod digest;
mod job;
mod pieces;
mod probe;
mod report;
mod sql;
mod text;
mod watch;

#[cfg(test)]
mod tests;

pub use checks::{CheckCall, CheckRunner, RunOutcome};
pub use host::PluginRunner;
pub use link::{AgentLink, BaselinePieces};
