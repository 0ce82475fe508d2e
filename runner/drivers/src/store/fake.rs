//! A store in memory that keeps the same rules, for tests of whoever writes to one: it fails or crashes where a test says.
mod durable;
mod outbox;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use drill::evidence::{Stretch, merge};
use drill::id::{DrillName, RunId, Sha256Digest};
use drill::ledger::{Damage, Event, Owner, RunStarted, Stamped};
use drill::port::{ChainLink, Chained, DrillHistory, Pruned, Quarantine, RunSummary, SeenSchedule, Store};
use drill::stop::Stop;
use drill::verdict::{Leftovers, Verdict};
use jiff::Timestamp;
use tokio::sync::watch;

use self::durable::{Durable, Run};
use super::fold::{self, Folded};

/// One process's view of a store. [`MemoryStore::reopen`] gives the next process's view of the same.
pub struct MemoryStore {
    durable: Arc<Mutex<Durable>>,
    process: Mutex<Process>,
    crashed: watch::Sender<bool>,
}

#[derive(Default)]
struct Process {
    owned: HashMap<RunId, Owner>,
    writes: u64,
    fail: BTreeMap<u64, Stop>,
    crash: Option<(u64, Cut)>,
    observer: Option<Observer>,
}

type Observer = Box<dyn Fn(&RunId, &Event) + Send>;

