//! The words of a run, without colour and without a terminal.
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use drill::agent::CheckOutcome;
use drill::finding::{Finding, Severity};
use drill::ledger::{CheckEnded, PhaseOutcome, State, Summary, Trigger};
use drill::phase::Phase;
use drill::stop::Stop;
use drill::unit;
use drill::verdict::{Leftovers, Verdict};

use crate::cli::advice;
use crate::cli::style::{Mark, clean};

/// Failures, warnings or databases of one check that are shown; the evidence has them all.
const SHOWN: usize = 5;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) mark: Mark,
    /// What stands before the text, in columns of its own: a name and a time.
    pub(super) lead: String,
    pub(super) text: String,
}

impl Line {
    fn new(mark: Mark, text: impl AsRef<str>) -> Self {
        Self::after("", mark, text)
    }

    fn after(lead: &str, mark: Mark, text: impl AsRef<str>) -> Self {
        Self { mark, lead: clean(lead), text: clean(text.as_ref()) }
    }

    /// Name, time and words in columns.
    fn row(mark: Mark, name: &str, time: Duration, text: impl AsRef<str>) -> Self {
        Self::after(&format!("{name:<10} {:>7}   ", unit::duration(time)), mark, text)
    }

    /// More words in the same column.
    fn continued(mark: Mark, text: impl AsRef<str>) -> Self {
        Self::after(&format!("{:<10} {:>7}   ", "", ""), mark, text)
    }
}

pub(super) fn head(state: &State) -> Vec<Line> {
    let started = &state.started;
    let marked = match &started.trigger {
        Trigger::SelfTest { damage, .. } => format!("   SELF-TEST: {damage}, in a copy; the drill must refuse it"),
        Trigger::Command | Trigger::Schedule { .. } | Trigger::Operator { .. } => String::new(),
    };
    let text = format!("{}   fidelity {}{marked}", started.run, started.fidelity.as_str());
    vec![Line::new(Mark::None, ""), Line::new(Mark::None, text), Line::new(Mark::None, "")]
}

pub(super) fn phase_ended(phase: Phase, duration: Duration, outcome: &PhaseOutcome) -> Option<Line> {
    match outcome {
        // Each check has a line of its own.
        PhaseOutcome::Done { .. } if phase == Phase::Validate => None,
        PhaseOutcome::Done { note } => Some(Line::row(Mark::Good, phase.as_str(), duration, note)),
        PhaseOutcome::Stopped(stop) => {
            Some(Line::row(Mark::from(stop.reason.verdict()), phase.as_str(), duration, &stop.message))
        }
    }
}

/// One line a check, whatever the number of databases; nothing until it has ended on each of them.
pub(super) fn check_ended(check: &str, state: &State) -> Vec<Line> {
    let databases = state.artifact.as_ref().map_or(1, |artifact| artifact.databases.len());
    if ends(check, state).count() < databases { Vec::new() } else { check_lines(check, state) }
}

/// The checks that had not ended on every database when the agent did.
pub(super) fn checks_cut_off(state: &State) -> Vec<Line> {
    let databases = state.artifact.as_ref().map_or(1, |artifact| artifact.databases.len());
    let names: BTreeSet<&str> = state.checks.iter().map(|ended| ended.check.as_str()).collect();
    let cut_off = names.into_iter().filter(|check| ends(check, state).count() < databases);
    cut_off.flat_map(|check| check_lines(check, state)).collect()
}

fn ends<'a>(check: &str, state: &'a State) -> impl Iterator<Item = &'a CheckEnded> {
    state.checks.iter().filter(move |ended| ended.check == check)
}

