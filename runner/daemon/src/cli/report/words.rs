//! What a fact is called and whether it is good: the same words in every form of the report.
use std::time::Duration;

use drill::evidence::{
    Artifact, Attempt, Check, CheckOutcome, CheckUsage, Facts, Finding, Limit, Phase, PhaseOutcome, Plugin, Probe,
    Recovery, ResourceOutcome, SelfTest, Teardown, Untried,
};
use drill::finding::Severity;
use drill::proof::Expected;
use drill::spec::Fidelity;
use drill::unit;

use crate::cli::style::{Mark, time};

pub(crate) fn milliseconds(milliseconds: u64) -> String {
    unit::duration(Duration::from_millis(milliseconds))
}

/// What was measured against what was asked for.
pub(crate) struct Objective {
    pub(crate) name: &'static str,
    pub(crate) mark: Mark,
    pub(crate) text: String,
}

pub(crate) fn objectives(recovery: &Recovery) -> [Objective; 2] {
    let time = (recovery.time_actual_milliseconds, recovery.time_objective_milliseconds);
    let point = (recovery.point_actual_milliseconds, recovery.point_objective_milliseconds);
    let judged = recovery.fidelity == Fidelity::Production;
    [objective("recovery time", time, judged), objective("recovery point", point, true)]
}

fn objective(name: &'static str, (actual, objective): (Option<u64>, Option<u64>), judged: bool) -> Objective {
    let shown = actual.map_or_else(|| "not measured".to_owned(), milliseconds);
    let (mark, text) = match (actual, objective) {
        (_, None) => (Mark::None, format!("{shown}, no objective")),
        (Some(actual), Some(objective)) if judged && actual > objective => {
            (Mark::Bad, format!("{shown} of {}, exceeded", milliseconds(objective)))
        }
        (Some(_), Some(objective)) if judged => (Mark::Good, format!("{shown} of {}", milliseconds(objective))),
        (_, Some(objective)) => (Mark::Unsure, format!("{shown} of {}", milliseconds(objective))),
    };
    Objective { name, mark, text }
}

/// What the result is about, where it is not about the backup.
pub(super) fn self_test(test: &SelfTest) -> String {
    let damaged = test.damaged.as_deref().unwrap_or("nothing was damaged");
    let expected = test.expected.as_ref().map(|expected| format!("; expected: {expected}")).unwrap_or_default();
    format!("self-test ({}): this run drilled a copy that it had damaged itself: {damaged}{expected}", test.damage)
}

/// Who stands for the backup.
pub(crate) fn vouched(artifact: &Artifact) -> (Mark, String) {
    match &artifact.signed_by {
        Some(key) => (Mark::None, format!("signed by {key}")),
        None => (Mark::Warning, format!("UNSIGNED, vouched for by {}", artifact.vouched_by)),
    }
}

/// When its snapshot was taken, and who says so where that is not the signed manifest.
pub(crate) fn taken(artifact: &Artifact) -> String {
    let note = artifact.snapshot_time_from.note();
    let taken = match artifact.snapshot_time {
        Some(taken) if note.is_empty() => format!("taken {}", time(taken)),
        Some(taken) => format!("taken {} ({note})", time(taken)),
        None => note.to_owned(),
    };
    format!("{taken} from {}", artifact.source_version)
}

pub(crate) fn phase(phase: &Phase) -> (Mark, &str) {
    match (phase.outcome, &phase.problem) {
        (PhaseOutcome::Stopped, Some(problem)) => (Mark::from(problem.reason.verdict()), &problem.message),
        (PhaseOutcome::Done, _) => (Mark::Good, phase.note.as_deref().unwrap_or_default()),
        (PhaseOutcome::Stopped, None) => (Mark::Unsure, "stopped"),
        (PhaseOutcome::CutOff, _) => (Mark::Unsure, "did not end"),
    }
}

pub(crate) fn took(phase: &Phase) -> String {
    phase.milliseconds.map_or_else(|| "-".to_owned(), milliseconds)
}

