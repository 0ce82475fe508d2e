//! Rows of neighbouring places, about 1,000 of them, as one digest.
use sha2::{Digest, Sha256};

use super::collect::{Entry, Pass};
use super::first_eight;
use super::root::root;
use crate::baseline::{ContentDigest, Layout};

/// Rows after which a block ends, as soon as the place does.
pub const BLOCK_SIZE: u64 = 1000;
/// Of a block in the blocks file.
const ENCODED: usize = 48;

/// The rows of the places from `first` up to the next block's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// 0 for the first block of a table, so that every place lies in one.
    pub first: u64,
    pub rows: u64,
    pub digest: [u8; 32],
}

impl Block {
    pub(super) fn bytes(&self) -> [u8; ENCODED] {
        let mut bytes = [0; ENCODED];
        bytes[..8].copy_from_slice(&self.first.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.rows.to_be_bytes());
        bytes[16..].copy_from_slice(&self.digest);
        bytes
    }

    fn from_bytes(bytes: &[u8; ENCODED]) -> Self {
        let digest = bytes.last_chunk().copied().unwrap_or_default();
        Self { first: first_eight(bytes), rows: first_eight(&bytes[8..]), digest }
    }
}

/// The rows of one block.
#[derive(Debug, Clone, Copy)]
pub struct Group<'a> {
    pub first: u64,
    pub entries: &'a [Entry],
}

impl Group<'_> {
    /// SHA-256 of how many rows there are and of their digests. They are sorted by place and digest, which are of the row alone.
    pub fn block(&self) -> Block {
        let rows = self.entries.iter().map(|entry| entry.count).sum::<u64>();
        let mut hash = Sha256::new_with_prefix("muster block v1\n");
        hash.update(rows.to_be_bytes());
        for entry in self.entries {
            for _ in 0..entry.count {
                hash.update(entry.row.digest);
            }
        }
        Block { first: self.first, rows, digest: hash.finalize().into() }
    }

    /// The first eight bytes of each row's digest, sorted.
    pub fn prefixes(&self) -> Vec<u64> {
        let mut prefixes = Vec::with_capacity(self.entries.len());
        for entry in self.entries {
            let prefix = first_eight(&entry.row.digest);
            prefixes.extend((0..entry.count).map(|_| prefix));
        }
        prefixes.sort_unstable();
        prefixes
    }
}

/// Cuts what a pass held into blocks. Some: the place where the next pass must start; the same as this one's where that pass
/// would get no further.
pub fn cut(pass: &Pass) -> (Vec<Group<'_>>, Option<u64>) {
    let mut groups = Vec::new();
    let (mut begin, mut rows) = (0, 0);
    for (at, entry) in pass.entries.iter().enumerate() {
        rows += entry.count;
        let place = entry.row.place;
        let next = pass.entries.get(at + 1).map(|next| next.row.place);
        let place_ends = next != Some(place);
        let last = next.is_none() && pass.limit.is_none();
        if place_ends && (rows >= BLOCK_SIZE || last) {
            let is_first = pass.start == 0 && groups.is_empty();
            let first = if is_first { 0 } else { pass.entries[begin].row.place };
            groups.push(Group { first, entries: &pass.entries[begin..=at] });
            (begin, rows) = (at + 1, 0);
        }
    }
    let unfinished = pass.entries.get(begin).map(|entry| entry.row.place);
    let next = match (groups.is_empty(), unfinished) {
        // The first block of a table starts at 0, whatever its first place is.
        (true, _) => pass.start,
        (false, Some(place)) => place,
        (false, None) => pass.limit.unwrap_or(pass.start),
    };
    (groups, pass.limit.map(|_| next))
}

