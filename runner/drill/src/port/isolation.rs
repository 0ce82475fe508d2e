use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_io::{AsyncRead, AsyncWrite};

use crate::agent::ProbeTargets;
use crate::id::RunId;
use crate::ledger::Resource;
use crate::manifest::Manifest;
use crate::port::Progress;
use crate::proof::{LimitInForce, Probe, ReleaseProof};
use crate::spec::Limits;
use crate::stop::Stop;

/// Where every isolation puts muster's own program inside.
pub const PROGRAM: &str = "/muster";
/// Its subcommand that unpacks a script into a command's standard input: `PACKING PATH PROGRAM ARGUMENT…`.
pub const FEED: &str = "sandbox-feed";

/// Makes places that can reach nothing, and removes them.
#[async_trait]
pub trait Isolation: Send + Sync {
    /// `local` or `kubernetes`.
    fn name(&self) -> &'static str;

    /// How a sandbox is isolated, as text without anything that differs between runs. Its digest stands in the evidence.
    fn template(&self, limits: &Limits) -> Result<String, Stop>;

    /// What is there and what would hold each limit. Fails where `enforcement: required` cannot be met.
    async fn survey(&self, limits: &Limits) -> Result<Survey, Stop>;

    /// Makes the run's own directory.
    async fn prepare(&self, run: &RunId) -> Result<Storage, Stop>;

    /// Compares the dumps that lie in the isolation already with their manifest, before a sandbox sees them; what it makes for that is
    /// the sandbox's, to be released with it. Of drills that name such a place alone.
    async fn verify(&self, _run: &RunId, _manifest: &Manifest, _progress: &dyn Progress) -> Result<(), Stop> {
        Err(Stop::internal(format!("{} has no place where a backup could lie already", self.name())))
    }

    /// Makes the sandbox of a run whose storage was prepared.
    async fn provision(&self, spec: SandboxSpec) -> Result<Arc<dyn Sandbox>, Stop>;

    /// Removes [`Resource::Agent`], [`Resource::Sandbox`] or [`Resource::Storage`] of a run, and looks until it is gone. Works
    /// from the name alone, where `handle` is None; finding nothing is success and says so.
    async fn release(
        &self,
        run: &RunId,
        resource: Resource,
        handle: Option<&serde_json::Value>,
    ) -> Result<ReleaseProof, Stop>;

    /// Everything under muster's names in this state directory, whoever owes it.
    async fn leftovers(&self) -> Result<Vec<Leftover>, Stop>;
}

#[derive(Debug, Clone)]
pub struct Survey {
    pub limits: Vec<LimitInForce>,
    pub free_disk: u64,
    pub free_memory: u64,
    /// What a person should know, such as a limit that nothing holds.
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct Storage {
    /// The driver's own; goes into the ledger.
    pub handle: serde_json::Value,
    /// Where the runner stages the artifact: a directory that no sandbox sees before [`Sandbox::deliver`].
    pub staging: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    pub run: RunId,
    pub resource: Resource,
    pub what: String,
}

pub struct SandboxSpec {
    pub run: RunId,
    pub limits: Limits,
    pub inputs: SandboxInputs,
}

/// What an engine needs inside. Paths inside: `/data` (writable, empty but for the template), `/conf` (read-only, holds
/// `files`), `/backup` (read-only, empty until [`Sandbox::deliver`]), `/tmp` and `/dev/shm` (bounded).
#[derive(Debug, Clone, Default)]
pub struct SandboxInputs {
    pub files: Vec<InputFile>,
    /// Files that are others where the sandbox has an address that somebody outside may know.
    pub at_address: Option<FilesAt>,
    pub template: Option<Template>,
    /// A directory outside `/usr` that holds the engine's programs, bound read-only at its own path.
    pub programs: Option<PathBuf>,
    /// The port on the sandbox's own loopback that [`Sandbox::dial`] reaches.
    pub port: u16,
}

/// What takes the place of files of the same names, such as a certificate that carries the address.
#[derive(Clone)]
pub struct FilesAt(pub Arc<dyn Fn(IpAddr) -> Result<Vec<InputFile>, Stop> + Send + Sync>);

impl fmt::Debug for FilesAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FilesAt")
    }
}

