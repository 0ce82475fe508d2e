//! What the rows of a table are, in 32 bytes: the same for whatever order they are read in, another one as soon as one of
//! them differs.
//!
//! Each row that COPY sends has a *digest* (SHA-256 of its bytes) and a *place*, which comes from its key
//! ([`RowReader`]). Rows sorted by place are cut into *blocks* of about 1,000 ([`cut`]); the drill sorts what it finds into the
//! same blocks ([`align`]), and a block that differs says where to look ([`compare`]). The *root* ([`root`]) is over all of
//! them and over how they were read. No more rows than a bound are held: a [`Collector`] that is full gives up the upper half
//! of its places, and another pass over the table begins where this one's [`Pass`] ends.
mod block;
mod collect;
mod root;
mod row;
#[cfg(test)]
mod tests;

pub use block::{
    BLOCK_SIZE, BadBlocks, Block, Different, Group, align, compare, cut, decode, digest, encode, firsts, rows_different,
};
pub use collect::{Collector, Entry, MAX_HELD, Pass};
pub use root::root;
pub use row::{Malformed, Row, RowHasher, RowReader};

/// 0 where there are fewer.
fn first_eight(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |eight| u64::from_be_bytes(*eight))
}
