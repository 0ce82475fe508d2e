//! What a language's runtime needs to start, and nothing behind it: no files, no sockets, no environment, no arguments. What
//! it prints goes to the check's log; its clock starts at the run's and only goes forward.
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use drill::spec::CheckLimits;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtx};

use crate::backend::Reporter;
use crate::limits::Limit;

/// A line is passed on at the latest when it is this long: every message of the agent must fit its frame.
const MAX_LINE: usize = 16 << 10;
/// What is kept of the last output, to explain a trap: a panic's message comes right before it.
const TAIL: usize = 1_000;
const MAX_RANDOM: u64 = 64 << 10;

pub(crate) fn context(log: &Log, now: jiff::Timestamp) -> WasiCtx {
    let clock = Clock {
        start: Instant::now(),
        at: Duration::try_from(now.duration_since(jiff::Timestamp::UNIX_EPOCH)).unwrap_or_default(),
    };
    WasiCtx::builder()
        .stdout(Output(log.clone()))
        .stderr(Output(log.clone()))
        .wall_clock(clock)
        .monotonic_clock(clock)
        .max_random_size(MAX_RANDOM)
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        .build()
}

/// The one bounded log of a check: what it writes and what its runtime prints.
#[derive(Clone)]
pub(crate) struct Log(Arc<Mutex<Lines>>);

struct Lines {
    reporter: Option<Arc<dyn Reporter>>,
    limits: CheckLimits,
    used: u64,
    /// Printed, without an end of line so far.
    partial: Vec<u8>,
    tail: VecDeque<u8>,
}

impl Log {
    /// Without a reporter the log is counted and dropped.
    pub(crate) fn new(reporter: Option<Arc<dyn Reporter>>, limits: CheckLimits) -> Self {
        Self(Arc::new(Mutex::new(Lines { reporter, limits, used: 0, partial: Vec::new(), tail: VecDeque::new() })))
    }

    /// A message of its own.
    pub(crate) fn write(&self, message: &str) -> Result<(), Limit> {
        let mut lines = self.lock();
        lines.charge(message.len() + 1)?;
        lines.tell(message.as_bytes());
        Ok(())
    }

    /// A part of what the runtime prints.
    fn print(&self, bytes: &[u8]) -> Result<(), Limit> {
        let mut lines = self.lock();
        lines.charge(bytes.len())?;
        for byte in bytes {
            if lines.tail.len() == TAIL {
                lines.tail.pop_front();
            }
            lines.tail.push_back(*byte);
            if *byte != b'\n' {
                lines.partial.push(*byte);
            }
            if *byte == b'\n' || lines.partial.len() == MAX_LINE {
                let line = std::mem::take(&mut lines.partial);
                lines.tell(&line);
            }
        }
        Ok(())
    }

    /// Passes on what has no end of line yet.
    pub(crate) fn finish(&self) {
        let mut lines = self.lock();
        let line = std::mem::take(&mut lines.partial);
        if !line.is_empty() {
            lines.tell(&line);
        }
    }

    /// The end of what was printed, on one line.
    pub(crate) fn tail(&self) -> String {
        let bytes: Vec<u8> = self.lock().tail.iter().copied().collect();
        String::from_utf8_lossy(&bytes).split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    fn charge(&mut self, bytes: usize) -> Result<(), Limit> {
        self.used = self.used.saturating_add(bytes as u64);
        if self.used > self.limits.log_bytes { Err(Limit::log_bytes(self.used, &self.limits)) } else { Ok(()) }
    }

    fn tell(&self, line: &[u8]) {
        let Some(reporter) = &self.reporter else { return };
        if line.is_empty() {
            reporter.log(String::new());
        }
        for piece in line.chunks(MAX_LINE) {
            reporter.log(String::from_utf8_lossy(piece).into_owned());
        }
    }
}

struct Output(Log);

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Output {
    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        // Only the preview 2 interfaces are linked, and those use the other stream.
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(Self(self.0.clone()))
    }
}

#[async_trait::async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {}
}

#[async_trait::async_trait]
impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.0.print(&bytes).map_err(|limit| wasmtime_wasi::p2::StreamError::Trap(limit.into()))
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(MAX_LINE)
    }
}

/// Starts at a given time and follows a clock that cannot be set.
#[derive(Clone, Copy)]
struct Clock {
    start: Instant,
    at: Duration,
}

impl HostWallClock for Clock {
    fn resolution(&self) -> Duration {
        Duration::from_micros(1)
    }

    fn now(&self) -> Duration {
        self.at.saturating_add(self.start.elapsed())
    }
}

impl HostMonotonicClock for Clock {
    fn resolution(&self) -> u64 {
        1_000
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}
