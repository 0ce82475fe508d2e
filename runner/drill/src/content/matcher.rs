//! What a drill finds of a table, block by block as the baseline cut it.
use std::collections::{BTreeSet, HashMap};

use sha2::Digest;

use super::block::{Block, block_hash};
use super::first_eight;
use super::row::Row;

/// Digests of a block that are kept one by one; beyond it equal ones are counted, for tables of nothing but equal rows.
const LISTED: usize = 8192;

/// Takes all rows of a table in any order. A block that has the rows and the digest that are expected of it is let go of at
/// once, so that a heap that is ordered by its key needs no more memory than a few blocks; what does not fit is left to another
/// pass over the table.
#[derive(Debug)]
pub struct Matcher {
    firsts: Vec<u64>,
    expected: Vec<Block>,
    blocks: Vec<State>,
    /// The blocks of this pass: those from `start` up to `limit`, or only the ones that were let go of too early.
    scope: Scope,
    held: usize,
    max_held: usize,
    detail: usize,
    seen: u64,
    last: usize,
}

#[derive(Debug, Clone)]
enum Scope {
    From { start: usize, limit: usize },
    Only { wanted: BTreeSet<usize>, kept: BTreeSet<usize> },
}

impl Scope {
    fn holds(&self, index: usize) -> bool {
        match self {
            Self::From { start, limit } => (*start..*limit).contains(&index),
            Self::Only { kept, .. } => kept.contains(&index),
        }
    }
}

#[derive(Debug)]
enum State {
    /// Rows that did not add up to what is expected yet.
    Open(Rows),
    /// All of it came.
    Matched,
    /// All of it came, and then more: another pass must look.
    Overrun,
}

#[derive(Debug)]
enum Rows {
    Listed(Vec<[u8; 32]>),
    Counted(HashMap<[u8; 32], u64>, u64),
}

/// A block that is not what was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub index: usize,
    pub block: Block,
    /// The first eight bytes of each row's digest, sorted; kept of the first blocks that differ.
    pub prefixes: Option<Vec<u64>>,
}

/// What a pass found.
#[derive(Debug)]
pub struct Matched {
    pub different: Vec<Found>,
    /// Rows of the table, in this pass's blocks or not.
    pub seen: u64,
    /// The blocks that were not looked at, because what had been held would have been too much.
    pub rest: Option<Blocks>,
    /// Blocks that were let go of before all their rows had come.
    pub overrun: BTreeSet<usize>,
}

/// Which blocks a pass looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blocks {
    From(usize),
    Only(BTreeSet<usize>),
}

/// One block alone holds more different rows than there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("one block of the table holds more rows than muster keeps at once")]
pub struct BlockTooLarge;

impl Matcher {
    /// `expected` in the order of their places, as [`super::decode`] gives them. Without any, all rows are one block.
    /// `detail`: of so many different blocks the rows' digests are kept.
    pub fn new(expected: &[Block], pass: &Blocks, max_held: usize, detail: usize) -> Self {
        let nothing = [Block { first: 0, rows: 0, digest: [0; 32] }];
        let expected = if expected.is_empty() { &nothing[..] } else { expected };
        let scope = match pass {
            Blocks::From(start) => Scope::From { start: *start, limit: expected.len() },
            Blocks::Only(only) => Scope::Only { wanted: only.clone(), kept: only.clone() },
        };
        Self {
            firsts: expected.iter().map(|block| block.first).collect(),
            expected: expected.to_vec(),
            blocks: expected.iter().map(|_| State::Open(Rows::Listed(Vec::new()))).collect(),
            scope,
            held: 0,
            max_held: max_held.max(2),
            detail,
            seen: 0,
            last: 0,
        }
    }

    pub fn push(&mut self, row: &Row) {
        self.seen += 1;
        let index = self.index(row.place);
        if !self.scope.holds(index) {
            return;
        }
        match &mut self.blocks[index] {
            State::Matched => self.blocks[index] = State::Overrun,
            State::Overrun => {}
            State::Open(rows) => {
                let before = rows.held();
                rows.push(row.digest);
                self.held += rows.held();
                self.held -= before;
                if rows.count() == self.expected[index].rows {
                    self.settle(index);
                }
                if self.held > self.max_held {
                    self.make_room();
                }
            }
        }
    }

    /// Rows of a heap lie beside rows of the same block more often than not.
    fn index(&mut self, place: u64) -> usize {
        let here = self.firsts[self.last] <= place && self.firsts.get(self.last + 1).is_none_or(|next| place < *next);
        if !here {
            self.last = self.firsts.partition_point(|first| *first <= place).saturating_sub(1);
        }
        self.last
    }

