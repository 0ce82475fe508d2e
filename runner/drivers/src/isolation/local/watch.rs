//! Watches a sandbox while it lives: its first process, its memory, its disk. A limit that was reached ends it.
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use drill::stop::{OrStop, Stop};
use drill::unit;
use drill::verdict::Reason;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::cgroup::Group;
use super::directory::RunDirectory;
use super::limits::FREE_PERCENT;
use super::spawn::Running;
use super::{exec, process, sys, tree};

const TICK: Duration = Duration::from_millis(250);
const DISK_EVERY: Duration = Duration::from_millis(500);

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
    disk: Option<u64>,
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
        let mut disk_due = Instant::now();
        loop {
            tokio::select! {
                _ = self.first.readable() => return self.out_of_memory().unwrap_or_else(|| {
                    let said = said();
                    let detail = if said.is_empty() { String::new() } else { format!(": {said}") };
                    Stop::new(Reason::Internal, format!("the sandbox's first process ended{detail}"))
                }),
                () = tokio::time::sleep(TICK) => {}
            }
            if let Some(stop) = self.out_of_memory() {
                return stop;
            }
            if Instant::now() >= disk_due {
                let began = Instant::now();
                if let Some(stop) = self.disk_full().await {
                    return stop;
                }
                // A large data directory takes long to measure: at most a twentieth of the time goes there.
                disk_due = Instant::now() + DISK_EVERY.max(began.elapsed() * 20);
            }
        }
    }

    fn out_of_memory(&self) -> Option<Stop> {
        (self.group.out_of_memory() > 0).then(|| {
            Stop::new(Reason::LimitReached, "the sandbox reached its memory limit: the kernel ended a process of it")
                .advise("raise isolation.local.limits.memory, or lower the server's memory settings")
        })
    }

    async fn disk_full(&self) -> Option<Stop> {
        let limit = self.disk;
        let data = Arc::clone(&self.data);
        let look = move || -> std::io::Result<Option<Stop>> {
            let file_system = rustix::fs::fstatvfs(&data)?;
            if file_system.f_bavail < file_system.f_blocks / 100 * FREE_PERCENT {
                let message = format!("less than {FREE_PERCENT} % of the state directory's file system is free");
                return Ok(Some(Stop::new(Reason::LimitReached, message).advise("make room for the state directory")));
            }
            let Some(limit) = limit else { return Ok(None) };
            let problem = match tree::usage(data.as_fd())? {
                tree::Usage::Bytes(bytes) if bytes <= limit => return Ok(None),
                tree::Usage::Bytes(bytes) => format!("it holds {} of {}", unit::size(bytes), unit::size(limit)),
                tree::Usage::Unmeasurable(why) => why.to_owned(),
            };
            let message = format!("the sandbox's data directory reached its limit: {problem}");
            Ok(Some(Stop::new(Reason::LimitReached, message).advise("raise isolation.local.limits.disk")))
        };
        match tokio::task::spawn_blocking(look).await {
            Ok(Ok(stop)) => stop,
            // What changes while it is measured may vanish under our hands; the next look will tell.
            Ok(Err(_)) | Err(_) => None,
        }
    }
}
