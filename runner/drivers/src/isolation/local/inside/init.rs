//! The sandbox's first command. Starts and ends commands for the runner over a socket that only the two hold, and relays
//! connections to the database.
//!
//! It shares its user id with hostile processes. They cannot open its descriptors, because it is not dumpable; they can stop or
//! kill it, which ends the sandbox.
use std::collections::HashMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::{Errno, FdFlags};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendFlags, recvmsg, sendmsg,
};
use rustix::process::{DumpableBehavior, Pid, Signal, WaitId, WaitIdOptions};

use super::{FromInit, MAX_MESSAGE, ToInit, relay};

/// Commands at one time.
const MAX_COMMANDS: usize = 64;

type Commands = Arc<Mutex<HashMap<u64, Pid>>>;

/// Arguments: the descriptor of the control socket, the listening descriptor of the relay, the database's port.
pub(super) fn main(arguments: &[String]) -> ExitCode {
    match serve(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("muster {}: {error}", super::INIT);
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: &[String]) -> io::Result<()> {
    let [control, listener, port] = arguments else { return Err(io::Error::other("it is not meant to be typed")) };
    // From here on nothing inside can open our descriptors or read our memory; commands become dumpable again by their execve.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let control = Arc::new(inherited(control)?);
    relay::start(inherited(listener)?, port.parse().map_err(io::Error::other)?)?;
    send(&control, &FromInit::Ready)?;
    let commands = Commands::default();
    let mut buffer = vec![0; MAX_MESSAGE];
    // The end of the socket is the end of the runner.
    while let Some((length, pipes)) = receive(&control, &mut buffer)? {
        let message = serde_json::from_slice(&buffer[..length]).map_err(io::Error::other)?;
        match message {
            ToInit::Exec { id, argv, env } => match start(id, &argv, env, pipes, &commands, &control) {
                Ok(pid) => send(&control, &FromInit::Started { id, pid })?,
                Err(error) => send(&control, &refused(id, &error))?,
            },
            ToInit::Kill { id } => {
                // Under the lock, so that the number is not another's by now: it is reaped under it too.
                if let Some(group) = lock(&commands).get(&id) {
                    let _ = rustix::process::kill_process_group(*group, Signal::KILL);
                }
            }
        }
    }
    Ok(())
}

fn start(
    id: u64,
    argv: &[String],
    env: Vec<(String, String)>,
    pipes: Vec<OwnedFd>,
    commands: &Commands,
    control: &Arc<OwnedFd>,
) -> io::Result<u32> {
    let [stdin, stdout, stderr] =
        <[OwnedFd; 3]>::try_from(pipes).map_err(|_| io::Error::other("a command comes with three pipes"))?;
    let (program, arguments) = argv.split_first().ok_or_else(|| io::Error::other("the command is empty"))?;
    let mut running = lock(commands);
    if running.len() >= MAX_COMMANDS {
        return Err(io::Error::other("64 commands are running"));
    }
    let mut command = Command::new(program);
    command.args(arguments).envs(env).current_dir("/tmp").process_group(0);
    command.stdin(Stdio::from(stdin)).stdout(Stdio::from(stdout)).stderr(Stdio::from(stderr));
    let child = command.spawn()?;
    drop(command);
    let number = child.id();
    let pid = i32::try_from(number).ok().and_then(Pid::from_raw).ok_or_else(|| io::Error::other("no process"))?;
    let (ours, control) = (Arc::clone(commands), Arc::clone(control));
    let wait = move || {
        let ended = wait(id, pid, child, &ours);
        let _ = send(&control, &ended);
    };
    // It waits for the lock that we hold.
    let waiting = std::thread::Builder::new().stack_size(128 << 10).spawn(wait);
    if let Err(error) = waiting {
        let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
        return Err(error);
    }
    running.insert(id, pid);
    Ok(number)
}

fn refused(id: u64, error: &io::Error) -> FromInit {
    let limits = [libc::EAGAIN, libc::ENOMEM, libc::EMFILE, libc::ENFILE];
    let limit = error.raw_os_error().is_some_and(|number| limits.contains(&number));
    FromInit::Refused { id, why: error.to_string(), limit }
}

fn wait(id: u64, pid: Pid, mut child: Child, commands: &Commands) -> FromInit {
    // Seen first and reaped under the lock: until then its number cannot be given to another.
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    while let Err(Errno::INTR) = rustix::process::waitid(WaitId::Pid(pid), options) {}
    let mut running = lock(commands);
    let status = child.wait();
    running.remove(&id);
    match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => FromInit::Exited { id, code },
            (None, signal) => FromInit::Signaled { id, signal: signal.unwrap_or(0) },
        },
        Err(error) => refused(id, &error),
    }
}

fn lock(commands: &Commands) -> std::sync::MutexGuard<'_, HashMap<u64, Pid>> {
    commands.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes a descriptor that bubblewrap passed on; no command may inherit it.
#[expect(unsafe_code, reason = "a number from the command line becomes an owned descriptor")]
fn inherited(number: &str) -> io::Result<OwnedFd> {
    let raw: RawFd = number.parse().map_err(io::Error::other)?;
    if raw < 3 {
        return Err(io::Error::other("a standard descriptor is not ours to take"));
    }
    // SAFETY: the runner passed this number for this use; it is taken once, before any other thread or descriptor exists.
    let borrowed = unsafe { BorrowedFd::borrow_raw(raw) };
    rustix::io::fcntl_setfd(borrowed, FdFlags::CLOEXEC)?;
    // SAFETY: it is open, as fcntl has just shown, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn send(control: &OwnedFd, message: &FromInit) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    let mut nothing = SendAncillaryBuffer::new(&mut []);
    sendmsg(control, &[IoSlice::new(&bytes)], &mut nothing, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive(control: &OwnedFd, buffer: &mut [u8]) -> io::Result<Option<(usize, Vec<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut slices = [IoSliceMut::new(buffer)];
        match recvmsg(control.as_fd(), &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut pipes = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            pipes.extend(fds);
        }
    }
    Ok((received.bytes > 0).then_some((received.bytes, pipes)))
}
