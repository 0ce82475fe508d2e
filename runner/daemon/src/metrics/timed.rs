//! A store with a clock on it: what each operation took and whether it could be done, and what is told of alerts. It adds
//! nothing and decides nothing.
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use drill::evidence::Stretch;
use drill::id::{DrillName, RunId, Sha256Digest};
use drill::ledger::{Damage, Event, Owner, RunStarted, Stamped};
use drill::port::{
    Alert, ChainLink, Chained, Delivery, DrillHistory, Outbox, Pruned, Quarantine, RunSummary, SeenSchedule, Store,
};
use drill::stop::Stop;
use drill::verdict::Reason;
use jiff::Timestamp;

use super::{Metrics, lock};

/// Another store, measured.
pub struct Timed {
    inner: Arc<dyn Store>,
    metrics: Arc<Metrics>,
}

/// What came of telling a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Delivered,
    /// It is tried again.
    Later,
    GivenUp,
}

impl Told {
    const ALL: [Self; 3] = [Self::Delivered, Self::Later, Self::GivenUp];

    fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Later => "later",
            Self::GivenUp => "given-up",
        }
    }
}

impl Metrics {
    /// Its series begin at zero, so that the first attempt is an increase.
    fn known_destination(&self, destination: &str) {
        for told in Told::ALL {
            self.fixed.alert_deliveries.with_label_values(&[destination, told.as_str()]);
        }
    }

    fn told(&self, destination: &str, told: Told) {
        self.known_destination(destination);
        self.fixed.alert_deliveries.with_label_values(&[destination, told.as_str()]).inc();
    }
}

impl Timed {
    pub fn new(inner: Arc<dyn Store>, metrics: Arc<Metrics>) -> Self {
        Self { inner, metrics }
    }

    async fn time<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, Stop>> + Send,
    ) -> Result<T, Stop> {
        let begun = Instant::now();
        let result = work.await;
        // A claim that is refused because the drill runs is an answer.
        let failed = result.as_ref().is_err_and(|stop| stop.reason != Reason::AlreadyRunning);
        self.metrics.fixed.operated(operation, begun.elapsed(), failed);
        result
    }

    /// What cannot be counted now is counted by the next refresh.
    async fn count_quarantined(&self) {
        if let Ok(quarantined) = self.time("quarantined", self.inner.quarantined()).await {
            lock(&self.metrics.ledger).quarantined = Some(quarantined.len());
        }
    }
}

#[async_trait]
impl Store for Timed {
    async fn id(&self) -> Result<String, Stop> {
        self.time("id", self.inner.id()).await
    }

    async fn claim(&self, started: &RunStarted) -> Result<(), Stop> {
        self.time("claim", self.inner.claim(started)).await
    }

    async fn append(&self, run: &RunId, event: &Event) -> Result<Stamped, Stop> {
        self.time("append", self.inner.append(run, event)).await
    }

    async fn events(&self, run: &RunId) -> Result<Vec<Stamped>, Stop> {
        self.time("events", self.inner.events(run)).await
    }

    async fn runs(&self, drill: Option<&DrillName>, limit: u32) -> Result<Vec<RunSummary>, Stop> {
        self.time("runs", self.inner.runs(drill, limit)).await
    }

    async fn newest_of_each(
        &self,
        drills: &[DrillName],
        limit: u32,
    ) -> Result<BTreeMap<DrillName, Vec<RunSummary>>, Stop> {
        self.time("newest-of-each", self.inner.newest_of_each(drills, limit)).await
    }

    async fn older_runs(
        &self,
        drill: Option<&DrillName>,
        than: (Timestamp, &RunId),
        limit: u32,
    ) -> Result<Vec<RunSummary>, Stop> {
        self.time("older-runs", self.inner.older_runs(drill, than, limit)).await
    }

    async fn unsettled(&self) -> Result<Vec<RunId>, Stop> {
        self.time("unsettled", self.inner.unsettled()).await
    }

    async fn owner(&self, run: &RunId) -> Result<Option<Owner>, Stop> {
        self.time("owner", self.inner.owner(run)).await
    }

    async fn take_over(&self, run: &RunId, old: &Owner, new: &Owner) -> Result<bool, Stop> {
        self.time("take-over", self.inner.take_over(run, old, new)).await
    }

    async fn quarantine(&self, entry: &Quarantine) -> Result<(), Stop> {
        self.time("quarantine", self.inner.quarantine(entry)).await?;
        self.count_quarantined().await;
        Ok(())
    }

    async fn quarantined(&self) -> Result<Vec<Quarantine>, Stop> {
        self.time("quarantined", self.inner.quarantined()).await
    }

