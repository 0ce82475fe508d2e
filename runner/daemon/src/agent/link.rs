//! The runner's side of the agent. What comes back is hostile: bounded, checked against the job, and made fit for people.
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use drill::agent::{BaselinePart, ClientIdentity, FromAgent, Job, LeaseGrant, ProbeTargets, ToAgent};
use drill::id::Sha256Digest;
use drill::port::AgentProcess;
use drill::proof::Probe;
use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;
use futures_io::{AsyncRead, AsyncWrite};
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt, FuturesAsyncWriteCompatExt};

use super::frame::{self, FrameError, FrameReader, FrameWriter, Kind};
use super::text;
use super::watch::{Heard, JobWatch, broken};

const HELLO: Duration = Duration::from_secs(20);
const PROBE: Duration = Duration::from_secs(45);
/// Of one message to the agent.
const WRITE: Duration = Duration::from_secs(30);
/// Of one blob or piece, and of waiting for its end.
const BLOB: Duration = Duration::from_mins(5);
/// What the agent may take beyond the job's own deadline to say that it is done.
const GRACE: Duration = Duration::from_secs(45);
const CHUNK: usize = 256 << 10;
const MAX_PROBES: usize = 32;
const OBITUARY: usize = 1 << 10;

type Source = Compat<Pin<Box<dyn AsyncRead + Send>>>;
type Sink = Compat<Pin<Box<dyn AsyncWrite + Send>>>;

/// One agent that has said hello. Dropping it, and every [`AgentControl`] of it, closes the agent's input, which ends it.
pub struct AgentLink {
    reader: FrameReader<Source>,
    control: AgentControl,
    stderr: Arc<dyn Fn() -> String + Send + Sync>,
}

/// What may be said to the agent while its job runs.
#[derive(Clone)]
pub struct AgentControl {
    writer: Arc<Mutex<Option<FrameWriter<Sink>>>>,
}

impl AgentLink {
    /// Shakes hands and waits until the agent is ready.
    pub async fn start(process: AgentProcess) -> Result<Self, Stop> {
        let writer = FrameWriter::new(process.stdin.compat_write());
        let mut link = Self {
            reader: FrameReader::new(process.stdout.compat()),
            control: AgentControl { writer: Arc::new(Mutex::new(Some(writer))) },
            stderr: process.stderr,
        };
        let greeted = tokio::time::timeout(HELLO, link.greet()).await;
        match greeted {
            Ok(Ok(())) => Ok(link),
            Ok(Err(stop)) => Err(stop),
            Err(_) => Err(link.obituary("did not say hello in time")),
        }
    }

    async fn greet(&mut self) -> Result<(), Stop> {
        self.control.write(WRITE, Say::Hello).await?;
        match self.reader.hello().await {
            Ok(_) => {}
            Err(FrameError::NoHello) => return Err(self.obituary("ended before it said hello")),
            Err(error) => return Err(self.obituary(&format!("cannot be talked to: {}", drill::stop::chain(&error)))),
        }
        match self.hear().await? {
            FromAgent::Ready => Ok(()),
            _ => Err(broken("said something else than that it is ready")),
        }
    }

    /// For renewing the lease and for cancelling, while [`AgentLink::run_job`] runs.
    pub fn control(&self) -> AgentControl {
        self.control.clone()
    }

    /// Has the agent try to leave its boundary and to log in.
    pub async fn probe(&mut self, targets: ProbeTargets, identity: ClientIdentity) -> Result<Vec<Probe>, Stop> {
        let unproven = |stop: Stop| Stop { reason: Reason::IsolationUnproven, ..stop };
        self.control.send(&ToAgent::Probe { targets, identity }).await.map_err(unproven)?;
        let heard = tokio::time::timeout(PROBE, self.hear())
            .await
            .map_err(|_| unproven(broken("did not finish its probes in time")))?;
        let FromAgent::Probed { probes } = heard.map_err(unproven)? else {
            return Err(unproven(broken("answered the probe with something else")));
        };
        let clean = |probe: Probe| Probe {
            name: text::bounded(&format!("agent: {}", probe.name.strip_prefix("agent: ").unwrap_or(&probe.name)), 256),
            detail: text::bounded(&probe.detail, 512),
            ..probe
        };
        if probes.len() > MAX_PROBES {
            return Err(unproven(broken("sent more probes than there can be")));
        }
        Ok(probes.into_iter().map(clean).collect())
    }

    /// Sends a component or a baseline, which the job names by its digest.
    pub async fn send_blob(&mut self, bytes: &[u8]) -> Result<Sha256Digest, Stop> {
        let digest = Sha256Digest::of(bytes);
        self.control.write(BLOB, Say::Blob(digest, bytes)).await.map_err(|stop| self.with_obituary(stop))?;
        Ok(digest)
    }

    pub async fn lease(&mut self, grant: LeaseGrant) -> Result<(), Stop> {
        self.control.lease(grant).await
    }

