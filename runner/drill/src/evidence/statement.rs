//! What evidence says: an in-toto Statement v1, <https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md>.
//!
//! Names and units are a promise to whoever reads evidence in years: they change only with the predicate's type. So these
//! types are evidence's own, and are not the ledger's.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::evidence::stretch::Stretch;
use crate::id::{DrillName, RunId, Sha256Digest};
use crate::manifest::SnapshotTimeFrom;
use crate::spec::Fidelity;
use crate::verdict::{Leftovers, Reason, Verdict};

pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
pub const EVIDENCE_TYPE: &str = "https://muster.dev/evidence/v1";
pub const TOMBSTONE_TYPE: &str = "https://muster.dev/tombstone/v1";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Statement<P = Predicate> {
    #[serde(rename = "_type")]
    pub statement_type: String,
    /// The backup's manifest, which holds the digest of every file; the drill file where no backup was opened.
    pub subject: Vec<Subject>,
    pub predicate_type: String,
    pub predicate: P,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    pub name: String,
    pub digest: SubjectDigest,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubjectDigest {
    /// 64 hexadecimal digits, as in-toto wants it.
    pub sha256: String,
}

/// [`EVIDENCE_TYPE`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Predicate {
    pub run: RunId,
    pub drill: Drill,
    pub muster_version: String,
    pub started: jiff::Timestamp,
    /// When the run was concluded.
    pub concluded: jiff::Timestamp,
    pub result: RunResult,
    pub recovery: Recovery,
    /// The run drilled a copy that it had damaged itself: its result is about the drill, and never about the backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub self_test: Option<SelfTest>,
    /// None where none was opened.
    pub artifact: Option<Artifact>,
    /// The artifact that this run put into quarantine.
    pub quarantined: Option<Sha256Digest>,
    pub phases: Vec<Phase>,
    pub checks: Vec<Check>,
    pub findings: Vec<Finding>,
    pub plugins: Vec<Plugin>,
    pub isolation: Isolation,
    /// None where no lease was issued.
    pub lease: Option<Lease>,
    pub teardown: Vec<Teardown>,
    /// As reported by the restored server: code in the backup can write that log.
    pub connections_reported_by_restored_server: Vec<String>,
    pub chain: Chain,
    pub key: KeyOrigin,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Drill {
    pub name: DrillName,
    /// SHA-256 of the drill file.
    pub digest: Sha256Digest,
    pub file: String,
    pub labels: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RunResult {
    pub verdict: Verdict,
    pub reason: Reason,
    pub message: String,
    pub advice: Option<String>,
    /// `some`: `teardown` says what is still owed and why.
    pub leftovers: Leftovers,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SelfTest {
    /// Such as `baseline-rows`.
    pub damage: String,
    /// What was done to the copy, and the answer that this asks for; null where the run did not get that far.
    pub damaged: Option<String>,
    pub expected: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Recovery {
    /// `fast` has no durability: its times say nothing of production.
    pub fidelity: Fidelity,
    /// None where the restored database never served.
    pub time_actual_milliseconds: Option<u64>,
    pub time_objective_milliseconds: Option<u64>,
    /// Start of the run minus the snapshot time of the manifest.
    pub point_actual_milliseconds: Option<u64>,
    pub point_objective_milliseconds: Option<u64>,
    /// What probe, policies, lease and relay cost; not part of the recovery time.
    pub boundary_overhead_milliseconds: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Artifact {
    pub name: String,
    /// SHA-256 of the manifest; of a dump without a manifest, the dump's own.
    pub digest: Sha256Digest,
    pub location: String,
    /// Which of the drill's sources it is: `primary`, or `fallback 1`; absent where there is one only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// `signature`, `sha256` (the drill names the digest, and nobody signed) or `nobody`.
    pub vouched_by: String,
    /// The trusted key that signed; null where nobody did.
    pub signed_by: Option<String>,
    pub size_bytes: u64,
    /// Null where nobody recorded it.
    pub snapshot_time: Option<jiff::Timestamp>,
    pub snapshot_time_from: SnapshotTimeFrom,
    pub source_version: String,
    pub databases: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Phase {
    pub phase: crate::phase::Phase,
    pub started: jiff::Timestamp,
    /// Monotonic; None where a crash cut it off.
    pub milliseconds: Option<u64>,
    pub outcome: PhaseOutcome,
    pub note: Option<String>,
    pub problem: Option<Problem>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PhaseOutcome {
    Done,
    Stopped,
    /// The process that ran it died.
    CutOff,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Problem {
    pub reason: Reason,
    pub message: String,
    pub advice: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Check {
    pub check: String,
    pub database: String,
    pub outcome: CheckOutcome,
    /// What it says of itself, or why it has no result.
    pub message: Option<String>,
    pub limit: Option<CheckLimit>,
    pub usage: CheckUsage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckOutcome {
    /// Its result is its worst finding.
    Completed,
    Inconclusive,
    LimitReached,
    Trapped,
    Refused,
    Cancelled,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CheckLimit {
    pub name: String,
    pub used: String,
    pub allowed: String,
    pub advice: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CheckUsage {
    pub cpu_milliseconds: u64,
    pub wall_milliseconds: u64,
    pub memory_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Finding {
    /// The check, or the phase where muster itself saw it.
    pub source: String,
    pub database: Option<String>,
    pub severity: crate::finding::Severity,
    pub subject: String,
    pub message: String,
    pub details: Vec<Detail>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Detail {
    pub name: String,
    pub value: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Plugin {
    pub check: String,
    pub from: String,
    pub digest: Sha256Digest,
    pub grants: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Isolation {
    /// None where the run stopped before it was rendered.
    pub template: Option<Template>,
    pub limits: Vec<Limit>,
    /// Empty where isolation was never probed: then no backup byte was loaded.
    pub probes: Vec<Probe>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Template {
    pub isolation: String,
    pub digest: Sha256Digest,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limit {
    pub what: String,
    /// Bytes for memory and disk, otherwise a count.
    pub value: u64,
    pub enforced_by: String,
    /// Whether it bounds the sandbox as a whole.
    pub total: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Probe {
    pub name: String,
    pub expected: crate::proof::Expected,
    pub observed: crate::proof::Expected,
    pub detail: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Lease {
    pub role: String,
    pub ttl_milliseconds: u64,
    /// What it must not be able to do, tried.
    pub attempts: Vec<Attempt>,
    /// What could not be tried, because something that the backup brought would have answered; the catalog was asked instead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub untried: Vec<Untried>,
    /// What a secret store lent for it; absent where muster made the role itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leases: Vec<StoredLease>,
}

/// A lease in a secret store's books. When it was revoked, and what its login was refused with, stands under `teardown`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StoredLease {
    pub id: String,
    pub role: String,
    pub issued_at: jiff::Timestamp,
    pub ttl_milliseconds: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Attempt {
    pub what: String,
    pub database: String,
    /// Whether it ended as it must.
    pub held: bool,
    pub sqlstate: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Untried {
    pub what: String,
    pub database: String,
    pub why: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Teardown {
    /// `storage`, `sandbox`, `agent`, `lease`.
    pub resource: String,
    pub outcome: ResourceOutcome,
    /// What was seen of its going.
    pub observed: Vec<String>,
    /// Why it is still owed.
    pub problem: Option<Problem>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResourceOutcome {
    Released,
    StillOwed,
}

/// Each evidence names the one before it, so that none can be taken out or put in unseen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Chain {
    pub store_id: String,
    /// From 1, without gaps.
    pub sequence: u64,
    /// SHA-256 of the bytes of the envelope before; None for the first.
    pub previous: Option<Sha256Digest>,
}

/// Where the signing key comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyOrigin {
    /// muster made it on first use: it ties evidence to this state directory and to nobody.
    SelfMade,
    Configured,
}

/// [`TOMBSTONE_TYPE`]: stands for evidence that was deleted on purpose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tombstone {
    pub store_id: String,
    /// Oldest first.
    pub deleted: Vec<Stretch>,
    pub made: jiff::Timestamp,
    pub muster_version: String,
}
