//! Logs: `tracing` as text or JSON, to standard error, a file or a socket, without waiting for either.
//!
//! Whoever logs hands a line to a bounded queue; one thread, which the [`Guard`] owns, writes. A sink that stalls loses lines, and
//! is told how many when it goes on. A line is one line: what a database or a backup calls itself can neither begin another one
//! nor speak to a terminal.
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use drill::config::{LogFormat, LogLevel, LogSink, Logs};
use drill::ledger::{Damage, Event, PhaseOutcome};
use drill::stop::{OrStop, Stop};
use drill::verdict::{Leftovers, Reason, Verdict};
use tokio::signal::unix::{SignalKind, signal};
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;

use crate::cli::style::{clean, clean_json};
use crate::dispatcher::{Happening, Listener, RunUpdate};

/// Lines that wait for the sink.
const QUEUE: usize = 4_096;
/// How long the last lines may take.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// One datagram may take so long.
const DATAGRAM: Duration = Duration::from_secs(1);

/// From now on what is traced goes to the sink. Once a process.
pub fn init(logs: &Logs) -> Result<Guard, Stop> {
    let (subscriber, guard) = subscriber(logs)?;
    tracing::subscriber::set_global_default(subscriber).or_stop(Reason::Internal, "beginning to log")?;
    Ok(guard)
}

fn subscriber(logs: &Logs) -> Result<(impl Subscriber + Send + Sync + use<>, Guard), Stop> {
    let sink = Sink::open(&logs.sink)?;
    Ok(subscriber_to(sink, logs.format, logs.level, QUEUE))
}

fn subscriber_to(
    sink: Sink,
    format: LogFormat,
    level: LogLevel,
    queue: usize,
) -> (impl Subscriber + Send + Sync + use<>, Guard) {
    let (sender, receiver) = sync_channel(queue);
    let dropped = Arc::new(AtomicU64::new(0));
    let (done, ended) = sync_channel(1);
    let writer = Writer { sink, format, dropped: Arc::clone(&dropped), lost: 0 };
    let thread = std::thread::Builder::new().name("logs".to_owned()).spawn(move || {
        writer.run(&receiver);
        // Nobody may wait for it any more.
        let _ = done.send(());
    });
    let lines = Lines { sender: sender.clone(), dropped, format };
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    // What libraries have to say is for those who write them.
    let filter = Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_targets(["muster", "drivers", "plugin_host"].map(|target| (target, level)));
    let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(lines);
    let layer = match format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.json().flatten_event(true).with_span_list(false).boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(layer.with_filter(filter));
    (subscriber, Guard { sender, ended, _thread: thread.ok() })
}

/// Dropped last: it waits for a moment until what was logged is written.
pub struct Guard {
    sender: SyncSender<Message>,
    ended: Receiver<()>,
    /// Ends with [`Message::End`]; one that is stuck in a sink ends with the process.
    _thread: Option<std::thread::JoinHandle<()>>,
}

