//! A checked drill: what [`crate::file`] makes of a drill file. Every value is within its bounds and every default is filled in.
mod self_test;
mod sources;
mod vault;
mod visitor;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::id::{DrillName, Sha256Digest};
use crate::manifest::Part;
use crate::network::Target;

pub use self_test::{SelfTest, noticed_by};
pub use sources::{Exercise, Fallback, Place};
pub use vault::{Vault, VaultAuth};
pub use visitor::Visitor;

#[derive(Debug, Clone, PartialEq)]
pub struct Drill {
    pub name: DrillName,
    pub labels: BTreeMap<String, String>,
    /// SHA-256 of the file's bytes.
    pub digest: Sha256Digest,
    pub schedule: Option<Schedule>,
    pub objectives: Objectives,
    pub source: Source,
    pub engine: Postgresql,
    pub isolation: Isolation,
    pub credentials: Credentials,
    /// Shared with other drills where they are the default ones: a daemon has thousands of drills.
    pub checks: Arc<[Check]>,
    pub deadlines: Deadlines,
    /// None: only when somebody asks.
    pub self_test: Option<SelfTest>,
}

/// When the daemon runs the drill. Checked for form; due times are the daemon's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    pub cron: String,
    pub timezone: String,
    pub jitter: Duration,
    pub start_deadline: Option<Duration>,
    pub missed: Missed,
    pub blackout: Vec<Blackout>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missed {
    Skip,
    RunOnce,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blackout {
    pub cron: String,
    pub duration: Duration,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Objectives {
    /// Time until the restored database serves.
    pub recovery_time: Option<Duration>,
    /// Data loss tolerated, measured in commit time on the source database.
    pub recovery_point: Option<Duration>,
}

/// Where the backup is and who vouches for it. Paths are relative to the drill file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A backup that `muster capture` or `muster adopt` made.
    Manifest {
        /// Path of `manifest.json`.
        path: String,
        /// Never empty: without a key no backup can be told from a forged one.
        trusted_keys: Vec<TrustedKey>,
        /// Other places of the same backup, in the order in which they are tried.
        fallbacks: Vec<Fallback>,
        exercise: Exercise,
    },
    /// What somebody else's tool made.
    Dump(DumpSource),
}

/// A dump without a manifest. A drill file pins it by `sha256`, by `signature` or by both; only `muster run --dump` may do
/// without, and every result says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpSource {
    /// A dump file, or a directory in directory format.
    pub path: String,
    /// Of the file; of a directory, of what `LC_ALL=C sha256sum *` prints in it.
    pub sha256: Option<Sha256Digest>,
    pub signature: Option<DumpSignature>,
    /// The time zone of the process that made the dump, which its header does not record. None: read as UTC.
    pub timezone: Option<String>,
}

/// A minisign signature of the file; of a directory, of what `LC_ALL=C sha256sum *` prints in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpSignature {
    pub path: String,
    /// Never empty.
    pub trusted_keys: Vec<TrustedKey>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustedKey {
    /// A minisign public key file; relative to the drill file.
    File(String),
    /// The base64 line of a minisign public key.
    Inline(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Postgresql {
    /// None: the backup's own.
    pub major: Option<u32>,
    /// Parallel restore jobs; at least 1.
    pub jobs: u32,
    pub fidelity: Fidelity,
    /// Server settings beside muster's own, which win.
    pub settings: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fidelity {
    /// The server's own durability: the recovery time means something.
    Production,
    /// fsync off; marked as such in every result.
    Fast,
}

impl Fidelity {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Production => "production",
            Self::Fast => "fast",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Isolation {
    Local(Limits),
    Kubernetes(Box<Kubernetes>),
}

impl Isolation {
    /// As every isolation is told them.
    pub fn limits(&self) -> Limits {
        match self {
            Self::Local(limits) => *limits,
            // The cluster holds them, or there is no pod.
            Self::Kubernetes(asked) => Limits {
                memory: Some(asked.memory),
                disk: Some(asked.disk),
                processes: u32::MAX,
                enforcement: Enforcement::Required,
            },
        }
    }

    /// None: nobody but root of this machine could open what was closed.
    pub fn probe_interval(&self) -> Option<Duration> {
        match self {
            Self::Local(_) => None,
            Self::Kubernetes(asked) => Some(asked.probe_interval),
        }
    }

    /// Where the dumps lie already. None: they come from where the manifest is.
    pub fn volume(&self) -> Option<&Volume> {
        match self {
            Self::Local(_) => None,
            Self::Kubernetes(asked) => asked.artifact.as_ref(),
        }
    }
}

/// A namespace of its own in a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kubernetes {
    /// Of the kubeconfig. None: its current one, or the cluster that muster runs in.
    pub context: Option<String>,
    /// Has the server's programs; pinned by digest.
    pub image: String,
    /// Has muster itself; pinned by digest.
    pub muster_image: String,
    /// Bytes that the database's container may use.
    pub memory: u64,
    /// Bytes of the restored databases, and again of the backup.
    pub disk: u64,
    /// Thousandths of a core. None: no limit.
    pub cpu_millis: Option<u32>,
    /// What must be out of reach.
    pub production: Vec<Target>,
    /// Who may come to the database's port beside the agent.
    pub orchestrator: Option<IpNet>,
    /// How often isolation is proven again while the backup is restored and looked at.
    pub probe_interval: Duration,
    /// None: the node's own disk, for as long as the pod lives.
    pub claim: Option<Claim>,
    /// Where the agent reaches the database, in the sandbox's own network.
    pub port: u16,
    /// Who comes in while a doorway is open. None: nobody.
    pub doorway: Option<Visitor>,
    /// How long what was deleted may be held by other people's finalizers. None: for as long as they hold it.
    pub remove_finalizers_after: Option<Duration>,
    /// None: the dumps come from where the manifest is.
    pub artifact: Option<Volume>,
}

/// A `PersistentVolume` that has the dumps, and the backup's roles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    pub name: String,
    /// The backup's directory on it. None: all of the volume.
    pub path: Option<String>,
}

impl std::fmt::Display for Volume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{path} on volume {}", self.name),
            None => write!(f, "volume {}", self.name),
        }
    }
}

