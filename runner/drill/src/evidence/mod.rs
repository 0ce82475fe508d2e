//! Evidence: the signed record of a run, as an in-toto [`Statement`] in a DSSE [`Envelope`].
//!
//! It is made from the ledger alone, so that what a recovered run signs is what the run would have signed. Signing and
//! writing are the daemon's.
mod build;
mod dsse;
mod statement;
mod stretch;
#[cfg(test)]
mod tests;

pub use build::{Facts, Making, evidence, tombstone};
pub use dsse::{Envelope, PAYLOAD_TYPE, Signature, pre_authentication_encoding};
pub use statement::{
    Artifact, Attempt, Chain, Check, CheckLimit, CheckOutcome, CheckUsage, Detail, Drill, EVIDENCE_TYPE, Finding,
    Isolation, KeyOrigin, Lease, Limit, Phase, PhaseOutcome, Plugin, Predicate, Probe, Problem, Recovery,
    ResourceOutcome, RunResult, STATEMENT_TYPE, SelfTest, Statement, Subject, SubjectDigest, TOMBSTONE_TYPE, Teardown,
    Template, Tombstone, Untried,
};
pub use stretch::{BLOCK, Stretch, block, merge};

/// Bytes that an envelope may have; a reader reads no more.
pub const MAX_SIZE: u64 = 64 << 20;
/// Name of a run's evidence within its directory: the run and this.
pub const FILE_SUFFIX: &str = ".dsse.json";
