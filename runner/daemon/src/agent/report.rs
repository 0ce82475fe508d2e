//! From a check to the runner: a bounded queue, in front of the one writer of standard output.
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use drill::agent::FromAgent;
use drill::finding::Severity;
use plugin_host::backend::Reporter;
use tokio::sync::mpsc;

use super::text;

pub(super) const QUEUE: usize = 256;
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);
const MAX_DETAILS: usize = 64;
/// Bytes of all details of one finding, or all labels of one metric.
const MAX_DETAIL_BYTES: usize = 16 << 10;

/// Where messages of the job go; counts them.
#[derive(Clone)]
pub(super) struct Outbox {
    queue: mpsc::Sender<FromAgent>,
    events: Arc<AtomicU64>,
}

impl Outbox {
    pub(super) fn new(queue: mpsc::Sender<FromAgent>) -> Self {
        Self { queue, events: Arc::default() }
    }

    pub(super) async fn send(&self, message: FromAgent) {
        self.events.fetch_add(1, Ordering::Relaxed);
        // A closed queue means that the runner is gone, and the process with it soon.
        let _ = self.queue.send(message).await;
    }

    /// For callers that are not async. Waits while the queue is full, so that a check cannot outrun the runner.
    fn push(&self, message: FromAgent) {
        self.events.fetch_add(1, Ordering::Relaxed);
        if let Err(mpsc::error::TrySendError::Full(message)) = self.queue.try_send(message) {
            let queue = &self.queue;
            tokio::task::block_in_place(|| {
                let _ = tokio::runtime::Handle::current().block_on(queue.send(message));
            });
        }
    }

    pub(super) async fn done(&self) {
        let events = self.events.load(Ordering::Relaxed);
        let _ = self.queue.send(FromAgent::Done { events }).await;
    }
}

/// What one check on one database reports. Needs a runtime of several threads.
pub(super) struct CheckReporter {
    check: String,
    database: String,
    outbox: Outbox,
    held: Mutex<Held>,
}

type Labels = Vec<(String, String)>;

#[derive(Default)]
struct Held {
    progress: Option<(u64, Option<u64>, String)>,
    sent_at: Option<Instant>,
    /// A gauge is what it was last set to; the host bounds how many there are.
    metrics: BTreeMap<(String, Labels), f64>,
}

impl CheckReporter {
    pub(super) fn new(check: &str, database: &str, outbox: Outbox) -> Self {
        Self { check: check.to_owned(), database: database.to_owned(), outbox, held: Mutex::default() }
    }

    /// Sends what was held back. Call it when the check has ended.
    pub(super) async fn finish(&self) {
        let held = std::mem::take(&mut *self.held.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(progress) = held.progress {
            self.outbox.send(self.progress_message(progress)).await;
        }
        for ((name, labels), value) in held.metrics {
            let (check, database) = (self.check.clone(), self.database.clone());
            self.outbox.send(FromAgent::Metric { check, database, name, labels, value }).await;
        }
    }

    fn progress_message(&self, (done, total, unit): (u64, Option<u64>, String)) -> FromAgent {
        FromAgent::Progress { check: self.check.clone(), database: self.database.clone(), done, total, unit }
    }
}

impl Reporter for CheckReporter {
    fn finding(&self, severity: Severity, subject: String, message: String, details: Vec<(String, String)>) {
        self.outbox.push(FromAgent::Finding {
            check: self.check.clone(),
            database: self.database.clone(),
            severity,
            subject: text::clean(&subject),
            message: text::clean(&message),
            details: clean_pairs(&details),
        });
    }

    fn progress(&self, done: u64, total: Option<u64>, unit: String) {
        let progress = (done, total, text::bounded(&unit, 64));
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.sent_at.is_some_and(|at| at.elapsed() < PROGRESS_INTERVAL) {
            held.progress = Some(progress);
            return;
        }
        held.progress = None;
        held.sent_at = Some(Instant::now());
        drop(held);
        self.outbox.push(self.progress_message(progress));
    }

    fn metric(&self, name: String, labels: Vec<(String, String)>, value: f64) {
        let key = (text::bounded(&name, 256), clean_pairs(&labels));
        // JSON has no word for the others.
        if value.is_finite() {
            self.held.lock().unwrap_or_else(PoisonError::into_inner).metrics.insert(key, value);
        }
    }

    fn log(&self, message: String) {
        let message = text::clean(&message);
        if !message.is_empty() {
            self.outbox.push(FromAgent::Log { check: self.check.clone(), database: self.database.clone(), message });
        }
    }
}

fn clean_pairs(pairs: &[(String, String)]) -> Vec<(String, String)> {
    let mut left = MAX_DETAIL_BYTES;
    let mut clean = Vec::new();
    for (name, value) in pairs.iter().take(MAX_DETAILS) {
        let pair = (text::bounded(name, 256), text::clean(value));
        let Some(rest) = left.checked_sub(pair.0.len() + pair.1.len()) else { break };
        left = rest;
        clean.push(pair);
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_full_queue_holds_the_check_back_and_loses_nothing() {
        let (queue, mut receiver) = mpsc::channel(2);
        let outbox = Outbox::new(queue);
        let reporter = CheckReporter::new("c", "d", outbox.clone());
        let producer = tokio::spawn(async move {
            for index in 0..50 {
                reporter.log(format!("line {index}"));
                reporter.progress(index, None, "rows".to_owned());
                reporter.metric("m".to_owned(), Vec::new(), f64::from(u32::try_from(index).expect("small")));
            }
            reporter.finish().await;
            outbox.done().await;
        });
        let mut messages = Vec::new();
        while let Some(message) = receiver.recv().await {
            messages.push(message);
        }
        producer.await.expect("no panic");
        assert_eq!(messages.pop(), Some(FromAgent::Done { events: messages.len() as u64 }));
        assert_eq!(messages.iter().filter(|m| matches!(m, FromAgent::Log { .. })).count(), 50);
        let last = |pick: fn(&FromAgent) -> bool| messages.iter().rfind(|message| pick(message)).cloned();
        assert!(matches!(
            last(|m| matches!(m, FromAgent::Progress { .. })),
            Some(FromAgent::Progress { done: 49, .. })
        ));
        assert!(matches!(last(|m| matches!(m, FromAgent::Metric { .. })), Some(FromAgent::Metric { value: 49.0, .. })));
        assert!(messages.len() < 70, "progress is throttled and a metric is sent once");
    }
}
