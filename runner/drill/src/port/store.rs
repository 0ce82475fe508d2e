use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::id::{DrillName, RunId, Sha256Digest};
use crate::ledger::{Event, Owner, RunStarted, Stamped};
use crate::stop::Stop;
use crate::verdict::{Leftovers, Reason, Verdict};

/// The durable memory: the ledger, the quarantine, the chain of evidence, alerts that wait to be sent.
#[async_trait]
pub trait Store: Send + Sync {
    /// Made once with the store; names the chain of evidence.
    async fn id(&self) -> Result<String, Stop>;

    /// Writes the run's first event, unless its drill has a run that has not ended: then [`Reason::AlreadyRunning`].
    async fn claim(&self, started: &RunStarted) -> Result<(), Stop>;

    /// Durable when it returns. Refuses an event that the ledger's fold calls illegal, and a run that another owner took over.
    async fn append(&self, run: &RunId, event: &Event) -> Result<Stamped, Stop>;

    /// Empty where there is no such run.
    async fn events(&self, run: &RunId) -> Result<Vec<Stamped>, Stop>;

    /// Newest first.
    async fn runs(&self, drill: Option<&DrillName>, limit: u32) -> Result<Vec<RunSummary>, Stop>;

    /// Runs that have not ended, or that ended and still owe something.
    async fn unsettled(&self) -> Result<Vec<RunId>, Stop>;

    /// Whose the run is by now: its first owner, or whoever took it over. None where there is no such run.
    async fn owner(&self, run: &RunId) -> Result<Option<Owner>, Stop>;

    /// Makes `new` the owner of a run whose owner was `old`; false where somebody else was faster.
    async fn take_over(&self, run: &RunId, old: &Owner, new: &Owner) -> Result<bool, Stop>;

    /// Refuses an artifact from now on.
    async fn quarantine(&self, entry: &Quarantine) -> Result<(), Stop>;
    async fn quarantined(&self) -> Result<Vec<Quarantine>, Stop>;
    /// How many entries of this digest were released.
    async fn release_quarantine(&self, digest: Sha256Digest, by: &str) -> Result<u64, Stop>;

    /// The last link of the chain of evidence.
    async fn chain_head(&self) -> Result<Option<ChainLink>, Stop>;
    /// Refused where `link.sequence` does not follow the head.
    async fn extend_chain(&self, link: &ChainLink) -> Result<(), Stop>;
    async fn chain(&self) -> Result<Vec<ChainLink>, Stop>;

    /// Into the outbox; whoever sends takes it from there.
    async fn raise(&self, alert: &Alert) -> Result<(), Stop>;
    async fn alerts(&self) -> Result<Vec<Alert>, Stop>;
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunSummary {
    pub run: RunId,
    pub drill: DrillName,
    pub started: jiff::Timestamp,
    /// None while it runs, and after a crash until it is recovered.
    pub ended: Option<jiff::Timestamp>,
    pub verdict: Option<Verdict>,
    pub reason: Option<Reason>,
    pub leftovers: Leftovers,
    pub recovery_time_milliseconds: Option<u64>,
    pub evidence: Option<String>,
}

/// A damaged copy: the same manifest at another place is another copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Quarantine {
    /// SHA-256 of the manifest's bytes.
    pub digest: Sha256Digest,
    pub location: String,
    pub run: RunId,
    pub why: String,
    pub at: jiff::Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChainLink {
    /// From 1, without gaps.
    pub sequence: u64,
    pub run: RunId,
    /// SHA-256 of the envelope's bytes.
    pub digest: Sha256Digest,
    pub path: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Alert {
    /// Stable, such as `artifact-refused`.
    pub kind: String,
    pub drill: DrillName,
    pub run: RunId,
    pub at: jiff::Timestamp,
    pub message: String,
    pub advice: Option<String>,
}
