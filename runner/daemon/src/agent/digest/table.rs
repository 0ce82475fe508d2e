//! The scan of one table: as the baseline's layout says, in as many passes as its bound on memory takes.
use std::sync::{Arc, Mutex, PoisonError};

use drill::agent::BaselinePart;
use drill::baseline::{Bucketing, ContentDigest};
use drill::content::{
    Block, Detail, ENCODED_BLOCK, ENCODED_ROW, Found, Matched, Matcher, Prefixes, RowReader, decode, row_digests,
    rows_different,
};
use drivers::engine::postgresql::content::PageRange;
use plugin_host::backend::{Error, Mismatch, ScanOutcome};
use tokio::task::JoinSet;

use super::super::pieces::Pieces;
use super::sink::{Seen, Sink};
use super::{Shared, host};

/// Different blocks that are told one by one.
const MISMATCHES: usize = 1_000;
/// A table with fewer rows is read in one piece, without asking for its size.
const SMALL: u64 = 20_000;

pub(super) struct Table {
    schema: String,
    name: String,
    digest: ContentDigest,
    shared: Arc<Shared>,
    seen: Arc<Seen>,
}

impl Table {
    pub(super) fn new(schema: &str, name: &str, digest: ContentDigest, shared: Arc<Shared>) -> Self {
        Self { schema: schema.to_owned(), name: name.to_owned(), digest, shared, seen: Arc::default() }
    }

    pub(super) fn seen(&self) -> Arc<Seen> {
        Arc::clone(&self.seen)
    }

    pub(super) async fn scan(self) -> Result<ScanOutcome, Error> {
        let expected = self.expected().await?;
        let rows: u64 = expected.iter().map(|block| block.rows).sum();
        let (_room, max_held) = self.shared.room(rows).await?;
        let table = Arc::new(self);
        let ranges = table.ranges(rows).await?;

        let detail = if table.digest.row_digests_at.is_some() { MISMATCHES } else { 0 };
        let mut matcher = Matcher::new(&expected, max_held, detail);
        loop {
            let again;
            (matcher, again) = table.pass(matcher, &ranges).await?;
            if !again {
                break;
            }
        }
        let ended = matcher.finish().map_err(|error| host(error.to_string()))?;
        Ok(table.outcome(&expected, &ended).await)
    }

    /// The baseline's blocks. Its root vouches for them, whoever handed them over.
    async fn expected(&self) -> Result<Arc<[Block]>, Error> {
        let length = self.digest.blocks.saturating_mul(ENCODED_BLOCK as u64);
        let bytes = self.shared.pieces.fetch(BaselinePart::Blocks, self.digest.at, length).await.map_err(host)?;
        let digest = self.digest.clone();
        let blocks = blocking(move || decode(&bytes, &digest)).await?;
        Ok(blocks.map_err(|error| host(error.to_string()))?.into())
    }

    async fn ranges(&self, rows: u64) -> Result<Vec<PageRange>, Error> {
        if rows < SMALL {
            return Ok(vec![PageRange::ALL]);
        }
        let mut held = self.shared.connection().await?;
        let ranges = held.scan.pieces(&self.schema, &self.name).await?;
        self.shared.give_back(held);
        Ok(ranges)
    }

    /// Reads the whole table once, over as many connections as there are to be had. True: it must be read again.
    async fn pass(self: &Arc<Self>, matcher: Matcher, ranges: &[PageRange]) -> Result<(Matcher, bool), Error> {
        let work = Arc::new(Pass { matcher: Mutex::new(matcher), queue: Mutex::new(ranges.to_vec()) });
        let mut workers = JoinSet::new();
        for _ in 0..self.shared.workers.min(ranges.len()) {
            workers.spawn(Arc::clone(self).work(Arc::clone(&work)));
        }
        // The first error ends the others, which end with the set.
        while let Some(ended) = workers.join_next().await {
            ended.map_err(|_| host("the scan of a table failed"))??;
        }
        let pass = Arc::into_inner(work).ok_or_else(|| host("the scan of a table goes on after its end"))?;
        blocking(move || {
            let mut matcher = pass.matcher.into_inner().unwrap_or_else(PoisonError::into_inner);
            let again = matcher.end_pass();
            (matcher, again)
        })
        .await
    }