/// On which side of a write a process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    Before,
    After,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    pub fn new() -> Self {
        let id = "00000000000000000000000000000001".to_owned();
        Self::of(Arc::new(Mutex::new(Durable { id, ..Durable::default() })))
    }

    fn of(durable: Arc<Mutex<Durable>>) -> Self {
        Self { durable, process: Mutex::default(), crashed: watch::Sender::new(false) }
    }

    /// What a new process sees: all that was written, and no run of its own.
    #[must_use]
    pub fn reopen(&self) -> Self {
        Self::of(Arc::clone(&self.durable))
    }

    /// The nth write from 1 (claims, events and links of the chain count) answers `stop` and writes nothing.
    pub fn fail_at(&self, nth: u64, stop: Stop) {
        lock(&self.process).fail.insert(nth, stop);
    }

    /// At the nth write this process dies: that call and all later ones never return. See [`MemoryStore::crashed`].
    pub fn crash_at(&self, nth: u64, cut: Cut) {
        lock(&self.process).crash = Some((nth, cut));
    }

    /// Resolves once the process has died; whoever drives it then drops it.
    pub async fn crashed(&self) {
        let mut crashed = self.crashed.subscribe();
        // The sender lives in `self`, so that waiting cannot fail.
        let _ = crashed.wait_for(|crashed| *crashed).await;
    }

    pub fn is_crashed(&self) -> bool {
        *self.crashed.borrow()
    }

    /// Writes that were tried until now.
    pub fn writes(&self) -> u64 {
        lock(&self.process).writes
    }

    /// Is shown each event before it is written. It may panic or cancel; it must not call the store.
    pub fn observe(&self, observer: impl Fn(&RunId, &Event) + Send + 'static) {
        lock(&self.process).observer = Some(Box::new(observer));
    }

    async fn write<T>(&self, work: impl FnOnce(&mut Durable, &mut Process) -> Result<T, Stop>) -> Result<T, Stop> {
        match self.try_write(work) {
            Some(result) => result,
            None => std::future::pending().await,
        }
    }

    /// None where the process is dead.
    fn try_write<T>(
        &self,
        work: impl FnOnce(&mut Durable, &mut Process) -> Result<T, Stop>,
    ) -> Option<Result<T, Stop>> {
        if self.is_crashed() {
            return None;
        }
        let mut process = lock(&self.process);
        process.writes += 1;
        let nth = process.writes;
        if let Some(stop) = process.fail.remove(&nth) {
            return Some(Err(stop));
        }
        let cut = process.crash.filter(|(at, _)| *at == nth).map(|(_, cut)| cut);
        if cut == Some(Cut::Before) {
            self.crashed.send_replace(true);
            return None;
        }
        let result = work(&mut lock(&self.durable), &mut process);
        if cut == Some(Cut::After) {
            self.crashed.send_replace(true);
            return None;
        }
        Some(result)
    }

    async fn read<T>(&self, work: impl FnOnce(&mut Durable) -> T) -> Result<T, Stop> {
        if self.is_crashed() {
            return std::future::pending().await;
        }
        Ok(work(&mut lock(&self.durable)))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Store for MemoryStore {
    async fn id(&self) -> Result<String, Stop> {
        self.read(|durable| durable.id.clone()).await
    }

    async fn claim(&self, started: &RunStarted) -> Result<(), Stop> {
        self.write(|durable, process| {
            if let Some(observer) = &process.observer {
                observer(&started.run, &Event::Started(started.clone()));
            }
            let open = durable.runs.iter().find(|(_, run)| {
                let summary = run.folded.summary();
                summary.drill == started.drill && summary.ended.is_none()
            });
            if let Some((run, open)) = open {
                return Err(fold::already_running(&started.drill, run, &open.owner));
            }
            if durable.runs.contains_key(&started.run) {
                return Err(fold::run_exists(&started.run));
            }
            if let Some((schedule, at)) = fold::slot(&started.trigger) {
                let key = (started.drill.clone(), schedule, at);
                if durable.slots.contains_key(&key) {
                    return Err(fold::slot_taken(&started.drill, at));
                }
                durable.slots.insert(key, started.run.to_string());
            }
            let (folded, stamped) = Folded::start(started, Timestamp::now());
            let run = Run { owner: started.owner.clone(), folded, events: vec![stamped] };
            durable.runs.insert(started.run.clone(), run);
            process.owned.insert(started.run.clone(), started.owner.clone());
            Ok(())
        })
        .await
    }

    async fn append(&self, run: &RunId, event: &Event) -> Result<Stamped, Stop> {
        self.write(|durable, process| {
            if let Some(observer) = &process.observer {
                observer(run, event);
            }
            let kept = durable.runs.get_mut(run).ok_or_else(|| fold::no_such_run(run))?;
            match process.owned.get(run) {
                None => return Err(fold::not_held(run)),
                Some(me) if *me != kept.owner => return Err(fold::taken_over(run, &kept.owner)),
                Some(_) => {}
            }
            let mut folded = kept.folded.clone();
            let stamped = folded.advance(event, Timestamp::now())?;
            // As a store does it: what an event is after a restart is what its JSON says.
            let json = serde_json::to_string(&stamped.event).map_err(|error| Stop::internal(error.to_string()))?;
            fold::check_size(run, &json)?;
            let event = serde_json::from_str(&json).map_err(|error| Stop::internal(error.to_string()))?;
            kept.events.push(Stamped { event, ..stamped.clone() });
            kept.folded = folded;
            Ok(stamped)
        })
        .await
    }

    async fn events(&self, run: &RunId) -> Result<Vec<Stamped>, Stop> {
        self.read(|durable| durable.runs.get(run).map(|run| run.events.clone()).unwrap_or_default()).await
    }

    async fn runs(&self, drill: Option<&DrillName>, limit: u32) -> Result<Vec<RunSummary>, Stop> {
        self.read(|durable| {
            let mut runs: Vec<_> = durable.runs.values().map(|run| run.folded.summary()).collect();
            runs.retain(|run| drill.is_none_or(|drill| run.drill == *drill));
            runs.sort_by(|a, b| (b.started, &b.run).cmp(&(a.started, &a.run)));
            runs.truncate(limit as usize);
            runs
        })
        .await
    }

    async fn newest_of_each(
        &self,
        drills: &[DrillName],
        limit: u32,
    ) -> Result<BTreeMap<DrillName, Vec<RunSummary>>, Stop> {
        let mut found = BTreeMap::new();
        for drill in drills {
            let runs = self.runs(Some(drill), limit).await?;
            if !runs.is_empty() {
                found.insert(drill.clone(), runs);
            }
        }
        Ok(found)
    }

    async fn older_runs(
        &self,
        drill: Option<&DrillName>,
        than: (Timestamp, &RunId),
        limit: u32,
    ) -> Result<Vec<RunSummary>, Stop> {
        let mut runs = self.runs(drill, u32::MAX).await?;
        runs.retain(|run| (run.started, &run.run) < than);
        runs.truncate(limit as usize);
        Ok(runs)
    }

    async fn unsettled(&self) -> Result<Vec<RunId>, Stop> {
        self.read(|durable| {
            let mut runs: Vec<_> = durable.runs.values().map(|run| run.folded.summary()).collect();
            runs.retain(|run| run.ended.is_none() || run.leftovers == Leftovers::Some);
            runs.sort_by(|a, b| (a.started, &a.run).cmp(&(b.started, &b.run)));
            runs.into_iter().map(|run| run.run).collect()
        })
        .await
    }

    async fn owner(&self, run: &RunId) -> Result<Option<Owner>, Stop> {
        self.read(|durable| durable.runs.get(run).map(|kept| kept.owner.clone())).await
    }

    async fn take_over(&self, run: &RunId, old: &Owner, new: &Owner) -> Result<bool, Stop> {
        self.write(|durable, process| {
            let kept = durable.runs.get_mut(run).ok_or_else(|| fold::no_such_run(run))?;
            if kept.owner != *old {
                return Ok(false);
            }
            kept.owner = new.clone();
            process.owned.insert(run.clone(), new.clone());
            Ok(true)
        })
        .await
    }

    async fn quarantine(&self, entry: &Quarantine) -> Result<(), Stop> {
        self.read(|durable| {
            let known = durable.quarantine.iter().any(|e| e.digest == entry.digest && e.location == entry.location);
            if !known {
                durable.quarantine.push(entry.clone());
            }
        })
        .await
    }

    async fn quarantined(&self) -> Result<Vec<Quarantine>, Stop> {
        self.read(|durable| durable.quarantine.clone()).await
    }

    async fn release_quarantine(&self, digest: Sha256Digest, _by: &str) -> Result<u64, Stop> {
        self.read(|durable| {
            let before = durable.quarantine.len();
            durable.quarantine.retain(|entry| entry.digest != digest);
            (before - durable.quarantine.len()) as u64
        })
        .await
    }

    async fn chain_head(&self) -> Result<Option<ChainLink>, Stop> {
        self.read(|durable| durable.chain.last().cloned()).await
    }

    async fn extend_chain(&self, link: &ChainLink) -> Result<(), Stop> {
        self.write(|durable, _| {
            fold::check_link(durable.chain.last().map_or(0, |head| head.sequence), link)?;
            if durable.chain.iter().any(|known| known.run == link.run) {
                return Err(fold::chained_already(&link.run));
            }
            durable.chain.push(link.clone());
            Ok(())
        })
        .await
    }

    async fn chain(&self) -> Result<Vec<ChainLink>, Stop> {
        let kept = |durable: &mut Durable| {
            let mut chain = durable.chain.clone();
            chain.retain(|link| !durable.pruned.contains(&link.sequence));
            chain
        };
        self.read(kept).await
    }

    async fn chained(&self, run: &RunId) -> Result<Option<Chained>, Stop> {
        self.read(|durable| durable.chain.iter().find(|link| link.run == *run).map(|link| durable.chained(link))).await
    }

    async fn skip(
        &self,
        drill: &DrillName,
        self_test: Option<Damage>,
        scheduled_for: Timestamp,
        why: &str,
    ) -> Result<bool, Stop> {
        let key = (drill.clone(), fold::schedule(self_test).to_owned(), scheduled_for);
        self.write(|durable, _| {
            let new = !durable.slots.contains_key(&key);
            durable.slots.entry(key).or_insert_with(|| why.to_owned());
            Ok(new)
        })
        .await
    }

    async fn seen(&self, schedules: &[SeenSchedule]) -> Result<(), Stop> {
        self.write(|durable, _| {
            for seen in schedules {
                let key = (seen.drill.clone(), seen.self_test);
                let first = durable.seen.get(&key).map_or(seen.at, |(_, first)| *first);
                durable.seen.insert(key, (seen.clone(), first));
            }
            Ok(())
        })
        .await
    }

    async fn histories(&self) -> Result<Vec<DrillHistory>, Stop> {
        self.read(|durable| {
            let mut runs: Vec<_> = durable.runs.values().map(|run| run.folded.summary()).collect();
            runs.sort_by(|a, b| (b.started, &b.run).cmp(&(a.started, &a.run)));
            let counts: Vec<_> = runs.iter().filter(|run| !fold::is_self_test(&run.trigger)).collect();
            let of_slots = durable.slots.keys().map(|(drill, ..)| drill);
            let of_seen = durable.seen.keys().map(|(drill, _)| drill);
            let names: BTreeSet<_> = runs.iter().map(|run| &run.drill).chain(of_slots).chain(of_seen).collect();
            let history = |drill: &DrillName| DrillHistory {
                drill: drill.clone(),
                first_seen: durable.seen.get(&(drill.clone(), None)).map(|(_, first)| *first),
                schedules: durable.schedules(drill),
                last: counts.iter().find(|run| run.drill == *drill).map(|run| (*run).clone()),
                last_success: counts
                    .iter()
                    .find(|run| run.drill == *drill && run.verdict == Some(Verdict::Passed))
                    .map(|run| (*run).clone()),
            };
            names.into_iter().map(history).collect()
        })
        .await
    }

    async fn prune(&self, before: Option<Timestamp>, keep: Option<u32>) -> Result<Pruned, Stop> {
        self.write(|durable, _| {
            let found = durable.prunable(before, keep);
            let more = found.len() > fold::PORTION as usize;
            let mut runs = 0;
            for run in found.into_iter().take(fold::PORTION as usize) {
                durable.runs.remove(&run.run);
                let link = durable.chain.iter().find(|link| link.run == run.run);
                durable.pruned.extend(link.map(|link| link.sequence));
                runs += 1;
            }
            Ok(Pruned { runs, more })
        })
        .await
    }

    async fn prunable(&self, before: Option<Timestamp>, keep: Option<u32>) -> Result<Vec<RunSummary>, Stop> {
        self.read(|durable| durable.prunable(before, keep)).await
    }

    async fn pruned_links(&self) -> Result<Vec<Chained>, Stop> {
        self.read(|durable| {
            let pruned = durable.chain.iter().filter(|link| durable.pruned.contains(&link.sequence));
            pruned.take(fold::PORTION as usize).map(|link| durable.chained(link)).collect()
        })
        .await
    }

    async fn evidence_deleted(&self, links: &[Chained]) -> Result<(), Stop> {
        self.write(|durable, _| {
            for link in links {
                if durable.pruned.remove(&link.link.sequence) {
                    durable.chain.retain(|kept| kept.sequence != link.link.sequence);
                    durable.deleted_evidence.push(link.stretch());
                }
            }
            durable.deleted_evidence = merge(std::mem::take(&mut durable.deleted_evidence));
            Ok(())
        })
        .await
    }

    async fn deleted_evidence(&self, part: RangeInclusive<u64>) -> Result<Vec<Stretch>, Stop> {
        let within = |durable: &mut Durable| {
            let mut found = durable.deleted_evidence.clone();
            found.retain(|stretch| part.contains(&stretch.first));
            found
        };
        self.read(within).await
    }

    async fn try_write(&self) -> Result<(), Stop> {
        self.write(|_, _| Ok(())).await
    }

    async fn check(&self) -> Result<(), Stop> {
        Ok(())
    }

    async fn back_up(&self, to: &Path) -> Result<(), Stop> {
        Err(Stop::internal(format!("a store in memory has nothing to copy to {}", to.display())))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::store::contract::{concluded, started};

    #[tokio::test]
    async fn the_nth_write_fails_and_the_next_does_not() {
        let (store, run) = (MemoryStore::new(), started("orders", 1, 1));
        store.fail_at(2, Stop::internal("the disk is full"));
        store.claim(&run).await.unwrap();
        assert_eq!(store.append(&run.run, &concluded()).await.unwrap_err().message, "the disk is full");
        assert_eq!(store.append(&run.run, &concluded()).await.unwrap().sequence, 2);
        assert_eq!(store.writes(), 3);
    }

    #[tokio::test]
    async fn a_crash_ends_the_process_on_the_side_that_was_asked_for() {
        for (cut, written) in [(Cut::Before, 1), (Cut::After, 2)] {
            let (store, run) = (MemoryStore::new(), started("orders", 1, 1));
            store.crash_at(2, cut);
            let work = async {
                store.claim(&run).await.unwrap();
                store.append(&run.run, &concluded()).await.unwrap();
            };
            tokio::select! {
                () = work => panic!("it went on"),
                () = store.crashed() => {}
            }
            assert_eq!(store.reopen().events(&run.run).await.unwrap().len(), written);
        }
    }
}
