//! What a run's ledger adds up to: one verdict, one reason, one sentence. Pure, so that the normal end and the recovery of a
//! killed run conclude alike.
mod self_test;

use std::time::Duration;

use crate::agent::CheckOutcome;
use crate::finding::{Finding, Severity};
use crate::ledger::{CheckEnded, PhaseOutcome, State, Summary, Trigger};
use crate::phase::Phase;
use crate::spec::Fidelity;
use crate::stop::Stop;
use crate::unit;
use crate::verdict::{Reason, Verdict};

/// The last phase before teardown: a run whose ledger does not show its end was cut off.
const LAST: Phase = Phase::Validate;

pub fn conclude(state: &State) -> Summary {
    let times = Times::of(state);
    let stop = match &state.started.trigger {
        Trigger::SelfTest { damage, .. } => self_test::conclude(*damage, state),
        Trigger::Command | Trigger::Schedule { .. } | Trigger::Operator { .. } => {
            worst(&candidates(state, &times)).unwrap_or_else(|| proven(state))
        }
    };
    Summary {
        verdict: stop.reason.verdict(),
        reason: stop.reason,
        message: stop.message,
        advice: stop.advice,
        recovery_time_milliseconds: times.recovery_time.map(milliseconds),
        recovery_point_milliseconds: times.recovery_point.map(milliseconds),
        boundary_overhead_milliseconds: times.boundary_overhead.map(milliseconds),
    }
}

/// Why a deadline ends a run depends on whether the objective had passed by then.
pub fn deadline(phase: Phase, allowed: Duration, elapsed: Duration, state: &State) -> Stop {
    let objective = state.started.objectives.recovery_time.filter(|_| state.started.fidelity == Fidelity::Production);
    let message = format!("{phase} did not end within its deadline of {}", unit::duration(allowed));
    match objective {
        Some(objective) if elapsed > objective && before_ready(phase) => Stop::new(
            Reason::DeadlineAfterObjective,
            format!("{message}, and the objective of {} had passed", unit::duration(objective)),
        ),
        Some(_) | None => Stop::new(Reason::Deadline, message)
            .advise(format!("if the time is well spent, raise `deadlines: {{ {phase}: … }}` in the drill file")),
    }
}

/// Recovery time and recovery point actual, and what the boundaries cost.
struct Times {
    recovery_time: Option<Duration>,
    recovery_point: Option<Duration>,
    boundary_overhead: Option<Duration>,
}

impl Times {
    fn of(state: &State) -> Self {
        let done = |phase| match state.phase(phase)?.ended.as_ref()? {
            (duration, PhaseOutcome::Done { .. }) => Some(*duration),
            (_, PhaseOutcome::Stopped(_)) => None,
        };
        // Where verify and sandbox run side by side, the longer one is on the critical path.
        let both =
            |verify: Duration, sandbox| if state.verified_first { verify + sandbox } else { verify.max(sandbox) };
        let recovery_time = done(Phase::Verify)
            .zip(done(Phase::Sandbox))
            .zip(done(Phase::Restore))
            .map(|((verify, sandbox), restore)| both(verify, sandbox) + restore);
        let recovery_point = state
            .artifact
            .as_ref()
            .and_then(|artifact| Duration::try_from(state.started.at.duration_since(artifact.snapshot_time?)).ok());
        let boundary_overhead = done(Phase::Probe).map(|probe| probe + done(Phase::Lease).unwrap_or_default());
        Self { recovery_time, recovery_point, boundary_overhead }
    }
}

fn candidates(state: &State, times: &Times) -> Vec<Stop> {
    let mut stops = troubles(state);
    stops.extend(failed_checks(&state.findings));
    stops.extend(exceeded(state, times));
    stops
}

