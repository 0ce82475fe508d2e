use std::time::Duration;

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
    /// Since when it is open, or when it was seen first.
    pub at: Timestamp,
    pub message: String,
    pub advice: Option<String>,
    /// An object; what a machine may want to know, such as the digest of a refused artifact.
    pub details: serde_json::Value,
}

/// Alerts that are open, and what still has to be sent of them. Durable. What is kept is the state of each alert and what each
/// destination knows of it, not a list of all that happened: an alert that comes and goes a hundred times while nobody can be
/// told takes no more room than one.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// Opens the alert, or refreshes the words of the one that is open for this kind and subject. Words that differ in numbers
    /// alone are not told again.
    async fn raise(&self, alert: &Alert) -> Result<(), Stop>;

    /// Closes it; false where none is open.
    async fn resolve(&self, kind: &str, subject: &str, at: Timestamp) -> Result<bool, Stop>;

    /// Open alerts, oldest first.
    async fn open_alerts(&self) -> Result<Vec<Alert>, Stop>;

    /// What `destination` has not been told yet and may be told now: what was tried least often first, then the oldest. Other words of what it knows to be open wait
    /// until [`NEW_WORDS`] after the last ones; what is open comes again `repeat` after it was told.
    async fn due(
        &self,
        destination: &str,
        repeat: Option<Duration>,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<Delivery>, Stop>;

    /// Told.
    async fn delivered(&self, deliveries: &[Delivery], destination: &str, at: Timestamp) -> Result<(), Stop>;

    /// Not told at `at`: not before `again`; None gives it up until it changes.
    async fn undelivered(
        &self,
        deliveries: &[Delivery],
        destination: &str,
        at: Timestamp,
        again: Option<Timestamp>,
        why: &str,
    ) -> Result<(), Stop>;

    /// `destination` hears again: what waits for its next try is due now.
    async fn hurry(&self, destination: &str) -> Result<(), Stop>;

    /// Forgets alerts that are resolved, and of which each of `destinations` was told or that were resolved before `before`;
    /// and what destinations know that are not among them. How many alerts it forgot.
    async fn tidy(&self, destinations: &[String], before: Timestamp) -> Result<u64, Stop>;
}

/// Other words of an open alert are told at most this often.
pub const NEW_WORDS: Duration = Duration::from_hours(1);
/// No try waits longer for the next one; an outbox whose clock was set back does not wait for it either.
pub const LONGEST_WAIT: Duration = Duration::from_hours(1);

/// One thing to tell one destination.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    pub id: u64,
    /// Grows with each change of the alert.
    pub revision: u64,
    pub alert: Alert,
    /// None: it is open.
    pub resolved: Option<Timestamp>,
    /// How often it was tried in vain since it could be told last.
    pub attempts: u32,
    /// The first of those tries.
    pub failing_since: Option<Timestamp>,
}

impl Delivery {
    /// The same however often it is tried: whoever hears it twice knows it by this.
    pub fn key(&self) -> String {
        format!("{}-{}", self.id, self.revision)
    }
}

/// Where alerts go.
#[async_trait]
pub trait Alerts: Send + Sync {
    /// The destination's name in the configuration.
    fn name(&self) -> &str;

    /// How many go in one call of `send`.
    fn batch(&self) -> u32;

    /// Whether and when what is open must be told again although nothing changed.
    fn repeat(&self) -> Option<Duration>;

    /// At least once: a destination may hear the same twice. An error means that it may have heard none of them.
    async fn send(&self, deliveries: &[Delivery]) -> Result<(), Stop>;
}

/// How loud an alert is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    Warning,
    Critical,
}

impl Severity {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    /// Of a kind that nobody listed: somebody should look.
    pub fn of(kind: &str) -> Self {
        KINDS.iter().find(|known| known.name == kind).map_or(Self::Warning, |known| known.severity)
    }
}

/// A kind of alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    pub name: &'static str,
    pub severity: Severity,
    /// For documents.
    pub about: &'static str,
}

const fn kind(name: &'static str, severity: Severity, about: &'static str) -> Kind {
    Kind { name, severity, about }
}

/// Every kind that muster raises.
pub const KINDS: &[Kind] = &[
    kind("artifact-refused", Severity::Critical, "A backup is not what was signed; it is in quarantine."),
    kind("drill-failed", Severity::Critical, "The last run of a drill failed."),
    kind("drill-file-bad", Severity::Warning, "A drill file cannot be used as it is."),
    kind("drill-inconclusive", Severity::Warning, "The last run of a drill could not tell."),
    kind(
        "isolation-breached",
        Severity::Critical,
        "The isolation of a sandbox with restored data in it was changed or opened.",
    ),
    kind("leftovers", Severity::Critical, "A run could not remove all that it made."),
    kind("run-not-begun", Severity::Warning, "A run that was due could not begin."),
    kind("schedule-stalled", Severity::Warning, "The scheduler's bell stopped; the dispatcher rings for itself."),
    kind(
        "self-test-passed",
        Severity::Critical,
        "A damaged backup was not refused: do not trust this drill's successes.",
    ),
    kind("store-unwritable", Severity::Critical, "The store refused to be written: no run begins before it takes one."),
];
