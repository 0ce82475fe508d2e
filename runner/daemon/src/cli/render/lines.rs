//! The words of a run, without colour and without a terminal.
use std::path::Path;
use std::time::Duration;

use drill::agent::CheckOutcome;
use drill::finding::{Finding, Severity};
use drill::ledger::{CheckEnded, PhaseOutcome, State, Summary};
use drill::phase::Phase;
use drill::stop::Stop;
use drill::unit;
use drill::verdict::{Leftovers, Reason, Verdict};

use crate::cli::style::{Mark, clean};

/// Failures of one check that are shown; the evidence has them all.
const SHOWN: usize = 5;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) mark: Mark,
    pub(super) text: String,
}

impl Line {
    fn new(mark: Mark, text: impl Into<String>) -> Self {
        Self { mark, text: clean(&text.into()) }
    }
}

pub(super) fn head(state: &State) -> Vec<Line> {
    let started = &state.started;
    let text = format!("{}   fidelity {}", started.run, started.fidelity.as_str());
    vec![Line::new(Mark::None, String::new()), Line::new(Mark::None, text), Line::new(Mark::None, String::new())]
}

pub(super) fn phase_ended(phase: Phase, duration: Duration, outcome: &PhaseOutcome) -> Option<Line> {
    match outcome {
        // Each check has a line of its own.
        PhaseOutcome::Done { .. } if phase == Phase::Validate => None,
        PhaseOutcome::Done { note } => Some(Line::new(Mark::Good, row(phase.as_str(), duration, note))),
        PhaseOutcome::Stopped(stop) => {
            Some(Line::new(Mark::from(stop.reason.verdict()), row(phase.as_str(), duration, &stop.message)))
        }
    }
}

pub(super) fn check_ended(check: &CheckEnded, state: &State) -> Vec<Line> {
    let several = state.artifact.as_ref().is_some_and(|artifact| artifact.databases.len() > 1);
    let name = if several { format!("{} {}", check.check, check.database) } else { check.check.clone() };
    let failures: Vec<&Finding> = findings(check, state, Severity::Failure);
    let time = check.usage.wall_time;
    let (first_mark, first_text) = match (&check.outcome, failures.first()) {
        (_, Some(first)) => (Mark::Bad, format!("{}: {}", first.subject, first.message)),
        (CheckOutcome::Completed { summary }, None) => {
            (Mark::Good, summary.clone().unwrap_or_else(|| "nothing amiss".to_owned()))
        }
        (CheckOutcome::Inconclusive { why } | CheckOutcome::Trapped { why } | CheckOutcome::Refused { why }, None) => {
            (Mark::Unsure, why.clone())
        }
        (CheckOutcome::LimitReached { limit, used, allowed, .. }, None) => {
            (Mark::Unsure, format!("stopped at its limit of {limit}: {used} of {allowed}"))
        }
        (CheckOutcome::Cancelled, None) => (Mark::Unsure, "cancelled".to_owned()),
    };
    let mut lines = vec![Line::new(first_mark, row(&name, time, &first_text))];
    for failure in failures.iter().skip(1).take(SHOWN - 1) {
        lines.push(Line::new(Mark::Bad, continued(&format!("{}: {}", failure.subject, failure.message))));
    }
    if failures.len() > SHOWN {
        let more = unit::plural(u64::try_from(failures.len() - SHOWN).unwrap_or(u64::MAX), "failure");
        lines.push(Line::new(Mark::Bad, continued(&format!("and {more} more, all in the evidence"))));
    }
    lines
}

fn findings<'a>(check: &CheckEnded, state: &'a State, severity: Severity) -> Vec<&'a Finding> {
    let of_check = |finding: &&Finding| {
        finding.severity == severity
            && finding.source == check.check
            && finding.database.as_deref() == Some(check.database.as_str())
    };
    state.findings.iter().filter(of_check).collect()
}

pub(super) fn warnings(warnings: &[Finding]) -> Vec<Line> {
    let shown = warnings.iter().take(SHOWN);
    let text = |finding: &Finding| continued(&format!("{}: {}", finding.subject, finding.message));
    let mut lines: Vec<Line> = shown.map(|finding| Line::new(Mark::Warning, text(finding))).collect();
    if warnings.len() > SHOWN {
        let more = unit::plural(u64::try_from(warnings.len() - SHOWN).unwrap_or(u64::MAX), "warning");
        lines.push(Line::new(Mark::Warning, continued(&format!("and {more} more, all in the evidence"))));
    }
    lines
}

