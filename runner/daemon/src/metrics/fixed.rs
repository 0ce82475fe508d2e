//! What has few series, however many drills there are: kept by the `prometheus` crate.
use std::time::Duration;

use drill::phase::Phase;
use drill::stop::Stop;
use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry, TextEncoder,
};

use super::of_leases::OfLeases;

/// From an instant phase to a restore of a day.
const OF_PHASES: &[f64] = &[
    0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 1_800.0, 3_600.0, 7_200.0, 14_400.0, 28_800.0,
    86_400.0,
];
/// From the next tick to what a day of downtime leaves.
const OF_LAG: &[f64] = &[0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0, 21_600.0, 86_400.0];
/// Up to the time that a locked database is waited for, and beyond.
const OF_STORE: &[f64] = &[0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

pub(super) struct Fixed {
    registry: Registry,
    pub(super) phase_duration: HistogramVec,
    pub(super) schedule_lag: Histogram,
    pub(super) leases: OfLeases,
    pub(super) isolation_failed: IntCounter,
    pub(super) isolation_breached: IntCounter,
    pub(super) store_operation: HistogramVec,
    pub(super) store_errors: IntCounterVec,
    pub(super) alert_deliveries: IntCounterVec,
    pub(super) last_render: Gauge,
}

impl Fixed {
    pub(super) fn new() -> Result<Self, Stop> {
        Self::register().map_err(|error| Stop::internal(format!("the metrics could not be set up: {error}")))
    }

    fn register() -> Result<Self, prometheus::Error> {
        let histogram =
            |name: &str, help: &str, buckets: &[f64]| HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let fixed = Self {
            registry: Registry::new(),
            phase_duration: HistogramVec::new(
                histogram(
                    "muster_phase_duration_seconds",
                    "How long phases of runs took, over all drills, without self-tests.",
                    OF_PHASES,
                ),
                &["phase"],
            )?,
            schedule_lag: Histogram::with_opts(histogram(
                "muster_schedule_lag_seconds",
                "How much later than due, jitter included, scheduled runs began.",
                OF_LAG,
            ))?,
            leases: OfLeases::new()?,
            isolation_failed: IntCounter::new(
                "muster_isolation_proofs_failed_total",
                "Runs that stopped because the isolation of their sandbox was not proven.",
            )?,
            isolation_breached: IntCounter::new(
                "muster_isolation_breaches_total",
                "Runs that stopped because the isolation of their sandbox was changed or opened while they went on.",
            )?,
            store_operation: HistogramVec::new(
                histogram("muster_store_operation_seconds", "How long the store took.", OF_STORE),
                &["operation"],
            )?,
            store_errors: IntCounterVec::new(
                Opts::new(
                    "muster_store_errors_total",
                    "Operations that the store could not do. Refusals do not count.",
                ),
                &["operation"],
            )?,
            alert_deliveries: IntCounterVec::new(
                Opts::new("muster_alert_deliveries_total", "Attempts to tell a destination of an alert."),
                &["destination", "outcome"],
            )?,
            last_render: Gauge::new(
                "muster_metrics_last_render_seconds",
                "How long it took to write the answer to the previous scrape; 0 at the first.",
            )?,
        };
        for phase in Phase::ALL {
            fixed.phase_duration.with_label_values(&[phase.as_str()]);
        }
        let build = GaugeVec::new(Opts::new("muster_build_info", "Always 1; which muster this is."), &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
        let all: [Box<dyn Collector>; 10] = [
            Box::new(build),
            Box::new(fixed.phase_duration.clone()),
            Box::new(fixed.schedule_lag.clone()),
            Box::new(fixed.isolation_failed.clone()),
            Box::new(fixed.isolation_breached.clone()),
            Box::new(fixed.store_operation.clone()),
            Box::new(fixed.store_errors.clone()),
            Box::new(fixed.alert_deliveries.clone()),
            Box::new(fixed.last_render.clone()),
            Box::new(ProcessCollector::for_self()),
        ];
        for collector in all.into_iter().chain(fixed.leases.collectors()) {
            fixed.registry.register(collector)?;
        }
        Ok(fixed)
    }

    pub(super) fn encode(&self) -> Result<String, Stop> {
        let encoded = TextEncoder::new().encode_to_string(&self.registry.gather());
        encoded.map_err(|error| Stop::internal(format!("the metrics could not be written: {error}")))
    }

    pub(super) fn operated(&self, operation: &str, took: Duration, failed: bool) {
        self.store_operation.with_label_values(&[operation]).observe(took.as_secs_f64());
        // Made with the first operation, so that the first error is an increase.
        let errors = self.store_errors.with_label_values(&[operation]);
        if failed {
            errors.inc();
        }
    }
}
