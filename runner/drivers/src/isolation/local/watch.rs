//! Watches a sandbox while it lives: its first process, its memory, its disk. A limit that was reached ends it.
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use drill::stop::{OrStop, Stop};
use drill::unit;
use drill::verdict::Reason;
use rustix::time::ClockId;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::cgroup::Group;
use super::directory::RunDirectory;
use super::limits::{FREE_PERCENT, is_full};
use super::spawn::Running;
use super::unlinked::Unlinked;
use super::{exec, process, sys, tree};

const TICK: Duration = Duration::from_millis(250);
const DISK_EVERY: Duration = Duration::from_millis(500);
const DISK_AT_LEAST_EVERY: Duration = Duration::from_secs(20);
/// Looks at the disk that fail one after the other, until the sandbox is ended.
const MAX_FAILURES: u32 = 10;

pub(super) struct Watch {
    breach: watch::Receiver<Option<Stop>>,
    task: JoinHandle<()>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Watched {
    first: AsyncFd<OwnedFd>,
    group: Group,
    data: Arc<OwnedFd>,
    disk: Option<Arc<Disk>>,
}

impl Watch {
    pub(super) fn start(
        running: &Running,
        group: Group,
        directory: &RunDirectory,
        disk: Option<u64>,
    ) -> Result<Self, Stop> {
        let tried = "watching the sandbox";
        let pidfd = running.first.pidfd.try_clone().or_stop(Reason::Internal, tried)?;
        let first = sys::awaitable(pidfd, Interest::READABLE).or_stop(Reason::Internal, tried)?;
        let data = Arc::new(directory.open("data").or_stop(Reason::Internal, tried)?);
        let disk = disk.map(|limit| Disk::of(running, Arc::clone(&data), limit)).transpose()?.map(Arc::new);
        let watched = Watched { first, group, data, disk };
        let stderr = Arc::clone(&running.stderr);
        let (sender, breach) = watch::channel(None);
        let task = tokio::spawn(async move {
            let said = move || stderr.lock().map(|tail| exec::clean(&tail.text())).unwrap_or_default();
            let stop = watched.until_breach(&said).await;
            process::kill(watched.first.get_ref());
            sender.send_replace(Some(stop));
        });
        Ok(Self { breach, task })
    }

    pub(super) async fn breach(&self) -> Stop {
        let mut breach = self.breach.clone();
        match breach.wait_for(Option::is_some).await {
            Ok(stop) => stop.clone().unwrap_or_else(|| Stop::internal("the sandbox ended")),
            Err(_) => Stop::internal("the sandbox is not watched any more"),
        }
    }
}

impl Watched {
    async fn until_breach(&self, said: &(dyn Fn() -> String + Sync)) -> Stop {
        tokio::select! {
            _ = self.first.readable() => self.out_of_memory().unwrap_or_else(|| {
                let said = said();
                let detail = if said.is_empty() { String::new() } else { format!(": {said}") };
                Stop::new(Reason::Internal, format!("the sandbox's first process ended{detail}"))
                    .advise("look at what the backup runs inside, and at the machine's log: muster did not end it")
            }),
            stop = self.until_no_room() => stop,
            stop = self.until_disk_limit() => stop,
        }
    }

    /// What costs nothing to look at is looked at often.
    async fn until_no_room(&self) -> Stop {
        loop {
            tokio::time::sleep(TICK).await;
            if let Some(stop) = self.out_of_memory() {
                return stop;
            }
            let data = Arc::clone(&self.data);
            if let Ok(Ok(Some(stop))) = tokio::task::spawn_blocking(move || file_system_full(&data)).await {
                return stop;
            }
        }
    }

    async fn until_disk_limit(&self) -> Stop {
        let Some(disk) = &self.disk else { return std::future::pending().await };
        let mut failures = Failures::default();
        loop {
            let (began, disk) = (Instant::now(), Arc::clone(disk));
            let (found, processor) = tokio::task::spawn_blocking(move || disk.look())
                .await
                .unwrap_or_else(|error| (Err(io::Error::other(error)), Duration::ZERO));
            if let Some(stop) = failures.after(found) {
                return stop;
            }
            tokio::time::sleep(until_next_look(processor, began.elapsed())).await;
        }
    }

    fn out_of_memory(&self) -> Option<Stop> {
        (self.group.out_of_memory() > 0).then(|| {
            Stop::new(Reason::LimitReached, "the sandbox reached its memory limit: the kernel ended a process of it")
                .advise("raise isolation.local.limits.memory, or lower the server's memory settings")
        })
    }
}

fn file_system_full(data: &OwnedFd) -> io::Result<Option<Stop>> {
    Ok(is_full(&rustix::fs::fstatvfs(data)?).map(|what| {
        let message = format!("less than {FREE_PERCENT} % of {what} is free");
        Stop::new(Reason::LimitReached, message).advise("make room for the state directory")
    }))
}

struct Disk {
    data: Arc<OwnedFd>,
    unlinked: Unlinked,
    limit: u64,
}

impl Disk {
    fn of(running: &Running, data: Arc<OwnedFd>, limit: u64) -> Result<Self, Stop> {
        if process::proc_hides() {
            let message =
                "/proc hides processes (it is mounted with hidepid), and a disk limit must see what they hold open";
            return Err(Stop::new(Reason::SandboxUnfit, message)
                .advise("mount /proc without hidepid, or with gid= of a group that muster's user is in"));
        }
        let unlinked = Unlinked::of(running.first.identity.pid, &data).map_err(|error| {
            let message = format!("looking at the sandbox's processes in /proc, as its disk limit needs: {error}");
            match error.kind() {
                io::ErrorKind::PermissionDenied => Stop::new(Reason::SandboxUnfit, message)
                    .advise("let muster run as a plain user, or as root with CAP_SYS_PTRACE"),
                _ => Stop::new(Reason::Internal, message),
            }
        })?;
        Ok(Self { data, unlinked, limit })
    }

