//! From the ledger to evidence.
use std::time::Duration;

use crate::agent;
use crate::evidence::statement::{
    Artifact, Attempt, Chain, Check, CheckLimit, CheckOutcome, CheckUsage, Detail, Drill, EVIDENCE_TYPE, Finding,
    Isolation, KeyOrigin, Lease, Limit, Phase, PhaseOutcome, Plugin, Predicate, Probe, Problem, Recovery,
    ResourceOutcome, RunResult, STATEMENT_TYPE, Statement, Subject, SubjectDigest, TOMBSTONE_TYPE, Teardown, Template,
    Tombstone,
};
use crate::id::Sha256Digest;
use crate::ledger::{self, Event, Held, PhaseRecord, Stamped, State, Summary};
use crate::proof::LeaseProof;
use crate::stop::Stop;

/// What the ledger of a run does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Making {
    pub chain: Chain,
    pub key: KeyOrigin,
}

/// What a run's events say up to its conclusion: the same bytes whenever, and by whomever, it is made. The run must be
/// concluded.
pub fn evidence(events: &[Stamped], making: Making) -> Result<Statement, Stop> {
    let concluded = events.iter().rposition(|stamped| matches!(stamped.event, Event::Concluded(_)));
    let upto = concluded.ok_or_else(|| Stop::internal("there is no evidence of a run that was not concluded"))?;
    let state = State::replay(&events[..=upto]).map_err(|error| Stop::internal(error.to_string()))?;
    let summary = state.summary.clone().ok_or_else(|| Stop::internal("the conclusion of the run is lost"))?;
    Ok(statement(state, summary, events[upto].at, making))
}

/// `name` is the deleted file's.
pub fn tombstone(tombstone: Tombstone, name: String) -> Statement<Tombstone> {
    Statement {
        statement_type: STATEMENT_TYPE.to_owned(),
        subject: vec![subject(name, tombstone.digest)],
        predicate_type: TOMBSTONE_TYPE.to_owned(),
        predicate: tombstone,
    }
}

fn statement(state: State, summary: Summary, concluded: jiff::Timestamp, making: Making) -> Statement {
    let recovery = recovery(&state, &summary);
    let isolation = isolation(&state);
    let leftovers = state.leftovers();
    let teardown = teardown(&state);
    let started = state.started;
    let subject = match &state.artifact {
        Some(artifact) => subject(artifact.name.clone(), artifact.digest),
        None => subject(format!("drill {}", started.drill), started.drill_digest),
    };
    let predicate = Predicate {
        run: started.run,
        drill: Drill {
            name: started.drill,
            digest: started.drill_digest,
            file: started.drill_file,
            labels: started.labels,
        },
        muster_version: started.muster_version,
        started: started.at,
        concluded,
        result: RunResult {
            verdict: summary.verdict,
            reason: summary.reason,
            message: summary.message,
            advice: summary.advice,
            leftovers,
        },
        recovery,
        artifact: state.artifact.map(artifact),
        quarantined: state.quarantined,
        // Whether it is in the middle of making evidence says nothing of the run.
        phases: state.phases.into_iter().filter(|r| r.phase != crate::phase::Phase::Evidence).map(phase).collect(),
        checks: state.checks.into_iter().map(check).collect(),
        findings: state.findings.into_iter().map(finding).collect(),
        plugins: state.plugins.into_iter().map(plugin).collect(),
        isolation,
        lease: state.lease.map(lease),
        teardown,
        connections_reported_by_restored_server: state.connections,
        chain: making.chain,
        key: making.key,
    };
    Statement {
        statement_type: STATEMENT_TYPE.to_owned(),
        subject: vec![subject],
        predicate_type: EVIDENCE_TYPE.to_owned(),
        predicate,
    }
}

fn subject(name: String, digest: Sha256Digest) -> Subject {
    Subject { name, digest: SubjectDigest { sha256: digest.hex() } }
}

fn recovery(state: &State, summary: &Summary) -> Recovery {
    let objectives = state.started.objectives;
    Recovery {
        fidelity: state.started.fidelity,
        time_actual_milliseconds: summary.recovery_time_milliseconds,
        time_objective_milliseconds: objectives.recovery_time.map(milliseconds),
        point_actual_milliseconds: summary.recovery_point_milliseconds,
        point_objective_milliseconds: objectives.recovery_point.map(milliseconds),
        boundary_overhead_milliseconds: summary.boundary_overhead_milliseconds,
    }
}

