//! What the outside must offer. Every implementation of a port passes one shared contract test. A port's errors are [`Stop`]s.
//!
//! [`Stop`]: crate::stop::Stop
mod alerts;
mod artifacts;
mod credentials;
mod engine;
mod guard;
mod isolation;
mod store;

pub use alerts::{Alert, Alerts, Delivery, KINDS, Kind, LONGEST_WAIT, NEW_WORDS, Outbox, Severity};
pub use artifacts::{Artifact, Artifacts, DamagedCopy, LookedAt, Opened};
pub use credentials::{Credentials, Inside, Lease, LeaseRequest};
pub use engine::{Engine, EnginePlan, Programs, Restored, Rows, Server, Session, SqlError};
pub use guard::Guard;
pub use isolation::{
    AgentProcess, ByteStream, Doorway, Exec, ExecOutput, ExitStatus, FEED, FilesAt, InputFile, Isolation, Leftover,
    LineSink, Output, PROGRAM, Sandbox, SandboxInputs, SandboxSpec, Storage, Survey, Template,
};
pub use store::{
    ChainLink, Chained, DrillHistory, Pruned, Quarantine, RunSummary, ScheduleHistory, SeenSchedule, Store,
};

/// Work done, out of what there is to do where that can be known. Called often; must return at once.
pub trait Progress: Send + Sync {
    fn set(&self, done: u64, total: Option<u64>, unit: &str);
}
