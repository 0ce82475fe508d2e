//! Rows of neighbouring places, about 1,000 of them, as one digest.
use sha2::{Digest, Sha256};

use super::collect::Entry;
use super::first_eight;
use super::root::root;
use crate::baseline::{ContentDigest, Layout};

/// Rows after which a block ends, as soon as the place does.
pub const BLOCK_SIZE: u64 = 1000;
/// Rows of a block that has row digests: 8 MB of them.
pub(super) const MAX_DETAILED: u64 = 1_000_000;
/// Bytes of a block in the blocks file.
pub const ENCODED_BLOCK: usize = 48;
/// Bytes of a row in the row digests file.
pub const ENCODED_ROW: usize = size_of::<u64>();

/// The rows of the places from `first` up to the next block's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// 0 for the first block of a table, so that every place lies in one.
    pub first: u64,
    pub rows: u64,
    pub digest: [u8; 32],
}

impl Block {
    pub(super) fn bytes(&self) -> [u8; ENCODED_BLOCK] {
        let mut bytes = [0; ENCODED_BLOCK];
        bytes[..8].copy_from_slice(&self.first.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.rows.to_be_bytes());
        bytes[16..].copy_from_slice(&self.digest);
        bytes
    }

    fn from_bytes(bytes: &[u8; ENCODED_BLOCK]) -> Self {
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
    pub fn block(&self) -> Block {
        let rows = self.entries.iter().map(|entry| entry.count).sum();
        let mut runs: Vec<_> = self.entries.iter().map(|entry| (entry.row.digest, entry.count)).collect();
        runs.sort_unstable();
        Block { first: self.first, rows, digest: block_digest(rows, runs) }
    }

    /// Of a block that has [row digests](row_digests), those.
    pub fn prefixes(&self) -> Vec<Prefixes> {
        let mut prefixes: Vec<_> = self.entries.iter().map(|entry| prefixes(&entry.row.digest, entry.count)).collect();
        prefixes.sort_unstable();
        prefixes
    }
}

/// The first eight bytes of a row's digest, and how many rows have it: a table may hold nothing but equal rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefixes {
    pub prefix: u64,
    pub rows: u64,
}

impl Prefixes {
    /// Once a row.
    pub fn each(self) -> impl Iterator<Item = u64> {
        (0..self.rows).map(move |_| self.prefix)
    }
}

pub(super) fn prefixes(digest: &[u8; 32], rows: u64) -> Prefixes {
    Prefixes { prefix: first_eight(digest), rows }
}

/// How many row digests are stored of a block that has so many rows. A block that is much larger than others holds the same
/// row again and again, and nobody needs to be told how many of a billion differ.
pub fn row_digests(rows: u64) -> u64 {
    if rows <= MAX_DETAILED { rows } else { 0 }
}

/// SHA-256 of how many rows there are and of each different digest in ascending order, with how many rows have it.
pub(super) fn block_digest(rows: u64, runs: impl IntoIterator<Item = ([u8; 32], u64)>) -> [u8; 32] {
    let mut hash = Sha256::new_with_prefix("muster block v1\n").chain_update(rows.to_be_bytes());
    for (digest, count) in runs {
        hash.update(digest);
        hash.update(count.to_be_bytes());
    }
    hash.finalize().into()
}

/// One place has more different rows than can be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlaceTooLarge;

/// Cuts the sorted entries of a table into blocks and hands them on, some at a time, so that never more than `max_held` are held.
pub fn cut<E>(
    entries: impl Iterator<Item = Result<Entry, E>>,
    max_held: usize,
    mut each: impl FnMut(&[Group<'_>]) -> Result<(), E>,
) -> Result<Result<(), PlaceTooLarge>, E> {
    let mut entries = entries.peekable();
    let mut held: Vec<Entry> = Vec::new();
    let mut is_first = true;
    loop {
        // Some more, and to the end of a place.
        let enough = held.len() + (max_held / 16).clamp(1, 1 << 16);
        while let Some(next) = entries.next_if(|next| {
            let goes_on = |next: &Entry| held.last().is_none_or(|last| last.row.place == next.row.place);
            held.len() < enough || next.as_ref().map_or(true, goes_on)
        }) {
            held.push(next?);
            if held.len() > max_held {
                return Ok(Err(PlaceTooLarge));
            }
        }
        let is_last = entries.peek().is_none();
        let (groups, cut) = groups(&held, is_first, is_last);
        is_first &= groups.is_empty();
        each(&groups)?;
        if is_last {
            return Ok(Ok(()));
        }
        held.drain(..cut);
    }
}

/// Whole places, cut; and how many of the entries are in a group. What is left belongs to the next block.
fn groups(entries: &[Entry], is_first: bool, is_last: bool) -> (Vec<Group<'_>>, usize) {
    let mut groups = Vec::new();
    let (mut begin, mut rows) = (0, 0);
    for (at, entry) in entries.iter().enumerate() {
        rows += entry.count;
        let place = entry.row.place;
        let next = entries.get(at + 1).map(|next| next.row.place);
        if next != Some(place) && (rows >= BLOCK_SIZE || (is_last && next.is_none())) {
            // The first block of a table starts at 0, whatever its first place is.
            let first = if is_first && groups.is_empty() { 0 } else { entries[begin].row.place };
            groups.push(Group { first, entries: &entries[begin..=at] });
            (begin, rows) = (at + 1, 0);
        }
    }
    (groups, begin)
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
    let (whole, rest) = bytes.as_chunks::<ENCODED_BLOCK>();
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

/// How many rows of a block were changed, added or removed: the prefixes of its rows' digests in ascending order, as they were
/// and as they are. A changed row is one row.
pub fn rows_different(expected: impl IntoIterator<Item = u64>, found: impl IntoIterator<Item = u64>) -> u64 {
    let (mut missing, mut added) = (0, 0);
    let (mut expected, mut found) = (expected.into_iter().peekable(), found.into_iter().peekable());
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

/// The digest of a table from its blocks.
pub fn digest(layout: Layout, blocks: &[Block], at: u64, row_digests_at: Option<u64>) -> ContentDigest {
    let root = root(&layout, blocks);
    ContentDigest { layout, root, blocks: blocks.len() as u64, at, row_digests_at }
}
