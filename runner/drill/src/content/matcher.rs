//! What a drill finds of a table, block by block as the baseline cut it.
use std::sync::Arc;

use super::block::{Block, Prefixes, row_digests};
use super::row::Row;
use super::rows::Rows;

/// Takes all rows of a table in any order. A block is decided as soon as it has as many rows as are expected of it: it is let go
/// of where it is what it should be, and only counted from then on where it is not. So a heap that is ordered by its key needs
/// no more memory than a few blocks, whether it is intact or not. What does not fit is left to another pass over the table;
/// each takes as many blocks as fit, so that passes are about as many as the rows fill the room.
#[derive(Debug)]
pub struct Matcher {
    expected: Arc<[Block]>,
    blocks: Vec<State>,
    held: usize,
    max_held: usize,
    /// What the blocks that are not decided may come to hold, once there is too much.
    share: usize,
    detail: usize,
    seen: u64,
    /// Where the last row was.
    last: usize,
    different: Vec<Found>,
    is_undecided: bool,
}

#[derive(Debug)]
enum State {
    /// Fewer rows than are expected.
    Open(Rows),
    /// As `Open`, of which more came than there is room for.
    TooLarge(u64),
    /// All that is expected, and then so many rows more.
    Matched { more: u64 },
    /// As many rows as are expected or more, and other ones; kept where it is wanted.
    Different { rows: u64, kept: Option<Rows> },
    /// Another pass must look.
    Later,
    /// An earlier pass has looked.
    Done,
}

/// A block that is not what was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub index: usize,
    pub rows: u64,
    pub detail: Detail,
}

/// What is known of the rows of a block that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Detail {
    Unknown,
    /// All that are expected are there, and others beside them.
    Added,
    /// In ascending order.
    Rows(Vec<Prefixes>),
}

/// What all passes found.
#[derive(Debug)]
pub struct Matched {
    /// In the order of their places.
    pub different: Vec<Found>,
    /// Rows of the table.
    pub seen: u64,
}

/// One block alone has as many rows as it should, and more of them differ than there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("one block of the table holds more rows than muster keeps at once")]
pub struct BlockTooLarge;

impl Matcher {
    /// `expected` in the order of their places, as [`super::decode`] gives them. Without any, all rows are one block.
    /// `detail`: of so many different blocks it is kept which rows they hold, as far as there is room.
    pub fn new(expected: &Arc<[Block]>, max_held: usize, detail: usize) -> Self {
        let nothing = Block { first: 0, rows: 0, digest: [0; 32] };
        let expected = if expected.is_empty() { Arc::from([nothing]) } else { Arc::clone(expected) };
        let max_held = max_held.max(2);
        Self {
            blocks: expected.iter().map(|_| State::Open(Rows::default())).collect(),
            expected,
            held: 0,
            max_held,
            share: max_held,
            detail,
            seen: 0,
            last: 0,
            different: Vec::new(),
            is_undecided: false,
        }
    }

    pub fn push(&mut self, row: &Row) {
        self.seen += 1;
        let index = self.index(row.place);
        let before = self.blocks[index].held();
        match &mut self.blocks[index] {
            State::Open(rows) => {
                rows.push(row.digest);
                if rows.count() >= self.expected[index].rows {
                    self.decide(index);
                }
            }
            State::TooLarge(rows) => *rows += 1,
            State::Matched { more } => *more += 1,
            State::Different { rows, kept } => {
                *rows += 1;
                if let Some(few) = kept {
                    few.push(row.digest);
                }
                kept.take_if(|rows| !rows.is_few());
            }
            State::Later | State::Done => return,
        }
        self.held = self.held - before + self.blocks[index].held();
        if self.held > self.max_held {
            self.make_room();
        }
    }

    /// Rows of a heap lie beside rows of the same block more often than not.
    fn index(&mut self, place: u64) -> usize {
        let next = self.expected.get(self.last + 1);
        let is_here = self.expected[self.last].first <= place && next.is_none_or(|next| place < next.first);
        if !is_here {
            self.last = self.expected.partition_point(|block| block.first <= place).saturating_sub(1);
        }
        self.last
    }

