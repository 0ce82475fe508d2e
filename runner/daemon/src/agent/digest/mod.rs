//! Content digests of restored tables, as a check's `digest`.
//!
//! [`Contents`] starts a [`table`] scan a table; scans share a few connections and a bound on what they hold.
mod sink;
mod table;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use drill::baseline::ContentDigest;
use plugin_host::backend::{Blame, Digest, Error, Scan, ScanOutcome, ScanProgress};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use self::table::Table;
use super::baseline::Baseline;
use super::pieces::Pieces;
use super::sql::{self, Scans};

/// Digests of rows that all scans of a check hold together: 32 bytes each, and up to 64 while a list of them grows, so 512 MiB
/// at most.
const MAX_HELD: usize = 1 << 23;
/// What is counted against that bound at once.
const SHARE: usize = 1 << 10;
/// What an aborted scan may take to end.
const CLOSE: Duration = Duration::from_secs(10);
/// More would only take turns.
const MAX_CONNECTIONS: usize = 8;

pub(super) struct Contents {
    baseline: Option<Arc<Baseline>>,
    shared: Arc<Shared>,
}

/// What the scans of one check share.
struct Shared {
    pieces: Pieces,
    scans: Scans,
    workers: usize,
    connections: Arc<Semaphore>,
    idle: Mutex<Vec<sql::Scan>>,
    tasks: TaskTracker,
    /// In shares.
    room: Arc<Semaphore>,
}

impl Contents {
    pub(super) fn new(baseline: Option<Arc<Baseline>>, pieces: Pieces, scans: Scans) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = cores.min(MAX_CONNECTIONS);
        let shared = Shared {
            pieces,
            scans,
            workers,
            connections: Arc::new(Semaphore::new(workers)),
            idle: Mutex::default(),
            tasks: TaskTracker::new(),
            room: Arc::new(Semaphore::new(MAX_HELD / SHARE)),
        };
        Self { baseline, shared: Arc::new(shared) }
    }

    /// Waits for scans that nobody holds any more: what they say must come before the end of their check.
    pub(super) async fn ended(&self) {
        self.shared.tasks.close();
        if tokio::time::timeout(CLOSE, self.shared.tasks.wait()).await.is_err() {
            eprintln!("muster agent: a scan did not end in time");
        }
    }

    fn digest(&self, schema: &str, name: &str) -> Option<ContentDigest> {
        let table = (schema.to_owned(), name.to_owned());
        self.baseline.as_ref()?.digests.get(&table).cloned()
    }
}

#[async_trait]
impl Digest for Contents {
    async fn start(&self, schema: &str, name: &str) -> Result<Box<dyn Scan>, Error> {
        let digest = self.digest(schema, name).ok_or_else(|| Error {
            blame: Blame::Plugin,
            code: None,
            message: format!("the baseline has no digest of {schema}.{name}"),
        })?;
        let table = Table::new(schema, name, digest, Arc::clone(&self.shared));
        let seen = table.seen();
        let work = AbortOnDropHandle::new(self.shared.tasks.spawn(table.scan()));
        Ok(Box::new(Running { seen, work }))
    }
}

/// A scan that runs. Dropping it ends its task, and with it the statements.
struct Running {
    seen: Arc<sink::Seen>,
    work: AbortOnDropHandle<Result<ScanOutcome, Error>>,
}

#[async_trait]
impl Scan for Running {
    fn progress(&self) -> ScanProgress {
        ScanProgress { rows: self.seen.rows.load(Ordering::Relaxed), bytes: self.seen.bytes.load(Ordering::Relaxed) }
    }

    async fn finish(self: Box<Self>) -> Result<ScanOutcome, Error> {
        self.work.await.unwrap_or_else(|_| Err(host("the scan of a table failed")))
    }
}

/// A connection while somebody reads through it.
struct Held {
    scan: sql::Scan,
    _turn: OwnedSemaphorePermit,
}

impl Shared {
    async fn connection(&self) -> Result<Held, Error> {
        let turn = Arc::clone(&self.connections).acquire_owned().await.map_err(|_| host("the scans have ended"))?;
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let scan = match idle {
            Some(scan) => scan,
            None => self.scans.connect().await?,
        };
        Ok(Held { scan, _turn: turn })
    }

    /// Only one through which nothing went wrong.
    fn give_back(&self, held: Held) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(held.scan);
    }

    /// Room for as many of `rows` digests as one table may hold, and how many those are.
    async fn room(&self, rows: u64) -> Result<(OwnedSemaphorePermit, usize), Error> {
        // A table that was expected to be empty gets some, too, for what may be in it.
        let wanted = usize::try_from(rows).unwrap_or(MAX_HELD).saturating_add(64 * SHARE).min(MAX_HELD);
        let shares = wanted.div_ceil(SHARE);
        let permits = u32::try_from(shares).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.room).acquire_many_owned(permits).await;
        Ok((permit.map_err(|_| host("the scans have ended"))?, shares * SHARE))
    }
}

fn host(message: impl Into<String>) -> Error {
    Error { blame: Blame::Host, code: None, message: message.into() }
}
