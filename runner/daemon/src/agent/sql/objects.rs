//! The schema on both sides, as a check's `catalog`.
use async_trait::async_trait;
use bytes::Bytes;
use plugin_host::backend::{Catalog, Error, Objects, Side};
use tokio::time::Instant;

use super::database::Opening;
use super::fault::{host, plugin};

pub(in crate::agent) struct Schemas {
    #[expect(dead_code, reason = "the restored side reads through it")]
    opening: Opening,
    baseline: Option<Bytes>,
    #[expect(dead_code, reason = "the restored side ends by it")]
    deadline: Instant,
}

impl Schemas {
    /// `baseline`: the blob of the baseline's schema.
    pub(super) fn new(opening: Opening, baseline: Option<Bytes>, deadline: Instant) -> Self {
        Self { opening, baseline, deadline }
    }
}

#[async_trait]
impl Catalog for Schemas {
    async fn read(&self, side: Side) -> Result<Box<dyn Objects>, Error> {
        match side {
            Side::Baseline if self.baseline.is_none() => Err(plugin("the backup has no schema baseline")),
            Side::Baseline | Side::Restored => Err(host("not read yet")),
        }
    }
}
