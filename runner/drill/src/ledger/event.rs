use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::agent::{CheckOutcome, CheckUsage};
use crate::finding::Finding;
use crate::id::{DrillName, RunId, Sha256Digest};
use crate::ledger::figure::Figure;
use crate::manifest::SnapshotTimeFrom;
use crate::phase::Phase;
use crate::proof::{IsolationProof, LeaseProof, LimitInForce, ReleaseProof};
use crate::spec::{Fidelity, Objectives, Place, Vault};
use crate::stop::Stop;
use crate::verdict::{Leftovers, Reason, Verdict};

/// What a run may hold. Names follow from the run's id, so that what a crash left is found by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resource {
    /// The run's own directory: the staged copy and the data directory.
    Storage,
    /// The isolated place and every process in it.
    Sandbox,
    /// The process that holds the lease and the plugins.
    Agent,
    /// The database role of the run: [`lease_role`](Resource::lease_role).
    Lease,
}

impl Resource {
    pub const ALL: [Self; 4] = [Self::Storage, Self::Sandbox, Self::Agent, Self::Lease];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Storage => "storage",
            Self::Sandbox => "sandbox",
            Self::Agent => "agent",
            Self::Lease => "lease",
        }
    }

    /// The role that a run's lease logs in as; at most 59 bytes, within PostgreSQL's 63.
    pub fn lease_role(run: &RunId) -> String {
        format!("muster-{run}")
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "event", content = "data")]
pub enum Event {
    Started(RunStarted),
    PhaseStarted {
        phase: Phase,
    },
    PhaseEnded {
        phase: Phase,
        #[serde(with = "crate::unit::millis", rename = "milliseconds")]
        duration: Duration,
        outcome: PhaseOutcome,
    },
    /// Durable before the effect.
    Intended {
        resource: Resource,
    },
    /// After the effect; `handle` is the driver's own.
    Acquired {
        resource: Resource,
        handle: serde_json::Value,
    },
    /// After it was seen gone.
    Released {
        resource: Resource,
        proof: ReleaseProof,
    },
    /// It is still owed.
    ReleaseFailed {
        resource: Resource,
        stop: Stop,
    },
    /// The source that is tried; the last one before the artifact is the one that was opened.
    Source {
        place: Place,
    },
    Artifact(Artifact),
    /// A self-test damaged its copy of the artifact.
    Damaged(Damaged),
    /// SHA-256 of the rendered isolation template.
    Template {
        isolation: String,
        digest: Sha256Digest,
    },
    Limits {
        limits: Vec<LimitInForce>,
    },
    /// A repeated probe takes the place of the one of its name.
    Isolation(IsolationProof),
    /// Who will be asked for the lease, before it is asked: whom recovery must ask about it. Absent: muster itself.
    LeaseFrom(Vault),
    /// A renewal that brought another login is told again.
    Lease(LeaseProof),
    Plugin(Plugin),
    Finding(Finding),
    CheckEnded(CheckEnded),
    /// As reported by the restored server: code in the sandbox can write that log.
    Connections {
        lines: Vec<String>,
    },
    /// Quarantined by this run.
    Quarantined {
        digest: Sha256Digest,
    },
    /// What the run concludes. Teardown has been tried before it.
    Concluded(Summary),
    EvidenceWritten {
        path: String,
        digest: Sha256Digest,
        sequence: u64,
    },
    Ended {
        leftovers: Leftovers,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunStarted {
    pub run: RunId,
    pub drill: DrillName,
    pub drill_digest: Sha256Digest,
    /// Absolute path of the drill file; of `muster run --dump`, of the dump.
    pub drill_file: String,
    pub labels: BTreeMap<String, String>,
    pub at: jiff::Timestamp,
    pub owner: Owner,
    pub muster_version: String,
    pub fidelity: Fidelity,
    pub objectives: Objectives,
    /// Where evidence goes.
    pub evidence_directory: String,
    /// Ledgers of a muster without a daemon do not say.
    #[serde(default)]
    pub trigger: Trigger,
}

/// Why a run began.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase", tag = "kind")]
pub enum Trigger {
    /// `muster run`.
    #[default]
    Command,
    /// A slot of the drill's schedule. No two runs of a drill have the same.
    Schedule { scheduled_for: jiff::Timestamp },
    /// Somebody asked the daemon.
    Operator { by: String },
    /// The drill is run against a deliberately damaged copy and must refuse it. None: somebody asked.
    SelfTest { damage: Damage, scheduled_for: Option<jiff::Timestamp> },
}

/// What a self-test does to its copy of the backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Damage {
    /// One byte of the dump.
    Byte,
    Signature,
    /// The end of the dump is missing.
    Truncated,
    /// The baseline claims one row more.
    BaselineRows,
    /// The baseline claims another digest.
    BaselineDigest,
    /// The baseline's schema lacks a column.
    BaselineColumn,
}

impl Damage {
    pub const ALL: [Self; 6] =
        [Self::Byte, Self::Signature, Self::Truncated, Self::BaselineRows, Self::BaselineDigest, Self::BaselineColumn];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Byte => "byte",
            Self::Signature => "signature",
            Self::Truncated => "truncated",
            Self::BaselineRows => "baseline-rows",
            Self::BaselineDigest => "baseline-digest",
            Self::BaselineColumn => "baseline-column",
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a self-test did to its copy, and what it must be answered with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Damaged {
    /// Such as `one bit of byte 1,024 of shop.dump`.
    pub what: String,
    pub answer: Answer,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase", tag = "kind")]
pub enum Answer {
    /// The copy is refused in verify, before any byte of it is restored, and the refusal names this file.
    Refused { file: String },
    /// A failure of each check that is this built-in plugin, about this object.
    Finding { plugin: String, database: String, subject: String },
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { file } => write!(f, "refusal of {file} in verify"),
            Self::Finding { plugin, database, subject } => {
                write!(f, "a failure of {plugin} about {subject} in {database}")
            }
        }
    }
}

/// The process that runs it. A process id alone may be somebody else by now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    pub pid: u32,
    /// Clock ticks since boot, field 22 of /proc/PID/stat.
    pub start_ticks: u64,
    pub boot_id: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PhaseOutcome {
    /// What is said of it in one line.
    Done {
        note: String,
    },
    Stopped(Stop),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// SHA-256 of `manifest.json`, which holds the digest of every file; of a dump without a manifest, the dump's own.
    pub digest: Sha256Digest,
    pub name: String,
    /// The directory that was opened.
    pub location: String,
    pub vouched: Vouched,
    pub size: u64,
    pub snapshot_time: Option<jiff::Timestamp>,
    pub snapshot_time_from: SnapshotTimeFrom,
    pub source_version: String,
    pub databases: Vec<String>,
}

/// Who says that the artifact is the one that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "by")]
pub enum Vouched {
    /// A trusted key, by name.
    Signature {
        key: String,
    },
    /// The drill itself, which names the digest.
    Sha256,
    Nobody,
}

impl Vouched {
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Signature { .. } => "signature",
            Self::Sha256 => "sha256",
            Self::Nobody => "nobody",
        }
    }

    pub fn key(&self) -> Option<&str> {
        match self {
            Self::Signature { key } => Some(key),
            Self::Sha256 | Self::Nobody => None,
        }
    }
}

impl fmt::Display for Vouched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signature { key } => write!(f, "signed by {key}"),
            Self::Sha256 => f.write_str("UNSIGNED, pinned by its SHA-256"),
            Self::Nobody => f.write_str("UNSIGNED: nobody vouches for it"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plugin {
    pub check: String,
    /// `builtin:row-count`, or the path.
    pub from: String,
    pub digest: Sha256Digest,
    pub grants: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckEnded {
    pub check: String,
    pub database: String,
    pub outcome: CheckOutcome,
    pub usage: CheckUsage,
    /// What it reported; of all checks of a run together at most [`FIGURES`](crate::ledger::FIGURES).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub figures: Vec<Figure>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    pub verdict: Verdict,
    pub reason: Reason,
    /// One sentence for a person.
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// Recovery time actual; None where the restored database never served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_time_milliseconds: Option<u64>,
    /// Recovery point actual.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_point_milliseconds: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boundary_overhead_milliseconds: Option<u64>,
}

/// An event as the store keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stamped {
    /// From 1, without gaps within a run.
    pub sequence: u64,
    pub at: jiff::Timestamp,
    pub event: Event,
}