/// A volume that is claimed for the restored databases of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// None: the cluster's default.
    pub storage_class: Option<String>,
    /// Bytes.
    pub size: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Bytes; None where the drill names no limit.
    pub memory: Option<u64>,
    pub disk: Option<u64>,
    pub processes: u32,
    pub enforcement: Enforcement,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Enforcement {
    /// Refuse in preflight what no cgroup bounds.
    Required,
    /// Warn.
    BestEffort,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    Embedded { ttl: Duration },
    Vault(Box<Vault>),
}

impl Credentials {
    pub fn ttl(&self) -> Duration {
        match self {
            Self::Embedded { ttl } => *ttl,
            Self::Vault(vault) => vault.ttl,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// A DNS label, unique within the drill.
    pub name: String,
    pub plugin: Plugin,
    pub grants: BTreeSet<Grant>,
    pub limits: CheckLimits,
    /// A JSON object for the plugin.
    pub options: serde_json::Value,
    /// What a default check compares with: it is left out for a database of which the backup does not have that. A check that
    /// the drill names runs whatever the backup has, and says so.
    pub needs: Option<Need>,
}

/// A part of a backup's baseline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    Schema,
    Digests,
}

impl Need {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Schema => "schema",
            Self::Digests => "digests",
        }
    }

    /// By what the backup has of one database.
    pub fn is_met(self, part: &Part) -> bool {
        match self {
            Self::Schema => part.schema.is_some(),
            Self::Digests => part.blocks.is_some(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plugin {
    /// Ships inside muster, such as `row-count`; gets the grants that it imports.
    Builtin(String),
    /// A component file, relative to the drill file, pinned by digest.
    File { path: String, sha256: Sha256Digest },
}

/// One interface of the contract is one grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grant {
    Sql,
    Baseline,
    Catalog,
    Digest,
}

impl Grant {
    pub const ALL: [Self; 4] = [Self::Sql, Self::Baseline, Self::Catalog, Self::Digest];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sql => "sql",
            Self::Baseline => "baseline",
            Self::Catalog => "catalog",
            Self::Digest => "digest",
        }
    }
}

/// What one check may use. Every field has a default, so that no plugin runs without a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CheckLimits {
    /// Bytes of linear memory, all memories of the component together.
    pub memory: u64,
    /// Time inside the guest; waiting for SQL is not billed.
    #[serde(with = "crate::unit::millis", rename = "cpuTimeMilliseconds")]
    pub cpu_time: Duration,
    #[serde(with = "crate::unit::millis", rename = "wallTimeMilliseconds")]
    pub wall_time: Duration,
    pub log_bytes: u64,
    pub findings: u32,
    pub metrics: u32,
    /// Open resources (`rows`, `objects`, `scan`) at one time.
    pub handles: u32,
}

impl Default for CheckLimits {
    fn default() -> Self {
        Self {
            memory: 64 << 20,
            cpu_time: Duration::from_secs(10),
            wall_time: Duration::from_mins(5),
            log_bytes: 64 << 10,
            findings: 1_000,
            metrics: 100,
            handles: 64,
        }
    }
}

/// Every wait has a deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deadlines {
    pub preflight: Duration,
    pub verify: Duration,
    pub sandbox: Duration,
    pub restore: Duration,
    pub lease: Duration,
    pub validate: Duration,
    pub teardown: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            preflight: Duration::from_mins(1),
            verify: Duration::from_mins(30),
            sandbox: Duration::from_mins(2),
            restore: Duration::from_hours(4),
            lease: Duration::from_mins(1),
            validate: Duration::from_hours(1),
            teardown: Duration::from_mins(5),
        }
    }
}
