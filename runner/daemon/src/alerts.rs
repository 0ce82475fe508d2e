//! Sends what the outbox holds: one line a destination, each for itself, so that one that hangs keeps nobody else from being told.
//!
//! What becomes of a try is decided by [`after_failure`]; a [`Line`] does it. Each delivery that failed waits for itself, longer
//! each time; after a failure nothing is tried for a short pause, then what was tried least often. A destination that was down
//! and hears again is told all that waits.
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use drill::port::{Alerts, Delivery, LONGEST_WAIT, Outbox};
use drill::stop::Stop;
use futures_util::future::{join, join_all};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

/// After the first failure.
const FIRST_WAIT: Duration = Duration::from_secs(5);
/// Between two tries of whatever it is, where the first one failed.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// So many failures in a row are a destination that is down, and not a delivery that it refuses.
const DOWN: u32 = 3;
/// Since the first try of a delivery.
const GIVE_UP: SignedDuration = SignedDuration::from_hours(72);
/// Another process may have raised something, or a wait may have ended.
const LOOK: Duration = Duration::from_secs(2);
/// A driver has deadlines of its own, and this one is for those that forgot.
const PATIENCE: Duration = Duration::from_mins(1);
const TIDY: Duration = Duration::from_hours(1);
/// Deliveries that are taken from the outbox at once.
const PORTION: u32 = 50;

/// What became of deliveries to one destination since muster began.
#[derive(Debug, Default)]
pub struct Counters {
    pub destination: String,
    pub delivered: AtomicU64,
    /// Tries in vain.
    pub failed: AtomicU64,
    /// Never told: nobody answered for three days.
    pub given_up: AtomicU64,
}

pub struct Sender {
    lines: Vec<Line>,
    outbox: Arc<dyn Outbox>,
    wake: watch::Receiver<()>,
}

impl Sender {
    /// `wake` changes when something was raised or resolved.
    pub fn new(outbox: Arc<dyn Outbox>, destinations: Vec<Arc<dyn Alerts>>, wake: watch::Receiver<()>) -> Self {
        let lines = destinations.into_iter().map(|to| Line::new(Arc::clone(&outbox), to)).collect();
        Self { lines, outbox, wake }
    }

    /// One of each destination.
    pub fn counters(&self) -> Vec<Arc<Counters>> {
        self.lines.iter().map(|line| Arc::clone(&line.counters)).collect()
    }

    /// Never ends. Dropping it stops it: what is under way is sent again by the next one.
    pub async fn run(self) -> Result<(), Stop> {
        let names: Vec<String> = self.lines.iter().map(|line| line.to.name().to_owned()).collect();
        let lines = self.lines.into_iter().map(|line| line.run(self.wake.clone()));
        join(join_all(lines), tidy(self.outbox, names)).await;
        Ok(())
    }
}

async fn tidy(outbox: Arc<dyn Outbox>, names: Vec<String>) {
    let mut bell = tokio::time::interval(TIDY);
    loop {
        bell.tick().await;
        match outbox.tidy(&names, Timestamp::now() - GIVE_UP).await {
            Ok(0) => {}
            Ok(forgotten) => tracing::debug!(forgotten, "resolved alerts were forgotten"),
            Err(stop) => tracing::warn!(%stop, "the outbox could not be tidied"),
        }
    }
}

/// To one destination.
struct Line {
    outbox: Arc<dyn Outbox>,
    to: Arc<dyn Alerts>,
    counters: Arc<Counters>,
    /// Tries in vain since the last one that was heard, whatever they were about.
    failures: u32,
    /// Nothing is tried before.
    pause: Option<Timestamp>,
    patience: Duration,
}

/// Whether there may be more to do at once.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    More,
    Wait,
}

impl Line {
    fn new(outbox: Arc<dyn Outbox>, to: Arc<dyn Alerts>) -> Self {
        let counters = Arc::new(Counters { destination: to.name().to_owned(), ..Counters::default() });
        Self { outbox, to, counters, failures: 0, pause: None, patience: PATIENCE }
    }

