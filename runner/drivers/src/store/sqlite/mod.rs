//! SQLite: one file, `muster.db`, in the state directory. Write-ahead log, `synchronous=FULL`: what `append` returned from
//! survives a power cut.
mod history;
mod open;
mod outbox;
mod prune;
mod rows;
#[cfg(test)]
mod tests;
mod trouble;

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use drill::evidence::Stretch;
use drill::id::{DrillName, RunId, Sha256Digest};
use drill::ledger::{Damage, Event, Owner, RunStarted, Stamped};
use drill::port::{ChainLink, Chained, DrillHistory, Pruned, Quarantine, RunSummary, SeenSchedule, Store};
use drill::stop::Stop;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

pub use self::open::Mode;
use self::rows::{int, json, name_of, nanoseconds};
use self::trouble::{Failure, stop};
use super::fold::{self, Folded};

/// Within the state directory.
pub const FILE_NAME: &str = "muster.db";
/// How long a transaction waits for another process.
const BUSY: Duration = Duration::from_secs(5);

/// Work runs on tokio's blocking threads, one statement at a time; dropping a future does not cut a transaction off.
pub struct SqliteStore {
    path: PathBuf,
    inner: Arc<Mutex<Inner>>,
    /// Waited for before a thread is taken: many that wait for the store are many tasks, and one thread with one heap.
    turn: Arc<tokio::sync::Mutex<()>>,
}

struct Inner {
    connection: Connection,
    /// The runs that this process may write to, and as whom. Without those that are settled.
    owned: HashMap<RunId, Owner>,
    /// What their events add up to. Right as long as the owner in the database is this one.
    folded: HashMap<RunId, Folded>,
}

impl SqliteStore {
    /// `path` is the database file; its directory must exist. Blocks for a moment.
    pub fn open(path: &Path, mode: Mode) -> Result<Self, Stop> {
        Self::open_waiting(path, mode, BUSY)
    }

    fn open_waiting(path: &Path, mode: Mode, busy: Duration) -> Result<Self, Stop> {
        let connection = open::open(path, mode, busy)?;
        let inner = Inner { connection, owned: HashMap::new(), folded: HashMap::new() };
        Ok(Self { path: path.to_owned(), inner: Arc::new(Mutex::new(inner)), turn: Arc::default() })
    }

    /// `done` completes "… could not be".
    async fn with<T, W>(&self, done: &'static str, work: W) -> Result<T, Stop>
    where
        T: Send + 'static,
        W: FnOnce(&mut Inner) -> Result<T, Failure> + Send + 'static,
    {
        let (inner, path) = (Arc::clone(&self.inner), self.path.clone());
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let worked = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            // A panic rolled its transaction back; what was folded may be half a step ahead.
            let mut inner = inner.lock().unwrap_or_else(|poisoned: PoisonError<_>| {
                let mut inner = poisoned.into_inner();
                inner.folded.clear();
                inner
            });
            work(&mut inner).map_err(|failure| stop(&path, done, failure))
        });
        worked.await.unwrap_or_else(|error| Err(Stop::internal(format!("the store's thread ended: {error}"))))
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn id(&self) -> Result<String, Stop> {
        let sql = "SELECT value FROM meta WHERE key = 'store-id'";
        self.with("read", |inner| Ok(inner.connection.query_row(sql, [], |row| row.get(0))?)).await
    }

    async fn claim(&self, started: &RunStarted) -> Result<(), Stop> {
        let started = started.clone();
        self.with("written", move |inner| inner.claim(&started)).await
    }

    async fn append(&self, run: &RunId, event: &Event) -> Result<Stamped, Stop> {
        let (run, event) = (run.clone(), event.clone());
        let appended = move |inner: &mut Inner| {
            let appended = inner.append(&run, &event);
            if appended.is_err() {
                inner.folded.remove(&run);
            }
            appended
        };
        self.with("written", appended).await
    }

    async fn events(&self, run: &RunId) -> Result<Vec<Stamped>, Stop> {
        let run = run.clone();
        self.with("read", move |inner| rows::events(&inner.connection, &run)).await
    }