    /// Runs the job to its end; `events` gets everything but `Done`, cleaned and within the job's limits. Findings that were
    /// told before an error stand. Waits where nobody takes them, and so does the agent.
    pub async fn run_job(
        &mut self,
        job: Job,
        baselines: &dyn BaselinePieces,
        events: mpsc::Sender<FromAgent>,
    ) -> Result<(), Stop> {
        let mut watch = JobWatch::new(&job, baselines.bytes());
        let deadline = Instant::now() + job.deadline + GRACE;
        self.control.send(&ToAgent::Job(Box::new(job))).await.map_err(|stop| self.with_obituary(stop))?;
        loop {
            let late = |_| Stop::new(Reason::Deadline, "the agent did not end its job by the deadline of the checks");
            let message = tokio::time::timeout_at(deadline, self.hear()).await.map_err(late)??;
            match watch.hear(message)? {
                Heard::Event(event) => {
                    events.send(event).await.or_stop(Reason::Internal, "listening to the agent")?;
                }
                Heard::Want { id, database, part, at, length } => {
                    let piece = baselines.piece(&database, part, at, length).await?;
                    self.control.write(BLOB, Say::Piece(id, &piece)).await.map_err(|stop| self.with_obituary(stop))?;
                }
                Heard::Done => return Ok(()),
            }
        }
    }

    /// Closes the agent's input, which ends it.
    pub async fn close(self) {
        let mut writer = self.control.writer.lock().await;
        if let Some(mut writer) = writer.take() {
            let _ = tokio::time::timeout(Duration::from_secs(1), writer.close()).await;
        }
    }

    async fn hear(&mut self) -> Result<FromAgent, Stop> {
        match self.reader.next().await {
            Ok(Some(frame)) => {
                frame::message(&frame).or_stop(Reason::CheckInconclusive, "the agent cannot be understood")
            }
            Ok(None) | Err(FrameError::Cut | FrameError::Io(_)) => Err(self.obituary("ended before its work was done")),
            Err(error) => Err(self.obituary(&format!("cannot be understood: {}", drill::stop::chain(&error)))),
        }
    }

    fn obituary(&self, what: &str) -> Stop {
        self.with_obituary(broken(what))
    }

    /// What it wrote last is the likeliest reason.
    fn with_obituary(&self, stop: Stop) -> Stop {
        let words = (self.stderr)();
        let from = words.char_indices().rev().map(|(index, _)| index).find(|index| words.len() - index >= OBITUARY);
        let words = text::clean(words[from.unwrap_or(0)..].trim());
        if words.is_empty() { stop } else { Stop { message: format!("{}; it wrote: {words}", stop.message), ..stop } }
    }
}

impl AgentControl {
    /// A renewed lease: connections that are made from now on use it.
    pub async fn lease(&self, grant: LeaseGrant) -> Result<(), Stop> {
        self.send(&ToAgent::Lease(grant)).await
    }

    /// Asks the agent to stop its checks; the job then ends with what was found so far.
    pub async fn cancel(&self) -> Result<(), Stop> {
        self.send(&ToAgent::Cancel).await
    }

    async fn send(&self, message: &ToAgent) -> Result<(), Stop> {
        self.write(WRITE, Say::Message(message)).await
    }

    /// A write that fails, is late or is dropped leaves half a frame behind, so the writer is gone with it.
    async fn write(&self, within: Duration, say: Say<'_>) -> Result<(), Stop> {
        let mut held = tokio::time::timeout(BLOB, self.writer.lock()).await.map_err(|_| broken("takes no messages"))?;
        let mut writer = held.take().ok_or_else(|| broken("takes no messages any more"))?;
        match tokio::time::timeout(within, say.to(&mut writer)).await {
            Ok(Ok(())) => {
                *held = Some(writer);
                Ok(())
            }
            Ok(Err(FrameError::Io(_))) => Err(broken("ended before its work was done")),
            Ok(Err(error)) => Err(broken(&format!("cannot be written to: {}", drill::stop::chain(&error)))),
            Err(_) => Err(broken("did not read what it was sent in time")),
        }
    }
}

/// The files of a baseline that are too large to be sent before somebody asks.
#[async_trait]
pub trait BaselinePieces: Send + Sync {
    /// Of all that may be asked for.
    fn bytes(&self) -> u64;

    /// Fewer bytes than `length` where the file ends before.
    async fn piece(&self, database: &str, part: BaselinePart, at: u64, length: u64) -> Result<Vec<u8>, Stop>;
}

async fn raw(writer: &mut FrameWriter<Sink>, bytes: &[u8]) -> Result<(), FrameError> {
    for chunk in bytes.chunks(CHUNK) {
        writer.frame(Kind::Raw, chunk).await?;
    }
    Ok(())
}

enum Say<'a> {
    Hello,
    Message(&'a ToAgent),
    Blob(Sha256Digest, &'a [u8]),
    Piece(u64, &'a [u8]),
}

impl Say<'_> {
    async fn to(self, writer: &mut FrameWriter<Sink>) -> Result<(), FrameError> {
        match self {
            Self::Hello => writer.hello().await,
            Self::Message(message) => writer.message(message).await,
            Self::Blob(digest, bytes) => {
                writer.message(&ToAgent::Blob { digest, size: bytes.len() as u64 }).await?;
                raw(writer, bytes).await
            }
            Self::Piece(id, bytes) => {
                let (digest, size) = (Sha256Digest::of(bytes), bytes.len() as u64);
                writer.message(&ToAgent::Given { id, digest, size }).await?;
                raw(writer, bytes).await
            }
        }
    }
}