    /// The block has as many rows as it should, or more where that is none.
    fn decide(&mut self, index: usize) {
        let State::Open(mut rows) = std::mem::replace(&mut self.blocks[index], State::Done) else { return };
        let expected = self.expected[index];
        self.blocks[index] = if rows.count() == expected.rows && rows.digest() == expected.digest {
            State::Matched { more: 0 }
        } else {
            State::Different { rows: rows.count(), kept: self.wanted(rows, expected) }
        };
    }

    fn wanted(&mut self, rows: Rows, expected: Block) -> Option<Rows> {
        let is_wanted = self.detail > 0 && rows.is_few() && row_digests(expected.rows) == expected.rows;
        self.detail -= usize::from(is_wanted);
        is_wanted.then_some(rows)
    }

    fn make_room(&mut self) {
        let details = self.details();
        // It says more of what is known already, and must not take a pass from what is not.
        if details > self.max_held / 4 {
            self.drop_details();
        }
        let mut room = self.share.saturating_sub(self.details());
        // Should that not do, because a block holds more than it should, the next time is not soon.
        self.share /= 2;
        let mut is_first = true;
        for (state, expected) in self.blocks.iter_mut().zip(&*self.expected) {
            let State::Open(rows) = state else { continue };
            let held = rows.held();
            let takes = held.max(Rows::planned(expected.rows));
            // Without one block at least, no pass would get further.
            if is_first || takes <= room {
                room = room.saturating_sub(takes);
            } else {
                *state = State::Later;
                self.held -= held;
            }
            is_first = false;
        }
        if self.held > self.max_held {
            self.give_up_the_first();
        }
    }

    fn details(&self) -> usize {
        let held = |state: &State| if matches!(state, State::Different { .. }) { state.held() } else { 0 };
        self.blocks.iter().map(held).sum()
    }

    fn drop_details(&mut self) {
        self.detail = 0;
        for state in &mut self.blocks {
            if let State::Different { kept, .. } = state {
                self.held -= kept.take().map_or(0, |rows| rows.held());
            }
        }
    }

    /// It has no room even alone.
    fn give_up_the_first(&mut self) {
        let open = self.blocks.iter_mut().find(|state| matches!(state, State::Open(_)));
        if let Some(state) = open {
            self.held -= state.held();
            if let State::Open(rows) = state {
                *state = State::TooLarge(rows.count());
            }
        }
    }

    /// All rows of the table have come. True: they must come again.
    pub fn end_pass(&mut self) -> bool {
        let mut again = false;
        for index in 0..self.blocks.len() {
            let expected = self.expected[index];
            let state = std::mem::replace(&mut self.blocks[index], State::Done);
            let (rows, detail) = match state {
                State::Done | State::Matched { more: 0 } => continue,
                State::Later => {
                    self.blocks[index] = State::Open(Rows::default());
                    again = true;
                    continue;
                }
                State::TooLarge(rows) if rows == expected.rows => {
                    self.is_undecided = true;
                    continue;
                }
                State::TooLarge(rows) => (rows, Detail::Unknown),
                State::Open(rows) if rows.count() == expected.rows => continue,
                State::Open(rows) => (rows.count(), detail(self.wanted(rows, expected).as_ref())),
                State::Matched { more } => (expected.rows.saturating_add(more), Detail::Added),
                State::Different { rows, kept } => (rows, detail(kept.as_ref())),
            };
            self.different.push(Found { index, rows, detail });
        }
        self.held = 0;
        self.share = self.max_held;
        if again {
            self.seen = 0;
        }
        again
    }

    /// After the last pass.
    pub fn finish(mut self) -> Result<Matched, BlockTooLarge> {
        // What is known to differ is not left untold because of what is not known.
        if self.is_undecided && self.different.is_empty() {
            return Err(BlockTooLarge);
        }
        self.different.sort_unstable_by_key(|found| found.index);
        Ok(Matched { different: self.different, seen: self.seen })
    }
}

impl State {
    fn held(&self) -> usize {
        match self {
            Self::Open(rows) => rows.held(),
            Self::Different { kept, .. } => kept.as_ref().map_or(0, Rows::held),
            Self::TooLarge(_) | Self::Matched { .. } | Self::Later | Self::Done => 0,
        }
    }
}

fn detail(rows: Option<&Rows>) -> Detail {
    rows.map_or(Detail::Unknown, |rows| Detail::Rows(rows.prefixes()))
}

#[cfg(test)]
mod tests;
