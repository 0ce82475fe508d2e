//! Runs for tests: what their ledgers hold.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use drill::agent::{CheckOutcome, CheckUsage};
use drill::finding::{Finding, Severity};
use drill::id::{DrillName, RunId, Sha256Digest};
use drill::ledger::{
    Artifact, CheckEnded, Event, Owner, PhaseOutcome, Plugin, Resource, RunStarted, Stamped, Summary, Vouched,
};
use drill::phase::Phase;
use drill::port::Store;
use drill::proof::{Attempt, Expected, IsolationProof, LeaseProof, LimitInForce, Probe, ReleaseProof};
use drill::spec::{Fidelity, Objectives};
use drill::stop::Stop;
use drill::verdict::{Leftovers, Reason, Verdict};

pub(crate) fn started(drill: &str, evidence: &Path) -> RunStarted {
    let drill: DrillName = drill.parse().unwrap();
    let at = "2026-11-22T02:15:00Z".parse().unwrap();
    RunStarted {
        run: RunId::new(&drill, at, [9, 30, 22, 24]),
        drill,
        drill_digest: Sha256Digest::of(b"drill"),
        drill_file: "/etc/muster/drills/orders.yaml".to_owned(),
        labels: BTreeMap::from([("team".to_owned(), "payments".to_owned())]),
        at,
        owner: Owner { pid: 4711, start_ticks: 99, boot_id: "boot".to_owned() },
        muster_version: "0.1.0".to_owned(),
        fidelity: Fidelity::Production,
        objectives: Objectives {
            recovery_time: Some(Duration::from_mins(30)),
            recovery_point: Some(Duration::from_hours(24)),
        },
        evidence_directory: evidence.display().to_string(),
        trigger: drill::ledger::Trigger::Command,
    }
}

pub(crate) fn summary(reason: Reason, message: &str) -> Summary {
    Summary {
        verdict: reason.verdict(),
        reason,
        message: message.to_owned(),
        advice: None,
        recovery_time_milliseconds: None,
        recovery_point_milliseconds: None,
        boundary_overhead_milliseconds: None,
    }
}

/// A run that saw nothing and was interrupted, up to its conclusion.
pub(crate) async fn conclude(store: &dyn Store, started: &RunStarted) {
    store.claim(started).await.unwrap();
    let summary = summary(Reason::Interrupted, "a signal ended it");
    store.append(&started.run, &Event::Concluded(summary)).await.unwrap();
}

/// Stamps events a second apart from the start of the run.
pub(crate) fn stamp(started: &RunStarted, events: Vec<Event>) -> Vec<Stamped> {
    let all = std::iter::once(Event::Started(started.clone())).chain(events);
    (0_u32..)
        .zip(all)
        .map(|(n, event)| Stamped {
            sequence: u64::from(n) + 1,
            at: started.at + jiff::SignedDuration::from_secs(i64::from(n)),
            event,
        })
        .collect()
}

/// A run that went all its way and whose check failed, with one thing still owed.
pub(crate) fn failed() -> Vec<Event> {
    let mut events = vec![
        phase(Phase::Preflight, 120, "PostgreSQL 15.18, 3 extensions, 2 roles"),
        vec![Event::Artifact(artifact()), limits(), template()],
        phase(Phase::Verify, 930, "1.2 GiB, signed by backup.pub"),
        acquired(Resource::Storage),
        acquired(Resource::Sandbox),
        phase(Phase::Sandbox, 410, "sandbox up"),
        vec![Event::Isolation(isolation())],
        phase(Phase::Probe, 90, "isolated: 1 probe closed, 1 control open"),
        vec![warning()],
        phase(Phase::Restore, 20_060, "1,204 entries, 1 database"),
        acquired(Resource::Lease),
        vec![Event::Lease(lease())],
        phase(Phase::Lease, 230, "read-only role for 15 m"),
        acquired(Resource::Agent),
    ]
    .concat();
    let validate = phase(Phase::Validate, 640, "1 check");
    events.extend([plugin(), validate[0].clone(), failure(), ended(), validate[1].clone()]);
    events.push(Event::Connections { lines: vec!["muster-agent from 127.0.0.1 to orders".to_owned()] });
    events.push(Event::PhaseStarted { phase: Phase::Teardown });
    events.extend(released(Resource::Agent, "pid 4711 ended"));
    events.extend(released(Resource::Lease, "login refused with 28000"));
    events.extend(released(Resource::Sandbox, "no process is left"));
    let stop = Stop::internal("directory runs/orders is busy").advise("end what uses it, then `muster reap`");
    events.push(Event::ReleaseFailed { resource: Resource::Storage, stop: stop.clone() });
    let outcome = PhaseOutcome::Stopped(stop);
    events.push(Event::PhaseEnded { phase: Phase::Teardown, duration: Duration::from_millis(310), outcome });
    events.push(Event::Concluded(Summary {
        advice: Some("compare the backup with its source before you rely on it".to_owned()),
        recovery_time_milliseconds: Some(21_400),
        recovery_point_milliseconds: Some(22_320_000),
        boundary_overhead_milliseconds: Some(900),
        ..summary(Reason::CheckFailed, "check rows failed: public.orders has 12 rows and should have 13")
    }));
    events.push(Event::EvidenceWritten {
        path: "/var/lib/muster/evidence/orders-20261122t021500z-j8y2.dsse.json".to_owned(),
        digest: Sha256Digest::of(b"evidence"),
        sequence: 12,
    });
    events.push(Event::Ended { leftovers: Leftovers::Some });
    events
}

