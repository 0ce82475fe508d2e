//! One digest for a table.
use sha2::{Digest, Sha256};

use super::block::Block;
use crate::baseline::{Bucketing, Float, Form, Layout};
use crate::id::Sha256Digest;

/// Over the version of the format, how the rows were read, how many there are, and the blocks.
pub fn root(layout: &Layout, blocks: &[Block]) -> Sha256Digest {
    let mut hash = Sha256::new_with_prefix("muster content root v1\n");
    let mut number = |number: u64| hash.update(number.to_be_bytes());
    number(match layout.form {
        Form::Binary => 1,
        Form::Text => 2,
    });
    let (bucketing, keys) = match &layout.bucketing {
        Bucketing::KeyRange { column } => (1, std::slice::from_ref(column)),
        Bucketing::KeyHash { columns } => (2, columns.as_slice()),
        Bucketing::RowDigest => (3, &[][..]),
    };
    number(bucketing);
    number(keys.len() as u64);
    for key in keys {
        number(u64::from(*key));
    }
    number(blocks.iter().fold(0, |rows, block| rows.wrapping_add(block.rows)));
    number(layout.columns.len() as u64);
    for column in &layout.columns {
        for text in [&column.name, &column.type_name] {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        }
        hash.update([match column.float {
            None => 0,
            Some(Float::Float4) => 4,
            Some(Float::Float8) => 8,
        }]);
    }
    hash.update(tree(blocks));
    Sha256Digest::from_bytes(hash.finalize().into())
}

/// The Merkle tree hash of RFC 6962, section 2.1.
pub(super) fn tree(blocks: &[Block]) -> [u8; 32] {
    match blocks {
        [] => Sha256::digest([]).into(),
        [block] => Sha256::new_with_prefix([0]).chain_update(block.bytes()).finalize().into(),
        _ => {
            let (left, right) = blocks.split_at(blocks.len().div_ceil(2).next_power_of_two());
            Sha256::new_with_prefix([1]).chain_update(tree(left)).chain_update(tree(right)).finalize().into()
        }
    }
}