    /// What was found, and the time of a processor that it took.
    fn look(&self) -> (io::Result<Option<Stop>>, Duration) {
        let before = processor_time();
        let found = self.reached();
        (found, processor_time().saturating_sub(before))
    }

    fn reached(&self) -> io::Result<Option<Stop>> {
        // First, so that what loses its name meanwhile is not counted twice.
        let unlinked = self.unlinked.usage(self.limit);
        let named = match tree::usage(self.data.as_fd())? {
            tree::Usage::Bytes(named) if named > self.limit => return Ok(Some(self.holds(named, 0))),
            tree::Usage::Bytes(named) => named,
            tree::Usage::Unmeasurable(why) => return Ok(Some(unmeasurable(why))),
        };
        Ok(match unlinked? {
            tree::Usage::Bytes(unlinked) if named + unlinked <= self.limit => None,
            tree::Usage::Bytes(unlinked) => Some(self.holds(named, unlinked)),
            tree::Usage::Unmeasurable(why) => Some(unmeasurable(why)),
        })
    }

    fn holds(&self, named: u64, unlinked: u64) -> Stop {
        let removed = match unlinked {
            0 => String::new(),
            _ => format!(", {} of it in removed files that are still open", unit::size(unlinked)),
        };
        let (bytes, limit) = (unit::size(named + unlinked), unit::size(self.limit));
        limit_reached(&format!("it holds {bytes} of {limit}{removed}"), "raise isolation.local.limits.disk")
    }
}

fn unmeasurable(why: &str) -> Stop {
    limit_reached(why, "look at what the backup runs inside: a server by itself seldom does that")
}

fn limit_reached(why: &str, advice: &str) -> Stop {
    let message = format!("the sandbox's data directory reached its limit: {why}");
    Stop::new(Reason::LimitReached, message).advise(advice)
}

/// Looks that failed, one after the other.
#[derive(Default)]
struct Failures(u32);

impl Failures {
    /// What changes while it is measured may vanish under our hands, and the next look will tell. Not so for ever: a disk that
    /// cannot be measured is not watched.
    fn after(&mut self, found: io::Result<Option<Stop>>) -> Option<Stop> {
        let error = match found {
            Ok(stop) => {
                self.0 = 0;
                return stop;
            }
            Err(error) => error,
        };
        self.0 += 1;
        (self.0 >= MAX_FAILURES).then(|| {
            let message = format!("the sandbox's disk could not be measured {MAX_FAILURES} times in a row: {error}");
            Stop::new(Reason::Internal, message)
        })
    }
}

/// A large data directory takes long to measure: a twentieth of a processor goes there, and half of the disk's time. A look that
/// merely waited for a processor, when the sandbox is busy, puts off the next one by no more than it took; and no sandbox makes
/// looks so slow that there are none.
fn until_next_look(processor: Duration, elapsed: Duration) -> Duration {
    (processor * 20).max(elapsed).clamp(DISK_EVERY, DISK_AT_LEAST_EVERY)
}

/// Of this thread.
fn processor_time() -> Duration {
    rustix::time::clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_that_waited_for_a_processor_does_not_put_off_the_next() {
        let millis = Duration::from_millis;
        assert_eq!(until_next_look(millis(1), millis(1)), DISK_EVERY);
        assert_eq!(until_next_look(millis(1), millis(400)), DISK_EVERY, "a busy machine");
        assert_eq!(until_next_look(millis(200), millis(200)), Duration::from_secs(4), "a large directory");
        assert_eq!(until_next_look(millis(10), Duration::from_secs(3)), Duration::from_secs(3), "a slow disk");
        assert_eq!(until_next_look(Duration::from_secs(5), Duration::from_mins(1)), DISK_AT_LEAST_EVERY);
    }

    #[test]
    fn a_disk_that_cannot_be_measured_is_a_breach_after_ten_looks() {
        let failed = || Err(io::Error::other("shut"));
        let mut failures = Failures::default();
        assert!((1..10).all(|_| failures.after(failed()).is_none()));
        assert!(failures.after(Ok(None)).is_none(), "one that went well begins anew");
        assert!((1..10).all(|_| failures.after(failed()).is_none()));
        let stop = failures.after(failed()).expect("the tenth");
        assert!(stop.reason == Reason::Internal && stop.message.ends_with("shut"), "{stop}");
    }

    #[test]
    fn time_asleep_is_not_a_processors() {
        let before = processor_time();
        assert!(before > Duration::ZERO, "a thread that runs has had some");
        std::thread::sleep(Duration::from_millis(50));
        let used = processor_time().saturating_sub(before);
        assert!(used < Duration::from_millis(50), "asleep for 50 ms: {used:?} of a processor");
    }
}
