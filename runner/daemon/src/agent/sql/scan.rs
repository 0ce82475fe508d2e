//! COPY in the run's one snapshot, over connections of its own.
use tokio::time::Instant;

use super::database::Opening;

#[expect(dead_code, reason = "the scan connects through it")]
pub(in crate::agent) struct Scans {
    opening: Opening,
    deadline: Instant,
}

impl Scans {
    pub(super) fn new(opening: Opening, deadline: Instant) -> Self {
        Self { opening, deadline }
    }
}
