//! What the runner and the agent say to each other. The agent is a process of its own that holds the lease and the plugins;
//! what it says is hostile input. Framing is the daemon's.
//!
//! Each side sends [`Hello`] first. The job is over only with [`FromAgent::Done`] and a right count of events.
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::finding::Severity;
use crate::id::{DrillName, RunId, Sha256Digest};
use crate::proof::Probe;
use crate::secret::Secret;
use crate::spec::{CheckLimits, Grant};

pub const PROTOCOL_VERSION: u32 = 2;
/// Bytes that one [`FromAgent::Want`] may ask for.
pub const MAX_PIECE: u64 = 16 << 20;
/// Bytes of one frame.
pub const MAX_FRAME: u32 = 1 << 20;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    pub version: u32,
    pub nonce: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ToAgent {
    /// Try to leave, and try to reach the database: answered by [`FromAgent::Probed`].
    Probe {
        targets: ProbeTargets,
        identity: ClientIdentity,
    },
    /// The next `size` bytes come as raw frames.
    Blob {
        digest: Sha256Digest,
        size: u64,
    },
    /// Answers [`FromAgent::Want`]; the next `size` bytes come as raw frames.
    Given {
        id: u64,
        digest: Sha256Digest,
        size: u64,
    },
    Lease(LeaseGrant),
    Job(Box<Job>),
    Cancel,
}

/// What the runner itself listens on, or knows to exist outside: every one must be out of reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeTargets {
    /// The runner's own TCP listener, such as `127.0.0.1:40123`.
    pub tcp: String,
    /// The runner's own abstract Unix socket.
    pub abstract_socket: String,
    /// A name server: a datagram must not leave.
    pub dns: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Job {
    pub run: RunId,
    pub drill: DrillName,
    pub engine: String,
    pub started_at: jiff::Timestamp,
    pub snapshot_time: Option<jiff::Timestamp>,
    #[serde(default)]
    pub recovery_point_objective_ms: Option<u64>,
    pub databases: Vec<JobDatabase>,
    pub checks: Vec<JobCheck>,
    #[serde(with = "crate::unit::millis")]
    pub deadline: Duration,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JobDatabase {
    pub name: String,
    /// The blob that holds the baseline.
    pub baseline: Option<Sha256Digest>,
    /// The blob that holds the baseline's schema.
    pub schema: Option<Sha256Digest>,
}

/// A file of the baseline that is handed over in pieces, because it grows with the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BaselinePart {
    Blocks,
    RowDigests,
}

/// Runs once for each database of the job.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JobCheck {
    pub name: String,
    /// Those that it looks at; on the others it ends at once, and says so.
    pub databases: Vec<String>,
    /// The blob that holds the component.
    pub component: Sha256Digest,
    /// The blob that holds its machine code. None: it is for the agent to compile.
    pub compiled: Option<Sha256Digest>,
    pub grants: Vec<Grant>,
    pub limits: CheckLimits,
    pub options: serde_json::Value,
}

/// What proves who logs in, and to whom: PEM texts.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientIdentity {
    /// The database role that the certificate is for.
    pub role: String,
    /// The name that the server's certificate must carry.
    pub server_name: String,
    /// The run's own CA: the only root that is trusted.
    pub ca: String,
    pub certificate: String,
    pub key: SecretText,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LeaseGrant {
    pub identity: ClientIdentity,
    pub expires_at: jiff::Timestamp,
}

/// A secret on its way to the agent: the one place where a secret is serialized, over a pipe that only the agent reads.
#[derive(Debug, Clone)]
pub struct SecretText(pub Secret);

impl Serialize for SecretText {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.expose())
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Secret::new(text)))
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum FromAgent {
    /// Answers [`Hello`]: the boundary is up.
    Ready,
    Probed {
        probes: Vec<Probe>,
    },
    /// Asks for a piece of the baseline: answered by [`ToAgent::Given`], in order.
    Want {
        id: u64,
        database: String,
        part: BaselinePart,
        at: u64,
        length: u64,
    },
    CheckStarted {
        check: String,
        database: String,
    },
    Progress {
        check: String,
        database: String,
        done: u64,
        total: Option<u64>,
        unit: String,
    },
    Finding {
        check: String,
        database: String,
        severity: Severity,
        subject: String,
        message: String,
        details: Vec<(String, String)>,
    },
    Log {
        check: String,
        database: String,
        message: String,
    },
    Metric {
        check: String,
        database: String,
        name: String,
        labels: Vec<(String, String)>,
        value: f64,
    },
    CheckEnded {
        check: String,
        database: String,
        outcome: CheckOutcome,
        usage: CheckUsage,
    },
    /// `events` counts every message of the job before this one.
    Done {
        events: u64,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum CheckOutcome {
    /// The check saw all it wanted to see; its result is its worst finding.
    Completed {
        summary: Option<String>,
    },
    /// The check says itself why it cannot tell.
    Inconclusive {
        why: String,
    },
    /// The host stopped it at a limit.
    LimitReached {
        limit: String,
        used: String,
        allowed: String,
        advice: String,
    },
    Trapped {
        why: String,
    },
    /// It asked for what the contract or the drill does not give, or what the database refused.
    Refused {
        why: String,
    },
    Cancelled,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CheckUsage {
    #[serde(with = "crate::unit::millis", rename = "cpuTimeMilliseconds")]
    pub cpu_time: Duration,
    #[serde(with = "crate::unit::millis", rename = "wallTimeMilliseconds")]
    pub wall_time: Duration,
    pub memory: u64,
}
