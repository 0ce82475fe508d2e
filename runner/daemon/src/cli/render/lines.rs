//! The words of a run, without colour and without a terminal.
use std::path::Path;
use std::time::Duration;

use drill::agent::CheckOutcome;
use drill::finding::{Finding, Severity};
use drill::ledger::{CheckEnded, PhaseOutcome, State, Summary};
use drill::phase::Phase;
use drill::unit;
use drill::verdict::{Leftovers, Verdict};

/// Failures of one check that are shown; the evidence has them all.
const SHOWN: usize = 5;

/// How a line is meant; the words say it too, so that colour is never alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    Good,
    Bad,
    Unsure,
    Warning,
    None,
}

impl Mark {
    pub(super) fn sign(self) -> &'static str {
        match self {
            Self::Good => "✓",
            Self::Bad => "✗",
            Self::Unsure => "?",
            Self::Warning => "!",
            Self::None => " ",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) mark: Mark,
    pub(super) text: String,
}

impl Line {
    fn new(mark: Mark, text: impl Into<String>) -> Self {
        Self { mark, text: text.into() }
    }
}

pub(super) fn head(state: &State) -> Vec<Line> {
    vec![Line::new(Mark::None, String::new()), Line::new(Mark::None, format!("{}", state.started.run))]
}

/// After the preflight it is known what is restored into what.
pub(super) fn phase_ended(phase: Phase, duration: Duration, outcome: &PhaseOutcome) -> Option<Line> {
    match outcome {
        // Each check has a line of its own.
        PhaseOutcome::Done { .. } if phase == Phase::Validate => None,
        PhaseOutcome::Done { note } => Some(Line::new(Mark::Good, row(phase.as_str(), duration, note))),
        PhaseOutcome::Stopped(stop) => {
            Some(Line::new(mark(stop.reason.verdict()), row(phase.as_str(), duration, &stop.message)))
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

pub(super) fn finding(finding: &Finding) -> Option<Line> {
    let text = continued(&format!("{}: {}", finding.subject, finding.message));
    (finding.severity == Severity::Warning).then(|| Line::new(Mark::Warning, text))
}

pub(super) fn key_made(directory: &Path) -> Line {
    let path = directory.join("evidence.pub");
    Line::new(Mark::Warning, format!("made a key that signs evidence; keep {} where you check it", path.display()))
}

pub(super) fn end(state: &State, summary: &Summary, leftovers: Leftovers, evidence: Option<&str>) -> Vec<Line> {
    let mut lines =
        vec![Line::new(Mark::None, String::new()), Line::new(mark(summary.verdict), verdict(state, summary))];
    if summary.verdict != Verdict::Passed {
        lines.push(Line::new(Mark::None, summary.message.clone()));
        if let Some(advice) = &summary.advice {
            lines.push(Line::new(Mark::None, format!("what to do: {advice}")));
        }
    }
    if leftovers == Leftovers::Some {
        lines.push(Line::new(Mark::Warning, "something is left over: `muster reap` removes it"));
    }
    if let Some(path) = evidence {
        lines.push(Line::new(Mark::None, format!("evidence {path}")));
    }
    lines
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

fn mark(verdict: Verdict) -> Mark {
    match verdict {
        Verdict::Passed => Mark::Good,
        Verdict::Inconclusive => Mark::Unsure,
        Verdict::Failed => Mark::Bad,
    }
}

/// Name, time and words in columns.
pub(super) fn row(name: &str, time: Duration, text: &str) -> String {
    format!("{name:<10} {:>7}   {text}", unit::duration(time))
}

fn continued(text: &str) -> String {
    format!("{:<10} {:>7}   {text}", "", "")
}
