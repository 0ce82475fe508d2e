//! Runs one command in a container for whoever drives the port.
use std::collections::BTreeMap;

use drill::port::{Exec, ExecOutput, ExitStatus, Output};
use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;
use tokio_util::task::TaskTracker;

use super::channel::{self, Channel, Input, Place};
use super::inside::{self, Command, Ended, frame};
use crate::isolation::local::bwrap::ENVIRONMENT;
use crate::isolation::local::exec::{Lines, Tail, clean};

pub(super) async fn exec(place: &Place, exec: Exec, leaving: &TaskTracker) -> Result<ExecOutput, Stop> {
    let program = exec.argv.first().cloned().unwrap_or_default();
    if !program.starts_with('/') {
        return Err(Stop::internal(format!("running {program} in the sandbox: it is no absolute path")));
    }
    let mut said = Said::new(&exec);
    let deadline = exec.deadline;
    let work = async {
        let mut channel = place.open(&[drill::port::PROGRAM, inside::RUN], leaving).await?;
        let mut input = channel.take_input().ok_or_else(|| Stop::internal("a command in a pod has no input"))?;
        let (sent, ended) = tokio::join!(send(&mut input, &exec), said.until_ended(&mut channel));
        // Its input stays open until it has ended: the end of it is the end of the command.
        drop(input);
        // A command that does not read all of its input is no error of ours.
        ended.or_else(|stop| sent.and(Err(stop)))
    };
    let ended = match tokio::time::timeout(deadline, work).await {
        Ok(ended) => Some(ended?),
        Err(_) => None,
    };
    let status = match ended {
        None => ExitStatus::DeadlineExceeded,
        Some(Ended::Code(code)) => ExitStatus::Code(code),
        Some(Ended::Signal(signal)) => ExitStatus::Signal(signal),
        Some(Ended::Refused { why, limit }) => {
            let reason = if limit { Reason::LimitReached } else { Reason::SandboxUnfit };
            return Err(Stop::new(reason, format!("running {program} in the sandbox: {}", clean(&why))));
        }
    };
    let ((stdout, cut_out), (stderr, cut_err)) = (said.out.into_parts(), said.err.into_parts());
    Ok(ExecOutput { status, stdout, stderr, truncated: cut_out || cut_err })
}

async fn send(input: &mut Input, exec: &Exec) -> Result<(), Stop> {
    let mut env: BTreeMap<String, String> =
        ENVIRONMENT.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    env.extend(exec.env.iter().cloned());
    let command = Command { argv: exec.argv.clone(), env };
    let header = serde_json::to_vec(&command).or_stop(Reason::Internal, "writing a command")?;
    channel::write(input, frame::HEADER, &header).await?;
    for piece in exec.stdin.chunks(frame::MAX) {
        channel::write(input, frame::DATA, piece).await?;
    }
    channel::write(input, frame::END, b"").await
}

/// What a command said so far.
struct Said<'a> {
    exec: &'a Exec,
    out: Tail,
    err: Tail,
    out_lines: Lines,
    err_lines: Lines,
}

impl<'a> Said<'a> {
    fn new(exec: &'a Exec) -> Self {
        let tail = || Tail::new(exec.keep);
        Self { exec, out: tail(), err: tail(), out_lines: Lines::default(), err_lines: Lines::default() }
    }

    async fn until_ended(&mut self, channel: &mut Channel) -> Result<Ended, Stop> {
        loop {
            let (kind, payload) = channel.next().await?;
            match kind {
                frame::STDOUT => self.hear(Output::Stdout, &payload),
                frame::STDERR => self.hear(Output::Stderr, &payload),
                frame::RESULT => {
                    self.end();
                    let ended = serde_json::from_slice(&payload);
                    return ended.or_stop(Reason::Internal, "reading how a command in the sandbox ended");
                }
                _ => return Err(Stop::internal("a command in the sandbox answered nonsense")),
            }
        }
    }

    fn hear(&mut self, which: Output, bytes: &[u8]) {
        let (tail, lines) = match which {
            Output::Stdout => (&mut self.out, &mut self.out_lines),
            Output::Stderr => (&mut self.err, &mut self.err_lines),
        };
        tail.push(bytes);
        if let Some(sink) = &self.exec.lines {
            lines.push(bytes, &mut |line| sink(which, line));
        }
    }

    fn end(&mut self) {
        if let Some(sink) = &self.exec.lines {
            self.out_lines.end(&mut |line| sink(Output::Stdout, line));
            self.err_lines.end(&mut |line| sink(Output::Stderr, line));
        }
    }
}
