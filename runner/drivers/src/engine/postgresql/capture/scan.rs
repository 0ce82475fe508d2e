//! Exact counts and content digests inside the snapshot, in one pass over each table.
//!
//! Large tables come first, one at a time, all connections reading ranges of one; then small tables, each by one connection.
//! So the rows that are held at once are those of one large table ([`MAX_HELD`] at most, 50 MB; what is more is sorted on disk)
//! or of one small table a connection (at most 291 rows fit into a page, 596,000 into 16 MiB, 29 MB), and beside them one row a
//! connection. Whose size is not known counts as large.
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use drill::baseline::{Bucketing, ContentDigest, Form, Layout};
use drill::content::{MAX_HELD, PlaceTooLarge, Row, RowReader};
use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;
use tokio::sync::{Mutex, OwnedMutexGuard, mpsc};
use tokio::task::JoinSet;

use super::super::content::{self, PageRange, copy_statement};
use super::conninfo::ConnInfo;
use super::digests::Digests;
use super::session::Session;
use super::sink::Sink;
use super::snapshot::{Kind, Relation, Snapshot};
use super::sort::{SORTING, Sorted, Sorter};
use super::throttle::ScanMeter;

/// Rows and bytes that a connection reads before it hands them over.
const BATCH_ROWS: usize = 4096;
const BATCH_BYTES: u64 = 256 << 10;
/// Batches that wait for being sorted in.
const QUEUE: usize = 8;

/// Pages of each heap. Not of materialized views: LOCK TABLE does not take them, so that this would wait for their refresh.
const SIZES: &str = "
SELECT c.oid, pg_catalog.pg_relation_size(c.oid) / pg_catalog.current_setting('block_size')::pg_catalog.int8
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_am a ON a.oid = c.relam
WHERE c.oid = ANY ('{OIDS}'::pg_catalog.oid[]) AND a.amname = 'heap'";

/// In the order of `snapshot.relations`.
pub(super) struct Scanned {
    pub(super) rows: Vec<Option<u64>>,
    pub(super) digests: Vec<Option<ContentDigest>>,
    pub(super) warnings: Vec<String>,
}

pub(super) struct Options<'a> {
    pub(super) digests: &'a Digests,
    /// Connections beside the one that holds the snapshot.
    pub(super) jobs: usize,
    /// Of the backup.
    pub(super) directory: &'a Path,
}

/// One relation to be read.
struct Task {
    position: usize,
    schema: String,
    name: String,
    quoted: String,
    /// None: the rows are counted.
    layout: Option<Layout>,
    /// None of them: it cannot be read, and the dump holds none of its rows either.
    ranges: Vec<PageRange>,
    /// A heap of at most one range.
    is_small: bool,
}

/// None: it is locked.
type Read = Option<(u64, Option<ContentDigest>)>;

pub(super) async fn scan(
    snapshot: &Snapshot,
    info: &ConnInfo,
    options: &Options<'_>,
    sink: Sink,
    meter: &Arc<ScanMeter>,
) -> Result<Scanned, Stop> {
    let scanner =
        Scanner { sink: Arc::new(Mutex::new(sink)), meter: meter.clone(), directory: options.directory.into() };
    let tasks = tasks(snapshot, options.digests).await?;
    let work = tasks.iter().map(|task| task.ranges.len().max(1)).sum();
    let mut team = Vec::new();
    for _ in 0..options.jobs.min(work) {
        team.push(Arc::new(worker(info, snapshot).await?));
    }
    let is_large = |task: &Arc<Task>| !task.is_small && task.layout.is_some();
    let (large, small): (Vec<_>, Vec<_>) = tasks.into_iter().map(Arc::new).partition(is_large);
    let mut done = Vec::new();
    for task in large {
        done.push((task.clone(), scanner.read(&team, &task).await?));
    }
    done.extend(scanner.read_small(&team, small).await?);
    // What another session waits for with a stronger lock. A worker would queue behind it, and it waits for us: only the session
    // that holds the locks can read these.
    let mut result = Scanned {
        rows: vec![None; snapshot.relations.len()],
        digests: vec![None; snapshot.relations.len()],
        warnings: Vec::new(),
    };
    let holder = [snapshot.session.clone()];
    prepare(&snapshot.session).await?;
    for (task, mut read) in done {
        if read.is_none() {
            read = scanner.read(&holder, &task).await?;
        }
        match read {
            Some((rows, digest)) => {
                result.rows[task.position] = Some(rows);
                result.digests[task.position] = digest;
            }
            None => result.warnings.push(format!("{} was locked, so its rows are not in the baseline", task.quoted)),
        }
    }
    // What follows is read as text.
    snapshot.session.run("SET client_encoding = 'UTF8'").await?;
    scanner.sink.lock().await.flush()?;
    Ok(result)
}

