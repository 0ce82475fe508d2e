#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod leases;
mod reported;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use drill::agent::{CheckOutcome, CheckUsage};
use drill::id::{DrillName, RunId, Sha256Digest};
use drill::ledger::{CheckEnded, Damage, Event, Resource, RunStarted, Stamped, Trigger};
use drill::port::{Alert, ChainLink, Outbox, Quarantine, RunSummary, Store};
use drill::proof::{IsolationProof, ReleaseProof};
use drill::spec::Drill;
use drill::verdict::{Leftovers, Reason, Verdict};
use drivers::store::fake::MemoryStore;
use jiff::Timestamp;

use super::render::success_due;
use super::{Metrics, Timed};
use crate::dispatcher::{DrillView, FileView, Happening, Listener, RunUpdate, Skip, View};
use crate::sample;

fn drill(name: &str, more: &str) -> Arc<Drill> {
    let text = format!(
        "apiVersion: muster.dev/v1\nkind: Drill\nmetadata: {{ name: {name} }}\nspec:\n  schedule: {{ cron: '15 2 * * *' }}\n{more}  \
         source: {{ manifest: /b/manifest.json, trustedKeys: [{{ file: k.pub }}] }}\n"
    );
    Arc::new(drill::file::parse(&text, drill::file::Options::default()).unwrap())
}