    async fn runs(&self, drill: Option<&DrillName>, limit: u32) -> Result<Vec<RunSummary>, Stop> {
        let drill = drill.map(|drill| drill.as_str().to_owned());
        self.with("read", move |inner| rows::runs(&inner.connection, drill.as_deref(), limit)).await
    }

    async fn newest_of_each(
        &self,
        drills: &[DrillName],
        limit: u32,
    ) -> Result<BTreeMap<DrillName, Vec<RunSummary>>, Stop> {
        let drills = drills.to_vec();
        self.with("read", move |inner| rows::newest_of_each(&inner.connection, &drills, limit)).await
    }

    async fn older_runs(
        &self,
        drill: Option<&DrillName>,
        than: (Timestamp, &RunId),
        limit: u32,
    ) -> Result<Vec<RunSummary>, Stop> {
        let drill = drill.map(|drill| drill.as_str().to_owned());
        let than = (than.0, than.1.as_str().to_owned());
        self.with("read", move |inner| rows::older_runs(&inner.connection, drill.as_deref(), &than, limit)).await
    }

    async fn unsettled(&self) -> Result<Vec<RunId>, Stop> {
        self.with("read", |inner| rows::unsettled(&inner.connection)).await
    }

    async fn owner(&self, run: &RunId) -> Result<Option<Owner>, Stop> {
        let run = run.clone();
        self.with("read", move |inner| owner(&inner.connection, &run)).await
    }

    async fn take_over(&self, run: &RunId, old: &Owner, new: &Owner) -> Result<bool, Stop> {
        let (run, old, new) = (run.clone(), old.clone(), new.clone());
        self.with("written", move |inner| inner.take_over(run, &old, new)).await
    }

    async fn quarantine(&self, entry: &Quarantine) -> Result<(), Stop> {
        let entry = entry.clone();
        self.with("written", move |inner| {
            inner.connection.execute(
                "INSERT INTO quarantine (digest, location, run, why, at) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (digest, location) WHERE released_at IS NULL DO NOTHING",
                params![
                    entry.digest.to_string(),
                    entry.location,
                    entry.run.as_str(),
                    entry.why,
                    nanoseconds(entry.at)?
                ],
            )?;
            Ok(())
        })
        .await
    }

    async fn quarantined(&self) -> Result<Vec<Quarantine>, Stop> {
        self.with("read", |inner| rows::quarantined(&inner.connection)).await
    }

    async fn release_quarantine(&self, digest: Sha256Digest, by: &str) -> Result<u64, Stop> {
        let by = by.to_owned();
        self.with("written", move |inner| {
            let sql =
                "UPDATE quarantine SET released_at = ?2, released_by = ?3 WHERE digest = ?1 AND released_at IS NULL";
            let released =
                inner.connection.execute(sql, params![digest.to_string(), nanoseconds(Timestamp::now())?, by])?;
            Ok(released as u64)
        })
        .await
    }

    async fn chain_head(&self) -> Result<Option<ChainLink>, Stop> {
        self.with("read", |inner| Ok(rows::chain(&inner.connection, "DESC LIMIT 1")?.pop())).await
    }

    async fn extend_chain(&self, link: &ChainLink) -> Result<(), Stop> {
        let link = link.clone();
        self.with("written", move |inner| inner.extend_chain(&link)).await
    }

    async fn chain(&self) -> Result<Vec<ChainLink>, Stop> {
        self.with("read", |inner| rows::chain(&inner.connection, "ASC")).await
    }

    async fn chained(&self, run: &RunId) -> Result<Option<Chained>, Stop> {
        let run = run.clone();
        self.with("read", move |inner| prune::chained(&inner.connection, run.as_str())).await
    }

    async fn skip(
        &self,
        drill: &DrillName,
        self_test: Option<Damage>,
        scheduled_for: Timestamp,
        why: &str,
    ) -> Result<bool, Stop> {
        let (drill, schedule, why) = (drill.clone(), fold::schedule(self_test), why.to_owned());
        self.with("written", move |inner| history::skip(&inner.connection, &drill, schedule, scheduled_for, &why)).await
    }

