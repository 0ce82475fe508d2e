//! The agent's side: `muster agent`. Frames come in on standard input and go out on standard output; it ends when the input does.
//! It reads no environment and no file, and opens no socket but the database's (and those that the probe must fail to open).
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use drill::agent::{ClientIdentity, FromAgent, Job, LeaseGrant, ProbeTargets, ToAgent};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::blobs::{BlobError, Blobs};
use super::checks::CheckRunner;
use super::frame::{self, FrameError, FrameReader, FrameWriter, Kind};
use super::job::Worker;
use super::pieces::Waiting;
use super::probe;
use super::report::{Outbox, QUEUE};

/// Where the sandbox puts the database's socket.
pub const SOCKET: &str = "/db.sock";
const HELLO: Duration = Duration::from_secs(10);
/// What a job may take to leave after its last word.
const LEAVING: Duration = Duration::from_secs(1);
/// What ending may take once the input has ended.
const SHUTDOWN: Duration = Duration::from_secs(2);

/// Makes its own runtime: call it outside of any.
pub fn main(socket: PathBuf, runner: Arc<dyn CheckRunner>) -> ExitCode {
    // Two at least: a check that waits for the runner to read its reports holds one of them. The others hash rows.
    let threads = std::thread::available_parallelism().map_or(1, usize::from).max(2);
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("failed to start: {error}")),
    };
    let served = runtime.block_on(serve(tokio::io::stdin(), tokio::io::stdout(), socket, runner));
    // A read of standard input may still be blocking a thread.
    runtime.shutdown_background();
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&drill::stop::chain(&error)),
    }
}

fn fail(why: &str) -> ExitCode {
    eprintln!("muster agent: {why}");
    ExitCode::FAILURE
}

#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("the runner's frames make no sense")]
    Frame(#[from] FrameError),
    #[error("the runner did not say hello in time")]
    Hello,
    #[error("the runner sent a blob that cannot be kept: {0}")]
    Blob(String),
    #[error("the runner sent {0} where none was due")]
    Order(&'static str),
    #[error("failed to write to the runner")]
    Write(#[source] FrameError),
}

impl From<BlobError> for AgentError {
    fn from(error: BlobError) -> Self {
        Self::Blob(error.to_string())
    }
}

/// Serves one runner until its stream ends. Needs a runtime of several threads.
pub async fn serve(
    input: impl AsyncRead + Unpin,
    output: impl AsyncWrite + Unpin + Send + 'static,
    socket: PathBuf,
    runner: Arc<dyn CheckRunner>,
) -> Result<(), AgentError> {
    let mut reader = FrameReader::new(input);
    let mut writer = FrameWriter::new(output);
    writer.hello().await.map_err(AgentError::Write)?;
    tokio::time::timeout(HELLO, reader.hello()).await.map_err(|_| AgentError::Hello)??;

    let (queue, mut outgoing) = mpsc::channel::<FromAgent>(QUEUE);
    let writing = tokio::spawn(async move {
        while let Some(message) = outgoing.recv().await {
            writer.message(&message).await?;
        }
        writer.close().await
    });
    let mut agent = Agent {
        queue,
        blobs: Blobs::default(),
        identity: None,
        socket,
        runner,
        cancel: CancellationToken::new(),
        waiting: Waiting::default(),
        work: JoinSet::new(),
    };
    let _ = agent.queue.send(FromAgent::Ready).await;
    let listened = agent.listen(&mut reader).await;
    agent.cancel.cancel();
    agent.work.abort_all();
    drop(agent);
    match tokio::time::timeout(SHUTDOWN, writing).await {
        // What could not be written has nobody who reads it, once the runner has gone.
        Ok(Ok(Err(error))) if listened.is_ok() && !matches!(error, FrameError::Io(_)) => Err(AgentError::Write(error)),
        _ => listened,
    }
}

struct Agent {
    queue: mpsc::Sender<FromAgent>,
    blobs: Blobs,
    identity: Option<watch::Sender<ClientIdentity>>,
    socket: PathBuf,
    runner: Arc<dyn CheckRunner>,
    cancel: CancellationToken,
    waiting: Waiting,
    work: JoinSet<()>,
}

impl Agent {
    async fn listen<R: AsyncRead + Unpin>(&mut self, reader: &mut FrameReader<R>) -> Result<(), AgentError> {
        loop {
            let frame = tokio::select! {
                frame = reader.next() => frame?,
                Some(ended) = self.work.join_next() => {
                    if ended.is_err() {
                        return Err(AgentError::Order("a job that made the agent panic"));
                    }
                    continue;
                }
            };
            let Some(frame) = frame else { return Ok(()) };
            match frame.kind {
                Kind::Raw => {
                    self.blobs.chunk(&frame.payload)?;
                    self.deliver()?;
                }
                Kind::Json => self.obey(frame::message(&frame)?).await?,
            }
        }
    }

    async fn obey(&mut self, message: ToAgent) -> Result<(), AgentError> {
        if self.blobs.is_coming() {
            return Err(AgentError::Order("a message"));
        }
        match message {
            ToAgent::Probe { targets, identity } => self.probe(&targets, &identity).await,
            ToAgent::Blob { digest, size } => self.blobs.announce(digest, size)?,
            ToAgent::Given { id, digest, size } => {
                self.blobs.announce_piece(id, digest, size)?;
                self.deliver()?;
            }
            ToAgent::Lease(grant) => self.lease(grant),
            ToAgent::Job(job) => self.start(*job).await?,
            ToAgent::Cancel => self.cancel.cancel(),
        }
        Ok(())
    }

    fn deliver(&mut self) -> Result<(), AgentError> {
        let asked_for = self.blobs.take_pieces().into_iter().all(|(id, piece)| self.waiting.deliver(id, piece));
        if asked_for { Ok(()) } else { Err(AgentError::Order("a piece of the baseline")) }
    }

    async fn probe(&self, targets: &ProbeTargets, identity: &ClientIdentity) {
        let probes = probe::run(targets, Path::new(&self.socket), identity).await;
        let _ = self.queue.send(FromAgent::Probed { probes }).await;
    }

    fn lease(&mut self, grant: LeaseGrant) {
        match &self.identity {
            Some(shared) => drop(shared.send_replace(grant.identity)),
            None => self.identity = Some(watch::Sender::new(grant.identity)),
        }
    }

    async fn start(&mut self, job: Job) -> Result<(), AgentError> {
        // A job that has said that it is done may not have left yet.
        let leaving = async { while self.work.join_next().await.is_some() {} };
        if tokio::time::timeout(LEAVING, leaving).await.is_err() {
            return Err(AgentError::Order("a second job"));
        }
        let worker = Worker {
            job,
            // A job uses up what was sent for it.
            blobs: std::mem::take(&mut self.blobs),
            identity: self.identity.as_ref().map(watch::Sender::subscribe),
            socket: self.socket.clone(),
            runner: Arc::clone(&self.runner),
            outbox: Outbox::new(self.queue.clone()),
            waiting: self.waiting.clone(),
            cancel: self.cancel.clone(),
        };
        self.work.spawn(worker.run());
        Ok(())
    }
}
