//! Runs one command inside: its streams are pipes that the runner reads all the time and keeps the end of.
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use drill::port::{Exec, ExecOutput, ExitStatus, LineSink, Output};
use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe::{Receiver, Sender};

use super::bwrap::ENVIRONMENT;
use super::control::{Command, Control};
use super::inside::FromInit;
use super::spawn;

const LINE: usize = 64 << 10;
/// How long output is still read after the command ended, where what it left behind holds the pipes open.
const DRAIN: Duration = Duration::from_millis(500);
/// How long a killed command may take to be reported.
const END: Duration = Duration::from_secs(5);

pub(super) async fn exec(control: &Control, exec: Exec) -> Result<ExecOutput, Stop> {
    let program = exec.argv.first().cloned().unwrap_or_default();
    let tried = || format!("running {program} in the sandbox");
    if !program.starts_with('/') {
        return Err(Stop::internal(format!("{}: it is no absolute path", tried())));
    }
    let (stdin, stdin_writer) = spawn::pipe().or_stop(Reason::Internal, tried())?;
    let (stdout_reader, stdout) = spawn::pipe().or_stop(Reason::Internal, tried())?;
    let (stderr_reader, stderr) = spawn::pipe().or_stop(Reason::Internal, tried())?;
    let stdout_reader = Receiver::from_owned_fd(stdout_reader).or_stop(Reason::Internal, tried())?;
    let stderr_reader = Receiver::from_owned_fd(stderr_reader).or_stop(Reason::Internal, tried())?;
    let mut env: Vec<(String, String)> = ENVIRONMENT.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    env.extend(exec.env);
    let (out, err) = (shared_tail(exec.keep), shared_tail(exec.keep));
    let mut command = control.start(exec.argv, env, [stdin, stdout, stderr]).await?;

    let writing = write(stdin_writer, &exec.stdin);
    let reading = async {
        let line_sink = exec.lines.as_ref();
        tokio::join!(
            drain(stdout_reader, &out, line_sink, Output::Stdout),
            drain(stderr_reader, &err, line_sink, Output::Stderr)
        )
    };
    let streams = async { tokio::join!(writing, reading) };
    let ended = run(&mut command, streams, exec.deadline).await?;
    let status = match ended {
        None => ExitStatus::DeadlineExceeded,
        Some(FromInit::Exited { code, .. }) => ExitStatus::Code(code),
        Some(FromInit::Signaled { signal, .. }) => ExitStatus::Signal(signal),
        Some(FromInit::Refused { why, limit, .. }) => {
            let reason = if limit { Reason::LimitReached } else { Reason::SandboxUnfit };
            return Err(Stop::new(reason, format!("{}: {}", tried(), clean(&why))));
        }
        Some(FromInit::Ready | FromInit::Started { .. }) => {
            return Err(Stop::internal("the sandbox answered nonsense"));
        }
    };
    let (stdout, cut_out) = take(&out);
    let (stderr, cut_err) = take(&err);
    Ok(ExecOutput { status, stdout, stderr, truncated: cut_out || cut_err })
}

/// None where the deadline came first, and the command was killed.
async fn run(
    command: &mut Command,
    streams: impl Future<Output = ((), ((), ()))>,
    deadline: Duration,
) -> Result<Option<FromInit>, Stop> {
    tokio::pin!(streams);
    let limit = tokio::time::sleep(deadline);
    tokio::pin!(limit);
    let mut streaming = true;
    loop {
        tokio::select! {
            ended = command.ended() => {
                if streaming {
                    let _ = tokio::time::timeout(DRAIN, &mut streams).await;
                }
                return ended.map(Some);
            }
            _ = &mut streams, if streaming => streaming = false,
            () = &mut limit => break,
        }
    }
    command.kill();
    let end = async {
        let _ = command.ended().await;
        if streaming {
            let _ = tokio::time::timeout(DRAIN, &mut streams).await;
        }
    };
    let _ = tokio::time::timeout(END, end).await;
    Ok(None)
}