    async fn release_quarantine(&self, digest: Sha256Digest, by: &str) -> Result<u64, Stop> {
        let result = self.time("release-quarantine", self.inner.release_quarantine(digest, by)).await?;
        self.count_quarantined().await;
        Ok(result)
    }

    async fn chain_head(&self) -> Result<Option<ChainLink>, Stop> {
        self.time("chain-head", self.inner.chain_head()).await
    }

    async fn extend_chain(&self, link: &ChainLink) -> Result<(), Stop> {
        self.time("extend-chain", self.inner.extend_chain(link)).await
    }

    async fn chain(&self) -> Result<Vec<ChainLink>, Stop> {
        self.time("chain", self.inner.chain()).await
    }

    async fn skip(
        &self,
        drill: &DrillName,
        self_test: Option<Damage>,
        scheduled_for: Timestamp,
        why: &str,
    ) -> Result<bool, Stop> {
        self.time("skip", self.inner.skip(drill, self_test, scheduled_for, why)).await
    }

    async fn seen(&self, schedules: &[SeenSchedule]) -> Result<(), Stop> {
        self.time("seen", self.inner.seen(schedules)).await
    }

    async fn histories(&self) -> Result<Vec<DrillHistory>, Stop> {
        self.time("histories", self.inner.histories()).await
    }

    async fn prune(&self, before: Option<Timestamp>, keep: Option<u32>) -> Result<Pruned, Stop> {
        self.time("prune", self.inner.prune(before, keep)).await
    }

    async fn try_write(&self) -> Result<(), Stop> {
        self.time("try-write", self.inner.try_write()).await
    }

    async fn check(&self) -> Result<(), Stop> {
        self.time("check", self.inner.check()).await
    }

    async fn back_up(&self, to: &Path) -> Result<(), Stop> {
        self.time("back-up", self.inner.back_up(to)).await
    }

    async fn chained(&self, run: &RunId) -> Result<Option<Chained>, Stop> {
        self.time("chained", self.inner.chained(run)).await
    }

    async fn prunable(&self, before: Option<Timestamp>, keep: Option<u32>) -> Result<Vec<RunSummary>, Stop> {
        self.time("prunable", self.inner.prunable(before, keep)).await
    }

    async fn pruned_links(&self) -> Result<Vec<Chained>, Stop> {
        self.time("pruned-links", self.inner.pruned_links()).await
    }

    async fn evidence_deleted(&self, links: &[Chained]) -> Result<(), Stop> {
        self.time("evidence-deleted", self.inner.evidence_deleted(links)).await
    }

    async fn deleted_evidence(&self, part: RangeInclusive<u64>) -> Result<Vec<Stretch>, Stop> {
        self.time("deleted-evidence", self.inner.deleted_evidence(part)).await
    }
}

#[async_trait]
impl Outbox for Timed {
    async fn raise(&self, alert: &Alert) -> Result<(), Stop> {
        self.time("raise", self.inner.raise(alert)).await
    }

    async fn resolve(&self, kind: &str, subject: &str, at: Timestamp) -> Result<bool, Stop> {
        self.time("resolve", self.inner.resolve(kind, subject, at)).await
    }

    async fn open_alerts(&self) -> Result<Vec<Alert>, Stop> {
        self.time("open-alerts", self.inner.open_alerts()).await
    }

    async fn due(
        &self,
        destination: &str,
        repeat: Option<Duration>,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<Delivery>, Stop> {
        self.metrics.known_destination(destination);
        self.time("due", self.inner.due(destination, repeat, now, limit)).await
    }

    // The attempt was made, whether or not it can be written down.
    async fn delivered(&self, deliveries: &[Delivery], destination: &str, at: Timestamp) -> Result<(), Stop> {
        for _ in deliveries {
            self.metrics.told(destination, Told::Delivered);
        }
        self.time("delivered", self.inner.delivered(deliveries, destination, at)).await
    }

    async fn undelivered(
        &self,
        deliveries: &[Delivery],
        destination: &str,
        at: Timestamp,
        again: Option<Timestamp>,
        why: &str,
    ) -> Result<(), Stop> {
        for _ in deliveries {
            self.metrics.told(destination, if again.is_some() { Told::Later } else { Told::GivenUp });
        }
        self.time("undelivered", self.inner.undelivered(deliveries, destination, at, again, why)).await
    }

    async fn hurry(&self, destination: &str) -> Result<(), Stop> {
        self.time("hurry", self.inner.hurry(destination)).await
    }

    async fn tidy(&self, destinations: &[String], before: Timestamp) -> Result<u64, Stop> {
        self.time("tidy", self.inner.tidy(destinations, before)).await
    }
}