fn isolation(state: &State) -> Isolation {
    let template = state.template.clone().map(|(isolation, digest)| Template { isolation, digest });
    let limits = state.limits.iter().cloned().map(|limit| Limit {
        what: limit.what,
        value: limit.value,
        enforced_by: limit.enforced_by,
        total: limit.total,
    });
    let probes = state.isolation.iter().flat_map(|proof| proof.probes.clone()).map(|probe| Probe {
        name: probe.name,
        expected: probe.expected,
        observed: probe.observed,
        detail: probe.detail,
    });
    Isolation { template, limits: limits.collect(), probes: probes.collect() }
}

/// In the order in which things were made.
fn teardown(state: &State) -> Vec<Teardown> {
    let outcome = |held: &Held| match held {
        Held::Released { proof } => (ResourceOutcome::Released, proof.observed.clone(), None),
        Held::Owed { stop, .. } => (ResourceOutcome::StillOwed, Vec::new(), Some(problem(stop.clone()))),
        Held::Intended | Held::Acquired { .. } => (ResourceOutcome::StillOwed, Vec::new(), None),
    };
    let known = state.order.iter().filter_map(|resource| state.held.get(resource).map(|held| (resource, held)));
    known
        .map(|(resource, held)| {
            let (outcome, observed, problem) = outcome(held);
            Teardown { resource: resource.to_string(), outcome, observed, problem }
        })
        .collect()
}

fn artifact(artifact: ledger::Artifact) -> Artifact {
    Artifact {
        name: artifact.name,
        digest: artifact.digest,
        location: artifact.location,
        signed_by: artifact.signed_by,
        size_bytes: artifact.size,
        snapshot_time: artifact.snapshot_time,
        source_version: artifact.source_version,
        databases: artifact.databases,
    }
}

fn phase(record: PhaseRecord) -> Phase {
    let (duration, outcome, note, stop) = match record.ended {
        Some((duration, ledger::PhaseOutcome::Done { note })) => (Some(duration), PhaseOutcome::Done, Some(note), None),
        Some((duration, ledger::PhaseOutcome::Stopped(stop))) => {
            (Some(duration), PhaseOutcome::Stopped, None, Some(stop))
        }
        None => (None, PhaseOutcome::CutOff, None, None),
    };
    Phase {
        phase: record.phase,
        started: record.started,
        milliseconds: duration.map(milliseconds),
        outcome,
        note,
        problem: stop.map(problem),
    }
}

fn check(ended: ledger::CheckEnded) -> Check {
    let (outcome, message, limit) = match ended.outcome {
        agent::CheckOutcome::Completed { summary } => (CheckOutcome::Completed, summary, None),
        agent::CheckOutcome::Inconclusive { why } => (CheckOutcome::Inconclusive, Some(why), None),
        agent::CheckOutcome::LimitReached { limit, used, allowed, advice } => {
            (CheckOutcome::LimitReached, None, Some(CheckLimit { name: limit, used, allowed, advice }))
        }
        agent::CheckOutcome::Trapped { why } => (CheckOutcome::Trapped, Some(why), None),
        agent::CheckOutcome::Refused { why } => (CheckOutcome::Refused, Some(why), None),
        agent::CheckOutcome::Cancelled => (CheckOutcome::Cancelled, None, None),
    };
    let usage = CheckUsage {
        cpu_milliseconds: milliseconds(ended.usage.cpu_time),
        wall_milliseconds: milliseconds(ended.usage.wall_time),
        memory_bytes: ended.usage.memory,
    };
    Check { check: ended.check, database: ended.database, outcome, message, limit, usage }
}

fn finding(finding: crate::finding::Finding) -> Finding {
    Finding {
        source: finding.source,
        database: finding.database,
        severity: finding.severity,
        subject: finding.subject,
        message: finding.message,
        details: finding.details.into_iter().map(|(name, value)| Detail { name, value }).collect(),
    }
}

fn plugin(plugin: ledger::Plugin) -> Plugin {
    Plugin { check: plugin.check, from: plugin.from, digest: plugin.digest, grants: plugin.grants }
}

fn lease(proof: LeaseProof) -> Lease {
    let attempts = proof.attempts.into_iter().map(|attempt| Attempt {
        what: attempt.what,
        database: attempt.database,
        held: attempt.held,
        sqlstate: attempt.sqlstate,
    });
    Lease { role: proof.role, ttl_milliseconds: milliseconds(proof.ttl), attempts: attempts.collect() }
}

fn problem(stop: Stop) -> Problem {
    Problem { reason: stop.reason, message: stop.message, advice: stop.advice }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
