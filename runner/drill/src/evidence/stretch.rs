//! Parts of the chain whose evidence was deleted on purpose: small, however much was deleted, because neighbours become one.
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::id::Sha256Digest;

/// Places of the chain that one tombstone speaks of, so that none grows without a bound.
pub const BLOCK: u64 = 100_000;

/// Consecutive evidence that was deleted. Its digests take the place of its files in the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Stretch {
    pub first: u64,
    pub last: u64,
    /// SHA-256 of the last one's envelope: what the next evidence names.
    pub digest: Sha256Digest,
    /// What the first one named. None where it was the first of the chain.
    pub previous: Option<Sha256Digest>,
}

impl Stretch {
    pub fn contains(&self, sequence: u64) -> bool {
        (self.first..=self.last).contains(&sequence)
    }
}

/// The block that a place of the chain, from 1, lies in.
pub fn block(sequence: u64) -> RangeInclusive<u64> {
    let first = sequence.saturating_sub(1) / BLOCK * BLOCK + 1;
    first..=first.saturating_add(BLOCK - 1)
}

/// Neighbours of one block become one, where the later names the earlier. What is there twice is there once.
pub fn merge(mut stretches: Vec<Stretch>) -> Vec<Stretch> {
    stretches.sort_by_key(|stretch| (stretch.first, std::cmp::Reverse(stretch.last)));
    let mut merged: Vec<Stretch> = Vec::with_capacity(stretches.len());
    for next in stretches {
        match merged.last_mut() {
            Some(last) if next.last <= last.last => {}
            Some(last)
                if last.last.checked_add(1) == Some(next.first)
                    && next.previous == Some(last.digest)
                    && block(last.last) == block(next.first) =>
            {
                last.last = next.last;
                last.digest = next.digest;
            }
            _ => merged.push(next),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretch(first: u64, last: u64) -> Stretch {
        let digest = |sequence: u64| Sha256Digest::of(&sequence.to_be_bytes());
        Stretch { first, last, digest: digest(last), previous: (first > 1).then(|| digest(first - 1)) }
    }

    #[test]
    fn neighbours_become_one_in_any_order() {
        let merged = merge(vec![stretch(5, 5), stretch(1, 1), stretch(2, 3), stretch(6, 9), stretch(6, 7)]);
        assert_eq!(merged, [stretch(1, 3), stretch(5, 9)]);
        assert_eq!(merge(merged.clone()), merged);
        let strange = Stretch { previous: Some(Sha256Digest::of(b"another")), ..stretch(4, 4) };
        assert_eq!(merge(vec![stretch(1, 3), strange.clone()]), [stretch(1, 3), strange]);
    }

    #[test]
    fn blocks_do_not_grow_together() {
        assert_eq!(block(1), 1..=BLOCK);
        assert_eq!((block(BLOCK), block(BLOCK + 1)), (1..=BLOCK, BLOCK + 1..=2 * BLOCK));
        let halves = vec![stretch(1, BLOCK), stretch(BLOCK + 1, BLOCK + 1)];
        assert_eq!(merge(halves.clone()), halves);
    }
}
