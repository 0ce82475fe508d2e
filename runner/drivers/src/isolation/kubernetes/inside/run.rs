//! One command for the runner. Its description and its input come as frames; what it says and how it ended go back as frames.
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ExitCode, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{DumpableBehavior, Pid, Signal};
use serde::{Deserialize, Serialize};

use super::frame;

/// How long output is still read after the command ended, where what it left behind holds the pipes open.
const DRAIN: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Command {
    pub(in super::super) argv: Vec<String>,
    pub(in super::super) env: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(in super::super) enum Ended {
    Code(i32),
    Signal(i32),
    /// It could not be started.
    Refused {
        why: String,
        /// Of processes, memory or descriptors.
        limit: bool,
    },
}

type Out = Arc<Mutex<io::Stdout>>;

pub(super) fn main() -> io::Result<ExitCode> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let mut input = io::stdin();
    let mut payload = Vec::new();
    if frame::read(&mut input, &mut payload)? != frame::HEADER {
        return Err(super::not_to_be_typed());
    }
    let command: Command = serde_json::from_slice(&payload).map_err(io::Error::other)?;
    let out: Out = Arc::new(Mutex::new(io::stdout()));
    let ended = match start(&command) {
        Ok(child) => follow(child, input, &out)?,
        Err(error) => refused(&error),
    };
    let text = serde_json::to_vec(&ended)?;
    say(&out, frame::RESULT, &text)?;
    Ok(ExitCode::SUCCESS)
}

fn start(command: &Command) -> io::Result<Child> {
    let (program, arguments) = command.argv.split_first().ok_or_else(super::not_to_be_typed)?;
    std::process::Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(&command.env)
        .current_dir("/tmp")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}

fn refused(error: &io::Error) -> Ended {
    let limits = [libc::EAGAIN, libc::ENOMEM, libc::EMFILE, libc::ENFILE];
    let limit = error.raw_os_error().is_some_and(|number| limits.contains(&number));
    Ended::Refused { why: error.to_string(), limit }
}

fn follow(mut child: Child, input: io::Stdin, out: &Out) -> io::Result<Ended> {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let group = group.ok_or_else(|| io::Error::other("no process"))?;
    let (drained, streams) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        let (out, drained) = (Arc::clone(out), drained.clone());
        std::thread::Builder::new().spawn(move || drained.send(copy(stdout, frame::STDOUT, &out, group)))?;
    }
    if let Some(stderr) = child.stderr.take() {
        let out = Arc::clone(out);
        std::thread::Builder::new().spawn(move || drained.send(copy(stderr, frame::STDERR, &out, group)))?;
    }
    let stdin = child.stdin.take();
    std::thread::Builder::new().spawn(move || feed(input, stdin, group))?;
    let status = child.wait()?;
    for _ in 0..2 {
        if let Err(RecvTimeoutError::Timeout) = streams.recv_timeout(DRAIN) {
            break;
        }
    }
    Ok(status.code().map_or_else(|| Ended::Signal(status.signal().unwrap_or(0)), Ended::Code))
}

/// The end of the runner's stream is the end of the command, whatever it is doing.
fn feed(mut input: impl Read, mut to: Option<impl Write>, group: Pid) {
    let mut payload = Vec::new();
    loop {
        match frame::read(&mut input, &mut payload) {
            Ok(frame::DATA) => {
                // A command that does not read all of its input is no error of ours.
                if to.as_mut().is_some_and(|to| to.write_all(&payload).is_err()) {
                    to = None;
                }
            }
            Ok(frame::END) => to = None,
            Ok(_) | Err(_) => {
                let _ = rustix::process::kill_process_group(group, Signal::KILL);
                return;
            }
        }
    }
}

fn copy(mut from: impl Read, kind: u8, out: &Out, group: Pid) {
    let mut buffer = vec![0; 32 << 10];
    loop {
        match from.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => return,
            Ok(read) => {
                if say(out, kind, &buffer[..read]).is_err() {
                    // Nobody listens any more.
                    let _ = rustix::process::kill_process_group(group, Signal::KILL);
                    return;
                }
            }
        }
    }
}

fn say(out: &Out, kind: u8, payload: &[u8]) -> io::Result<()> {
    frame::write(&mut *out.lock().unwrap_or_else(PoisonError::into_inner), kind, payload)
}
