use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::agent::ClientIdentity;
use crate::finding::Finding;
use crate::manifest::Manifest;
use crate::port::{Progress, Sandbox, SandboxInputs};
use crate::proof::Probe;
use crate::schema::Taken;
use crate::spec::Postgresql;
use crate::stop::Stop;

/// A database engine: what a backup needs, how it is restored and served.
#[async_trait]
pub trait Engine: Send + Sync {
    /// `postgresql`.
    fn name(&self) -> &'static str;

    /// Compares what the backup needs with what is installed: major, extensions, locales, build options.
    async fn plan(
        &self,
        manifest: &Manifest,
        wanted: &Postgresql,
        programs: Programs,
    ) -> Result<Box<dyn EnginePlan>, Stop>;
}

/// Whose programs a sandbox has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Programs {
    /// This machine's.
    Here,
    /// An image's, which cannot be looked into before it runs.
    OfImage,
}

/// A restore that can work. Owns the run's certificate authority.
#[async_trait]
pub trait EnginePlan: Send + Sync {
    /// For the preflight line, such as `PostgreSQL 15.18, 3 extensions, 2 roles`.
    fn note(&self) -> String;

    /// What a person should know before it starts.
    fn findings(&self) -> Vec<Finding>;

    /// Bytes of disk the restore is expected to need.
    fn disk_estimate(&self) -> u64;

    fn inputs(&self) -> SandboxInputs;

    /// Starts an empty server inside and waits until it answers. No backup byte is touched.
    async fn serve(&self, sandbox: Arc<dyn Sandbox>) -> Result<Arc<dyn Server>, Stop>;
}

/// The server inside a sandbox. It is the attacker's once a backup was restored into it.
#[async_trait]
pub trait Server: Send + Sync {
    /// A peer without the run's certificate is refused, one with a stranger's is refused, the runner's gets through.
    async fn probe(&self) -> Result<Vec<Probe>, Stop>;

    /// The login of a role that can do nothing: for the agent to show that it gets through, before there is a lease.
    async fn probe_identity(&self) -> Result<ClientIdentity, Stop>;

    /// A client certificate of the run's authority for `role`.
    fn identity(&self, role: &str, ttl: Duration) -> Result<ClientIdentity, Stop>;

    /// Restores what was delivered to `/backup`: globals, then each part. Ends when the databases serve.
    async fn restore(&self, manifest: &Manifest, progress: &dyn Progress) -> Result<Restored, Stop>;

    /// Runs statements as the administrator. Rows of the last statement that has any.
    async fn admin(&self, database: &str, statements: &str) -> Result<Rows, SqlError>;

    /// Logs in with a certificate.
    async fn login(&self, identity: &ClientIdentity, database: &str) -> Result<Box<dyn Session>, SqlError>;

    /// The schema file of a database's baseline as this server would tell it: with what was taken from everybody in its header,
    /// and with this major's own words for what an older one said otherwise.
    async fn expected_schema(
        &self,
        manifest: &Manifest,
        database: &str,
        file: &[u8],
        taken: Vec<Taken>,
    ) -> Result<Vec<u8>, Stop>;

    /// Connections that its log reports, without the runner's own.
    fn connections(&self) -> Vec<String>;

    /// Resolves when the server is gone, with why.
    async fn gone(&self) -> Stop;

    /// Asks it to stop and waits.
    async fn stop(&self) -> Result<(), Stop>;
}

#[derive(Debug, Clone, Default)]
pub struct Restored {
    pub databases: Vec<String>,
    pub findings: Vec<Finding>,
    /// For the restore line, such as `1,204 entries, 3 databases`.
    pub note: String,
}

#[async_trait]
pub trait Session: Send + Sync {
    async fn run(&self, statements: &str) -> Result<Rows, SqlError>;
}

/// Text cells; None is NULL.
pub type Rows = Vec<Vec<Option<String>>>;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}", sqlstate.as_deref().map(|state| format!(" (SQLSTATE {state})")).unwrap_or_default())]
pub struct SqlError {
    /// None where the connection itself failed.
    pub sqlstate: Option<String>,
    pub message: String,
}
