//! The outbox of the store in memory: the same rules in other words.
use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use drill::port::{Alert, Delivery, LONGEST_WAIT, NEW_WORDS, Outbox};
use drill::stop::Stop;
use jiff::Timestamp;

use super::MemoryStore;
use crate::store::news;

#[derive(Default)]
pub(super) struct MemoryOutbox {
    kept: Vec<Kept>,
    ids: u64,
}

struct Kept {
    id: u64,
    revision: u64,
    alert: Alert,
    changed: Timestamp,
    resolved: Option<Timestamp>,
    told: BTreeMap<String, Told>,
}

#[derive(Default)]
struct Told {
    /// When, which revision, and whether it was open.
    last: Option<(Timestamp, u64, bool)>,
    attempts: u32,
    failing_since: Option<Timestamp>,
    again: Option<Timestamp>,
}

impl MemoryOutbox {
    fn raise(&mut self, new: Alert) {
        let same = |kept: &&mut Kept| kept.alert.kind == new.kind && kept.alert.subject == new.subject;
        match self.kept.iter_mut().find(same) {
            None => {
                self.ids += 1;
                let (id, changed) = (self.ids, new.at);
                self.kept.push(Kept { id, revision: 1, alert: new, changed, resolved: None, told: BTreeMap::new() });
            }
            Some(kept) => {
                let reopened = kept.resolved.take().is_some();
                if reopened || news::is_news(&kept.alert, &new) {
                    kept.revision += 1;
                    kept.changed = new.at;
                }
                let opened = if reopened { new.at } else { kept.alert.at };
                kept.alert = Alert { at: opened, ..new };
            }
        }
    }

    fn resolve(&mut self, kind: &str, subject: &str, at: Timestamp) -> bool {
        let open =
            |kept: &&mut Kept| kept.resolved.is_none() && kept.alert.kind == kind && kept.alert.subject == subject;
        let Some(kept) = self.kept.iter_mut().find(open) else { return false };
        kept.resolved = Some(at);
        kept.revision += 1;
        kept.changed = at;
        true
    }

    fn open(&self) -> Vec<Alert> {
        let mut open: Vec<_> = self.kept.iter().filter(|kept| kept.resolved.is_none()).collect();
        open.sort_by_key(|kept| (kept.alert.at, kept.id));
        open.into_iter().map(|kept| kept.alert.clone()).collect()
    }

    fn due(&self, destination: &str, repeat: Option<Duration>, now: Timestamp, limit: u32) -> Vec<Delivery> {
        let nothing = Told::default();
        let mut due: Vec<_> = self
            .kept
            .iter()
            .map(|kept| (kept, kept.told.get(destination).unwrap_or(&nothing)))
            .filter(|(kept, told)| is_due(kept, told, repeat, now))
            .collect();
        due.sort_by_key(|(kept, told)| (told.attempts, kept.changed, kept.id));
        due.truncate(limit as usize);
        let delivery = |(kept, told): (&Kept, &Told)| Delivery {
            id: kept.id,
            revision: kept.revision,
            alert: kept.alert.clone(),
            resolved: kept.resolved,
            attempts: told.attempts,
            failing_since: told.failing_since,
        };
        due.into_iter().map(delivery).collect()
    }

    fn told(&mut self, deliveries: &[Delivery], destination: &str, note: impl Fn(&Delivery, &mut Told)) {
        for delivery in deliveries {
            if let Some(kept) = self.kept.iter_mut().find(|kept| kept.id == delivery.id) {
                note(delivery, kept.told.entry(destination.to_owned()).or_default());
            }
        }
    }

    fn tidy(&mut self, destinations: &[String], before: Timestamp) -> u64 {
        let count = self.kept.len();
        self.kept.retain(|kept| {
            let knows = |name: &String| {
                kept.told.get(name).and_then(|told| told.last).is_some_and(|(_, revision, _)| revision >= kept.revision)
            };
            kept.resolved.is_none_or(|resolved| resolved >= before && !destinations.iter().all(knows))
        });
        for kept in &mut self.kept {
            kept.told.retain(|name, _| destinations.contains(name));
        }
        (count - self.kept.len()) as u64
    }
}

fn is_due(kept: &Kept, told: &Told, repeat: Option<Duration>, now: Timestamp) -> bool {
    let open = kept.resolved.is_none();
    let waits = told.again.is_some_and(|again| again > now && again <= now + LONGEST_WAIT * 2);
    let Some((at, revision, as_open)) = told.last else { return !waits };
    let since = |pause: Duration| at <= now - pause || at > now;
    let changed = revision < kept.revision && (as_open != open || since(NEW_WORDS));
    !waits && (changed || (open && repeat.is_some_and(since)))
}

#[async_trait]
impl Outbox for MemoryStore {
    async fn raise(&self, alert: &Alert) -> Result<(), Stop> {
        self.read(|durable| durable.outbox.raise(news::bounded(alert))).await
    }

    async fn resolve(&self, kind: &str, subject: &str, at: Timestamp) -> Result<bool, Stop> {
        self.read(|durable| durable.outbox.resolve(kind, &news::cut(subject), at)).await
    }

    async fn open_alerts(&self) -> Result<Vec<Alert>, Stop> {
        self.read(|durable| durable.outbox.open()).await
    }

    async fn due(
        &self,
        destination: &str,
        repeat: Option<Duration>,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<Delivery>, Stop> {
        self.read(|durable| durable.outbox.due(destination, repeat, now, limit)).await
    }

    async fn delivered(&self, deliveries: &[Delivery], destination: &str, at: Timestamp) -> Result<(), Stop> {
        let note = |delivery: &Delivery, told: &mut Told| {
            *told = Told { last: Some((at, delivery.revision, delivery.resolved.is_none())), ..Told::default() };
        };
        self.read(|durable| durable.outbox.told(deliveries, destination, note)).await
    }

    async fn undelivered(
        &self,
        deliveries: &[Delivery],
        destination: &str,
        at: Timestamp,
        again: Option<Timestamp>,
        _why: &str,
    ) -> Result<(), Stop> {
        if again.is_none() {
            return self.delivered(deliveries, destination, at).await;
        }
        let note = |_: &Delivery, told: &mut Told| {
            told.attempts += 1;
            told.failing_since = told.failing_since.or(Some(at));
            told.again = again;
        };
        self.read(|durable| durable.outbox.told(deliveries, destination, note)).await
    }

    async fn hurry(&self, destination: &str) -> Result<(), Stop> {
        self.read(|durable| {
            for told in durable.outbox.kept.iter_mut().filter_map(|kept| kept.told.get_mut(destination)) {
                told.again = None;
            }
        })
        .await
    }

    async fn tidy(&self, destinations: &[String], before: Timestamp) -> Result<u64, Stop> {
        self.read(|durable| durable.outbox.tidy(destinations, before)).await
    }
}