    /// The block has as many rows as it should.
    fn settle(&mut self, index: usize) {
        // Whoever was let go of too early once is kept to the end.
        if matches!(self.scope, Scope::Only { .. }) {
            return;
        }
        if let State::Open(rows) = &mut self.blocks[index]
            && rows.digest() == self.expected[index].digest
        {
            self.held -= rows.held();
            self.blocks[index] = State::Matched;
        }
    }

    /// Gives up the upper half of the blocks that hold something.
    fn make_room(&mut self) {
        let holding: Vec<usize> = (0..self.blocks.len()).filter(|index| self.blocks[*index].held() > 0).collect();
        let from = holding[holding.len() / 2];
        for index in holding.into_iter().filter(|index| *index >= from) {
            self.held -= self.blocks[index].held();
            self.blocks[index] = State::Open(Rows::Listed(Vec::new()));
        }
        match &mut self.scope {
            Scope::From { limit, .. } => *limit = from,
            Scope::Only { kept, .. } => drop(kept.split_off(&from)),
        }
    }

    pub fn finish(mut self) -> Result<Matched, BlockTooLarge> {
        let (mut different, mut overrun) = (Vec::new(), BTreeSet::new());
        for index in (0..self.blocks.len()).filter(|index| self.scope.holds(*index)) {
            match &mut self.blocks[index] {
                State::Matched => {}
                State::Overrun => drop(overrun.insert(index)),
                State::Open(rows) => {
                    let block = Block { first: self.firsts[index], rows: rows.count(), digest: rows.digest() };
                    let nothing = block.rows == 0 && self.expected[index].rows == 0;
                    if block != self.expected[index] && !nothing {
                        let prefixes = (different.len() < self.detail).then(|| rows.prefixes());
                        different.push(Found { index, block, prefixes });
                    }
                }
            }
        }
        let rest = match self.scope {
            Scope::From { start, limit } if start == limit => return Err(BlockTooLarge),
            Scope::From { limit, .. } => (limit < self.blocks.len()).then_some(Blocks::From(limit)),
            Scope::Only { kept, .. } if kept.is_empty() => return Err(BlockTooLarge),
            Scope::Only { wanted, kept } => {
                let rest: BTreeSet<usize> = wanted.difference(&kept).copied().collect();
                (!rest.is_empty()).then_some(Blocks::Only(rest))
            }
        };
        Ok(Matched { different, seen: self.seen, rest, overrun })
    }
}

impl State {
    fn held(&self) -> usize {
        match self {
            Self::Open(rows) => rows.held(),
            Self::Matched | Self::Overrun => 0,
        }
    }
}

impl Rows {
    fn held(&self) -> usize {
        match self {
            Self::Listed(listed) => listed.len(),
            Self::Counted(counted, _) => counted.len(),
        }
    }

    fn count(&self) -> u64 {
        match self {
            Self::Listed(listed) => listed.len() as u64,
            Self::Counted(_, count) => *count,
        }
    }

    fn push(&mut self, digest: [u8; 32]) {
        match self {
            Self::Listed(listed) if listed.len() < LISTED => listed.push(digest),
            Self::Listed(listed) => {
                let mut counted = HashMap::new();
                let count = listed.len() as u64 + 1;
                for digest in listed.drain(..).chain([digest]) {
                    *counted.entry(digest).or_insert(0) += 1;
                }
                *self = Self::Counted(counted, count);
            }
            Self::Counted(counted, count) => {
                *counted.entry(digest).or_insert(0) += 1;
                *count += 1;
            }
        }
    }

    /// As [`super::Group::block`] makes it.
    fn digest(&mut self) -> [u8; 32] {
        let mut hash = block_hash(self.count());
        match self {
            Self::Listed(listed) => {
                listed.sort_unstable();
                for digest in listed {
                    hash.update(digest);
                }
            }
            Self::Counted(counted, _) => {
                for (digest, count) in sorted(counted) {
                    for _ in 0..count {
                        hash.update(digest);
                    }
                }
            }
        }
        hash.finalize().into()
    }

    fn prefixes(&self) -> Vec<u64> {
        let mut prefixes: Vec<u64> = match self {
            Self::Listed(listed) => listed.iter().map(|digest| first_eight(digest)).collect(),
            Self::Counted(counted, _) => {
                let repeated =
                    |(digest, count): (&[u8; 32], &u64)| (0..*count).map(|_| first_eight(digest)).collect::<Vec<_>>();
                counted.iter().flat_map(repeated).collect()
            }
        };
        prefixes.sort_unstable();
        prefixes
    }
}

