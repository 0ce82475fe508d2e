//! Processes found by name or by handle, ended, and seen gone. A process id alone may be somebody else by now; so a handle
//! keeps the start time and the boot, and everything is done through a pidfd that was opened before the check.
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{CWD, Dir, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};

use super::tree::open_directory;

/// Generations of processes that are looked at; a sandbox's own limit on processes ends it before.
const MAX_GENERATIONS: usize = 100_000;

/// What muster's own first command in a sandbox is called there: bubblewrap's own is 1.
pub(super) const INIT_INSIDE: i32 = 2;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Identity {
    pub(super) pid: i32,
    /// Clock ticks since boot, field 22 of `/proc/PID/stat`.
    pub(super) start_ticks: u64,
    pub(super) boot_id: String,
}

/// A living process that was identified after its descriptor was opened.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) identity: Identity,
    pub(super) pidfd: OwnedFd,
}

impl Process {
    pub(super) fn open(pid: i32) -> io::Result<Self> {
        let raw = Pid::from_raw(pid).ok_or_else(|| io::Error::other("0 is not a process"))?;
        let pidfd = rustix::process::pidfd_open(raw, PidfdFlags::empty())?;
        let identity = Identity { pid, start_ticks: start_ticks(pid)?, boot_id: boot_id()? };
        // Were it gone by now, what was read could be of another.
        if ended(&pidfd, Duration::ZERO)? {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        Ok(Self { identity, pidfd })
    }

    /// None where it has ended, or its number is another's.
    pub(super) fn find(identity: &Identity) -> Option<Self> {
        Self::open(identity.pid).ok().filter(|process| process.identity == *identity)
    }

    pub(super) fn kill(&self) {
        kill(&self.pidfd);
    }
}

/// An error means that it is gone, which is what is wanted.
pub(super) fn kill(pidfd: &OwnedFd) {
    let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
}

/// Whether the process ended within `patience`. For a namespace's first process: whether everything in it ended.
pub(super) fn ended(pidfd: &OwnedFd, patience: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match rustix::event::poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&timeout)) {
            Err(Errno::INTR) => {}
            other => return Ok(other? > 0),
        }
    }
}

/// Processes whose zeroth argument is `name` and whose user is one of `uids`: bubblewrap outside, and its own fork that is the
/// namespace's first process. What a sandbox's other processes call themselves counts for nothing.
pub(super) fn named(wanted: &dyn Fn(&str) -> bool, uids: &dyn Fn(u32) -> bool) -> io::Result<Vec<(String, Process)>> {
    let mut found = Vec::new();
    for pid in pids()? {
        let Some(name) = zeroth_argument(pid).filter(|name| wanted(name)) else { continue };
        let Ok(process) = Process::open(pid) else { continue };
        let ours = status(pid).is_some_and(|status| uids(status.uid) && status.first_or_outside);
        if ours && zeroth_argument(pid).as_ref() == Some(&name) {
            found.push((name, process));
        }
    }
    Ok(found)
}

pub(super) fn pids() -> io::Result<Vec<i32>> {
    Ok(numbers(&open_directory(CWD, "/proc")?)?)
}

/// The entries whose names are numbers. A directory of a process that ended meanwhile has none.
pub(super) fn numbers(directory: &OwnedFd) -> Result<Vec<i32>, Errno> {
    let mut numbers = Vec::new();
    for entry in there(Dir::read_from(directory))?.into_iter().flatten() {
        let Some(entry) = there(entry)? else { break };
        numbers.extend(entry.file_name().to_str().ok().and_then(|name| name.parse::<i32>().ok()));
    }
    Ok(numbers)
}

/// None where the process has ended, or its descriptor was closed.
pub(super) fn there<T>(result: Result<T, Errno>) -> Result<Option<T>, Errno> {
    match result {
        Err(Errno::NOENT | Errno::SRCH) => Ok(None),
        other => other.map(Some),
    }
}

/// Tasks of each user id, as `RLIMIT_NPROC` counts them.
pub(super) fn tasks_of(uid: u32) -> io::Result<u64> {
    let mut tasks = 0;
    each_status(|status| {
        if status.uid == uid {
            tasks += status.threads;
        }
    })?;
    Ok(tasks)
}

pub(super) fn uids_in_use() -> io::Result<std::collections::BTreeSet<u32>> {
    let mut uids = std::collections::BTreeSet::new();
    each_status(|status| {
        uids.insert(status.uid);
        uids.insert(status.effective_uid);
    })?;
    Ok(uids)
}

