//! A checked configuration of the daemon: every value is within its bounds and every default is filled in.
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::id::Sha256Digest;
use crate::network::Target;
use crate::secret::SecretSource;
use crate::spec::Vault;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Directories of drill files; never empty. Absolute, as every path here.
    pub drills: Vec<PathBuf>,
    /// None: `$MUSTER_STATE_DIR`, or where muster keeps its state without one.
    pub state_directory: Option<PathBuf>,
    pub evidence: Evidence,
    pub concurrency: Concurrency,
    /// SHA-256 of the rendered isolation template that drills may use. None: recorded, never compared.
    pub approved_template: Option<Sha256Digest>,
    pub shutdown: Shutdown,
    pub http: Http,
    pub alerts: Alerts,
    pub logs: Logs,
    pub retention: Retention,
    /// What no drill may use or reach.
    pub production: Production,
    /// None: compact manifests are refused.
    pub compact: Option<Compact>,
    /// Held for as long as the daemon works, so that no second one does. None: the lock on the state directory is all there is.
    pub lease: Option<ClusterLease>,
}

/// What compact manifests leave out. Values are in the form of a drill file, and checked; files in them are absolute.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Compact {
    /// What `backup_snapshot` is beneath.
    pub backups: Option<PathBuf>,
    /// `source.trustedKeys`.
    pub trusted_keys: Option<Vec<Value>>,
    /// By major version; where there is none, the image of `kubernetes` serves.
    pub images: BTreeMap<u32, String>,
    /// `isolation.kubernetes`.
    pub kubernetes: Option<Value>,
    /// `credentials.vault`.
    pub vault: Option<Value>,
}

impl Compact {
    /// The keys without which no manifest can be used, and what each says.
    pub fn lacking(&self) -> Vec<(&'static str, &'static str)> {
        let needed = [
            (self.backups.is_none(), "backups", "where snapshots are"),
            (self.trusted_keys.is_none(), "trustedKeys", "who is trusted to have signed them"),
            (self.kubernetes.is_none(), "kubernetes", "in which cluster, and with which images, they are restored"),
            (self.vault.is_none(), "vault", "who leases the login"),
        ];
        needed.into_iter().filter(|(lacks, ..)| *lacks).map(|(_, name, what)| (name, what)).collect()
    }
}

/// A Lease of a cluster, which one muster at a time holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterLease {
    /// None: the current context, or the cluster that muster runs in.
    pub context: Option<String>,
    pub namespace: String,
    pub name: String,
    /// How long it stands without being renewed.
    pub duration: Duration,
}

/// What belongs to production, and so to no drill.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Production {
    /// What every drill in a cluster must prove out of its reach, beside its own list.
    pub networks: Vec<Target>,
    /// `MOUNT`, or `MOUNT/PATH` where drills share the mount with production; with `NAMESPACE/` before it where there is one.
    pub vault: Vec<String>,
}

impl Production {
    /// The entry that forbids these leases.
    pub fn forbids(&self, vault: &Vault) -> Option<&str> {
        let namespace = vault.namespace.iter().map(String::as_str);
        let mount = namespace.chain([vault.mount.as_str()]).collect::<Vec<_>>().join("/");
        let path = format!("{mount}/{}", vault.path);
        self.vault.iter().map(String::as_str).find(|listed| *listed == mount || *listed == path)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Evidence {
    /// None: `evidence` in the state directory.
    pub directory: Option<PathBuf>,
    /// What signs it. None: a key that muster makes on first use.
    pub key: Option<SecretSource>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Concurrency {
    /// Runs at one time.
    pub total: u32,
    /// Runs of one backup at one time: drills whose source is the same place.
    pub per_target: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shutdown {
    /// How long runs may go on after a stop was asked for; then they are cancelled and torn down.
    pub grace: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// Loopback, or `tls` and `tokens` are there.
    pub listen: SocketAddr,
    pub tls: Option<Tls>,
    pub tokens: Vec<Token>,
    /// What the command line talks to. None: `muster.sock` in the state directory.
    pub socket: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// PEM; the leaf first.
    pub certificate: PathBuf,
    /// PEM.
    pub key: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub name: String,
    pub role: Role,
    /// Of the token's text; the token itself is nowhere.
    pub sha256: Sha256Digest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Looks.
    Viewer,
    /// Starts and cancels runs, releases quarantined backups.
    Operator,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Alerts {
    pub webhooks: Vec<Webhook>,
    pub alertmanagers: Vec<Alertmanager>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Unique among all destinations.
    pub name: String,
    pub url: String,
    /// Signs each request with HMAC-SHA-256.
    pub secret: SecretSource,
    /// PEM: who may vouch for it. None: whom the system trusts.
    pub ca: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alertmanager {
    /// Unique among all destinations.
    pub name: String,
    /// Its base, such as `http://127.0.0.1:9093`; alerts go to `/api/v2/alerts` beneath it.
    pub url: String,
    /// As a webhook's.
    pub ca: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Logs {
    pub format: LogFormat,
    pub sink: LogSink,
    pub level: LogLevel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum LogSink {
    #[default]
    Stderr,
    /// Appended to; opened anew at SIGHUP.
    File(PathBuf),
    /// A Unix datagram socket: one line a datagram.
    Socket(PathBuf),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
}

/// Which old runs are forgotten: those beyond either bound. Never one that still owes something, nor a drill's last success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    pub age: Option<Duration>,
    /// Runs kept of each drill.
    pub runs: Option<u32>,
}
