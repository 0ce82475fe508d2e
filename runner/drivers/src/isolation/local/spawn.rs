//! Starts bubblewrap: from one permanent thread, as the run's own user, in its cgroup, with nothing inherited.
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Sender;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use drill::spec::Limits;
use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;
use rustix::fs::Mode;
use rustix::io::FdFlags;
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, Resource, Rlimit, Signal};
use rustix::thread::{Gid, Uid};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::{RwLock, oneshot};

use super::bwrap::{self, Descriptors, Inside, Outside};
use super::cgroup::Group;
use super::exec::Tail;
use super::process::{self, Process};
use super::{seccomp, sys};

const START: Duration = Duration::from_secs(30);
const KEPT_OF_STDERR: usize = 64 << 10;

type Job = Box<dyn FnOnce() + Send>;

/// `--die-with-parent` ends a sandbox when the thread that started it ends; this one never does.
static SPAWNER: LazyLock<Option<Sender<Job>>> = LazyLock::new(|| {
    let (sender, jobs) = std::sync::mpsc::channel::<Job>();
    let work = move || jobs.into_iter().for_each(|job| job());
    std::thread::Builder::new().name("sandbox-spawner".to_owned()).spawn(work).ok().map(|_| sender)
});

pub(super) struct Launch {
    pub(super) bwrap: PathBuf,
    /// The zeroth argument, by which a leftover is found.
    pub(super) name: String,
    pub(super) inside: Inside,
    pub(super) outside: Outside,
    pub(super) limits: Limits,
    pub(super) command: Vec<String>,
    /// The host's; never 0.
    pub(super) uid: u32,
    pub(super) rlimits: Vec<(Resource, Rlimit)>,
    pub(super) group: Group,
    /// The only descriptors, beside the standard three, that the command gets; under the numbers that they have here.
    pub(super) inherit: Vec<OwnedFd>,
    pub(super) stdin: OwnedFd,
    /// None: with standard error.
    pub(super) stdout: Option<OwnedFd>,
}

/// A sandbox that runs. Dropping it ends it.
pub(super) struct Running {
    /// bubblewrap outside.
    pub(super) outer: Process,
    /// The namespace's first process: when it has ended, so has everything in it.
    pub(super) first: Process,
    pub(super) stderr: Arc<Mutex<Tail>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.first.kill();
        self.outer.kill();
    }
}

/// Goes on to its end even where nobody awaits it any more: bubblewrap's child waits for its parent before it asks to die with
/// it, so a parent killed in that moment leaves it waiting for ever. (muster itself killed in that moment does too; then
/// `release` finds the child by its name.)
pub(super) async fn launch(launch: Launch, making: Arc<RwLock<()>>) -> Result<Running, Stop> {
    let guard = making.read_owned().await;
    let to_the_end = async {
        let running = launch_to_the_end(launch).await;
        drop(guard);
        running
    };
    tokio::spawn(to_the_end).await.or_stop(Reason::Internal, "starting bubblewrap")?
}

async fn launch_to_the_end(launch: Launch) -> Result<Running, Stop> {
    let tried = "starting bubblewrap";
    if launch.uid == 0 {
        return Err(Stop::internal("a sandbox must never run as user id 0"));
    }
    let (reply, answer) = oneshot::channel();
    let job = move || drop(reply.send(start(launch)));
    let gone = || Stop::internal("the thread that starts sandboxes is gone");
    SPAWNER.as_ref().ok_or_else(gone)?.send(Box::new(job)).map_err(|_| gone())?;
    let started = answer.await.map_err(|_| gone())??;
    let stderr = Arc::new(Mutex::new(Tail::new(KEPT_OF_STDERR)));
    let read = Receiver::from_owned_fd(started.stderr).or_stop(Reason::Internal, tried)?;
    let reading = tokio::spawn(keep_tail(read, Arc::clone(&stderr)));
    let info = Receiver::from_owned_fd(started.info).or_stop(Reason::Internal, tried)?;
    match tokio::time::timeout(START, first_process(info)).await {
        Ok(Ok(first)) => {
            let gone = || Stop::new(Reason::SandboxUnfit, format!("{tried}: it ended at once"));
            Ok(Running { outer: started.outer.keep().ok_or_else(gone)?, first, stderr })
        }
        Ok(Err(error)) => {
            drop(started.outer);
            let _ = tokio::time::timeout(Duration::from_secs(1), reading).await;
            let said = stderr.lock().map(|tail| tail.text()).unwrap_or_default();
            let said = if said.is_empty() { error.to_string() } else { said };
            Err(Stop::new(Reason::SandboxUnfit, format!("{tried}: {}", said.trim())).advise("type `muster doctor`"))
        }
        Err(_) => Err(Stop::new(Reason::SandboxUnfit, format!("{tried}: it did not start within 30 s"))),
    }
}

/// Ends what was started unless it was kept. None where it had ended before it could be looked at.
struct Guard(Option<Process>);

impl Guard {
    fn keep(mut self) -> Option<Process> {
        self.0.take()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(process) = &self.0 {
            process.kill();
        }
    }
}

struct Started {
    outer: Guard,
    info: OwnedFd,
    stderr: OwnedFd,
}