/// What is wrong first, then what could not be told; only where there is neither, what was seen.
fn check_lines(check: &str, state: &State) -> Vec<Line> {
    let several = state.artifact.as_ref().is_some_and(|artifact| artifact.databases.len() > 1);
    let on = |database: &str, text: &str| if several { format!("{database}: {text}") } else { text.to_owned() };
    let (mut wrong, mut unsure, mut good) = (Vec::new(), Vec::new(), Vec::new());
    for ended in ends(check, state) {
        let failures = findings(ended, state, Severity::Failure);
        let words = failures.iter().map(|finding| format!("{}: {}", finding.subject, finding.message));
        wrong.extend(words.map(|words| on(&ended.database, &words)));
        match outcome(&ended.outcome) {
            (Mark::Good, words) if failures.is_empty() => good.push(on(&ended.database, &words)),
            (Mark::Good, _) => {}
            (_, words) => unsure.push(on(&ended.database, &words)),
        }
    }
    let time = ends(check, state).map(|ended| ended.usage.wall_time).sum();
    if wrong.is_empty() && unsure.is_empty() {
        return vec![Line::row(Mark::Good, check, time, some(&good, "database").join("; "))];
    }
    let wrong = some(&wrong, "failure").into_iter().map(|words| (Mark::Bad, words));
    let unsure = some(&unsure, "database").into_iter().map(|words| (Mark::Unsure, words));
    let mut lines = Vec::new();
    for (mark, words) in wrong.chain(unsure) {
        let first = lines.is_empty();
        lines.push(if first { Line::row(mark, check, time, words) } else { Line::continued(mark, words) });
    }
    lines
}

fn outcome(outcome: &CheckOutcome) -> (Mark, String) {
    match outcome {
        CheckOutcome::Completed { summary } => {
            (Mark::Good, summary.clone().unwrap_or_else(|| "nothing amiss".to_owned()))
        }
        CheckOutcome::Inconclusive { why } | CheckOutcome::Trapped { why } | CheckOutcome::Refused { why } => {
            (Mark::Unsure, why.clone())
        }
        CheckOutcome::LimitReached { limit, used, allowed, .. } => {
            (Mark::Unsure, format!("stopped at its limit of {limit}: {used} of {allowed}"))
        }
        CheckOutcome::Cancelled => (Mark::Unsure, "cancelled".to_owned()),
    }
}

/// As many as are shown, and how many more there are.
fn some(all: &[String], noun: &str) -> Vec<String> {
    let mut shown: Vec<String> = all.iter().take(SHOWN).cloned().collect();
    if all.len() > SHOWN {
        let more = unit::plural(u64::try_from(all.len() - SHOWN).unwrap_or(u64::MAX), noun);
        shown.push(format!("and {more} more, all in the evidence"));
    }
    shown
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
    let words = |finding: &Finding| format!("{}: {}", finding.subject, finding.message);
    let all: Vec<String> = warnings.iter().map(words).collect();
    some(&all, "warning").iter().map(|words| Line::continued(Mark::Warning, words)).collect()
}

pub(super) fn not_written(stop: &Stop) -> Line {
    Line::new(Mark::Bad, format!("this run could not be written down: {}", stop.message))
}

pub(super) fn key_made(directory: &Path) -> Line {
    let path = directory.join("evidence.pub");
    Line::new(Mark::Warning, format!("made a key that signs evidence; keep {} where you check it", path.display()))
}

pub(super) fn end(state: &State, summary: &Summary, leftovers: Leftovers, evidence: Option<&str>) -> Vec<Line> {
    let mut lines = vec![Line::new(Mark::None, ""), Line::new(Mark::from(summary.verdict), verdict(state, summary))];
    let is_self_test = matches!(state.started.trigger, Trigger::SelfTest { .. });
    if is_self_test || summary.verdict != Verdict::Passed && !is_said_already(state, summary) {
        lines.push(Line::new(Mark::None, &summary.message));
    }
    let mut lead = "what to do: ";
    for step in advice::steps(state, summary) {
        lines.push(Line::after(lead, Mark::None, step));
        lead = "            ";
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

fn verdict(state: &State, summary: &Summary) -> String {
    let objectives = state.started.objectives;
    let mut words = vec![summary.verdict.as_str().to_uppercase()];
    if matches!(state.started.trigger, Trigger::SelfTest { .. }) {
        words[0].push_str(" (self-test)");
    }
    if let Some(place) = state.source {
        words.push(format!("source {place}"));
    }
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