    async fn seen(&self, schedules: &[SeenSchedule]) -> Result<(), Stop> {
        let schedules = schedules.to_vec();
        self.with("written", move |inner| history::seen(&mut inner.connection, &schedules)).await
    }

    async fn histories(&self) -> Result<Vec<DrillHistory>, Stop> {
        self.with("read", |inner| history::histories(&inner.connection)).await
    }

    async fn prune(&self, before: Option<Timestamp>, keep: Option<u32>) -> Result<Pruned, Stop> {
        self.with("written", move |inner| prune::prune(&mut inner.connection, before, keep)).await
    }

    async fn prunable(&self, before: Option<Timestamp>, keep: Option<u32>) -> Result<Vec<RunSummary>, Stop> {
        self.with("read", move |inner| prune::candidates(&inner.connection, before, keep)).await
    }

    async fn pruned_links(&self) -> Result<Vec<Chained>, Stop> {
        self.with("read", |inner| prune::pruned_links(&inner.connection)).await
    }

    async fn evidence_deleted(&self, links: &[Chained]) -> Result<(), Stop> {
        let links = links.to_vec();
        self.with("written", move |inner| prune::evidence_deleted(&mut inner.connection, &links)).await
    }

    async fn deleted_evidence(&self, part: RangeInclusive<u64>) -> Result<Vec<Stretch>, Stop> {
        self.with("read", move |inner| prune::deleted_evidence(&inner.connection, &part)).await
    }

    async fn try_write(&self) -> Result<(), Stop> {
        self.with("written", |inner| {
            // As long as an event of a run, and other bytes each time: the same ones would be no write.
            let sql = "INSERT INTO meta (key, value) VALUES ('probe', hex(randomblob(2048)))
                ON CONFLICT (key) DO UPDATE SET value = excluded.value";
            inner.connection.execute(sql, [])?;
            Ok(())
        })
        .await
    }

    async fn check(&self) -> Result<(), Stop> {
        self.with("checked", |inner| open::check(&inner.connection)).await
    }

    async fn back_up(&self, to: &Path) -> Result<(), Stop> {
        let to = to.to_owned();
        self.with("copied", move |inner| open::back_up(&inner.connection, &to)).await
    }
}