fn each_status(mut see: impl FnMut(Status)) -> io::Result<()> {
    for pid in pids()? {
        if let Some(status) = status(pid) {
            see(status);
        }
    }
    Ok(())
}

struct Status {
    /// A zombie.
    ended: bool,
    parent: i32,
    uid: u32,
    effective_uid: u32,
    threads: u64,
    /// Seen from here: in our own namespace, or the first process of one below it.
    first_or_outside: bool,
    number_inside: i32,
}

fn status(pid: i32) -> Option<Status> {
    status_in(&open_directory(CWD, format!("/proc/{pid}")).ok()?)
}

fn status_in(process: &OwnedFd) -> Option<Status> {
    let file = rustix::fs::openat(process, "status", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let text = io::read_to_string(File::from(file)).ok()?;
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::split_whitespace);
    let mut uids = field("Uid:")?;
    let namespaces: Vec<&str> = field("NSpid:")?.collect();
    let number_inside = namespaces.last()?.parse().ok()?;
    Some(Status {
        ended: field("State:")?.next()?.starts_with(['Z', 'X']),
        parent: field("PPid:")?.next()?.parse().ok()?,
        uid: uids.next()?.parse().ok()?,
        effective_uid: uids.next()?.parse().ok()?,
        threads: field("Threads:")?.next()?.parse().ok()?,
        first_or_outside: namespaces.len() == 1 || number_inside == 1,
        number_inside,
    })
}

/// Whether the thread, of the `task` directory of a process, is a zombie.
pub(super) fn has_ended(threads: &OwnedFd, thread: i32) -> bool {
    let thread = open_directory(threads, thread.to_string()).ok();
    thread.and_then(|thread| status_in(&thread)).is_some_and(|status| status.ended)
}

/// Whether /proc keeps this user from processes that are not its own, and from those of its own that may not be traced.
pub(super) fn proc_hides() -> bool {
    open_directory(CWD, "/proc/1").is_err()
}

/// What the process is called in its own namespace.
pub(super) fn number_inside(process: &OwnedFd) -> Option<i32> {
    status_in(process).map(|status| status.number_inside)
}

/// Whether `ancestor` is above it, as it is above everything in the namespace whose first process it is.
pub(super) fn descends(pid: i32, ancestor: i32) -> bool {
    let parents =
        std::iter::successors(Some(pid), |pid| status(*pid).map(|status| status.parent).filter(|pid| *pid > 0));
    parents.skip(1).take(MAX_GENERATIONS).any(|parent| parent == ancestor)
}

fn zeroth_argument(pid: i32) -> Option<String> {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let first = bytes.split(|byte| *byte == 0).next()?;
    String::from_utf8(first.to_vec()).ok().filter(|name| !name.is_empty())
}

fn start_ticks(pid: i32) -> io::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may hold anything; fields are counted from behind it.
    let after = text.rsplit_once(')').map_or("", |(_, after)| after);
    let ticks = after.split_whitespace().nth(19).and_then(|field| field.parse().ok());
    ticks.ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat has no start time")))
}

pub(super) fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_by_its_identity_until_it_ends() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep starts");
        let pid = i32::try_from(child.id()).expect("a pid");
        let process = Process::open(pid).expect("it lives");
        let identity = process.identity.clone();
        assert!(Process::find(&identity).is_some());
        let other = Identity { start_ticks: identity.start_ticks + 1, ..identity.clone() };
        assert!(Process::find(&other).is_none());
        assert!(!ended(&process.pidfd, Duration::ZERO).expect("polled"));
        process.kill();
        assert!(ended(&process.pidfd, Duration::from_secs(5)).expect("polled"));
        child.wait().expect("reaped");
        assert!(Process::find(&identity).is_none());
    }

    #[test]
    fn a_process_descends_from_those_above_it_alone() {
        let mut child =
            std::process::Command::new("/bin/sh").args(["-c", "sleep 60 & wait"]).spawn().expect("sh starts");
        let number = |id: u32| i32::try_from(id).expect("a pid");
        let (own, shell) = (number(std::process::id()), number(child.id()));
        let sleep = loop {
            let found =
                pids().expect("listed").into_iter().find(|pid| status(*pid).is_some_and(|it| it.parent == shell));
            if let Some(sleep) = found {
                break sleep;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        assert!(descends(sleep, shell) && descends(sleep, own) && descends(shell, own));
        assert!(!descends(own, shell) && !descends(shell, sleep) && !descends(sleep, sleep));
        rustix::process::kill_process(Pid::from_raw(sleep).expect("a pid"), Signal::KILL).expect("it lives");
        child.wait().expect("reaped");
    }
}