/// Sorts what a pass held into blocks whose first places are given in ascending order, the first being 0. Some: as in [`cut`].
/// Without any, all rows are one block.
pub fn align<'a>(pass: &'a Pass, firsts: &[u64]) -> (Vec<Group<'a>>, Option<u64>) {
    if firsts.is_empty() {
        let whole = Group { first: 0, entries: &pass.entries };
        return match pass.limit {
            Some(_) => (Vec::new(), Some(pass.start)),
            None if pass.entries.is_empty() => (Vec::new(), None),
            None => (vec![whole], None),
        };
    }
    let mut groups = Vec::new();
    let mut rest = pass.entries.as_slice();
    let begin = firsts.partition_point(|first| *first < pass.start);
    for (index, first) in firsts.iter().enumerate().skip(begin) {
        let end = firsts.get(index + 1);
        let complete = match (end, pass.limit) {
            (_, None) => true,
            (Some(end), Some(limit)) => *end <= limit,
            (None, Some(_)) => false,
        };
        if !complete {
            return (groups, Some(*first));
        }
        let within = end.map_or(rest.len(), |end| rest.partition_point(|entry| entry.row.place < *end));
        let (entries, after) = rest.split_at(within);
        groups.push(Group { first: *first, entries });
        rest = after;
    }
    (groups, None)
}

/// One table's part of a blocks file.
pub fn encode(blocks: &[Block]) -> Vec<u8> {
    blocks.iter().flat_map(Block::bytes).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadBlocks {
    #[error("the blocks of a table are not as many as its baseline says")]
    Length,
    #[error("the blocks of a table are not in order")]
    Order,
    #[error("the blocks of a table do not have the root that its baseline says")]
    Root,
}

/// What [`encode`] wrote, where it is what the baseline vouches for.
pub fn decode(bytes: &[u8], content: &ContentDigest) -> Result<Vec<Block>, BadBlocks> {
    let (whole, rest) = bytes.as_chunks::<ENCODED>();
    if !rest.is_empty() || whole.len() as u64 != content.blocks {
        return Err(BadBlocks::Length);
    }
    let blocks: Vec<Block> = whole.iter().map(Block::from_bytes).collect();
    let ascending = blocks.is_sorted_by(|a, b| a.first < b.first);
    if !ascending || blocks.first().is_some_and(|block| block.first != 0) {
        return Err(BadBlocks::Order);
    }
    if root(&content.layout, &blocks) != content.root {
        return Err(BadBlocks::Root);
    }
    Ok(blocks)
}

/// A block that is not what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Different {
    pub index: usize,
    /// Its places: from `first` up to `end`, or to the last.
    pub first: u64,
    pub end: Option<u64>,
    pub rows_expected: u64,
    pub rows_found: u64,
}

/// `found` are aligned to `expected`; a block that is missing holds no rows.
pub fn compare(expected: &[Block], found: &[Block]) -> Vec<Different> {
    let blocks = expected.len().max(found.len());
    let differs = |index: &usize| expected.get(*index) != found.get(*index);
    let different = |index: usize| {
        let (expected_here, found_here) = (expected.get(index), found.get(index));
        let first = |at: usize| expected.get(at).or(found.get(at)).map(|block| block.first);
        Different {
            index,
            first: first(index).unwrap_or(0),
            end: first(index + 1),
            rows_expected: expected_here.map_or(0, |block| block.rows),
            rows_found: found_here.map_or(0, |block| block.rows),
        }
    };
    (0..blocks).filter(differs).map(different).collect()
}

/// How many rows of a block were changed, added or removed: what [`Group::prefixes`] said of it once, and says now. A changed
/// row is one row.
pub fn rows_different(expected: &[u64], found: &[u64]) -> u64 {
    let (mut missing, mut added) = (0, 0);
    let (mut expected, mut found) = (expected.iter().peekable(), found.iter().peekable());
    loop {
        match (expected.peek(), found.peek()) {
            (Some(old), Some(new)) if old == new => {
                expected.next();
                found.next();
            }
            (Some(old), new) if new.is_none_or(|new| old < new) => {
                missing += 1;
                expected.next();
            }
            (_, Some(_)) => {
                added += 1;
                found.next();
            }
            (Some(_) | None, None) => return missing.max(added),
        }
    }
}

/// The first places of `blocks`, for [`align`].
pub fn firsts(blocks: &[Block]) -> Vec<u64> {
    blocks.iter().map(|block| block.first).collect()
}

/// The digest of a table from its blocks.
pub fn digest(layout: Layout, blocks: &[Block], at: u64, row_digests_at: Option<u64>) -> ContentDigest {
    let root = root(&layout, blocks);
    ContentDigest { layout, root, blocks: blocks.len() as u64, at, row_digests_at }
}