/// A run that proved its backup and left nothing.
pub(crate) fn passed() -> Vec<Event> {
    let mut events: Vec<Event> = failed()
        .into_iter()
        .filter(|event| !matches!(event, Event::Finding(Finding { severity: Severity::Failure, .. })))
        .collect();
    for event in &mut events {
        match event {
            Event::ReleaseFailed { resource, .. } => {
                *event = Event::Released { resource: *resource, proof: ReleaseProof::of("directory removed") };
            }
            Event::PhaseEnded { phase: Phase::Teardown, outcome, .. } => {
                *outcome = PhaseOutcome::Done { note: "lease revoked and refused, sandbox gone".to_owned() };
            }
            Event::Concluded(summary) => {
                summary.verdict = Verdict::Passed;
                summary.reason = Reason::Proven;
                summary.message = "everything asked for was seen".to_owned();
                summary.advice = None;
            }
            Event::Ended { leftovers } => *leftovers = Leftovers::None,
            _ => {}
        }
    }
    events
}

fn phase(phase: Phase, milliseconds: u64, note: &str) -> Vec<Event> {
    let outcome = PhaseOutcome::Done { note: note.to_owned() };
    let duration = Duration::from_millis(milliseconds);
    vec![Event::PhaseStarted { phase }, Event::PhaseEnded { phase, duration, outcome }]
}

fn acquired(resource: Resource) -> Vec<Event> {
    vec![Event::Intended { resource }, Event::Acquired { resource, handle: serde_json::json!({}) }]
}

fn released(resource: Resource, observed: &str) -> Vec<Event> {
    vec![Event::Released { resource, proof: ReleaseProof::of(observed) }]
}

fn artifact() -> Artifact {
    Artifact {
        digest: Sha256Digest::of(b"manifest"),
        name: "orders".to_owned(),
        location: "/backups/orders/20261121T200300Z".to_owned(),
        vouched: Vouched::Signature { key: "backup.pub".to_owned() },
        size: 1_288_490_189,
        snapshot_time: Some("2026-11-21T20:03:00Z".parse().unwrap()),
        snapshot_time_from: drill::manifest::SnapshotTimeFrom::Capture,
        source_version: "15.18 (Debian 15.18-0+deb12u1)".to_owned(),
        databases: vec!["orders".to_owned()],
    }
}

fn limits() -> Event {
    let limit = |what: &str, value, enforced_by: &str, total| LimitInForce {
        what: what.to_owned(),
        value,
        enforced_by: enforced_by.to_owned(),
        total,
    };
    Event::Limits {
        limits: vec![limit("memory", 4 << 30, "cgroup v1", true), limit("processes", 200, "rlimit", false)],
    }
}

fn template() -> Event {
    Event::Template { isolation: "local".to_owned(), digest: Sha256Digest::of(b"template") }
}

fn isolation() -> IsolationProof {
    let probe = |name: &str, expected, detail: &str| Probe {
        name: name.to_owned(),
        expected,
        observed: expected,
        detail: detail.to_owned(),
    };
    IsolationProof {
        probes: vec![
            probe("sandbox: TCP to the runner's listener", Expected::Closed, "connect: network is unreachable"),
            probe("runner: TCP to its own listener", Expected::Open, "connected"),
        ],
    }
}

fn lease() -> LeaseProof {
    LeaseProof {
        role: "muster-orders-20261122t021500z-j8y2".to_owned(),
        ttl: Duration::from_mins(15),
        attempts: vec![Attempt {
            what: "create a table".to_owned(),
            database: "orders".to_owned(),
            held: true,
            sqlstate: Some("42501".to_owned()),
        }],
        untried: Vec::new(),
        leases: Vec::new(),
    }
}

fn plugin() -> Event {
    Event::Plugin(Plugin {
        check: "rows".to_owned(),
        from: "builtin:row-count".to_owned(),
        digest: Sha256Digest::of(b"plugin"),
        grants: vec!["sql".to_owned(), "baseline".to_owned()],
    })
}

