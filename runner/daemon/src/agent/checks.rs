//! Who runs one check: the plugin host, or a fake in tests.
use std::collections::BTreeSet;

use async_trait::async_trait;
use bytes::Bytes;
use drill::agent::{CheckOutcome, CheckUsage};
use drill::id::Sha256Digest;
use drill::spec::{CheckLimits, Grant};
use plugin_host::backend::Backend;
use tokio_util::sync::CancellationToken;

/// One check on one database.
pub struct CheckCall {
    pub digest: Sha256Digest,
    /// Its bytes have this digest.
    pub component: Bytes,
    /// What the runner compiled of it, for a processor like its own.
    pub compiled: Option<Bytes>,
    pub grants: BTreeSet<Grant>,
    pub limits: CheckLimits,
    pub options: serde_json::Value,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunOutcome {
    pub outcome: CheckOutcome,
    pub usage: CheckUsage,
}

#[async_trait]
pub trait CheckRunner: Send + Sync {
    /// Ends soon after `cancel` is cancelled.
    async fn run(&self, call: CheckCall, backend: Backend, cancel: CancellationToken) -> RunOutcome;
}
