//! The rows of one block while a drill reads its table.
use std::collections::HashMap;

use super::block::{MAX_DETAILED, Prefixes, block_digest, prefixes};
use super::first_eight;

/// Digests that are kept one by one; beyond it equal ones are counted. No block of a baseline has as many that differ, unless
/// many rows of its table have one key: a block ends with the place that makes it 1,000 rows.
pub(super) const LISTED: usize = 2048;
/// What a counted digest takes, in listed ones: a map has room for up to twice what it holds, and so has a list.
const COUNTED: usize = 2;

#[derive(Debug)]
pub(super) enum Rows {
    Listed(Vec<[u8; 32]>),
    Counted(HashMap<[u8; 32], u64>, u64),
}

impl Default for Rows {
    fn default() -> Self {
        Self::Listed(Vec::new())
    }
}

impl Rows {
    /// In digests of the list, which take 32 bytes, or 64 where it has just grown.
    pub(super) fn held(&self) -> usize {
        match self {
            Self::Listed(listed) => listed.len(),
            Self::Counted(counted, _) => counted.len() * COUNTED,
        }
    }

    /// What an intact block of so many rows holds at most.
    pub(super) fn planned(rows: u64) -> usize {
        usize::try_from(rows).map_or(LISTED, |rows| rows.min(LISTED))
    }

    pub(super) fn count(&self) -> u64 {
        match self {
            Self::Listed(listed) => listed.len() as u64,
            Self::Counted(_, count) => *count,
        }
    }

    /// Whether there are so few that each may be compared.
    pub(super) fn is_few(&self) -> bool {
        self.held() <= LISTED && self.count() <= MAX_DETAILED
    }

    pub(super) fn push(&mut self, digest: [u8; 32]) {
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
    pub(super) fn digest(&mut self) -> [u8; 32] {
        let count = self.count();
        match self {
            Self::Listed(listed) => {
                // The order of the bytes; eight of them at once are nearly always enough to tell.
                listed.sort_unstable_by(|a, b| first_eight(a).cmp(&first_eight(b)).then_with(|| a.cmp(b)));
                block_digest(count, listed.chunk_by(|a, b| a == b).map(|equal| (equal[0], equal.len() as u64)))
            }
            Self::Counted(counted, _) => {
                let mut runs: Vec<_> = counted.iter().map(|(digest, count)| (*digest, *count)).collect();
                runs.sort_unstable();
                block_digest(count, runs)
            }
        }
    }

    pub(super) fn prefixes(&self) -> Vec<Prefixes> {
        let mut all: Vec<_> = match self {
            Self::Listed(listed) => listed.iter().map(|digest| prefixes(digest, 1)).collect(),
            Self::Counted(counted, _) => counted.iter().map(|(digest, count)| prefixes(digest, *count)).collect(),
        };
        all.sort_unstable();
        all
    }
}
