//! The rows of one pass over a table, in bounded memory.
use super::row::Row;

/// Entries that one table may hold at once: 805 MB at 48 bytes each. What is larger takes another pass over the table, whose
/// cost is that of the first, so that this is as large as a backup host can be asked for.
pub const MAX_HELD: usize = 1 << 24;

/// Equal rows are one entry, so that a table of nothing but equal rows can be held too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub row: Row,
    pub count: u64,
}

/// Takes all rows of a table in any order and holds those of the lowest places, from where the pass begins.
#[derive(Debug)]
pub struct Collector {
    start: u64,
    /// The first place that is not held any more.
    limit: Option<u64>,
    held: Vec<Entry>,
    max_held: usize,
    seen: u64,
}

/// What a pass held: all rows of the places from `start` up to `limit`, sorted, equal ones together.
#[derive(Debug)]
pub struct Pass {
    pub start: u64,
    /// None: to the last place.
    pub limit: Option<u64>,
    pub entries: Vec<Entry>,
    /// Rows of the table, held or not.
    pub seen: u64,
}

impl Collector {
    /// The first pass starts at 0.
    pub fn new(start: u64, max_held: usize) -> Self {
        Self { start, limit: None, held: Vec::new(), max_held: max_held.max(2), seen: 0 }
    }

    pub fn push(&mut self, row: Row) {
        self.seen += 1;
        if row.place < self.start || self.limit.is_some_and(|limit| row.place >= limit) {
            return;
        }
        if self.held.len() == self.max_held {
            self.make_room();
            if self.limit.is_some_and(|limit| row.place >= limit) {
                return;
            }
        }
        self.held.push(Entry { row, count: 1 });
    }

    pub fn finish(mut self) -> Pass {
        merge_equal(&mut self.held);
        Pass { start: self.start, limit: self.limit, entries: self.held, seen: self.seen }
    }

    /// Where one place alone is too much, it is given up with all above it: the pass then holds nothing of it, and whoever
    /// asks for the next pass sees that none would get further.
    fn make_room(&mut self) {
        merge_equal(&mut self.held);
        if self.held.len() <= self.max_held / 2 {
            return;
        }
        let limit = self.held[self.held.len() / 2].row.place;
        let below = self.held.partition_point(|entry| entry.row.place < limit);
        self.held.truncate(below);
        self.limit = Some(limit);
    }
}

fn merge_equal(entries: &mut Vec<Entry>) {
    entries.sort_unstable_by_key(|entry| entry.row);
    entries.dedup_by(|later, kept| {
        let same = later.row == kept.row;
        if same {
            kept.count += later.count;
        }
        same
    });
}
