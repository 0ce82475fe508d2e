//! Scanning and hashing done by the host. The grant `digest`.
use crate::bindings::muster::check::digest;
pub use digest::{Mismatch, Outcome, Progress, Scan, start};

/// The blocks that differ, as far as the host kept them.
pub fn mismatches(outcome: &Outcome) -> impl Iterator<Item = Mismatch> {
    crate::paged(|skip, max| outcome.mismatches(skip, max))
}
