//! What the rows of a table are, in 32 bytes: the same for whatever order they are read in, another one as soon as one of
//! them differs.
//!
//! Each row that COPY sends has a *digest* (SHA-256 of its bytes) and a *place*, which comes from its key
//! ([`RowReader`]). A capture sorts rows by place and cuts them into *blocks* of about 1,000 ([`cut`]). No more rows than a
//! bound are held: what a full [`Collector`] held is a sorted run, and runs are merged ([`merge`]) as they are cut. The *root*
//! ([`root`]) is over all blocks and over how they were read. A drill hands what it finds to a [`Matcher`], which knows the
//! blocks and says which of them differ.
mod block;
mod collect;
mod matcher;
mod root;
mod row;
mod rows;
#[cfg(test)]
mod tests;

pub use block::{
    BLOCK_SIZE, BadBlocks, Block, ENCODED_BLOCK, ENCODED_ROW, Group, PlaceTooLarge, Prefixes, cut, decode, digest,
    encode, row_digests, rows_different,
};
pub use collect::{Collector, Entry, MAX_HELD, merge};
pub use matcher::{BlockTooLarge, Detail, Found, Matched, Matcher};
pub use root::root;
pub use row::{Malformed, Row, RowHasher, RowReader};

/// 0 where there are fewer.
fn first_eight(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |eight| u64::from_be_bytes(*eight))
}
