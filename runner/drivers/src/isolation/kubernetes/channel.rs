//! One command in a container, over the API server's `exec`: frames in, frames out.
use std::pin::Pin;
use std::time::Duration;

use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{AttachParams, AttachedProcess};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_util::task::TaskTracker;

use super::cluster;
use super::inside::frame;
use crate::isolation::local::exec::Tail;

const BUFFER: usize = 1 << 20;
const STDERR: usize = 4 << 10;
/// What a command may take to end once its input has.
const LEAVE: Duration = Duration::from_secs(5);

/// Where a command runs.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) pods: Api<Pod>,
    pub(super) pod: &'static str,
    pub(super) container: &'static str,
}

pub(super) type Output = Pin<Box<dyn AsyncRead + Send>>;

/// A command's input. Dropping it ends it, which the end of the connection alone would not.
pub(super) struct Input {
    writer: Option<Pin<Box<dyn AsyncWrite + Send>>>,
    leaving: TaskTracker,
}

impl Drop for Input {
    fn drop(&mut self) {
        // Outside of a runtime there is nobody to say goodbye.
        if let (Some(mut writer), Ok(_)) = (self.writer.take(), tokio::runtime::Handle::try_current()) {
            self.leaving.spawn(async move {
                let _ = tokio::time::timeout(LEAVE, writer.shutdown()).await;
            });
        }
    }
}

impl Place {
    pub(super) async fn attach(&self, argv: &[&str]) -> Result<AttachedProcess, Stop> {
        let parameters = AttachParams::default()
            .container(self.container)
            .stdin(true)
            .stdout(true)
            .stderr(true)
            .max_stdin_buf_size(BUFFER)
            .max_stdout_buf_size(BUFFER)
            .max_stderr_buf_size(STDERR);
        let tried = format!("starting a command in pod `{}`", self.pod);
        // One that began twice ends at once, because nobody gives it any input.
        cluster::request(tried, || self.pods.exec(self.pod, argv.iter().copied(), &parameters)).await
    }

    /// Starts one of muster's own commands, which speaks in frames.
    pub(super) async fn open(&self, argv: &[&str], leaving: &TaskTracker) -> Result<Channel, Stop> {
        let mut attached = self.attach(argv).await?;
        let streams = (attached.stdin(), attached.stdout(), attached.stderr());
        let (Some(input), Some(output), Some(stderr)) = streams else {
            return Err(Stop::internal("a command in a pod has no streams"));
        };
        let words = leaving.spawn(last_words(Box::pin(stderr)));
        Ok(Channel {
            input: Some(Input { writer: Some(Box::pin(input)), leaving: leaving.clone() }),
            output: Box::pin(output),
            attached: Some(attached),
            words: Some(words),
            leaving: leaving.clone(),
        })
    }
}

/// Dropping it ends the command: its input ends, and it has a moment to notice.
pub(super) struct Channel {
    input: Option<Input>,
    output: Output,
    attached: Option<AttachedProcess>,
    words: Option<tokio::task::JoinHandle<String>>,
    leaving: TaskTracker,
}

impl Channel {
    pub(super) fn take_input(&mut self) -> Option<Input> {
        self.input.take()
    }

    /// None where the stream ended between frames, which no command of ours does before its last one.
    pub(super) async fn next(&mut self) -> Result<(u8, Vec<u8>), Stop> {
        match read(&mut self.output).await {
            Ok(frame) => Ok(frame),
            Err(error) => Err(self.obituary(&error.to_string()).await),
        }
    }

    async fn obituary(&mut self, how: &str) -> Stop {
        let words = match self.words.take() {
            Some(words) => tokio::time::timeout(Duration::from_secs(1), words).await.ok().and_then(Result::ok),
            None => None,
        };
        let words = words.filter(|words| !words.is_empty()).map(|words| format!(": {words}")).unwrap_or_default();
        Stop::internal(format!("a command in the sandbox was cut off ({how}){words}"))
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // It hears of the end of its input through the connection, so that lives on for a moment.
        if let (Some(attached), Ok(_)) = (self.attached.take(), tokio::runtime::Handle::try_current()) {
            self.leaving.spawn(async move {
                let _ = tokio::time::timeout(LEAVE, attached.join()).await;
            });
        }
    }
}

async fn last_words(mut stderr: Output) -> String {
    let mut tail = Tail::new(STDERR);
    let mut buffer = vec![0; STDERR];
    while let Ok(read @ 1..) = stderr.read(&mut buffer).await {
        tail.push(&buffer[..read]);
    }
    crate::isolation::local::exec::clean(tail.text().trim())
}

async fn read(output: &mut Output) -> std::io::Result<(u8, Vec<u8>)> {
    let mut head = [0; frame::HEAD];
    output.read_exact(&mut head).await?;
    let (kind, length) = frame::parse_head(head)?;
    let mut payload = vec![0; length];
    output.read_exact(&mut payload).await?;
    Ok((kind, payload))
}

pub(super) async fn write(input: &mut Input, kind: u8, payload: &[u8]) -> Result<(), Stop> {
    let tried = "sending to a command in the sandbox";
    let writer = input.writer.as_mut().ok_or_else(|| Stop::internal(format!("{tried}: its input has ended")))?;
    let head = frame::head(kind, payload.len()).or_stop(Reason::Internal, tried)?;
    writer.write_all(&head).await.or_stop(Reason::Internal, tried)?;
    writer.write_all(payload).await.or_stop(Reason::Internal, tried)?;
    writer.flush().await.or_stop(Reason::Internal, tried)
}