/// What kept the run from its end, in the order in which it happened.
fn troubles(state: &State) -> Vec<Stop> {
    let mut stops: Vec<Stop> = state
        .phases
        .iter()
        .filter(|record| record.phase != Phase::Teardown)
        .filter_map(|record| match &record.ended {
            Some((_, PhaseOutcome::Stopped(stop))) => Some(stop.clone()),
            Some((_, PhaseOutcome::Done { .. })) | None => None,
        })
        .collect();
    if stops.is_empty() && state.phase(LAST).is_none_or(|record| record.ended.is_none()) {
        let mut phases = state.phases.iter().rev().filter(|record| record.phase != Phase::Teardown);
        let place = match (phases.clone().find(|record| record.ended.is_none()), phases.next()) {
            (Some(running), _) => format!("during {}", running.phase),
            (None, Some(last)) => format!("after {}", last.phase),
            (None, None) => "before its first phase".to_owned(),
        };
        stops.push(Stop::new(Reason::Interrupted, format!("muster itself was ended {place}")));
    }
    stops.extend(state.checks.iter().filter_map(inconclusive_check));
    stops.extend(unheard_checks(state));
    // Seen open after the checks, or the phase that saw it has stopped already.
    stops.extend(state.isolation.as_ref().and_then(|isolation| isolation.judge().err()));
    stops
}

/// Every check must have ended on every database, or nothing is proven.
fn unheard_checks(state: &State) -> Option<Stop> {
    let databases = state.artifact.iter().flat_map(|artifact| &artifact.databases);
    let pairs =
        state.plugins.iter().flat_map(|plugin| databases.clone().map(move |database| (&plugin.check, database)));
    let heard = |check: &str, database: &str| {
        state.checks.iter().any(|ended| ended.check == check && ended.database == database)
    };
    let (check, database) = pairs.into_iter().find(|(check, database)| !heard(check, database))?;
    Some(Stop::new(Reason::CheckInconclusive, format!("{check} never said how it ended on database {database}")))
}

fn failed_checks(findings: &[Finding]) -> Option<Stop> {
    let failures: Vec<&Finding> = findings.iter().filter(|finding| finding.severity == Severity::Failure).collect();
    let first = failures.first()?;
    let more = match failures.len() - 1 {
        0 => String::new(),
        more => format!(" (and {} more)", unit::plural(u64::try_from(more).unwrap_or(u64::MAX), "failure")),
    };
    Some(Stop::new(Reason::CheckFailed, format!("{}: {}: {}{more}", first.source, first.subject, first.message)))
}

fn inconclusive_check(check: &CheckEnded) -> Option<Stop> {
    let name = &check.check;
    match &check.outcome {
        CheckOutcome::Completed { .. } => None,
        CheckOutcome::Cancelled => Some(Stop::new(Reason::CheckInconclusive, format!("{name} was cancelled"))),
        CheckOutcome::Inconclusive { why } => {
            Some(Stop::new(Reason::CheckInconclusive, format!("{name} cannot tell: {why}")))
        }
        CheckOutcome::Trapped { why } => Some(Stop::new(Reason::CheckInconclusive, format!("{name} crashed: {why}"))),
        CheckOutcome::Refused { why } => Some(Stop::new(Reason::CheckInconclusive, format!("{name}: {why}"))),
        CheckOutcome::LimitReached { limit, used, allowed, advice } => Some(
            Stop::new(Reason::LimitReached, format!("{name} reached its limit of {limit}: {used} of {allowed}"))
                .advise(advice.clone()),
        ),
    }
}

fn exceeded(state: &State, times: &Times) -> Vec<Stop> {
    let objectives = state.started.objectives;
    let mut stops = Vec::new();
    let mut compare = |what: &str, actual: Option<Duration>, objective: Option<Duration>| {
        if let (Some(actual), Some(objective)) = (actual, objective)
            && actual > objective
        {
            let (actual, objective) = (unit::duration(actual), unit::duration(objective));
            stops.push(Stop::new(
                Reason::ObjectiveExceeded,
                format!("{what} {actual} exceeds its objective of {objective}"),
            ));
        }
    };
    if state.started.fidelity == Fidelity::Production {
        compare("recovery time", times.recovery_time, objectives.recovery_time);
    }
    compare("recovery point", times.recovery_point, objectives.recovery_point);
    stops.extend(unknown_recovery_point(state));
    stops
}

/// An objective that nothing can be compared with was not met, and was not missed either.
fn unknown_recovery_point(state: &State) -> Option<Stop> {
    let objective = state.started.objectives.recovery_point?;
    state.artifact.as_ref().filter(|artifact| artifact.snapshot_time.is_none())?;
    let objective = unit::duration(objective);
    let message = format!(
        "the recovery point is unknown, and its objective is {objective}: the dump does not say when it was begun"
    );
    Some(Stop::new(Reason::CheckInconclusive, message).advise(
        "make plain dumps with `pg_dump --verbose`, which writes the time into them, or use an archive format, or `muster capture`",
    ))
}