#[derive(Debug, Clone)]
pub struct InputFile {
    /// Beneath `/conf`.
    pub name: String,
    pub contents: Vec<u8>,
    pub secret: bool,
}

/// A data directory made once by `argv` in a sandbox of its own, kept under `key`, and copied to `/data` for each run.
#[derive(Debug, Clone)]
pub struct Template {
    pub key: String,
    pub argv: Vec<String>,
}

/// One isolated place. Everything that comes out of it is hostile.
#[async_trait]
pub trait Sandbox: Send + Sync {
    /// The driver's own; goes into the ledger, for recovery.
    fn handle(&self) -> serde_json::Value;

    /// Moves what was verified from the staging directory to `/backup`, read-only. No descriptor of a regular file enters.
    async fn deliver(&self) -> Result<(), Stop>;

    /// Whether what was delivered is still what was verified: an error with [`Reason::ArtifactChanged`](crate::verdict::Reason) where it
    /// is not. What was copied cannot have changed.
    async fn verify_again(&self, _manifest: &Manifest) -> Result<(), Stop> {
        Ok(())
    }

    /// Runs a command inside. Dropping the future ends the command.
    async fn exec(&self, exec: Exec) -> Result<ExecOutput, Stop>;

    /// A byte stream to the database's port.
    async fn dial(&self) -> Result<Box<dyn ByteStream>, Stop>;

    /// Lets somebody outside reach the database's port until it is closed. The server asks whoever comes for a certificate of
    /// the run's authority, as it asks everybody.
    async fn open_doorway(&self) -> Result<Box<dyn Doorway>, Stop>;

    /// What lives outside for the probes to miss: the runner's own listeners, open while the sandbox lives.
    fn probe_targets(&self) -> ProbeTargets;

    /// Tries to leave from inside, and tries the same from outside as the control.
    async fn probe(&self) -> Result<Vec<Probe>, Stop>;

    /// Starts the agent beside the database, in a boundary of its own.
    async fn run_agent(&self) -> Result<AgentProcess, Stop>;

    /// Resolves when something broke the boundary or hit a limit: out of memory, disk limit, processes gone.
    async fn breach(&self) -> Stop;
}

/// A way into a sandbox, for one visitor at a time of need. Dropping it closes it, too, and does not wait.
#[async_trait]
pub trait Doorway: Send + Sync {
    /// An address that the server's certificate carries.
    fn host(&self) -> String;

    fn port(&self) -> u16;

    /// Returns when nobody gets in any more and whoever was in is out. Where that was not seen, it is an error.
    async fn close(self: Box<Self>) -> Result<(), Stop>;
}

#[derive(Clone)]
pub struct Exec {
    /// Absolute path first.
    pub argv: Vec<String>,
    pub env: Vec<(String, String)>,
    pub stdin: Vec<u8>,
    /// The command is killed at it.
    pub deadline: Duration,
    /// Bytes kept of each of stdout and stderr; the rest is read and thrown away.
    pub keep: usize,
    /// Told each line as it comes, at most 64 KiB of each.
    pub lines: Option<LineSink>,
}

impl Exec {
    pub fn new<I: IntoIterator<Item = S>, S: Into<String>>(argv: I) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            stdin: Vec::new(),
            deadline: Duration::from_mins(1),
            keep: 256 << 10,
            lines: None,
        }
    }
}

pub type LineSink = Arc<dyn Fn(Output, &str) + Send + Sync>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    Stdout,
    Stderr,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutput {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// Whether either was longer than what was kept. What is kept is the end of it.
    pub truncated: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    Code(i32),
    Signal(i32),
    DeadlineExceeded,
}

pub struct AgentProcess {
    pub handle: serde_json::Value,
    /// Closing it ends the agent.
    pub stdin: Pin<Box<dyn AsyncWrite + Send>>,
    pub stdout: Pin<Box<dyn AsyncRead + Send>>,
    /// What it wrote to stderr, for its obituary; bounded.
    pub stderr: Arc<dyn Fn() -> String + Send + Sync>,
}

pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}