    async fn work(self: Arc<Self>, pass: Arc<Pass>) -> Result<(), Error> {
        let mut held = self.shared.connection().await?;
        while let Some(range) = pass.next() {
            let reader = RowReader::new(&self.digest.layout).map_err(|error| host(error.to_string()))?;
            let mut sink = Sink::new(reader, &pass.matcher, self.seen());
            held.scan.copy((&self.schema, &self.name), &self.digest.layout, range, &mut sink).await?;
            sink.finish().map_err(host)?;
        }
        self.shared.give_back(held);
        Ok(())
    }

    async fn outcome(&self, expected: &[Block], matched: &Matched) -> ScanOutcome {
        let Matched { different, seen } = matched;
        let mut row_digests = RowDigests::new(&self.shared.pieces, self.digest.row_digests_at);
        let mut mismatches = Vec::new();
        for found in different.iter().take(MISMATCHES) {
            mismatches.push(self.mismatch(expected, found, &mut row_digests).await);
        }
        ScanOutcome {
            rows: *seen,
            // Where no block differs, the root of what was found is that of the blocks that were expected.
            root: different.is_empty().then(|| *self.digest.root.as_bytes()),
            // All rows of a table that should be empty are one block.
            blocks: expected.len().max(different.len()) as u64,
            blocks_different: different.len() as u64,
            mismatches,
        }
    }

    async fn mismatch(&self, expected: &[Block], found: &Found, row_digests: &mut RowDigests<'_>) -> Mismatch {
        let block = expected.get(found.index);
        let rows_expected = block.map_or(0, |block| block.rows);
        let keys = match self.digest.layout.bucketing {
            Bucketing::KeyRange { .. } => Some((
                block.filter(|block| block.first != 0).map_or_else(|| OPEN.to_owned(), |block| key(block.first)),
                expected.get(found.index + 1).map_or_else(|| OPEN.to_owned(), |next| key(next.first.wrapping_sub(1))),
            )),
            Bucketing::KeyHash { .. } | Bucketing::RowDigest => None,
        };
        let rows_different = match &found.detail {
            Detail::Unknown => None,
            Detail::Added => self.digest.row_digests_at.map(|_| found.rows.saturating_sub(rows_expected)),
            Detail::Rows(prefixes) => row_digests.different(expected, found.index, prefixes).await,
        };
        Mismatch { keys, rows_expected, rows_found: found.rows, rows_different }
    }
}

/// The row digests of one table's blocks, asked for in the blocks' order.
struct RowDigests<'a> {
    pieces: &'a Pieces,
    /// Where those of the next block are; None where there are none to be had.
    at: Option<u64>,
    next: usize,
}

impl<'a> RowDigests<'a> {
    fn new(pieces: &'a Pieces, at: Option<u64>) -> Self {
        Self { pieces, at, next: 0 }
    }

    /// How many rows of a block differ. What is known to differ does so whether or not this can be told.
    async fn different(&mut self, expected: &[Block], index: usize, found: &[Prefixes]) -> Option<u64> {
        let length = |blocks: &[Block]| {
            let rows = blocks.iter().map(|block| row_digests(block.rows)).fold(0, u64::saturating_add);
            rows.saturating_mul(ENCODED_ROW as u64)
        };
        let index = index.min(expected.len());
        let at = self.at?.saturating_add(length(&expected[self.next..index]));
        (self.at, self.next) = (Some(at), index);
        let length = length(expected.get(index..=index).unwrap_or_default());
        let Ok(bytes) = self.pieces.fetch(BaselinePart::RowDigests, at, length).await else {
            self.at = None;
            return None;
        };
        let known = bytes.as_chunks().0.iter().map(|eight| u64::from_be_bytes(*eight));
        Some(rows_different(known, found.iter().flat_map(|prefixes| prefixes.each())))
    }
}

/// Sorting and hashing a large table takes seconds.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|_| host("the scan of a table failed"))
}

/// Of a range that goes on to the smallest, or to the largest key there may be.
const OPEN: &str = "-";

/// The key of a place.
fn key(place: u64) -> String {
    (place ^ (1 << 63)).cast_signed().to_string()
}

/// What the workers of one pass share.
struct Pass {
    matcher: Mutex<Matcher>,
    queue: Mutex<Vec<PageRange>>,
}

impl Pass {
    fn next(&self) -> Option<PageRange> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }
}

#[cfg(test)]
mod tests;
