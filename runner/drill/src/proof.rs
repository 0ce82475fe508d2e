//! What was tried and what was seen: the proofs that evidence holds.
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::stop::Stop;
use crate::verdict::Reason;

/// One attempt to cross a boundary, or one control that shows that the attempt could have worked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// Such as `sandbox: TCP to the runner's listener`.
    pub name: String,
    pub expected: Expected,
    pub observed: Expected,
    /// What was seen, such as `connect: network is unreachable`.
    pub detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Expected {
    Closed,
    Open,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IsolationProof {
    pub probes: Vec<Probe>,
}

impl IsolationProof {
    pub fn closed(&self) -> usize {
        self.probes.iter().filter(|probe| probe.expected == Expected::Closed).count()
    }

    pub fn controls(&self) -> usize {
        self.probes.iter().filter(|probe| probe.expected == Expected::Open).count()
    }

    /// A proof needs at least one closed probe and one open control, and every one of them as expected.
    pub fn judge(&self) -> Result<(), Stop> {
        let wrong: Vec<String> = self
            .probes
            .iter()
            .filter(|probe| probe.expected != probe.observed)
            .map(|probe| format!("{} ({})", probe.name, probe.detail))
            .collect();
        if !wrong.is_empty() {
            return Err(Stop::new(Reason::IsolationUnproven, format!("isolation is not proven: {}", wrong.join("; "))));
        }
        if self.closed() == 0 || self.controls() == 0 {
            return Err(Stop::new(
                Reason::IsolationUnproven,
                "isolation is not proven: no probe or no control was run",
            ));
        }
        Ok(())
    }

    /// Of a proof after one that held: what is open now was opened, and what could not be tried tells nothing.
    pub fn judge_again(&self) -> Result<(), Stop> {
        let open = |probe: &&Probe| probe.expected == Expected::Closed && probe.observed == Expected::Open;
        let open: Vec<String> =
            self.probes.iter().filter(open).map(|probe| format!("{} ({})", probe.name, probe.detail)).collect();
        if open.is_empty() {
            return self.judge();
        }
        let message = format!("the sandbox's isolation did not hold while the run went on: {}", open.join("; "));
        Err(Stop::new(Reason::IsolationBreached, message).because("probe-open"))
    }
}

/// One limit and what enforces it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LimitInForce {
    /// `memory`, `processes`, `disk`, `cpu`, `descriptors`.
    pub what: String,
    pub value: u64,
    /// Such as `cgroup v1`, `rlimit (per process)`, `watchdog`; `none` says that nothing holds it.
    pub enforced_by: String,
    /// Whether it bounds the sandbox as a whole.
    pub total: bool,
}

/// What the lease must not be able to do, tried; and its login, refused after revocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseProof {
    pub role: String,
    #[serde(with = "crate::unit::millis", rename = "ttlMilliseconds")]
    pub ttl: Duration,
    pub attempts: Vec<Attempt>,
    /// What could not be tried, because something that the backup brought would have answered in the server's place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub untried: Vec<Untried>,
    /// What a secret store lent for it; empty where muster made the role itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leases: Vec<StoredLease>,
}

/// A lease in a secret store's books. Its id is no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredLease {
    /// Such as `database/creds/muster-orders-20261122t021500z-j8y2/VfLqZ1…`.
    pub id: String,
    /// The database user that was made for it.
    pub role: String,
    pub issued_at: jiff::Timestamp,
    #[serde(with = "crate::unit::millis", rename = "ttlMilliseconds")]
    pub ttl: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// Such as `create a table`.
    pub what: String,
    pub database: String,
    /// Whether it ended as it must.
    pub held: bool,
    /// SQLSTATE of the refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sqlstate: Option<String>,
}

/// An attempt that was left out; the catalog was asked for the right that it needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Untried {
    /// Such as `create a table`.
    pub what: String,
    pub database: String,
    /// Such as `an event trigger of the backup would answer`.
    pub why: String,
}

impl LeaseProof {
    pub fn judge(&self) -> Result<(), Stop> {
        let broken: Vec<&str> = self.attempts.iter().filter(|a| !a.held).map(|a| a.what.as_str()).collect();
        if self.attempts.is_empty() {
            Err(Stop::new(Reason::Credentials, "the lease was not proven: nothing was tried"))
        } else if broken.is_empty() {
            Ok(())
        } else {
            Err(Stop::new(Reason::Credentials, format!("the lease can do what it must not: {}", broken.join(", "))))
        }
    }
}

/// What was seen of something that is gone, or what stands in the way of its going.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseProof {
    /// Such as `login refused with 28000`, `pid 4711 ended`, `directory removed`.
    pub observed: Vec<String>,
}

impl ReleaseProof {
    pub fn of(observed: impl Into<String>) -> Self {
        Self { observed: vec![observed.into()] }
    }
}