/// Largest first, so that no worker begins the largest last.
async fn tasks(snapshot: &Snapshot, digests: &Digests) -> Result<Vec<Task>, Stop> {
    let session = &snapshot.session;
    let mut layouts = match digests {
        Digests::None => std::collections::HashMap::new(),
        _ => content::layouts(
            session.rows(content::TYPES).await?,
            session.rows(content::COLUMNS).await?,
            session.rows(content::KEYS).await?,
        ),
    };
    let tables = snapshot.relations.iter().filter(|relation| relation.kind == Kind::Table);
    let oids: Vec<String> = tables.map(|relation| relation.oid.to_string()).collect();
    let mut pages = std::collections::HashMap::new();
    for [oid, size] in session.rows::<2>(&SIZES.replace("OIDS", &oids.join(","))).await? {
        let number = |text: Option<String>| text.and_then(|text| text.parse::<u32>().ok());
        if let (Some(oid), Some(size)) = (number(oid), number(size)) {
            pages.insert(oid, size);
        }
    }
    let task = |(position, relation): (usize, &Relation)| {
        let is_read = match relation.kind {
            Kind::Table => true,
            Kind::Matview => relation.populated,
            Kind::Partitioned | Kind::Foreign => false,
        };
        let is_empty = snapshot.in_recovery && relation.unlogged;
        let size = pages.get(&relation.oid).copied();
        let ranges = if is_empty { Vec::new() } else { PageRange::split(size.unwrap_or(0)) };
        is_read.then(|| Task {
            position,
            schema: relation.schema.clone(),
            name: relation.name.clone(),
            quoted: relation.quoted(),
            layout: digests
                .includes(&relation.schema, &relation.name)
                .then(|| layouts.remove(&relation.oid).unwrap_or_else(no_columns)),
            is_small: is_small(size, &ranges),
            ranges,
        })
    };
    let mut tasks: Vec<Task> = snapshot.relations.iter().enumerate().filter_map(task).collect();
    tasks.sort_by_key(|task| std::cmp::Reverse(task.ranges.len()));
    Ok(tasks)
}

/// A materialized view, or a table that is no heap, may hold any number of rows.
fn is_small(pages: Option<u32>, ranges: &[PageRange]) -> bool {
    ranges.is_empty() || (pages.is_some() && ranges.len() == 1)
}

fn no_columns() -> Layout {
    Layout { form: Form::Binary, columns: Vec::new(), bucketing: Bucketing::RowDigest }
}

async fn worker(info: &ConnInfo, snapshot: &Snapshot) -> Result<Session, Stop> {
    let session = Session::connect(info).await?;
    session.run("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY").await?;
    session.run(&format!("SET TRANSACTION SNAPSHOT '{}'", snapshot.id.replace('\'', ""))).await?;
    session.run("SET LOCAL lock_timeout = '500ms'").await?;
    prepare(&session).await?;
    Ok(session)
}

/// The bytes of a `SQL_ASCII` database may be none of UTF-8. A table that is locked costs no more than the savepoint.
async fn prepare(session: &Session) -> Result<(), Stop> {
    if session.cell("SHOW server_encoding").await? == "SQL_ASCII" {
        session.run("SET client_encoding = 'SQL_ASCII'").await?;
    }
    session.run(SAVEPOINT).await
}

const SAVEPOINT: &str = "SAVEPOINT before_scan";
const ROLLBACK: &str = "ROLLBACK TO SAVEPOINT before_scan";

#[derive(Clone)]
struct Scanner {
    sink: Arc<Mutex<Sink>>,
    meter: Arc<ScanMeter>,
    /// Where what does not fit into memory is sorted.
    directory: Arc<Path>,
}

