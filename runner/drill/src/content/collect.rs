//! The rows of a table, sorted in bounded memory: a [`Collector`] sorts as many as may be held, and what it held is a run;
//! [`merge`] makes one order of several runs, wherever they were kept meanwhile.
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use super::row::Row;

/// Entries of one table that are held at once: 50 MB at 48 bytes each.
pub const MAX_HELD: usize = 1 << 20;

/// Equal rows are one entry, so that a table of nothing but equal rows is small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    pub row: Row,
    pub count: u64,
}

impl Entry {
    /// Of an entry in bytes.
    pub const ENCODED: usize = 48;

    pub fn bytes(&self) -> [u8; Self::ENCODED] {
        let mut bytes = [0; Self::ENCODED];
        bytes[..8].copy_from_slice(&self.row.place.to_le_bytes());
        bytes[8..40].copy_from_slice(&self.row.digest);
        bytes[40..].copy_from_slice(&self.count.to_le_bytes());
        bytes
    }

    pub fn from_bytes(bytes: &[u8; Self::ENCODED]) -> Self {
        let (place, rest) = bytes.split_first_chunk().expect("8 of 48 bytes");
        let (digest, count) = rest.split_first_chunk().expect("32 of 40 bytes");
        let count = count.first_chunk().expect("the last 8 bytes");
        Self { row: Row { place: u64::from_le_bytes(*place), digest: *digest }, count: u64::from_le_bytes(*count) }
    }
}

/// Takes rows in any order.
#[derive(Debug)]
pub struct Collector {
    held: Vec<Entry>,
    max_held: usize,
}

impl Collector {
    pub fn new(max_held: usize) -> Self {
        Self { held: Vec::new(), max_held: max_held.max(2) }
    }

    /// True: it is full, and what it holds has to be [taken](Self::sorted) before the next row.
    #[must_use]
    pub fn push(&mut self, row: Row) -> bool {
        self.held.push(Entry { row, count: 1 });
        if self.held.len() < self.max_held {
            return false;
        }
        self.sorted();
        self.held.len() > self.max_held / 2
    }

    /// What it holds: a run.
    pub fn sorted(&mut self) -> &[Entry] {
        self.held.sort_unstable_by_key(|entry| entry.row);
        self.held.dedup_by(|later, kept| same_row(kept, later));
        &self.held
    }

    pub fn clear(&mut self) {
        self.held.clear();
    }
}

fn same_row(kept: &mut Entry, later: &Entry) -> bool {
    let same = later.row == kept.row;
    if same {
        kept.count += later.count;
    }
    same
}

/// Entries of sorted runs in one order, equal rows together.
pub fn merge<R, E>(runs: Vec<R>) -> impl Iterator<Item = Result<Entry, E>>
where
    R: Iterator<Item = Result<Entry, E>>,
{
    let mut merging = Merging { heads: BinaryHeap::with_capacity(runs.len()), new: (0..runs.len()).collect(), runs };
    let mut ahead: Option<Entry> = None;
    std::iter::from_fn(move || {
        loop {
            let next = match merging.next() {
                Ok(next) => next,
                Err(error) => return Some(Err(error)),
            };
            if let (Some(kept), Some(next)) = (&mut ahead, &next)
                && same_row(kept, next)
            {
                continue;
            }
            let before = std::mem::replace(&mut ahead, next);
            if before.is_some() || ahead.is_none() {
                return before.map(Ok);
            }
        }
    })
}

struct Merging<R> {
    runs: Vec<R>,
    /// Runs of which nothing was read yet.
    new: Vec<usize>,
    heads: BinaryHeap<Reverse<(Entry, usize)>>,
}

impl<R: Iterator<Item = Result<Entry, E>>, E> Merging<R> {
    fn next(&mut self) -> Result<Option<Entry>, E> {
        while let Some(run) = self.new.pop() {
            if let Some(entry) = self.runs[run].next().transpose()? {
                self.heads.push(Reverse((entry, run)));
            }
        }
        let Some(mut head) = self.heads.peek_mut() else { return Ok(None) };
        let Reverse((entry, run)) = *head;
        match self.runs[run].next().transpose()? {
            Some(next) => *head = Reverse((next, run)),
            None => drop(PeekMut::pop(head)),
        }
        Ok(Some(entry))
    }
}