impl Guard {
    /// At each SIGHUP a file is opened anew, for whoever moves it away. Never ends.
    pub fn reopen_at_hangup(&self) -> Result<impl Future<Output = Result<(), Stop>> + Send + use<>, Stop> {
        let mut hangup = signal(SignalKind::hangup()).or_stop(Reason::Internal, "listening for SIGHUP")?;
        let sender = self.sender.clone();
        Ok(async move {
            loop {
                hangup.recv().await;
                if sender.try_send(Message::Reopen).is_err() {
                    tracing::warn!("the log was not opened anew: it stalls; send SIGHUP again");
                }
            }
        })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let until = std::time::Instant::now() + LAST_WORDS;
        while let Err(TrySendError::Full(_)) = self.sender.try_send(Message::End) {
            if std::time::Instant::now() > until {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.ended.recv_timeout(LAST_WORDS);
    }
}

enum Message {
    Line(String),
    Reopen,
    End,
}

/// Makes one [`Line`] for each event.
struct Lines {
    sender: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
    format: LogFormat,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { lines: self, bytes: Vec::with_capacity(256) }
    }
}

/// Is queued when it is complete, which is when it is dropped.
struct Line<'a> {
    lines: &'a Lines,
    bytes: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let text = String::from_utf8_lossy(&self.bytes);
        let text = text.strip_suffix('\n').unwrap_or(&text);
        if text.is_empty() {
            return;
        }
        let mut line = match self.lines.format {
            LogFormat::Text => clean(text),
            LogFormat::Json => clean_json(text),
        };
        line.push('\n');
        if self.lines.sender.try_send(Message::Line(line)).is_err() {
            self.lines.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

struct Writer {
    sink: Sink,
    format: LogFormat,
    /// Lines that found the queue full.
    dropped: Arc<AtomicU64>,
    /// Lines that the sink did not take.
    lost: u64,
}

impl Writer {
    fn run(mut self, messages: &Receiver<Message>) {
        while let Ok(message) = messages.recv() {
            match message {
                Message::Line(line) => {
                    self.confess();
                    if self.sink.write(&line).is_err() {
                        self.lost += 1;
                    }
                }
                Message::Reopen => self.sink.reopen(),
                Message::End => {
                    self.confess();
                    return;
                }
            }
        }
    }

    /// Says how much is missing, once the sink takes lines again.
    fn confess(&mut self) {
        self.lost += self.dropped.swap(0, Ordering::Relaxed);
        if self.lost == 0 {
            return;
        }
        let (now, lost) = (jiff::Timestamp::now(), self.lost);
        let line = match self.format {
            LogFormat::Text => {
                format!("{now}  WARN muster::logs: lines were lost because the log stalled lost={lost}\n")
            }
            LogFormat::Json => {
                let line = serde_json::json!({
                    "timestamp": now, "level": "WARN", "target": "muster::logs",
                    "message": "lines were lost because the log stalled", "lost": lost,
                });
                format!("{line}\n")
            }
        };
        if self.sink.write(&line).is_ok() {
            self.lost = 0;
        }
    }
}

enum Sink {
    Stderr,
    File {
        path: PathBuf,
        file: File,
    },
    Socket {
        path: PathBuf,
        socket: UnixDatagram,
    },
    #[cfg(test)]
    Test(Box<dyn Write + Send>),
}

impl Sink {
    fn open(sink: &LogSink) -> Result<Self, Stop> {
        match sink {
            LogSink::Stderr => Ok(Self::Stderr),
            LogSink::File(path) => {
                let file = open(path).or_stop(Reason::Internal, format!("opening the log {}", path.display()))?;
                Ok(Self::File { path: path.clone(), file })
            }
            LogSink::Socket(path) => {
                // Whether somebody listens shows with each line: a collector may begin later, and go.
                let socket = UnixDatagram::unbound().and_then(|socket| {
                    socket.set_write_timeout(Some(DATAGRAM))?;
                    Ok(socket)
                });
                let socket = socket.or_stop(Reason::Internal, "making a socket for the log")?;
                Ok(Self::Socket { path: path.clone(), socket })
            }
        }
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        match self {
            Self::Stderr => io::stderr().lock().write_all(line.as_bytes()),
            Self::File { file, .. } => file.write_all(line.as_bytes()),
            Self::Socket { path, socket } => socket.send_to(line.trim_end().as_bytes(), path).map(|_| ()),
            #[cfg(test)]
            Self::Test(sink) => sink.write_all(line.as_bytes()),
        }
    }

    /// A file that cannot be opened anew is written on where it is.
    fn reopen(&mut self) {
        if let Self::File { path, file } = self
            && let Ok(new) = open(path)
        {
            *file = new;
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}

/// What happens, in the log.
pub struct LogListener;

impl Listener for LogListener {
    fn heard(&self, happening: &Happening) {
        match happening {
            Happening::Run { drill, run, update: RunUpdate::Event(stamped) } => {
                event(drill.as_str(), run.as_str(), &stamped.event);
            }
            // Whoever recovers says so.
            Happening::Run { .. } | Happening::Recovered { .. } => {}
            Happening::Skipped { drill, self_test, slot, why, count } => {
                let (drill, why, slot) = (drill.as_str(), why.as_str(), slot.scheduled_for.to_string());
                let self_test = self_test.map(Damage::as_str);
                tracing::warn!(drill, self_test, slot, why, count, "not run");
            }
            Happening::NotBegun { drill, why } => tracing::warn!(drill = drill.as_str(), why, "could not begin"),
        }
    }
}

fn event(drill: &str, run: &str, event: &Event) {
    match event {
        Event::Started(started) => {
            let trigger = serde_json::to_string(&started.trigger).unwrap_or_default();
            tracing::info!(drill, run, trigger, "run begun");
        }
        Event::PhaseEnded { phase, duration, outcome } => {
            let (phase, seconds) = (phase.as_str(), duration.as_secs_f64());
            if let PhaseOutcome::Stopped(stop) = outcome {
                tracing::warn!(drill, run, phase, seconds, %stop, "phase stopped");
            } else {
                tracing::info!(drill, run, phase, seconds, "phase ended");
            }
        }
        Event::Concluded(summary) => {
            let verdict = summary.verdict.as_str();
            let reason = serde_json::to_value(summary.reason).unwrap_or_default();
            let reason = reason.as_str().unwrap_or_default();
            let (message, recovery) = (&summary.message, summary.recovery_time_milliseconds);
            match summary.verdict {
                Verdict::Passed => {
                    tracing::info!(drill, run, verdict, reason, recovery_time_milliseconds = recovery, "run concluded");
                }
                Verdict::Failed => tracing::error!(drill, run, verdict, reason, why = message, "run concluded"),
                Verdict::Inconclusive => tracing::warn!(drill, run, verdict, reason, why = message, "run concluded"),
            }
        }
        Event::ReleaseFailed { resource, stop } => {
            tracing::error!(drill, run, resource = resource.as_str(), %stop, "not removed");
        }
        Event::Ended { leftovers } => {
            let leftovers = *leftovers == Leftovers::Some;
            tracing::info!(drill, run, leftovers, "run ended");
        }
        _ => {}
    }
}

#[cfg(test)]
#[path = "logs_tests.rs"]
mod tests;