fn start(launch: Launch) -> Result<Started, Stop> {
    let tried = "starting bubblewrap";
    let [listed, absent] = seccomp::programs()?;
    let (listed, absent) = (prefilled(&listed), prefilled(&absent));
    let (listed, absent) = (listed.or_stop(Reason::Internal, tried)?, absent.or_stop(Reason::Internal, tried)?);
    let (info, info_writer) = pipe().or_stop(Reason::Internal, tried)?;
    let (stderr, stderr_writer) = pipe().or_stop(Reason::Internal, tried)?;
    let number = |fd: &OwnedFd| fd.as_raw_fd().to_string();
    let fds = Descriptors { seccomp: [number(&listed), number(&absent)], info: number(&info_writer) };
    let arguments = bwrap::arguments(&launch.inside, &launch.outside, &fds, &launch.limits);
    let arguments = prefilled(&joined(arguments)).or_stop(Reason::Internal, tried)?;

    let mut command = Command::new(&launch.bwrap);
    command.arg0(&launch.name).arg("--args").arg(number(&arguments)).arg("--").args(&launch.command);
    // A signal that a terminal sends to muster's process group is for muster: the sandbox ends by teardown.
    command.process_group(0);
    command.env_clear().current_dir("/").stdin(Stdio::from(launch.stdin));
    let stdout = match launch.stdout {
        Some(stdout) => stdout,
        None => stderr_writer.try_clone().or_stop(Reason::Internal, tried)?,
    };
    command.stdout(Stdio::from(stdout)).stderr(Stdio::from(stderr_writer));
    let mut inherit = launch.inherit;
    inherit.extend([listed, absent, info_writer, arguments]);
    let doors = launch.group.doors().or_stop(Reason::SandboxUnfit, "opening the sandbox's cgroup")?;
    before_exec(&mut command, Prepared { uid: launch.uid, doors, rlimits: launch.rlimits, inherit });
    let child = command.spawn().map_err(|error| {
        let stop = Stop::new(Reason::SandboxUnfit, format!("{tried} ({}): {error}", launch.bwrap.display()));
        if error.kind() == io::ErrorKind::NotFound {
            stop.advise("install it, such as `apt-get install bubblewrap`")
        } else {
            stop.advise("type `muster doctor`")
        }
    })?;
    // Our copies of what the sandbox alone should hold, the writing end of the info pipe among them.
    drop(command);
    let outer = reap(child).or_stop(Reason::Internal, tried)?;
    Ok(Started { outer: Guard(outer), info, stderr })
}

/// What the child needs between fork and exec, made before, because nothing may be allocated there.
struct Prepared {
    uid: u32,
    doors: Vec<File>,
    rlimits: Vec<(Resource, Rlimit)>,
    inherit: Vec<OwnedFd>,
}

#[expect(unsafe_code, reason = "std marks pre_exec unsafe: the closure runs between fork and exec")]
fn before_exec(command: &mut Command, prepared: Prepared) {
    let parent = rustix::process::getpid();
    // SAFETY: the closure only makes system calls on values that exist already; it takes no lock and allocates nothing.
    unsafe { command.pre_exec(move || become_sandbox(&prepared, parent)) };
}

fn become_sandbox(prepared: &Prepared, parent: Pid) -> io::Result<()> {
    for door in &prepared.doors {
        rustix::io::write(door, b"0")?;
    }
    for (resource, limit) in &prepared.rlimits {
        rustix::process::setrlimit(*resource, *limit)?;
    }
    if rustix::process::geteuid().is_root() {
        let (uid, gid) = (Uid::from_raw(prepared.uid), Gid::from_raw(prepared.uid));
        rustix::thread::set_thread_groups(&[])?;
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    }
    // Without root's rights, so that it does not lift what the operator made idle.
    sys::prefer_throughput();
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    sys::join_new_session_keyring()?;
    // Changing the user id cleared it; and muster may have ended before it was set.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    if rustix::process::getppid() != Some(parent) {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    sys::close_all_on_exec()?;
    for fd in &prepared.inherit {
        rustix::io::fcntl_setfd(fd, FdFlags::empty())?;
    }
    Ok(())
}

/// A thread waits for bubblewrap, so that it is nobody's zombie whatever becomes of the sandbox's owner.
fn reap(mut child: Child) -> io::Result<Option<Process>> {
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    let process = Process::open(pid);
    let wait = move || drop(child.wait());
    std::thread::Builder::new().name("sandbox-reaper".to_owned()).spawn(wait)?;
    Ok(process.ok())
}

async fn first_process(mut info: Receiver) -> io::Result<Process> {
    let mut text = Vec::new();
    (&mut info).take(4096).read_to_end(&mut text).await?;
    let info: serde_json::Value = serde_json::from_slice(&text).map_err(|_| io::Error::other("it ended at once"))?;
    let pid = info["child-pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
    Process::open(pid.ok_or_else(|| io::Error::other("bubblewrap named no process"))?)
}

pub(super) async fn keep_tail(mut from: Receiver, tail: Arc<Mutex<Tail>>) {
    let mut buffer = vec![0; 8 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if let Ok(mut tail) = tail.lock() {
            tail.push(&buffer[..read]);
        }
    }
}

pub(super) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?)
}

/// The reading end of a pipe that holds `bytes` already: far fewer than a pipe takes.
fn prefilled(bytes: &[u8]) -> io::Result<OwnedFd> {
    let (read, write) = pipe()?;
    if bytes.len() > 60 << 10 {
        return Err(io::Error::other("more bytes than a pipe takes"));
    }
    File::from(write).write_all(bytes)?;
    Ok(read)
}

fn joined(arguments: Vec<OsString>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for argument in arguments {
        bytes.extend(argument.as_encoded_bytes());
        bytes.push(0);
    }
    bytes
}

/// Waits until every process of the sandbox was seen to have ended. Blocks.
pub(super) fn seen_ended(process: &Process, patience: Duration) -> Result<(), Stop> {
    let pid = process.identity.pid;
    let ended =
        process::ended(&process.pidfd, patience).or_stop(Reason::Internal, format!("waiting for process {pid}"));
    if ended? {
        Ok(())
    } else {
        Err(Stop::internal(format!("process {pid} did not end within {} s", patience.as_secs())))
    }
}
