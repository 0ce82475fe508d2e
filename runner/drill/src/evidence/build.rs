//! From the ledger to evidence.
use std::time::Duration;

use crate::agent;
use crate::evidence::statement::{
    Artifact, Attempt, Chain, Check, CheckLimit, CheckOutcome, CheckUsage, Detail, Drill, EVIDENCE_TYPE, Finding,
    Isolation, KeyOrigin, Lease, Limit, Phase, PhaseOutcome, Plugin, Predicate, Probe, Problem, Recovery,
    ResourceOutcome, RunResult, STATEMENT_TYPE, SelfTest, Statement, StoredLease, Subject, SubjectDigest,
    TOMBSTONE_TYPE, Teardown, Template, Tombstone, Untried,
};
use crate::evidence::stretch::Stretch;
use crate::id::Sha256Digest;
use crate::ledger::{self, Event, Held, PhaseRecord, Stamped, State, Summary, Trigger};
use crate::proof::LeaseProof;
use crate::spec::Place;
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
    Ok(statement(&state, summary, events[upto].at, making))
}

/// Its subjects are the last evidence of each stretch.
pub fn tombstone(tombstone: Tombstone) -> Statement<Tombstone> {
    let last = |stretch: &Stretch| {
        subject(format!("evidence {} of store {}", stretch.last, tombstone.store_id), stretch.digest)
    };
    Statement {
        statement_type: STATEMENT_TYPE.to_owned(),
        subject: tombstone.deleted.iter().map(last).collect(),
        predicate_type: TOMBSTONE_TYPE.to_owned(),
        predicate: tombstone,
    }
}

/// What a ledger says, in the words of evidence. A run need not be over to have some.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    pub drill: Drill,
    pub recovery: Recovery,
    pub self_test: Option<SelfTest>,
    pub artifact: Option<Artifact>,
    pub quarantined: Option<Sha256Digest>,
    pub phases: Vec<Phase>,
    pub checks: Vec<Check>,
    pub findings: Vec<Finding>,
    pub plugins: Vec<Plugin>,
    pub isolation: Isolation,
    pub lease: Option<Lease>,
    pub teardown: Vec<Teardown>,
    pub connections_reported_by_restored_server: Vec<String>,
}

impl Facts {
    pub fn of(state: &State) -> Self {
        let started = state.started.clone();
        Self {
            drill: Drill {
                name: started.drill,
                digest: started.drill_digest,
                file: started.drill_file,
                labels: started.labels,
            },
            recovery: recovery(state),
            self_test: self_test(state),
            artifact: state.artifact.clone().map(|opened| artifact(opened, state.source)),
            quarantined: state.quarantined,
            phases: state.phases.iter().cloned().map(phase).collect(),
            checks: state.checks.iter().cloned().map(check).collect(),
            findings: state.findings.iter().cloned().map(finding).collect(),
            plugins: state.plugins.iter().cloned().map(plugin).collect(),
            isolation: isolation(state),
            lease: state.lease.clone().map(lease),
            teardown: teardown(state),
            connections_reported_by_restored_server: state.connections.clone(),
        }
    }
}

fn statement(state: &State, summary: Summary, concluded: jiff::Timestamp, making: Making) -> Statement {
    let facts = Facts::of(state);
    let started = &state.started;
    let subject = match &state.artifact {
        Some(artifact) => subject(artifact.name.clone(), artifact.digest),
        None => subject(format!("drill {}", started.drill), started.drill_digest),
    };
    let predicate = Predicate {
        run: started.run.clone(),
        drill: facts.drill,
        muster_version: started.muster_version.clone(),
        started: started.at,
        concluded,
        result: RunResult {
            verdict: summary.verdict,
            reason: summary.reason,
            message: summary.message,
            advice: summary.advice,
            leftovers: state.leftovers(),
        },
        recovery: facts.recovery,
        self_test: facts.self_test,
        artifact: facts.artifact,
        quarantined: facts.quarantined,
        // Whether it is in the middle of making evidence says nothing of the run.
        phases: facts.phases.into_iter().filter(|phase| phase.phase != crate::phase::Phase::Evidence).collect(),
        checks: facts.checks,
        findings: facts.findings,
        plugins: facts.plugins,
        isolation: facts.isolation,
        lease: facts.lease,
        teardown: facts.teardown,
        connections_reported_by_restored_server: facts.connections_reported_by_restored_server,
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

fn recovery(state: &State) -> Recovery {
    let summary = state.summary.as_ref();
    let objectives = state.started.objectives;
    Recovery {
        fidelity: state.started.fidelity,
        time_actual_milliseconds: summary.and_then(|summary| summary.recovery_time_milliseconds),
        time_objective_milliseconds: objectives.recovery_time.map(milliseconds),
        point_actual_milliseconds: summary.and_then(|summary| summary.recovery_point_milliseconds),
        point_objective_milliseconds: objectives.recovery_point.map(milliseconds),
        boundary_overhead_milliseconds: summary.and_then(|summary| summary.boundary_overhead_milliseconds),
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

fn self_test(state: &State) -> Option<SelfTest> {
    let Trigger::SelfTest { damage, .. } = &state.started.trigger else { return None };
    let damaged = state.damaged.as_ref();
    Some(SelfTest {
        damage: damage.to_string(),
        damaged: damaged.map(|damaged| damaged.what.clone()),
        expected: damaged.map(|damaged| damaged.answer.to_string()),
    })
}

fn artifact(artifact: ledger::Artifact, source: Option<Place>) -> Artifact {
    Artifact {
        name: artifact.name,
        digest: artifact.digest,
        location: artifact.location,
        source: source.map(|place| place.to_string()),
        vouched_by: artifact.vouched.as_str().to_owned(),
        signed_by: artifact.vouched.key().map(str::to_owned),
        size_bytes: artifact.size,
        snapshot_time: artifact.snapshot_time,
        snapshot_time_from: artifact.snapshot_time_from,
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
    let untried = proof.untried.into_iter().map(|untried| Untried {
        what: untried.what,
        database: untried.database,
        why: untried.why,
    });
    let leases = proof.leases.into_iter().map(|lease| StoredLease {
        id: lease.id,
        role: lease.role,
        issued_at: lease.issued_at,
        ttl_milliseconds: milliseconds(lease.ttl),
    });
    Lease {
        role: proof.role,
        ttl_milliseconds: milliseconds(proof.ttl),
        attempts: attempts.collect(),
        untried: untried.collect(),
        leases: leases.collect(),
    }
}

fn problem(stop: Stop) -> Problem {
    Problem { reason: stop.reason, message: stop.message, advice: stop.advice }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