/// Failed before inconclusive; among equals the first, which is the one that happened first.
fn worst(stops: &[Stop]) -> Option<Stop> {
    let failed = stops.iter().find(|stop| stop.reason.verdict() == Verdict::Failed);
    failed.or_else(|| stops.first()).cloned()
}

fn proven(state: &State) -> Stop {
    let checks = unit::plural(u64::try_from(state.checks.len()).unwrap_or(u64::MAX), "check");
    Stop::new(Reason::Proven, format!("the backup was restored and {checks} passed"))
}

fn before_ready(phase: Phase) -> bool {
    matches!(phase, Phase::Verify | Phase::Sandbox | Phase::Restore)
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Artifact, Event, Owner, Plugin, RunStarted, Stamped, Vouched};
    use crate::proof::{Expected, IsolationProof, Probe};
    use crate::spec::Objectives;

    fn state(events: &[Event]) -> State {
        state_of(started_by(Trigger::Command), events)
    }

    pub(super) fn started_by(trigger: Trigger) -> RunStarted {
        let at: jiff::Timestamp = "2026-11-22T02:15:00Z".parse().expect("a time");
        RunStarted {
            run: "orders-20261122t021500z-aaaa".parse().expect("a run"),
            drill: "orders".parse().expect("a name"),
            drill_digest: crate::id::Sha256Digest::of(b""),
            drill_file: "/drills/orders.yaml".to_owned(),
            labels: std::collections::BTreeMap::default(),
            at,
            owner: Owner { pid: 1, start_ticks: 1, boot_id: String::new() },
            muster_version: "0".to_owned(),
            fidelity: Fidelity::Production,
            objectives: Objectives {
                recovery_time: Some(Duration::from_mins(1)),
                recovery_point: Some(Duration::from_hours(24)),
            },
            evidence_directory: String::new(),
            trigger,
        }
    }

    pub(super) fn state_of(started: RunStarted, events: &[Event]) -> State {
        let at = started.at;
        let mut state = State::new(started);
        for (sequence, event) in events.iter().enumerate() {
            let sequence = u64::try_from(sequence).expect("few events") + 2;
            state.apply(&Stamped { sequence, at, event: event.clone() }).expect("a legal event");
        }
        state
    }

    pub(super) fn phase(phase: Phase, seconds: u64) -> [Event; 2] {
        let outcome = PhaseOutcome::Done { note: String::new() };
        [Event::PhaseStarted { phase }, Event::PhaseEnded { phase, duration: Duration::from_secs(seconds), outcome }]
    }

    pub(super) fn stopped(phase: Phase, stop: Stop) -> Event {
        Event::PhaseEnded { phase, duration: Duration::from_secs(1), outcome: PhaseOutcome::Stopped(stop) }
    }

    pub(super) fn plugin(check: &str, from: &str) -> Event {
        let digest = crate::id::Sha256Digest::of(b"");
        Event::Plugin(Plugin { check: check.to_owned(), from: from.to_owned(), digest, grants: Vec::new() })
    }

    pub(super) fn check_ended(check: &str) -> Event {
        Event::CheckEnded(CheckEnded {
            check: check.to_owned(),
            database: "d".to_owned(),
            outcome: CheckOutcome::Completed { summary: None },
            usage: crate::agent::CheckUsage::default(),
            figures: Vec::new(),
        })
    }

    pub(super) fn whole(restore_seconds: u64) -> Vec<Event> {
        let times = [
            (Phase::Preflight, 1),
            (Phase::Verify, 9),
            (Phase::Sandbox, 4),
            (Phase::Probe, 2),
            (Phase::Restore, restore_seconds),
            (Phase::Lease, 1),
            (Phase::Validate, 5),
        ];
        times.into_iter().flat_map(|(p, s)| phase(p, s)).collect()
    }

    fn finding(severity: Severity) -> Event {
        finding_of("rows", "public.orders", severity)
    }

    pub(super) fn finding_of(check: &str, subject: &str, severity: Severity) -> Event {
        Event::Finding(Finding {
            source: check.to_owned(),
            database: Some("d".to_owned()),
            severity,
            subject: subject.to_owned(),
            message: "1 row fewer".to_owned(),
            details: Vec::new(),
        })
    }

    fn trapped() -> Event {
        Event::CheckEnded(CheckEnded {
            check: "rows".to_owned(),
            database: "d".to_owned(),
            outcome: CheckOutcome::Trapped { why: "unreachable".to_owned() },
            usage: crate::agent::CheckUsage::default(),
            figures: Vec::new(),
        })
    }

    /// A backup on a volume is looked at before there is a sandbox.
    #[test]
    fn a_sandbox_that_waits_for_verify_takes_its_time_after_it() {
        assert_eq!(conclude(&state(&whole(20))).recovery_time_milliseconds, Some(33_000));
    }

    #[test]
    fn a_whole_run_is_proven_and_its_recovery_time_is_the_critical_path() {
        let mut events = whole(20);
        // Verify ends while the sandbox is being made.
        events.swap(3, 4);
        let summary = conclude(&state(&events));
        assert_eq!(summary.reason, Reason::Proven);
        assert_eq!(summary.recovery_time_milliseconds, Some(29_000));
        assert_eq!(summary.boundary_overhead_milliseconds, Some(3_000));
    }

    /// Nothing stopped, and a backup that failed stays failed.
    #[test]
    fn what_is_seen_open_after_the_checks_is_no_pass() {
        let probe = |name: &str, expected, observed| Probe {
            name: name.to_owned(),
            expected,
            observed,
            detail: "answered".to_owned(),
        };
        let proof = IsolationProof {
            probes: vec![
                probe("TCP to the runner (after the lease was revoked)", Expected::Closed, Expected::Open),
                probe("control", Expected::Open, Expected::Open),
            ],
        };
        let mut events = whole(20);
        events.push(Event::Isolation(proof));
        let summary = conclude(&state(&events));
        assert_eq!((summary.verdict, summary.reason), (Verdict::Inconclusive, Reason::IsolationUnproven));
        assert!(summary.message.contains("after the lease was revoked"), "{}", summary.message);
        events.push(finding(Severity::Failure));
        assert_eq!(conclude(&state(&events)).reason, Reason::CheckFailed);
    }

    #[test]
    fn a_slow_restore_exceeds_its_objective() {
        let summary = conclude(&state(&whole(52)));
        assert_eq!((summary.verdict, summary.reason), (Verdict::Failed, Reason::ObjectiveExceeded));
    }

    #[test]
    fn a_run_that_was_cut_off_is_interrupted_and_never_failed() {
        for length in 0..whole(20).len() {
            let summary = conclude(&state(&whole(20)[..length]));
            assert_eq!((summary.verdict, summary.reason), (Verdict::Inconclusive, Reason::Interrupted), "{length}");
        }
    }

    #[test]
    fn what_a_check_saw_outweighs_what_another_could_not_tell() {
        let mut events = whole(20);
        events.insert(0, trapped());
        assert_eq!(conclude(&state(&events)).reason, Reason::CheckInconclusive);
        events.insert(1, finding(Severity::Warning));
        assert_eq!(conclude(&state(&events)).reason, Reason::CheckInconclusive);
        events.insert(1, finding(Severity::Failure));
        assert_eq!(conclude(&state(&events)).reason, Reason::CheckFailed);
    }

    #[test]
    fn an_old_backup_exceeds_the_recovery_point() {
        let mut events = whole(20);
        events.push(Event::Artifact(Artifact {
            digest: crate::id::Sha256Digest::of(b""),
            name: "orders".to_owned(),
            location: "/b".to_owned(),
            vouched: Vouched::Signature { key: "k".to_owned() },
            size: 1,
            snapshot_time: Some("2026-11-20T02:15:00Z".parse().expect("a time")),
            snapshot_time_from: crate::manifest::SnapshotTimeFrom::Capture,
            source_version: "15.18".to_owned(),
            databases: vec!["d".to_owned()],
        }));
        let summary = conclude(&state(&events));
        assert_eq!(summary.reason, Reason::ObjectiveExceeded);
        assert_eq!(summary.message, "recovery point 2 d exceeds its objective of 1 d");
    }
}
