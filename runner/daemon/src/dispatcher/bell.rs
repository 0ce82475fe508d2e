//! The scheduler's bell: one job that rings each second, in UTC. What is due is not its business.
use std::time::Duration;

use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_cron_scheduler::{Job, JobScheduler};

pub(super) struct Bell {
    /// When it rang last. A dispatcher that is busy hears one ring, however many there were.
    rings: watch::Receiver<Instant>,
    scheduler: Option<JobScheduler>,
}

impl Bell {
    pub(super) async fn start() -> Result<Self, Stop> {
        let tried = "starting the scheduler's bell";
        let (ring, rings) = watch::channel(Instant::now());
        let scheduler = JobScheduler::new().await.or_stop(Reason::Internal, tried)?;
        let job = Job::new("* * * * * *", move |_, _| {
            ring.send_replace(Instant::now());
        });
        scheduler.add(job.or_stop(Reason::Internal, tried)?).await.or_stop(Reason::Internal, tried)?;
        scheduler.start().await.or_stop(Reason::Internal, tried)?;
        Ok(Self { rings, scheduler: Some(scheduler) })
    }

    /// One that a test rings.
    #[cfg(test)]
    pub(super) fn by_hand() -> (watch::Sender<Instant>, Self) {
        let (ring, rings) = watch::channel(Instant::now());
        (ring, Self { rings, scheduler: None })
    }

    /// Never again, where nobody is left who rings.
    pub(super) async fn rung(&mut self) {
        if self.rings.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    pub(super) fn silent_for(&self) -> Duration {
        self.rings.borrow().elapsed()
    }

    pub(super) async fn stop(self) {
        if let Some(mut scheduler) = self.scheduler {
            // One that does not stop ends with the process.
            let _ = scheduler.shutdown().await;
        }
    }
}