impl Scanner {
    async fn read_small(&self, team: &[Arc<Session>], tasks: Vec<Arc<Task>>) -> Result<Vec<(Arc<Task>, Read)>, Stop> {
        let tasks: Arc<[Arc<Task>]> = tasks.into();
        let next = Arc::new(AtomicUsize::new(0));
        let mut workers = JoinSet::new();
        for session in team {
            let (scanner, session, tasks, next) = (self.clone(), [session.clone()], tasks.clone(), next.clone());
            workers.spawn(async move {
                let mut done = Vec::new();
                while let Some(task) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
                    done.push((task.clone(), scanner.read(&session, task).await?));
                }
                Ok::<_, Stop>(done)
            });
        }
        let mut all = Vec::new();
        while let Some(done) = workers.join_next().await {
            all.extend(done.or_stop(Reason::Internal, "reading tables")??);
        }
        Ok(all)
    }

    async fn read(&self, team: &[Arc<Session>], task: &Arc<Task>) -> Result<Read, Stop> {
        match (&task.layout, team) {
            (Some(layout), _) => self.digest(team, task, layout).await,
            (None, _) if task.ranges.is_empty() => Ok(Some((0, None))),
            (None, [session, ..]) => self.count(session, task).await,
            (None, []) => Err(Stop::internal("nobody counts")),
        }
    }

    async fn count(&self, session: &Session, task: &Task) -> Result<Read, Stop> {
        let query = format!("SELECT pg_catalog.count(*) FROM ONLY {}", task.quoted);
        let Some(count) = session.cell_unless_locked(&query).await? else {
            session.run(ROLLBACK).await?;
            return Ok(None);
        };
        let rows = count.parse().map_err(|_| Stop::internal(format!("the server counted `{count}` rows")))?;
        self.meter.add(rows, 0).await;
        Ok(Some((rows, None)))
    }

    async fn digest(&self, team: &[Arc<Session>], task: &Arc<Task>, layout: &Layout) -> Result<Read, Stop> {
        let Some(sorted) = self.sorted(team, task).await? else { return Ok(None) };
        let guard = self.sink.clone().lock_owned().await;
        let (rows, layout) = (sorted.rows, layout.clone());
        let written = blocking(move || write(guard, sorted, &layout)).await??;
        let digest = written.map_err(|PlaceTooLarge| {
            let problem = format!("more than {MAX_HELD} rows of {} have one key", task.quoted);
            Stop::new(Reason::SandboxUnfit, problem)
                .advise("its unique index is damaged: REINDEX it, or leave the table out of --digests")
        })?;
        Ok(Some((rows, Some(digest))))
    }

    /// None: it is locked.
    async fn sorted(&self, team: &[Arc<Session>], task: &Arc<Task>) -> Result<Option<Sorted>, Stop> {
        let (send, mut receive) = mpsc::channel::<Vec<Row>>(QUEUE);
        let mut sorter = Sorter::new(&self.directory);
        let all = blocking(move || {
            while let Some(rows) = receive.blocking_recv() {
                rows.into_iter().try_for_each(|row| sorter.push(row))?;
            }
            sorter.finish()
        });
        let all = async { all.await?.or_stop(Reason::SandboxUnfit, SORTING) };
        let next = Arc::new(AtomicUsize::new(0));
        let mut readers = JoinSet::new();
        for session in team {
            let (meter, session, task) = (self.meter.clone(), session.clone(), task.clone());
            readers.spawn(read_ranges(session, task, next.clone(), send.clone(), meter));
        }
        drop(send);
        let reading = async {
            let mut locked = false;
            while let Some(done) = readers.join_next().await {
                locked |= !done.or_stop(Reason::Internal, "reading a table")??;
            }
            Ok(locked)
        };
        let (locked, all) = tokio::try_join!(reading, all)?;
        Ok((!locked).then_some(all))
    }
}

/// False: the table is locked.
async fn read_ranges(
    session: Arc<Session>,
    task: Arc<Task>,
    next: Arc<AtomicUsize>,
    send: mpsc::Sender<Vec<Row>>,
    meter: Arc<ScanMeter>,
) -> Result<bool, Stop> {
    let Some(layout) = &task.layout else { return Ok(true) };
    while let Some(range) = task.ranges.get(next.fetch_add(1, Ordering::Relaxed)) {
        let statement = copy_statement(&task.schema, &task.name, layout, *range);
        let Some(mut copy) = session.copy(&statement).await? else {
            // The others need not go on.
            next.store(task.ranges.len(), Ordering::Relaxed);
            session.run(ROLLBACK).await?;
            return Ok(false);
        };
        let malformed = |error| Stop::internal(format!("reading {}: {error}", task.quoted));
        let mut reader = RowReader::new(layout).map_err(malformed)?;
        let (mut rows, mut bytes) = (Vec::new(), 0);
        loop {
            let message = copy.next().await?;
            if let Some(message) = &message {
                reader.feed(message).map_err(malformed)?;
                rows.extend(reader.end().map_err(malformed)?);
                bytes += message.len() as u64;
            }
            if message.is_none() || rows.len() >= BATCH_ROWS || bytes >= BATCH_BYTES {
                meter.add(rows.len() as u64, bytes).await;
                bytes = 0;
                // Nobody listens any more only where another one failed.
                let _ = send.send(std::mem::take(&mut rows)).await;
            }
            if message.is_none() {
                break;
            }
        }
        reader.finish().map_err(malformed)?;
    }
    Ok(true)
}

/// What stands in the baseline of one table. Nothing of another may be written meanwhile: its row digests are one piece.
fn write(
    mut sink: OwnedMutexGuard<Sink>,
    sorted: Sorted,
    layout: &Layout,
) -> Result<Result<ContentDigest, PlaceTooLarge>, Stop> {
    let mut table = sink.begin();
    match sorted.cut(|groups| sink.add(&mut table, groups))? {
        Ok(()) => sink.finish(&table, layout).map(Ok),
        Err(too_large) => Ok(Err(too_large)),
    }
}

/// Sorting and hashing a table takes seconds.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Stop> {
    tokio::task::spawn_blocking(work).await.or_stop(Reason::Internal, "sorting rows")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_known_size_is_not_read_beside_others() {
        let small = |pages: Option<u32>| is_small(pages, &PageRange::split(pages.unwrap_or(0)));
        assert_eq!([Some(0), Some(2048), Some(2049), None].map(small), [true, true, false, false]);
        assert!(is_small(None, &[]), "nothing is read of it");
    }
}