fn warning() -> Event {
    Event::Finding(Finding {
        source: "restore".to_owned(),
        database: Some("orders".to_owned()),
        severity: Severity::Warning,
        subject: "audit.remote".to_owned(),
        message: "blocked by isolation: foreign table".to_owned(),
        details: vec![],
    })
}

fn failure() -> Event {
    Event::Finding(Finding {
        source: "rows".to_owned(),
        database: Some("orders".to_owned()),
        severity: Severity::Failure,
        subject: "public.orders".to_owned(),
        message: "12 rows, and 13 in the backup's baseline".to_owned(),
        details: vec![("expected".to_owned(), "13".to_owned()), ("found".to_owned(), "12".to_owned())],
    })
}

fn ended() -> Event {
    let usage =
        CheckUsage { cpu_time: Duration::from_millis(40), wall_time: Duration::from_millis(600), memory: 3 << 20 };
    Event::CheckEnded(CheckEnded {
        check: "rows".to_owned(),
        database: "orders".to_owned(),
        outcome: CheckOutcome::Completed { summary: Some("38 tables, 12,402,118 rows".to_owned()) },
        usage,
        figures: Vec::new(),
    })
}

/// A run over several databases; where `wrong`, the second one has a failure and the agent ended before the last check did.
pub(crate) fn of_databases(databases: &[&str], wrong: bool) -> Vec<Event> {
    let names: Vec<String> = databases.iter().map(|name| (*name).to_owned()).collect();
    let mut events = Vec::new();
    for event in if wrong { failed() } else { passed() } {
        match event {
            Event::Artifact(artifact) => {
                events.push(Event::Artifact(Artifact { databases: names.clone(), ..artifact }));
            }
            Event::Finding(finding) if finding.severity == Severity::Failure => {
                events.push(Event::Finding(Finding { database: names.get(1).cloned(), ..finding }));
            }
            Event::CheckEnded(check) => {
                for database in &names {
                    events.push(Event::CheckEnded(CheckEnded { database: database.clone(), ..check.clone() }));
                }
                if wrong {
                    let (check, database) = ("content".to_owned(), names[0].clone());
                    let outcome = CheckOutcome::Trapped { why: "unreachable".to_owned() };
                    let (usage, figures) = (CheckUsage::default(), Vec::new());
                    events.push(Event::CheckEnded(CheckEnded { check, database, outcome, usage, figures }));
                }
            }
            other => events.push(other),
        }
    }
    events
}

/// What a name, a message or a log can hold to deceive whoever reads it.
pub(crate) const HOSTILE: &str = "</td><script>alert('x')</script>\u{1b}[2J\u{9b}31m\0\r\nPASSED\u{202e}\"&";

/// The failed run, with hostile text wherever a backup, a plugin or the restored server has a say.
pub(crate) fn hostile() -> Vec<Event> {
    let text = || HOSTILE.to_owned();
    let hostile = |event| match event {
        Event::Artifact(artifact) => Event::Artifact(Artifact {
            name: text(),
            location: text(),
            vouched: Vouched::Signature { key: text() },
            source_version: text(),
            ..artifact
        }),
        Event::Finding(finding) => {
            Event::Finding(Finding { subject: text(), message: text(), details: vec![(text(), text())], ..finding })
        }
        Event::CheckEnded(check) => {
            Event::CheckEnded(CheckEnded { outcome: CheckOutcome::Completed { summary: Some(text()) }, ..check })
        }
        Event::Plugin(plugin) => Event::Plugin(Plugin { from: text(), ..plugin }),
        Event::Connections { .. } => Event::Connections { lines: vec![text()] },
        Event::Isolation(mut proof) => {
            for probe in &mut proof.probes {
                probe.detail = text();
            }
            Event::Isolation(proof)
        }
        Event::Lease(mut proof) => {
            for attempt in &mut proof.attempts {
                attempt.database = text();
                attempt.sqlstate = Some(text());
            }
            Event::Lease(proof)
        }
        Event::PhaseEnded { phase, duration, .. } => {
            let stop = Stop::new(Reason::RestoreFailed, text()).advise(text());
            let outcome = match phase {
                Phase::Restore => PhaseOutcome::Stopped(stop),
                _ => PhaseOutcome::Done { note: text() },
            };
            Event::PhaseEnded { phase, duration, outcome }
        }
        Event::Released { resource, .. } => Event::Released { resource, proof: ReleaseProof::of(HOSTILE) },
        Event::Concluded(summary) => Event::Concluded(Summary { message: text(), advice: Some(text()), ..summary }),
        Event::EvidenceWritten { digest, sequence, .. } => Event::EvidenceWritten { path: text(), digest, sequence },
        other => other,
    };
    failed().into_iter().map(hostile).collect()
}
