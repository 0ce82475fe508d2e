//! How logins are lent and taken back, over all drills.
use drill::ledger::{Event, PhaseOutcome, Resource, Stamped};
use drill::phase::Phase;
use drill::stop::Stop;
use drill::verdict::Reason;
use jiff::Timestamp;
use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts};

/// A login that muster makes itself takes milliseconds; one that a busy secret store makes, seconds.
const BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

pub(super) struct OfLeases {
    issue: Histogram,
    revocation: Histogram,
    renewals: IntCounter,
    failures: IntCounterVec,
}

impl OfLeases {
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let histogram =
            |name: &str, help: &str| Histogram::with_opts(HistogramOpts::new(name, help).buckets(BUCKETS.to_vec()));
        Ok(Self {
            issue: histogram(
                "muster_lease_issue_seconds",
                "How long it took from asking for a lease until its login was proven.",
            )?,
            revocation: histogram(
                "muster_lease_revocation_seconds",
                "How long it took until a lease's login was seen refused, from when its turn in the teardown came.",
            )?,
            renewals: IntCounter::new("muster_lease_renewals_total", "Leases that were renewed or replaced in time.")?,
            failures: IntCounterVec::new(
                Opts::new(
                    "muster_lease_failures_total",
                    "What could not be done with a lease, and why: `cause` is a secret store's own word, or `other`.",
                ),
                &["operation", "cause"],
            )?,
        })
    }

    pub(super) fn collectors(&self) -> [Box<dyn Collector>; 4] {
        [
            Box::new(self.issue.clone()),
            Box::new(self.revocation.clone()),
            Box::new(self.renewals.clone()),
            Box::new(self.failures.clone()),
        ]
    }

    /// `before` is when the run's previous event was written.
    pub(super) fn event(&self, stamped: &Stamped, before: Timestamp) {
        let took = || stamped.at.duration_since(before).as_secs_f64().max(0.0);
        match &stamped.event {
            Event::Acquired { resource: Resource::Lease, .. } => self.issue.observe(took()),
            Event::Released { resource: Resource::Lease, .. } => self.revocation.observe(took()),
            Event::ReleaseFailed { resource: Resource::Lease, stop } => self.failed("revoke", stop),
            Event::PhaseEnded { phase, outcome: PhaseOutcome::Stopped(stop), .. }
                if stop.reason == Reason::Credentials =>
            {
                let operation = match phase {
                    Phase::Lease => "issue",
                    Phase::Validate => "renew",
                    _ => "warm-up",
                };
                self.failed(operation, stop);
            }
            _ => {}
        }
    }

    pub(super) fn renewed(&self) {
        self.renewals.inc();
    }

    fn failed(&self, operation: &str, stop: &Stop) {
        self.failures.with_label_values(&[operation, stop.cause.as_deref().unwrap_or("other")]).inc();
    }
}