pub(crate) fn check(check: &Check, facts: &Facts) -> (Mark, String) {
    let failed = facts.findings.iter().any(|finding| {
        finding.severity == Severity::Failure
            && finding.source == check.check
            && finding.database.as_deref() == Some(check.database.as_str())
    });
    let (mark, outcome) = match check.outcome {
        CheckOutcome::Completed if failed => (Mark::Bad, "failed"),
        CheckOutcome::Completed => (Mark::Good, "passed"),
        CheckOutcome::Inconclusive => (Mark::Unsure, "inconclusive"),
        CheckOutcome::LimitReached => (Mark::Unsure, "stopped at a limit"),
        CheckOutcome::Trapped => (Mark::Unsure, "trapped"),
        CheckOutcome::Refused => (Mark::Unsure, "refused"),
        CheckOutcome::Cancelled => (Mark::Unsure, "cancelled"),
    };
    let message = check.message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
    (mark, format!("{} on {} {outcome}{message}", check.check, check.database))
}

/// Why a check was stopped at a limit.
pub(crate) fn check_limit(check: &Check) -> Option<String> {
    let limit = check.limit.as_ref()?;
    Some(format!("{}: used {} of {}; {}", limit.name, limit.used, limit.allowed, limit.advice))
}

pub(crate) fn usage(usage: &CheckUsage) -> String {
    format!(
        "took {}, {} of CPU, {} of memory",
        milliseconds(usage.wall_milliseconds),
        milliseconds(usage.cpu_milliseconds),
        unit::size(usage.memory_bytes)
    )
}

pub(crate) fn grants(plugin: &Plugin) -> String {
    if plugin.grants.is_empty() { "nothing".to_owned() } else { plugin.grants.join(", ") }
}

pub(crate) fn severity(severity: Severity) -> Mark {
    match severity {
        Severity::Failure => Mark::Bad,
        Severity::Warning => Mark::Warning,
        Severity::Info => Mark::None,
    }
}

pub(crate) fn details(finding: &Finding) -> String {
    let details: Vec<_> = finding.details.iter().map(|detail| format!("{} {}", detail.name, detail.value)).collect();
    details.join(", ")
}

pub(crate) fn limit(limit: &Limit) -> (Mark, String) {
    let bytes = matches!(limit.what.as_str(), "memory" | "disk");
    let value = if bytes { unit::size(limit.value) } else { unit::count(limit.value) };
    let scope = if limit.total { "for the whole sandbox" } else { "not for the sandbox as a whole" };
    let mark = if limit.enforced_by == "none" { Mark::Warning } else { Mark::None };
    (mark, format!("{} {value}, by {}, {scope}", limit.what, limit.enforced_by))
}

pub(crate) fn probe(probe: &Probe) -> (Mark, &'static str) {
    let mark = if probe.expected == probe.observed { Mark::Good } else { Mark::Bad };
    match probe.observed {
        Expected::Closed => (mark, "closed"),
        Expected::Open => (mark, "open"),
    }
}

pub(crate) fn attempt(attempt: &Attempt) -> (Mark, String) {
    let (mark, held) = if attempt.held { (Mark::Good, "could not") } else { (Mark::Bad, "could") };
    let state = attempt.sqlstate.as_ref().map(|state| format!(" (SQLSTATE {state})")).unwrap_or_default();
    (mark, format!("{held} {} in {}{state}", attempt.what, attempt.database))
}

pub(crate) fn untried(untried: &Untried) -> (Mark, String) {
    (Mark::None, format!("did not try to {} in {}: {}", untried.what, untried.database, untried.why))
}

pub(crate) fn teardown(resource: &Teardown) -> (Mark, String) {
    match (resource.outcome, &resource.problem) {
        (ResourceOutcome::Released, _) => (Mark::Good, resource.observed.join(", ")),
        (ResourceOutcome::StillOwed, Some(problem)) => (Mark::Bad, format!("still there: {}", problem.message)),
        (ResourceOutcome::StillOwed, None) => (Mark::Unsure, "not released yet".to_owned()),
    }
}