    async fn run(mut self, mut wake: watch::Receiver<()>) {
        loop {
            wake.borrow_and_update();
            let next = match self.round(Timestamp::now()).await {
                Ok(next) => next,
                Err(stop) => {
                    tracing::error!(destination = self.to.name(), %stop, "the outbox does not answer");
                    Next::Wait
                }
            };
            if next == Next::Wait {
                // A sender that is gone wakes nobody; the clock does.
                let woken = async {
                    if wake.changed().await.is_err() {
                        std::future::pending::<()>().await;
                    }
                };
                let _ = tokio::time::timeout(LOOK, woken).await;
            }
        }
    }

    async fn round(&mut self, now: Timestamp) -> Result<Next, Stop> {
        // One that is longer is of a clock that was set back.
        if self.pause.is_some_and(|until| until > now && until <= now + LONGEST_PAUSE) {
            return Ok(Next::Wait);
        }
        let limit = PORTION.max(self.to.batch());
        let due = self.outbox.due(self.to.name(), self.to.repeat(), now, limit).await?;
        for deliveries in due.chunks(self.to.batch().max(1) as usize) {
            let sent = tokio::time::timeout(self.patience, self.to.send(deliveries)).await;
            let sent = sent.unwrap_or_else(|_| {
                Err(Stop::internal(format!("alerts to `{}`: no end after {:?}", self.to.name(), self.patience)))
            });
            if let Err(stop) = sent {
                self.failed(deliveries, now, &stop).await?;
                return Ok(Next::Wait);
            }
            self.outbox.delivered(deliveries, self.to.name(), now).await?;
            self.counters.delivered.fetch_add(deliveries.len() as u64, Ordering::Relaxed);
            if self.failures >= DOWN {
                self.outbox.hurry(self.to.name()).await?;
            }
            (self.failures, self.pause) = (0, None);
        }
        Ok(if due.is_empty() { Next::Wait } else { Next::More })
    }

    async fn failed(&mut self, deliveries: &[Delivery], now: Timestamp, stop: &Stop) -> Result<(), Stop> {
        let name = self.to.name();
        self.counters.failed.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(destination = name, failures = self.failures + 1, %stop, "alerts could not be sent");
        self.pause = Some(now + wait(self.failures, random()).min(signed(LONGEST_PAUSE)));
        self.failures = self.failures.saturating_add(1);
        for delivery in deliveries {
            let again = after_failure(delivery, now, random());
            if again.is_none() {
                self.counters.given_up.fetch_add(1, Ordering::Relaxed);
                let (kind, subject) = (&delivery.alert.kind, &delivery.alert.subject);
                tracing::error!(
                    destination = name,
                    kind,
                    subject,
                    "an alert was given up: nobody listened for three days"
                );
            }
            self.outbox.undelivered(std::slice::from_ref(delivery), name, now, again, &stop.message).await?;
        }
        Ok(())
    }
}

/// When it is tried again; None where it has been tried for long enough.
fn after_failure(delivery: &Delivery, now: Timestamp, random: f64) -> Option<Timestamp> {
    let tried_for = delivery.failing_since.map_or(SignedDuration::ZERO, |since| now.duration_since(since));
    (tried_for < GIVE_UP).then(|| now + wait(delivery.attempts, random))
}

/// Twice as long each time, up to an hour; `random` in 0..1 takes up to half of it away, so that not all come at once.
fn wait(failures: u32, random: f64) -> SignedDuration {
    let whole = FIRST_WAIT.saturating_mul(2_u32.saturating_pow(failures)).min(LONGEST_WAIT);
    signed(whole.mul_f64(1.0 - random.clamp(0.0, 1.0) / 2.0))
}

/// Nothing here is longer than an hour.
fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::ZERO)
}

/// Without entropy all come at once, which is no reason to tell nobody.
fn random() -> f64 {
    let mut bytes = [0; 4];
    let _ = getrandom::fill(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}

#[cfg(test)]
#[path = "alerts_tests.rs"]
mod tests;
