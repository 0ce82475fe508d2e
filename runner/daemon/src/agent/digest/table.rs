//! The scan of one table: as the baseline's layout says, in as many passes as its bound on memory takes.
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use drill::agent::BaselinePart;
use drill::baseline::{Bucketing, ContentDigest};
use drill::content::{Block, Blocks, Found, Matched, Matcher, RowReader, decode, root, rows_different};
use drivers::engine::postgresql::content::PageRange;
use plugin_host::backend::{Error, Mismatch, ScanOutcome};
use tokio::task::JoinSet;

use super::sink::{Seen, Sink};
use super::{Shared, host};

/// Bytes of a block in the blocks file.
const BLOCK: u64 = 48;
/// Bytes of a row in the row digests file.
const ROW: u64 = 8;
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
        let (mut different, mut overrun, mut seen) = (Vec::new(), BTreeSet::new(), 0);
        let mut pass = Some(Blocks::From(0));
        while let Some(current) = pass {
            let matcher = Matcher::new(&expected, &current, max_held, detail);
            let matched = table.pass(matcher, &ranges).await?;
            seen = matched.seen;
            different.extend(matched.different);
            overrun.extend(matched.overrun);
            let again = || (!overrun.is_empty()).then(|| Blocks::Only(std::mem::take(&mut overrun)));
            pass = matched.rest.or_else(again);
        }
        different.sort_by_key(|found| found.index);
        table.outcome(&expected, different, seen).await
    }

    /// The baseline's blocks. Its root vouches for them, whoever handed them over.
    async fn expected(&self) -> Result<Vec<Block>, Error> {
        let length = self.digest.blocks.saturating_mul(BLOCK);
        let bytes = self.shared.pieces.fetch(BaselinePart::Blocks, self.digest.at, length).await.map_err(host)?;
        decode(&bytes, &self.digest).map_err(|error| host(error.to_string()))
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

    /// Reads the whole table once, over as many connections as there are to be had.
    async fn pass(self: &Arc<Self>, matcher: Matcher, ranges: &[PageRange]) -> Result<Matched, Error> {
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
        let matcher = pass.matcher.into_inner().unwrap_or_else(PoisonError::into_inner);
        matcher.finish().map_err(|error| host(error.to_string()))
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

    async fn outcome(&self, expected: &[Block], different: Vec<Found>, seen: u64) -> Result<ScanOutcome, Error> {
        let mut found = expected.to_vec();
        for Found { index, block, .. } in &different {
            match found.get_mut(*index) {
                Some(place) => *place = *block,
                None => found.push(*block),
            }
        }
        let mut mismatches = Vec::new();
        for other in different.iter().take(MISMATCHES) {
            mismatches.push(self.mismatch(expected, other).await?);
        }
        Ok(ScanOutcome {
            rows: seen,
            root: *root(&self.digest.layout, &found).as_bytes(),
            blocks: found.len() as u64,
            blocks_different: different.len() as u64,
            mismatches,
        })
    }

    async fn mismatch(&self, expected: &[Block], found: &Found) -> Result<Mismatch, Error> {
        let rows_expected = expected.get(found.index).map_or(0, |block| block.rows);
        let keys = match self.digest.layout.bucketing {
            Bucketing::KeyRange { .. } => Some((
                if found.index == 0 { OPEN.to_owned() } else { key(found.block.first) },
                expected.get(found.index + 1).map_or_else(|| OPEN.to_owned(), |next| key(next.first.wrapping_sub(1))),
            )),
            Bucketing::KeyHash { .. } | Bucketing::RowDigest => None,
        };
        let rows_different = match (self.digest.row_digests_at, &found.prefixes) {
            (Some(at), Some(prefixes)) => {
                let before: u64 = expected.iter().take(found.index).map(|block| block.rows).sum();
                let at = at.saturating_add(before.saturating_mul(ROW));
                let length = rows_expected.saturating_mul(ROW);
                let bytes = self.shared.pieces.fetch(BaselinePart::RowDigests, at, length).await.map_err(host)?;
                let known: Vec<u64> = bytes.as_chunks().0.iter().map(|eight| u64::from_be_bytes(*eight)).collect();
                Some(rows_different(&known, prefixes))
            }
            _ => None,
        };
        Ok(Mismatch { keys, rows_expected, rows_found: found.block.rows, rows_different })
    }
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