pub(super) fn not_written(stop: &Stop) -> Line {
    Line::new(Mark::Bad, format!("this run could not be written down: {}", stop.message))
}

pub(super) fn key_made(directory: &Path) -> Line {
    let path = directory.join("evidence.pub");
    Line::new(Mark::Warning, format!("made a key that signs evidence; keep {} where you check it", path.display()))
}

pub(super) fn end(state: &State, summary: &Summary, leftovers: Leftovers, evidence: Option<&str>) -> Vec<Line> {
    let mut lines =
        vec![Line::new(Mark::None, String::new()), Line::new(Mark::from(summary.verdict), verdict(state, summary))];
    if summary.verdict != Verdict::Passed {
        if !is_said_already(state, summary) {
            lines.push(Line::new(Mark::None, summary.message.clone()));
        }
        lines.push(Line::new(Mark::None, format!("what to do: {}", advice(state, summary))));
    }
    if leftovers == Leftovers::Some {
        lines.push(Line::new(Mark::Warning, "something is left over: `muster reap` removes it"));
    }
    if let Some(path) = evidence {
        lines.push(Line::new(Mark::None, format!("evidence {path}")));
    }
    lines
}

/// The line of the phase that stopped has the same words.
fn is_said_already(state: &State, summary: &Summary) -> bool {
    state.phases.iter().any(|record| match &record.ended {
        Some((_, PhaseOutcome::Stopped(stop))) => stop.message == summary.message,
        Some((_, PhaseOutcome::Done { .. })) | None => false,
    })
}

/// What an operator does next, where whoever stopped the run did not say it.
fn advice(state: &State, summary: &Summary) -> String {
    let run = &state.started.run;
    if let Some(advice) = &summary.advice {
        return advice.clone();
    }
    match summary.reason {
        Reason::ArtifactRefused => match &state.artifact {
            Some(artifact) => format!(
                "do not restore from {}; take another copy, and find out what changed this one. It stays refused until \
                 `muster quarantine release {run}`",
                artifact.location
            ),
            None => "do not restore from it; make a new backup, or name the key of whoever signed this one".to_owned(),
        },
        Reason::CheckFailed | Reason::RestoreFailed => {
            format!("make a new backup and drill it before you need one; `muster report {run}` has every finding")
        }
        Reason::ObjectiveExceeded | Reason::DeadlineAfterObjective => {
            format!("`muster report {run}` says where the time went")
        }
        Reason::Interrupted => format!("run it again: muster run {}", state.started.drill_file),
        _ => format!("the backup was not judged; `muster report {run}` has the details"),
    }
}

fn verdict(state: &State, summary: &Summary) -> String {
    let objectives = state.started.objectives;
    let mut words = vec![summary.verdict.as_str().to_uppercase()];
    let mut time = |what: &str, actual: Option<u64>, objective: Option<Duration>| {
        let Some(actual) = actual.map(Duration::from_millis) else { return };
        let of = objective.map(|objective| format!(" of {}", unit::duration(objective))).unwrap_or_default();
        words.push(format!("{what} {}{of}", unit::duration(actual)));
    };
    time("recovery time", summary.recovery_time_milliseconds, objectives.recovery_time);
    time("recovery point", summary.recovery_point_milliseconds, objectives.recovery_point);
    if let Some(overhead) = summary.boundary_overhead_milliseconds {
        let share = match summary.recovery_time_milliseconds {
            Some(recovery) if recovery > 0 => format!(" ({} %)", overhead.saturating_mul(100) / recovery),
            Some(_) | None => String::new(),
        };
        words.push(format!("boundaries cost {}{share}", unit::duration(Duration::from_millis(overhead))));
    }
    if state.started.fidelity == drill::spec::Fidelity::Fast {
        words.push("fidelity fast: times prove nothing".to_owned());
    }
    words.join("   ")
}

/// Name, time and words in columns.
pub(super) fn row(name: &str, time: Duration, text: &str) -> String {
    format!("{name:<10} {:>7}   {text}", unit::duration(time))
}

fn continued(text: &str) -> String {
    format!("{:<10} {:>7}   {text}", "", "")
}
