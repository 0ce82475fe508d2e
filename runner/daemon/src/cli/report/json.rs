//! The report as JSON, in the words of evidence.
use drill::evidence::{
    Artifact, Check, Drill, Facts, Finding, Isolation, Lease, Phase, Plugin, Recovery, RunResult, Teardown,
};
use drill::id::{RunId, Sha256Digest};
use drill::stop::Stop;
use serde::Serialize;

use super::Report;
use crate::cli::style::clean_json;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Json<'a> {
    run: &'a RunId,
    drill: Drill,
    muster_version: &'a str,
    started: jiff::Timestamp,
    /// None while it goes on, and after a crash until it is recovered.
    ended: Option<jiff::Timestamp>,
    result: Option<RunResult>,
    recovery: Recovery,
    artifact: Option<Artifact>,
    quarantined: Option<Sha256Digest>,
    phases: Vec<Phase>,
    checks: Vec<Check>,
    findings: Vec<Finding>,
    plugins: Vec<Plugin>,
    isolation: Isolation,
    lease: Option<Lease>,
    teardown: Vec<Teardown>,
    connections_reported_by_restored_server: Vec<String>,
    evidence: Option<Evidence<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Evidence<'a> {
    path: &'a str,
    digest: Sha256Digest,
    sequence: u64,
}

pub(crate) fn json(report: &Report) -> Result<String, Stop> {
    let text = serde_json::to_string_pretty(&of(report));
    text.map(|text| clean_json(&text) + "\n")
        .map_err(|error| Stop::internal(format!("the report cannot be written: {error}")))
}

pub(crate) fn value(report: &Report) -> Result<serde_json::Value, Stop> {
    serde_json::to_value(of(report)).map_err(|error| Stop::internal(format!("the report cannot be written: {error}")))
}

fn of(report: &Report) -> Json<'_> {
    let state = &report.state;
    let facts = Facts::of(state);
    let result = state.summary.clone().map(|summary| RunResult {
        verdict: summary.verdict,
        reason: summary.reason,
        message: summary.message,
        advice: summary.advice,
        leftovers: state.leftovers(),
    });
    let evidence = state.evidence.as_ref();
    Json {
        run: &state.started.run,
        drill: facts.drill,
        muster_version: &state.started.muster_version,
        started: state.started.at,
        ended: report.ended,
        result,
        recovery: facts.recovery,
        artifact: facts.artifact,
        quarantined: facts.quarantined,
        phases: facts.phases,
        checks: facts.checks,
        findings: facts.findings,
        plugins: facts.plugins,
        isolation: facts.isolation,
        lease: facts.lease,
        teardown: facts.teardown,
        connections_reported_by_restored_server: facts.connections_reported_by_restored_server,
        evidence: evidence.map(|(path, digest, sequence)| Evidence { path, digest: *digest, sequence: *sequence }),
    }
}