fn sorted(counted: &HashMap<[u8; 32], u64>) -> Vec<([u8; 32], u64)> {
    let mut sorted: Vec<_> = counted.iter().map(|(digest, count)| (*digest, *count)).collect();
    sorted.sort_unstable();
    sorted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::Sha256;

    use super::*;
    use crate::content::{Collector, cut, firsts};

    fn row(place: u64, seed: u64) -> Row {
        Row { place, digest: Sha256::digest(seed.to_be_bytes()).into() }
    }

    /// The blocks that a capture would make.
    fn blocks(rows: &[Row]) -> Vec<Block> {
        let mut collector = Collector::new(0, usize::MAX);
        for row in rows {
            collector.push(*row);
        }
        cut(&collector.finish()).0.iter().map(super::super::Group::block).collect()
    }

    /// All passes, as a scan does them.
    fn look(expected: &[Block], rows: &[Row], max_held: usize) -> Result<Vec<Found>, BlockTooLarge> {
        let (mut different, mut overrun) = (Vec::new(), BTreeSet::new());
        let mut pass = Some(Blocks::From(0));
        while let Some(current) = pass {
            let mut matcher = Matcher::new(expected, &current, max_held, 1);
            for row in rows {
                matcher.push(row);
            }
            let seen = matcher.finish()?;
            assert_eq!(seen.seen, rows.len() as u64);
            different.extend(seen.different);
            overrun.extend(seen.overrun);
            pass = seen.rest.or_else(|| (!overrun.is_empty()).then(|| Blocks::Only(std::mem::take(&mut overrun))));
        }
        different.sort_by_key(|found| found.index);
        Ok(different)
    }

    #[test]
    fn an_empty_table_is_one_block_of_whatever_comes() {
        assert_eq!(look(&[], &[], 10), Ok(Vec::new()));
        let found = look(&[], &[row(5, 1), row(9, 2)], 10).expect("it fits");
        assert_eq!((found.len(), found[0].index, found[0].block.rows), (1, 0, 2));
    }

    #[test]
    fn a_row_that_comes_after_its_block_was_whole_is_found() {
        let rows: Vec<Row> = (0..3000).map(|number| row(number, number)).collect();
        let expected = blocks(&rows);
        let more: Vec<Row> = rows.iter().copied().chain([row(7, 99_999)]).collect();
        let found = look(&expected, &more, 1_000_000).expect("it fits");
        assert_eq!((found.len(), found[0].index, found[0].block.rows), (1, 0, 1001));
        assert_eq!(found[0].prefixes.as_ref().map(Vec::len), Some(1001));
    }

    #[test]
    fn a_million_equal_rows_need_no_room() {
        let rows = vec![row(3, 3); 1_000_000];
        let expected = blocks(&rows);
        assert_eq!(look(&expected, &rows, 10_000), Ok(Vec::new()));
        let found = look(&expected, &rows[1..], 10_000).expect("it fits");
        assert_eq!(found[0].block.rows, 999_999);
    }

    #[test]
    fn a_block_that_is_too_large_is_said_to_be() {
        let rows: Vec<Row> = (0..100).map(|number| row(1, number)).collect();
        assert_eq!(look(&[], &rows, 10), Err(BlockTooLarge));
    }

    proptest! {
        #[test]
        fn what_is_found_does_not_depend_on_order_or_room(
            places in proptest::collection::vec(0u64..5_000, 1..4_000),
            lost in proptest::collection::vec(any::<prop::sample::Index>(), 0..4),
            gained in proptest::collection::vec(0u64..5_000, 0..4),
            room in 1_500usize..5_000,
            reverse in any::<bool>(),
        ) {
            let rows: Vec<Row> = places.iter().enumerate().map(|(at, place)| row(*place, at as u64)).collect();
            let expected = blocks(&rows);
            let mut restored = rows.clone();
            for index in lost {
                restored.remove(index.index(restored.len()));
                if restored.is_empty() { break; }
            }
            restored.extend(gained.iter().map(|place| row(*place, place + 1_000_000)));
            if reverse {
                restored.reverse();
            }
            let found = look(&expected, &restored, room).expect("no block is that large");
            // The other way to the same answer: sort everything, then compare.
            let mut collector = Collector::new(0, usize::MAX);
            for row in &restored {
                collector.push(*row);
            }
            let pass = collector.finish();
            let (groups, _) = crate::content::align(&pass, &firsts(&expected));
            let whole: Vec<Block> = groups.iter().map(super::super::Group::block).collect();
            let differing: Vec<(usize, Block)> = whole.iter().enumerate()
                .filter(|(index, block)| expected[*index] != **block)
                .map(|(index, block)| (index, *block))
                .collect();
            let found: Vec<(usize, Block)> = found.into_iter().map(|found| (found.index, found.block)).collect();
            prop_assert_eq!(found, differing);
        }
    }
}