fn known(drill: Arc<Drill>) -> Arc<DrillView> {
    Arc::new(DrillView {
        drill,
        file: PathBuf::from("/etc/muster/drills/x.yaml"),
        known_since: at("2026-11-20T00:00:00Z"),
        next: None,
        waiting: None,
        running: None,
        last: None,
        last_success: None,
    })
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn name(text: &str) -> DrillName {
    text.parse().unwrap()
}

/// Metrics of a daemon that knows these drills, and what changes them.
fn metrics(drills: Vec<Arc<DrillView>>) -> (Metrics, Arc<Mutex<Arc<View>>>) {
    let view = Arc::new(Mutex::new(Arc::new(view(drills))));
    let metrics = Metrics::new().unwrap();
    let source = Arc::clone(&view);
    metrics.follow(move || Arc::clone(&source.lock().unwrap()));
    (metrics, view)
}

fn view(drills: Vec<Arc<DrillView>>) -> View {
    View {
        at: at("2026-11-22T12:00:00Z"),
        ticked: Some(at("2026-11-22T12:00:00Z")),
        stopping: false,
        drills: drills.into_iter().map(|view| (view.drill.name.clone(), view)).collect::<BTreeMap<_, _>>().into(),
        files: Arc::default(),
        stalled: false,
        slots: 3,
    }
}

fn tell(metrics: &Metrics, started: &RunStarted, stamped: Stamped) {
    let update = RunUpdate::Event(Arc::new(stamped));
    metrics.heard(&Happening::Run { drill: started.drill.clone(), run: started.run.clone(), update });
}

fn run(metrics: &Metrics, started: &RunStarted, events: Vec<Event>) {
    for stamped in sample::stamp(started, events) {
        tell(metrics, started, stamped);
    }
}

/// The value of a series, written as Prometheus would write it.
fn value(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

#[track_caller]
fn assert_has(text: &str, series: &[(&str, f64)]) {
    for (series, expected) in series {
        assert_eq!(value(text, series), Some(*expected), "{series} in\n{text}");
    }
}

#[test]
fn a_drill_that_never_ran_has_its_series_and_one_that_is_gone_has_none() {
    let objectives = "  objectives: { recoveryTime: 30m, recoveryPoint: 24h }\n";
    let (metrics, view_of) = metrics(vec![known(drill("orders", objectives)), known(drill("other", ""))]);
    let text = metrics.render();
    assert_has(
        &text,
        &[
            ("muster_drill_known_since_timestamp_seconds{drill=\"orders\"}", 1_763_596_800.0 + 31_536_000.0),
            ("muster_last_run_timestamp_seconds{drill=\"orders\"}", 0.0),
            ("muster_last_success_timestamp_seconds{drill=\"orders\"}", 0.0),
            ("muster_runs_total{drill=\"orders\",verdict=\"passed\",reason=\"proven\"}", 0.0),
            ("muster_slots_skipped_total{drill=\"orders\",why=\"overlap\"}", 0.0),
            ("muster_runs_not_begun_total{drill=\"orders\"}", 0.0),
            ("muster_leftovers{drill=\"orders\"}", 0.0),
            ("muster_recovery_time_objective_seconds{drill=\"orders\"}", 1_800.0),
            ("muster_recovery_point_objective_seconds{drill=\"orders\"}", 86_400.0),
            ("muster_drills", 2.0),
            ("muster_run_slots", 3.0),
            ("muster_phase_duration_seconds_count{phase=\"restore\"}", 0.0),
        ],
    );
    assert!(text.contains("muster_success_due_timestamp_seconds{drill=\"orders\"}"));
    assert!(!text.contains("muster_recovery_time_objective_seconds{drill=\"other\"}"));

    metrics.heard(&Happening::NotBegun { drill: name("other"), why: "full".to_owned() });
    let file = FileView {
        path: PathBuf::from("/etc/muster/drills/other.yaml"),
        keeps: None,
        problem: "gone".to_owned(),
        since: at("2026-11-22T12:00:00Z"),
    };
    let mut without = view(vec![known(drill("orders", objectives))]);
    without.files = Arc::new(vec![file]);
    *view_of.lock().unwrap() = Arc::new(without);
    let text = metrics.render();
    assert!(!text.contains("drill=\"other\""), "{text}");
    assert_has(&text, &[("muster_drill_files_bad", 1.0), ("muster_drills", 1.0)]);
    assert!(!metrics.drills.lock().unwrap().contains_key(&name("other")), "what was counted of it went too");
}

#[test]
fn a_run_is_counted_and_measured_and_what_it_left_is_owed_until_it_goes() {
    let (metrics, _) = metrics(vec![known(drill("orders", ""))]);
    let started = sample::started("orders", Path::new("/evidence"));
    run(&metrics, &started, sample::failed());
    let text = metrics.render();
    assert_has(
        &text,
        &[
            ("muster_runs_total{drill=\"orders\",verdict=\"failed\",reason=\"check-failed\"}", 1.0),
            ("muster_runs_total{drill=\"orders\",verdict=\"passed\",reason=\"proven\"}", 0.0),
            ("muster_last_run_info{drill=\"orders\",verdict=\"failed\",reason=\"check-failed\"}", 1.0),
            ("muster_phase_duration_seconds_sum{phase=\"restore\"}", 20.06),
            ("muster_phase_duration_seconds_bucket{phase=\"restore\",le=\"30\"}", 1.0),
            ("muster_phase_duration_seconds_bucket{phase=\"restore\",le=\"10\"}", 0.0),
            ("muster_phase_last_duration_seconds{drill=\"orders\",phase=\"restore\"}", 20.06),
            ("muster_phase_last_duration_seconds{drill=\"orders\",phase=\"teardown\"}", 0.31),
            ("muster_recovery_time_seconds{drill=\"orders\"}", 21.4),
            ("muster_recovery_point_seconds{drill=\"orders\"}", 22_320.0),
            ("muster_boundary_overhead_seconds{drill=\"orders\"}", 0.9),
            ("muster_findings{drill=\"orders\",severity=\"failure\"}", 1.0),
            ("muster_findings{drill=\"orders\",severity=\"warning\"}", 1.0),
            ("muster_findings{drill=\"orders\",severity=\"info\"}", 0.0),
            ("muster_lease_revocation_seconds_count", 1.0),
            ("muster_lease_revocation_seconds_sum", 1.0),
            ("muster_leases_active", 0.0),
            ("muster_leases_not_revoked", 0.0),
            ("muster_sandboxes_active", 0.0),
            ("muster_leftovers{drill=\"orders\"}", 1.0),
            ("muster_evidence_chain_sequence", 12.0),
            ("muster_isolation_proofs_failed_total", 0.0),
            ("muster_isolation_breaches_total", 0.0),
        ],
    );
    assert!(value(&text, "muster_plugin_cpu_seconds{drill=\"orders\",check=\"rows\"}").is_some());
    assert!(value(&text, "muster_plugin_memory_bytes{drill=\"orders\",check=\"rows\"}").is_some());
    assert!(value(&text, "muster_check_duration_seconds{drill=\"orders\",check=\"rows\"}").is_some());
    let head = format!("muster_evidence_chain_head_info{{digest=\"{}\"}}", Sha256Digest::of(b"evidence"));
    assert_has(&text, &[(&head, 1.0)]);
    assert!(!text.contains(started.run.as_str()), "a run's id makes a series of its own:\n{text}");

    let released = Event::Released { resource: Resource::Storage, proof: ReleaseProof::of("directory removed") };
    tell(&metrics, &started, Stamped { sequence: 99, at: started.at, event: released });
    assert_has(&metrics.render(), &[("muster_leftovers{drill=\"orders\"}", 0.0)]);
}

#[test]
fn what_a_run_holds_is_active_until_it_was_seen_gone() {
    let (metrics, _) = metrics(vec![known(drill("orders", ""))]);
    let started = sample::started("orders", Path::new("/evidence"));
    let events = sample::stamp(&started, sample::failed());
    let mut most = (0.0, 0.0);
    for stamped in events {
        tell(&metrics, &started, stamped);
        let text = metrics.render();
        let (sandboxes, leases) = (value(&text, "muster_sandboxes_active"), value(&text, "muster_leases_active"));
        most = (f64::max(most.0, sandboxes.unwrap()), f64::max(most.1, leases.unwrap()));
    }
    assert_eq!(most, (1.0, 1.0));

    let lost = vec![
        Event::Intended { resource: Resource::Lease },
        Event::ReleaseFailed { resource: Resource::Lease, stop: drill::stop::Stop::internal("no answer") },
    ];
    run(&metrics, &started, lost);
    let text = metrics.render();
    assert_has(&text, &[("muster_leases_active", 0.0), ("muster_leases_not_revoked", 1.0)]);
}

#[test]
fn an_isolation_that_is_not_proven_counts_once() {
    let (metrics, _) = metrics(vec![known(drill("orders", ""))]);
    let started = sample::started("orders", Path::new("/evidence"));
    let concluded = Event::Concluded(sample::summary(Reason::IsolationUnproven, "a probe got out"));
    run(&metrics, &started, vec![Event::Isolation(IsolationProof::default()), concluded.clone()]);
    assert_has(&metrics.render(), &[("muster_isolation_proofs_failed_total", 1.0)]);
    run(&metrics, &started, vec![concluded]);
    assert_has(&metrics.render(), &[("muster_isolation_proofs_failed_total", 2.0)]);
}

#[test]
fn a_boundary_that_is_broken_is_counted_apart_from_one_that_was_never_proven() {
    let (metrics, _) = metrics(vec![known(drill("orders", ""))]);
    let started = sample::started("orders", Path::new("/evidence"));
    let concluded = Event::Concluded(sample::summary(Reason::IsolationBreached, "policy `open` was added"));
    run(&metrics, &started, vec![concluded]);
    let counts = [("muster_isolation_breaches_total", 1.0), ("muster_isolation_proofs_failed_total", 0.0)];
    assert_has(&metrics.render(), &counts);
}

#[test]
fn self_tests_are_no_runs_and_one_that_passes_is_loud_until_the_next_is_refused() {
    let (metrics, _) = metrics(vec![known(drill("orders", ""))]);
    let mut started = sample::started("orders", Path::new("/evidence"));
    started.trigger = Trigger::SelfTest { damage: Damage::Byte, scheduled_for: None };
    let passed = "muster_self_test_passed_damage{drill=\"orders\",damage=\"byte\"}";
    let total = |outcome| format!("muster_self_tests_total{{drill=\"orders\",damage=\"byte\",outcome=\"{outcome}\"}}");

    let concluded = |reason, why: &str| vec![Event::Concluded(sample::summary(reason, why))];
    run(&metrics, &started, concluded(Reason::DamageUnnoticed, "nobody saw it"));
    let text = metrics.render();
    assert_has(&text, &[(passed, 1.0), (&total("passed"), 1.0), (&total("refused"), 0.0)]);
    assert_has(
        &text,
        &[
            ("muster_runs_total{drill=\"orders\",verdict=\"passed\",reason=\"proven\"}", 0.0),
            ("muster_phase_duration_seconds_count{phase=\"restore\"}", 0.0),
        ],
    );
    assert!(!text.contains("muster_recovery_time_seconds{"), "a self-test's recovery time is nobody's:\n{text}");
    assert!(!text.contains("muster_last_run_info{"), "{text}");

    // One that shows nothing does not end the alarm.
    run(&metrics, &started, concluded(Reason::Interrupted, "a signal"));
    assert_has(&metrics.render(), &[(passed, 1.0), (&total("other"), 1.0)]);
    run(&metrics, &started, concluded(Reason::Proven, "the drill noticed it"));
    assert_has(&metrics.render(), &[(passed, 0.0), (&total("refused"), 1.0), (&total("passed"), 1.0)]);
}

#[test]
fn lag_counts_from_when_a_slot_starts_and_skipped_slots_have_their_reason() {
    let (metrics, _) = metrics(vec![known(drill("orders", ""))]);
    let mut started = sample::started("orders", Path::new("/evidence"));
    started.trigger = Trigger::Schedule { scheduled_for: at("2026-11-22T02:15:00Z") };
    started.at = at("2026-11-22T02:15:07Z");
    run(&metrics, &started, Vec::new());
    let text = metrics.render();
    assert_has(&text, &[("muster_schedule_lag_seconds_sum", 7.0), ("muster_schedule_lag_seconds_count", 1.0)]);
    // Of a schedule that the drill has no more, nothing is known.
    started.trigger = Trigger::Schedule { scheduled_for: at("2026-11-22T02:16:00Z") };
    run(&metrics, &started, Vec::new());
    assert_has(&metrics.render(), &[("muster_schedule_lag_seconds_count", 1.0)]);

    for why in Skip::ALL {
        let scheduled_for = at("2026-11-22T02:15:00Z");
        let slot = drill::schedule::Slot { scheduled_for, starts: scheduled_for };
        metrics.heard(&Happening::Skipped { drill: name("orders"), self_test: None, slot, why, count: 1 });
    }
    let text = metrics.render();
    for why in Skip::ALL {
        assert_has(
            &text,
            &[(&format!("muster_slots_skipped_total{{drill=\"orders\",why=\"{}\"}}", why.as_str()), 1.0)],
        );
    }
}

#[test]
fn a_success_is_overdue_after_the_next_slot_had_its_time() {
    let since = at("2026-11-22T02:20:00Z");
    let due = |drill: &Drill| success_due(drill, since).unwrap().to_string();
    // Daily: the slot after the next one, where no objective says otherwise.
    assert_eq!(due(&drill("a", "")), "2026-11-24T02:15:00Z");
    assert_eq!(due(&drill("a", "  objectives: { recoveryPoint: 6h, recoveryTime: 30m }\n")), "2026-11-23T08:45:00Z");
    assert_eq!(
        due(&drill("a", "  objectives: { recoveryPoint: 5m }\n")),
        "2026-11-23T03:15:00Z",
        "a run takes its time"
    );
    let mut without = Drill::clone(&drill("a", ""));
    without.schedule = None;
    assert_eq!(success_due(&without, since), None);
}

#[test]
fn more_checks_than_anybody_looks_at_have_no_series_of_their_own() {
    let (metrics, _) = metrics(vec![known(drill("orders", ""))]);
    let started = sample::started("orders", Path::new("/evidence"));
    let usage = CheckUsage { cpu_time: Duration::from_secs(1), wall_time: Duration::from_secs(2), memory: 1 << 20 };
    let check = |n: usize, database: &str| {
        let outcome = CheckOutcome::Completed { summary: None };
        let (check, database) = (format!("check-{n}"), database.to_owned());
        Event::CheckEnded(CheckEnded { check, database, outcome, usage, figures: Vec::new() })
    };
    let mut events: Vec<Event> = (0..500).map(|n| check(n, "a")).collect();
    events.push(check(0, "b"));
    events.push(Event::Concluded(sample::summary(Reason::Proven, "fine")));
    events.push(Event::Ended { leftovers: Leftovers::None });
    run(&metrics, &started, events);
    let text = metrics.render();
    assert_eq!(text.matches("muster_check_duration_seconds{").count(), super::of_drill::CHECKS);
    assert_has(
        &text,
        &[
            ("muster_check_duration_seconds{drill=\"orders\",check=\"check-0\"}", 4.0),
            ("muster_plugin_memory_bytes{drill=\"orders\",check=\"check-0\"}", f64::from(1 << 20)),
        ],
    );
}

#[tokio::test]
async fn a_restart_hides_nothing_that_the_store_knows() {
    let store = MemoryStore::new();
    let started = sample::started("orders", Path::new("/evidence"));
    store.claim(&started).await.unwrap();
    for event in sample::failed() {
        store.append(&started.run, &event).await.unwrap();
    }
    let link = ChainLink {
        sequence: 1,
        run: started.run.clone(),
        digest: Sha256Digest::of(b"evidence"),
        path: "/evidence/x".to_owned(),
    };
    store.extend_chain(&link).await.unwrap();
    let entry = Quarantine {
        digest: Sha256Digest::of(b"m"),
        location: "/b".to_owned(),
        run: started.run.clone(),
        why: "a digest differs".to_owned(),
        at: started.at,
    };
    store.quarantine(&entry).await.unwrap();
    store.raise(&alert("artifact-refused")).await.unwrap();

    let (metrics, _) = metrics(vec![known(drill("orders", ""))]);
    metrics.remember(&store).await.unwrap();
    let text = metrics.render();
    assert_has(
        &text,
        &[
            ("muster_recovery_time_seconds{drill=\"orders\"}", 21.4),
            ("muster_recovery_point_seconds{drill=\"orders\"}", 22_320.0),
            ("muster_last_run_info{drill=\"orders\",verdict=\"failed\",reason=\"check-failed\"}", 1.0),
            ("muster_phase_last_duration_seconds{drill=\"orders\",phase=\"restore\"}", 20.06),
            ("muster_leftovers{drill=\"orders\"}", 1.0),
            ("muster_evidence_chain_sequence", 1.0),
            ("muster_artifacts_quarantined", 1.0),
            ("muster_alerts_open{kind=\"artifact-refused\"}", 1.0),
            // Counters count what this process saw.
            ("muster_runs_total{drill=\"orders\",verdict=\"passed\",reason=\"proven\"}", 0.0),
            ("muster_phase_duration_seconds_count{phase=\"restore\"}", 0.0),
        ],
    );
    let released = Event::Released { resource: Resource::Storage, proof: ReleaseProof::of("directory removed") };
    store.append(&started.run, &released).await.unwrap();
    metrics.refresh(&store).await.unwrap();
    assert_has(&metrics.render(), &[("muster_leftovers{drill=\"orders\"}", 0.0)]);
}

fn alert(kind: &str) -> Alert {
    Alert {
        kind: kind.to_owned(),
        subject: "orders".to_owned(),
        drill: Some(name("orders")),
        run: None,
        at: at("2026-11-22T02:15:00Z"),
        message: "refused".to_owned(),
        advice: None,
        details: serde_json::json!({}),
    }
}

#[test]
fn until_the_store_was_asked_the_last_run_says_what_it_left() {
    let mut view = DrillView::clone(&known(drill("orders", "")));
    let started = sample::started("orders", Path::new("/evidence"));
    view.last = Some(Arc::new(RunSummary {
        run: started.run.clone(),
        drill: started.drill.clone(),
        started: started.at,
        ended: Some(started.at),
        verdict: Some(Verdict::Failed),
        reason: Some(Reason::CheckFailed),
        leftovers: Leftovers::Some,
        recovery_time_milliseconds: Some(1_500),
        evidence: None,
        trigger: Trigger::Command,
    }));
    let (metrics, _) = metrics(vec![Arc::new(view)]);
    let text = metrics.render();
    assert_has(
        &text,
        &[
            ("muster_leftovers{drill=\"orders\"}", 1.0),
            ("muster_recovery_time_seconds{drill=\"orders\"}", 1.5),
            ("muster_last_run_info{drill=\"orders\",verdict=\"failed\",reason=\"check-failed\"}", 1.0),
            ("muster_last_run_timestamp_seconds{drill=\"orders\"}", 1_795_313_700.0),
        ],
    );
}

#[tokio::test]
async fn a_timed_store_is_the_same_store_with_a_clock() {
    let metrics = Arc::new(Metrics::new().unwrap());
    let store = Arc::new(MemoryStore::new());
    let timed = Timed::new(Arc::clone(&store) as Arc<dyn Store>, Arc::clone(&metrics));
    let started = sample::started("orders", Path::new("/evidence"));
    timed.claim(&started).await.unwrap();
    let mut second = started.clone();
    second.run = RunId::new(&second.drill, second.at, [1, 2, 3, 4]);
    assert_eq!(timed.claim(&second).await.unwrap_err().reason, Reason::AlreadyRunning);
    let text = metrics.render();
    assert_has(
        &text,
        &[
            ("muster_store_operation_seconds_count{operation=\"claim\"}", 2.0),
            // A refusal is an answer.
            ("muster_store_errors_total{operation=\"claim\"}", 0.0),
        ],
    );
    store.fail_at(store.writes() + 1, drill::stop::Stop::internal("its file system is full"));
    let concluded = Event::Concluded(sample::summary(Reason::Interrupted, "a signal"));
    timed.append(&started.run, &concluded).await.unwrap_err();
    assert_has(&metrics.render(), &[("muster_store_errors_total{operation=\"append\"}", 1.0)]);
}

#[test]
fn a_run_that_somebody_else_ended_counts() {
    let (metrics, _) = metrics(vec![known(drill("orders", ""))]);
    let started = sample::started("orders", Path::new("/evidence"));
    let summary = sample::summary(Reason::Interrupted, "its process is gone");
    let (drill, run) = (name("orders"), started.run);
    metrics.heard(&Happening::Recovered { drill, run, trigger: Trigger::Command, summary });
    let counted = "muster_runs_total{drill=\"orders\",verdict=\"inconclusive\",reason=\"interrupted\"}";
    assert_has(&metrics.render(), &[(counted, 1.0)]);
}

#[test]
fn every_family_is_ours_or_the_process_and_says_what_it_is() {
    let (metrics, _) = metrics(vec![known(drill("orders", ""))]);
    run(&metrics, &sample::started("orders", Path::new("/evidence")), sample::failed());
    let text = metrics.render();
    let families = |word: &str| -> Vec<String> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(word));
        lines.map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect()
    };
    let (helped, typed) = (families("# HELP "), families("# TYPE "));
    assert_eq!(helped, typed);
    assert_eq!(helped.iter().collect::<BTreeSet<_>>().len(), helped.len(), "a family is written twice: {helped:?}");
    assert!(helped.iter().all(|name| name.starts_with("muster_") || name.starts_with("process_")), "{helped:?}");
}
