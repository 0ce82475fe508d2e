//! What the store knows and events do not tell: of earlier processes, and of others.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use drill::ledger::{Held, Resource, State};
use drill::port::Store;
use drill::stop::Stop;

use super::of_drill::Seen;
use super::{Head, Metrics, Owed, lock};

/// Runs that owe something and are looked at in one refresh.
const RUNS: usize = 1_000;

impl Metrics {
    /// Once, before the first scrape: what the last run of each drill was like, so that a restart hides no number. One bounded
    /// read for each drill.
    pub async fn remember(&self, store: &dyn Store) -> Result<(), Stop> {
        for history in store.histories().await? {
            let Some(last) = history.last.filter(|last| last.ended.is_some()) else { continue };
            let mut seen = Seen::default();
            for stamped in store.events(&last.run).await? {
                seen.event(&stamped.event);
            }
            let kept = self.of(&history.drill);
            let mut kept = lock(&kept);
            // A run that ended meanwhile is newer.
            if kept.last.is_none() {
                kept.last = Some(seen.kept());
                kept.last_reason = last.reason;
            }
        }
        self.refresh(store).await
    }

    /// Each minute: what is owed, quarantined, open and chained, whoever did it.
    pub async fn refresh(&self, store: &dyn Store) -> Result<(), Stop> {
        let mut owed = BTreeMap::new();
        for run in store.unsettled().await?.into_iter().take(RUNS) {
            // A ledger that cannot be understood is told of by whoever settles it.
            let Ok(state) = State::replay(&store.events(&run).await?) else { continue };
            let resources: BTreeSet<Resource> = state
                .held
                .iter()
                .filter(|(_, held)| matches!(held, Held::Owed { .. }) || (state.ended.is_some() && held.is_owed()))
                .map(|(resource, _)| *resource)
                .collect();
            if !resources.is_empty() {
                owed.insert(run, Owed { drill: state.started.drill, resources });
            }
        }
        let head = store.chain_head().await?;
        let head = head.map_or(Head { sequence: 0, digest: None }, |link| Head {
            sequence: link.sequence,
            digest: Some(link.digest),
        });
        let quarantined = store.quarantined().await?.len();
        let mut alerts: BTreeMap<String, u64> = BTreeMap::new();
        for alert in store.open_alerts().await? {
            *alerts.entry(alert.kind).or_default() += 1;
        }
        let mut ledger = lock(&self.ledger);
        // A kind that was open stays as zero, so that its end is seen.
        for (kind, count) in ledger.alerts.iter_mut().flatten() {
            *count = alerts.remove(kind).unwrap_or(0);
        }
        ledger.alerts.get_or_insert_default().extend(alerts);
        ledger.owed = owed;
        ledger.head = Some(head);
        ledger.quarantined = Some(quarantined);
        self.asked.store(true, Ordering::Relaxed);
        Ok(())
    }
}
