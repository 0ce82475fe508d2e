//! Exact row counts inside the snapshot, several at once.
use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use drill::stop::Stop;
use futures_util::future::try_join_all;

use super::conninfo::ConnInfo;
use super::session::Session;
use super::snapshot::{Kind, Relation, Snapshot};

/// Rows of each relation, in the order of `snapshot.relations`.
pub(super) struct Counts {
    pub(super) rows: Vec<Option<u64>>,
    pub(super) warnings: Vec<String>,
}

struct Work<'a> {
    relations: &'a [Relation],
    queue: Mutex<VecDeque<usize>>,
    /// What another session waits for with a stronger lock. A worker would queue behind it, and it waits for us: only the
    /// session that holds the locks can read these.
    deferred: Mutex<Vec<usize>>,
    rows: Mutex<Vec<Option<u64>>>,
    counted: &'a AtomicU64,
}

/// `jobs` connections count, the one that holds the snapshot being the first.
pub(super) async fn count(
    snapshot: &Snapshot,
    info: &ConnInfo,
    jobs: usize,
    counted: &AtomicU64,
) -> Result<Counts, Stop> {
    let mut rows = vec![None; snapshot.relations.len()];
    let mut queue = VecDeque::new();
    for position in &snapshot.by_size {
        let relation = &snapshot.relations[*position];
        match relation.kind {
            // A standby cannot read them, so the dump holds none of their rows either.
            Kind::Table if relation.unlogged && snapshot.in_recovery => rows[*position] = Some(0),
            Kind::Table => queue.push_back(*position),
            Kind::Matview if relation.populated => queue.push_back(*position),
            Kind::Matview | Kind::Partitioned | Kind::Foreign => {}
        }
    }
    let workers = jobs.min(queue.len()).saturating_sub(1);
    let work = Work {
        relations: &snapshot.relations,
        queue: Mutex::new(queue),
        deferred: Mutex::default(),
        rows: Mutex::new(rows),
        counted,
    };
    let others = try_join_all((0..workers).map(|_| work.worker(info, &snapshot.id)));
    tokio::try_join!(work.drain(&snapshot.session, false), others)?;
    let mut warnings = Vec::new();
    let deferred = std::mem::take(&mut *lock(&work.deferred));
    for position in deferred {
        if !work.one(&snapshot.session, position).await? {
            let name = work.relations[position].quoted();
            warnings.push(format!("{name} was locked, so its rows are not in the baseline"));
        }
    }
    Ok(Counts { rows: std::mem::take(&mut *lock(&work.rows)), warnings })
}

impl Work<'_> {
    async fn worker(&self, info: &ConnInfo, snapshot: &str) -> Result<(), Stop> {
        let session = Session::connect(info).await?;
        session.run("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY").await?;
        session.run(&format!("SET TRANSACTION SNAPSHOT '{}'", snapshot.replace('\'', ""))).await?;
        session.run("SET LOCAL lock_timeout = '500ms'").await?;
        self.drain(&session, true).await
    }

    async fn drain(&self, session: &Session, defer: bool) -> Result<(), Stop> {
        loop {
            let Some(position) = lock(&self.queue).pop_front() else { return Ok(()) };
            if defer || self.relations[position].kind == Kind::Matview {
                if !self.one(session, position).await? {
                    lock(&self.deferred).push(position);
                }
            } else {
                self.one(session, position).await?;
            }
        }
    }

    /// False: it is locked.
    async fn one(&self, session: &Session, position: usize) -> Result<bool, Stop> {
        let relation = &self.relations[position];
        session.run("SAVEPOINT before_count").await?;
        let query = format!("SELECT pg_catalog.count(*) FROM ONLY {}", relation.quoted());
        let Some(count) = session.cell_unless_locked(&query).await? else {
            session.run("ROLLBACK TO SAVEPOINT before_count").await?;
            return Ok(false);
        };
        session.run("RELEASE SAVEPOINT before_count").await?;
        let count = count.parse().map_err(|_| Stop::internal(format!("the server counted `{count}` rows")))?;
        lock(&self.rows)[position] = Some(count);
        self.counted.fetch_add(1, Ordering::Relaxed);
        Ok(true)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