/// A command that does not read all of its input is no error of ours.
async fn write(to: OwnedFd, bytes: &[u8]) {
    if let Ok(mut to) = Sender::from_owned_fd(to) {
        let _ = to.write_all(bytes).await;
    }
}

async fn drain(mut from: Receiver, tail: &Mutex<Tail>, sink: Option<&LineSink>, which: Output) {
    let mut buffer = vec![0; 32 << 10];
    let mut lines = Lines::default();
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if let Ok(mut tail) = tail.lock() {
            tail.push(&buffer[..read]);
        }
        if let Some(sink) = sink {
            lines.push(&buffer[..read], &mut |line| sink(which, line));
        }
    }
    if let Some(sink) = sink {
        lines.end(&mut |line| sink(which, line));
    }
}

fn shared_tail(keep: usize) -> Arc<Mutex<Tail>> {
    Arc::new(Mutex::new(Tail::new(keep)))
}

fn take(tail: &Mutex<Tail>) -> (Vec<u8>, bool) {
    tail.lock().map(|mut tail| (std::mem::take(&mut tail.kept).into(), tail.cut)).unwrap_or_default()
}

/// Text from inside that goes into a message for a person: one short line.
pub(in crate::isolation) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(500).collect()
}

/// The end of what was pushed.
#[derive(Debug)]
pub(in crate::isolation) struct Tail {
    kept: VecDeque<u8>,
    keep: usize,
    cut: bool,
}

impl Tail {
    pub(in crate::isolation) fn new(keep: usize) -> Self {
        Self { kept: VecDeque::new(), keep, cut: false }
    }

    pub(in crate::isolation) fn push(&mut self, bytes: &[u8]) {
        let fits = &bytes[bytes.len().saturating_sub(self.keep)..];
        let too_many = (self.kept.len() + fits.len()).saturating_sub(self.keep);
        self.cut |= too_many > 0 || fits.len() < bytes.len();
        self.kept.drain(..too_many);
        self.kept.extend(fits);
    }

    pub(in crate::isolation) fn into_parts(self) -> (Vec<u8>, bool) {
        (self.kept.into(), self.cut)
    }

    pub(in crate::isolation) fn text(&self) -> String {
        let (first, second) = self.kept.as_slices();
        String::from_utf8_lossy(&[first, second].concat()).into_owned()
    }
}

/// Lines of at most [`LINE`] bytes; the rest of a longer one is left out.
#[derive(Debug, Default)]
pub(in crate::isolation) struct Lines {
    line: Vec<u8>,
}

impl Lines {
    pub(in crate::isolation) fn push(&mut self, bytes: &[u8], tell: &mut dyn FnMut(&str)) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let text = part.strip_suffix(b"\n").unwrap_or(part);
            let room = LINE - self.line.len();
            self.line.extend(&text[..text.len().min(room)]);
            if part.len() > text.len() {
                tell(&String::from_utf8_lossy(&self.line));
                self.line.clear();
            }
        }
    }

    pub(in crate::isolation) fn end(&mut self, tell: &mut dyn FnMut(&str)) {
        if !self.line.is_empty() {
            tell(&String::from_utf8_lossy(&self.line));
            self.line.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_keeps_the_end_and_says_that_it_was_cut() {
        let mut tail = Tail::new(4);
        tail.push(b"abcd");
        assert!(!tail.cut);
        tail.push(b"efghijk");
        assert_eq!((tail.text().as_str(), tail.cut), ("hijk", true));
        tail.push(b"l");
        assert_eq!(tail.text(), "ijkl");
    }

    #[test]
    fn lines_come_whole_and_bounded() {
        let mut seen = Vec::new();
        let mut lines = Lines::default();
        let mut tell = |line: &str| seen.push(line.to_owned());
        lines.push(b"one\ntw", &mut tell);
        lines.push(b"o\n\n", &mut tell);
        lines.push(&vec![b'x'; LINE + 10], &mut tell);
        lines.push(b"\nlast", &mut tell);
        lines.end(&mut tell);
        assert_eq!(seen.iter().map(String::len).collect::<Vec<_>>(), [3, 3, 0, LINE, 4]);
    }
}
