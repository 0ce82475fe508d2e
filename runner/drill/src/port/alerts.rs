use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::{DrillName, RunId};
use crate::stop::Stop;

/// Something that people must know. There is one open alert for each kind and subject.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Alert {
    /// Stable, such as `artifact-refused`.
    pub kind: String,
    /// What it is about: a drill, a run, a file, or `store`.
    pub subject: String,
    pub drill: Option<DrillName>,
    pub run: Option<RunId>,
    pub at: Timestamp,
    pub message: String,
    pub advice: Option<String>,
    /// An object; what a machine may want to know, such as the digest of a refused artifact.
    pub details: serde_json::Value,
}

/// Alerts that are open, and what still has to be sent of them. Durable.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// Opens the alert, or refreshes the words of the one that is open for this kind and subject.
    async fn raise(&self, alert: &Alert) -> Result<(), Stop>;

    /// Closes it; false where none is open.
    async fn resolve(&self, kind: &str, subject: &str, at: Timestamp) -> Result<bool, Stop>;

    /// Open alerts, oldest first.
    async fn open_alerts(&self) -> Result<Vec<Alert>, Stop>;

    /// What `destination` has not been told yet and may be told now, oldest first.
    async fn due(&self, destination: &str, now: Timestamp, limit: u32) -> Result<Vec<Delivery>, Stop>;

    /// Told.
    async fn delivered(&self, delivery: &Delivery, destination: &str, at: Timestamp) -> Result<(), Stop>;

    /// Not told: not before `again`; None gives it up.
    async fn undelivered(
        &self,
        delivery: &Delivery,
        destination: &str,
        again: Option<Timestamp>,
        why: &str,
    ) -> Result<(), Stop>;
}

/// One thing to tell one destination.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    pub id: u64,
    pub alert: Alert,
    /// None: it is open.
    pub resolved: Option<Timestamp>,
    /// How often it was tried.
    pub attempts: u32,
}

/// Where alerts go.
#[async_trait]
pub trait Alerts: Send + Sync {
    /// The destination's name in the configuration.
    fn name(&self) -> &str;

    /// At least once: a destination may hear the same twice.
    async fn send(&self, deliveries: &[Delivery]) -> Result<(), Stop>;
}