impl Inner {
    fn claim(&mut self, started: &RunStarted) -> Result<(), Failure> {
        let transaction = self.connection.transaction()?;
        let open = transaction
            .query_row(
                "SELECT run, owner_pid, owner_start_ticks, owner_boot_id FROM runs WHERE drill = ?1 AND ended IS NULL",
                [started.drill.as_str()],
                |row| Ok((rows::text(row, 0)?, rows::owner(row, 1)?)),
            )
            .optional()?;
        if let Some((run, owner)) = open {
            return Err(fold::already_running(&started.drill, &run, &owner).into());
        }
        let known = transaction.query_row("SELECT 1 FROM runs WHERE run = ?1", [started.run.as_str()], |_| Ok(()));
        if known.optional()?.is_some() {
            return Err(fold::run_exists(&started.run).into());
        }
        let (folded, stamped) = Folded::start(started, Timestamp::now());
        let (summary, owner) = (folded.summary(), &started.owner);
        history::claim_slot(&transaction, started)?;
        transaction.execute(
            "INSERT INTO runs (run, drill, owner_pid, owner_start_ticks, owner_boot_id, started, leftovers, trigger, is_self_test)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            params![
                started.run.as_str(),
                started.drill.as_str(),
                owner.pid,
                int(owner.start_ticks)?,
                owner.boot_id,
                nanoseconds(started.at)?,
                name_of(&summary.leftovers)?,
                json(&started.trigger)?,
                fold::is_self_test(&started.trigger)
            ],
        )?;
        write_event(&transaction, &started.run, &stamped)?;
        transaction.commit()?;
        self.owned.insert(started.run.clone(), started.owner.clone());
        self.folded.insert(started.run.clone(), folded);
        Ok(())
    }

    fn append(&mut self, run: &RunId, event: &Event) -> Result<Stamped, Failure> {
        let transaction = self.connection.transaction()?;
        let owner = owner(&transaction, run)?.ok_or_else(|| fold::no_such_run(run))?;
        match self.owned.get(run) {
            None => return Err(fold::not_held(run).into()),
            Some(me) if *me != owner => return Err(fold::taken_over(run, &owner).into()),
            Some(_) => {}
        }
        let mut folded = match self.folded.remove(run) {
            Some(folded) => folded,
            None => Folded::replay(run, &rows::events(&transaction, run)?)?,
        };
        let stamped = folded.advance(event, Timestamp::now())?;
        write_event(&transaction, run, &stamped)?;
        let summary = folded.summary();
        transaction.execute(
            "UPDATE runs SET ended = ?2, verdict = ?3, reason = ?4, leftovers = ?5, recovery_time_milliseconds = ?6,
             evidence = ?7 WHERE run = ?1",
            params![
                run.as_str(),
                summary.ended.map(nanoseconds).transpose()?,
                summary.verdict.map(|verdict| name_of(&verdict)).transpose()?,
                summary.reason.map(|reason| name_of(&reason)).transpose()?,
                name_of(&summary.leftovers)?,
                summary.recovery_time_milliseconds.map(int).transpose()?,
                summary.evidence
            ],
        )?;
        transaction.commit()?;
        if folded.settled() {
            self.owned.remove(run);
        } else {
            self.folded.insert(run.clone(), folded);
        }
        Ok(stamped)
    }

    fn take_over(&mut self, run: RunId, old: &Owner, new: Owner) -> Result<bool, Failure> {
        let transaction = self.connection.transaction()?;
        let now = owner(&transaction, &run)?.ok_or_else(|| fold::no_such_run(&run))?;
        if now != *old {
            return Ok(false);
        }
        transaction.execute(
            "UPDATE runs SET owner_pid = ?2, owner_start_ticks = ?3, owner_boot_id = ?4 WHERE run = ?1",
            params![run.as_str(), new.pid, int(new.start_ticks)?, new.boot_id],
        )?;
        transaction.commit()?;
        self.folded.remove(&run);
        self.owned.insert(run, new);
        Ok(true)
    }

    fn extend_chain(&mut self, link: &ChainLink) -> Result<(), Failure> {
        let transaction = self.connection.transaction()?;
        let head: i64 = transaction.query_row("SELECT coalesce(max(sequence), 0) FROM chain", [], |row| row.get(0))?;
        fold::check_link(rows::uint(head)?, link)?;
        let known = transaction.query_row("SELECT 1 FROM chain WHERE run = ?1", [link.run.as_str()], |_| Ok(()));
        if known.optional()?.is_some() {
            return Err(fold::chained_already(&link.run).into());
        }
        transaction.execute(
            "INSERT INTO chain (sequence, run, digest, path) VALUES (?1, ?2, ?3, ?4)",
            params![int(link.sequence)?, link.run.as_str(), link.digest.to_string(), link.path],
        )?;
        Ok(transaction.commit()?)
    }
}

fn owner(connection: &Connection, run: &RunId) -> Result<Option<Owner>, Failure> {
    let sql = "SELECT owner_pid, owner_start_ticks, owner_boot_id FROM runs WHERE run = ?1";
    Ok(connection.query_row(sql, [run.as_str()], |row| rows::owner(row, 0)).optional()?)
}

fn write_event(transaction: &Transaction<'_>, run: &RunId, stamped: &Stamped) -> Result<(), Failure> {
    let event = json(&stamped.event)?;
    fold::check_size(run, &event)?;
    let sql = "INSERT INTO events (run, sequence, at, json) VALUES (?1, ?2, ?3, ?4)";
    transaction.execute(sql, params![run.as_str(), int(stamped.sequence)?, nanoseconds(stamped.at)?, event])?;
    Ok(())
}
