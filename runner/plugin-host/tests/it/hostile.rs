//! Every way to misbehave ends in an outcome that names it, keeps what was found before, and leaves the host usable.
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use drill::agent::CheckOutcome;
use drill::spec::{CheckLimits, Grant};
use plugin_host::backend::Mismatch;
use plugin_host::{HostError, RunOutcome};

use crate::world::{Call, Report, fixture, host, hostile, row_count, scanned};

fn act(name: &str) -> Call {
    Call { options: serde_json::json!({ "act": name }), ..Call::default() }
}

fn with_limits(name: &str, change: impl FnOnce(&mut CheckLimits)) -> Call {
    let mut call = act(name);
    change(&mut call.limits);
    call
}

/// Runs it, sees the first finding kept, and that a good check runs after it on the same host.
async fn misbehave(call: Call) -> (RunOutcome, Report) {
    let (ended, report) = call.run(hostile()).await;
    assert_eq!(report.lines().first().map(String::as_str), Some("warning hostile: seen before it went wrong"));
    let (next, _) = act("behave").run(hostile()).await;
    assert_eq!(next.outcome, CheckOutcome::Completed { summary: Some("behaved".to_owned()) });
    (ended, report)
}

/// Sees it stopped at `name`, with `advice` among what to do.
#[track_caller]
fn assert_limit(ended: &RunOutcome, name: &str, advice: &str) {
    match &ended.outcome {
        CheckOutcome::LimitReached { limit, used, allowed, advice: given } => {
            assert_eq!(limit, name);
            assert!(given.contains(advice), "{given}");
            assert!(!used.is_empty() && !allowed.is_empty());
        }
        other => panic!("{other:?} where limit `{name}` was due"),
    }
}

#[track_caller]
fn assert_trapped(ended: &RunOutcome, words: &str) {
    match &ended.outcome {
        CheckOutcome::Trapped { why } => assert!(why.contains(words), "{why}"),
        other => panic!("{other:?} where a trap was due"),
    }
}

#[tokio::test]
async fn spinning_reaches_the_limit_of_cpu_time() {
    let (ended, _) = misbehave(with_limits("spin", |limits| limits.cpu_time = Duration::from_millis(200))).await;
    assert_limit(&ended, "cpuTime", "`limits: { cpuTime: 400ms }`");
    assert!(ended.usage.cpu_time >= Duration::from_millis(200));
}

#[tokio::test]
async fn allocating_without_end_reaches_the_limit_of_memory() {
    let (ended, _) = misbehave(act("allocate")).await;
    assert_limit(&ended, "memory", "`limits: { memory: 128MiB }`");
    assert!((32 << 20..=64 << 20).contains(&ended.usage.memory), "{}", ended.usage.memory);
}

#[tokio::test]
async fn a_component_that_starts_beyond_the_limit_of_memory_is_stopped() {
    let (ended, _) = with_limits("behave", |limits| limits.memory = 64 << 10).run(hostile()).await;
    assert_limit(&ended, "memory", "`limits: { memory: ");
}

#[tokio::test]
async fn recursing_without_end_reaches_the_limit_of_the_stack() {
    let (ended, _) = misbehave(act("recurse")).await;
    assert_limit(&ended, "stack", "this limit is fixed");
}

#[tokio::test]
async fn flooding_the_log_reaches_its_limit() {
    for name in ["flood-log", "print-log"] {
        let (ended, report) = misbehave(act(name)).await;
        assert_limit(&ended, "logBytes", "`limits: { logBytes: 128KiB }`");
        let bytes: usize = report.log.iter().map(|line| line.len() + 1).sum();
        assert!((60 << 10..=64 << 10).contains(&bytes), "{name}: {bytes}");
    }
}

#[tokio::test]
async fn flooding_findings_reaches_their_limit() {
    let (ended, report) = misbehave(with_limits("flood-findings", |limits| limits.findings = 20)).await;
    assert_limit(&ended, "findings", "`limits: { findings: 40 }`");
    assert_eq!(report.findings.len(), 20);
}

#[tokio::test]
async fn flooding_metrics_reaches_their_limit() {
    let (ended, report) = misbehave(act("flood-metrics")).await;
    assert_limit(&ended, "metrics", "`limits: { metrics: 200 }`");
    assert_eq!(report.metrics.len(), 100);
}

#[tokio::test]
async fn progress_is_passed_on_as_people_can_follow_it() {
    let (ended, report) = misbehave(act("flood-progress")).await;
    assert_eq!(ended.outcome, CheckOutcome::Completed { summary: Some("behaved".to_owned()) });
    assert_eq!(report.progress.last(), Some(&(99_999, Some(100_000), "steps".to_owned())));
    let most = ended.usage.wall_time.as_millis() / 100 + 2;
    assert!(report.progress.len() as u128 <= most, "{} of {most}", report.progress.len());
}

#[tokio::test]
async fn a_finding_fits_a_screen() {
    let (_, report) = misbehave(act("huge-finding")).await;
    let (_, subject, message, details) = &report.findings[1];
    assert!(subject.ends_with('…') && subject.chars().count() <= 300);
    assert!(message.ends_with('…') && message.chars().count() <= 4_000 && !message.contains('\u{1b}'));
    assert_eq!(details.last(), Some(&("…".to_owned(), "950 more".to_owned())));
}

#[tokio::test]
async fn leaking_rows_reaches_the_limit_of_handles_and_cancels_them() {
    let call = act("leak-rows");
    let sql = Arc::clone(&call.sql);
    let (ended, _) = misbehave(call).await;
    assert_limit(&ended, "handles", "`limits: { handles: 128 }`");
    assert_eq!(sql.statements.lock().unwrap().len(), 64);
    assert_eq!(sql.open(), 0);
}

#[tokio::test]
async fn rows_that_are_dropped_do_not_count() {
    let call = act("drop-rows");
    let sql = Arc::clone(&call.sql);
    let (ended, _) = misbehave(call).await;
    assert_eq!(ended.outcome, CheckOutcome::Completed { summary: Some("behaved".to_owned()) });
    assert_eq!((sql.statements.lock().unwrap().len(), sql.open()), (1_000, 0));
}

#[tokio::test]
async fn leaking_what_the_runtime_has_gets_nowhere() {
    let (ended, _) =
        misbehave(with_limits("leak-runtime", |limits| limits.cpu_time = Duration::from_millis(300))).await;
    assert!(matches!(ended.outcome, CheckOutcome::LimitReached { .. }), "{:?}", ended.outcome);
}

#[tokio::test]
async fn traps_say_what_happened() {
    assert_trapped(&misbehave(act("trap")).await.0, "the plugin gave up");
    assert_trapped(&misbehave(act("panic")).await.0, "the plugin's own words");
    assert_trapped(&misbehave(act("exit")).await.0, "ended its process with code");
}

#[tokio::test]
async fn a_payload_beyond_its_bound_is_stopped_before_it_is_copied() {
    let (ended, report) = misbehave(act("big-payload")).await;
    assert_limit(&ended, "payload", "this limit is fixed");
    assert_eq!(report.log, Vec::<String>::new());
}

#[tokio::test]
async fn a_batch_beyond_the_payload_is_an_error_and_not_a_flood() {
    let (ended, _) = misbehave(act("read-large-batch")).await;
    let CheckOutcome::Refused { why } = &ended.outcome else { panic!("{ended:?}") };
    assert!(why.contains("1 MiB"), "{why}");
}

#[tokio::test]
async fn waiting_for_sql_is_not_billed() {
    let (ended, _) =
        misbehave(with_limits("wait-for-sql", |limits| limits.cpu_time = Duration::from_millis(500))).await;
    assert_eq!(ended.outcome, CheckOutcome::Completed { summary: Some("behaved".to_owned()) });
    assert!(ended.usage.wall_time >= Duration::from_millis(700));
    assert!(ended.usage.cpu_time < Duration::from_millis(500));
}

#[tokio::test]
async fn wall_time_is_a_limit_whatever_the_guest_waits_for() {
    for name in ["wait-for-sql", "sleep", "spin"] {
        let (ended, _) = misbehave(with_limits(name, |limits| limits.wall_time = Duration::from_millis(300))).await;
        assert_limit(&ended, "wallTime", "`limits: { wallTime: 600ms }`");
    }
}

#[tokio::test]
async fn cancelling_stops_a_spinning_guest_at_once() {
    let call = act("spin");
    let cancel = call.cancel.clone();
    let canceller = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        cancel.cancel();
        Instant::now()
    });
    let (ended, _) = misbehave(call).await;
    assert_eq!(ended.outcome, CheckOutcome::Cancelled);
    let asked = canceller.await.unwrap();
    // Generous for a busy machine; the guest gives way every 10 ms.
    assert!(asked.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn the_world_is_out_of_reach() {
    let (ended, _) = misbehave(act("look-around")).await;
    assert_eq!(ended.outcome, CheckOutcome::Completed { summary: None }, "what it could reach");
}

#[tokio::test]
async fn errors_reach_the_guest() {
    let (ended, _) = misbehave(act("sql-error")).await;
    assert_eq!(ended.outcome, CheckOutcome::Refused { why: "the server says no (SQLSTATE 42601)".to_owned() });
    let (ended, _) = misbehave(act("bad-metric")).await;
    let CheckOutcome::Completed { summary: Some(why) } = &ended.outcome else { panic!("{ended:?}") };
    assert!(why.contains("not a metric's name"), "{why}");
}

#[tokio::test]
async fn options_that_do_not_fit_are_refused() {
    for (options, words) in [
        (serde_json::json!({ "act": "dance" }), "unknown variant `dance`"),
        (serde_json::json!({ "act": "spin", "acts": 1 }), "unknown field `acts`"),
        (serde_json::json!([]), "must be a map"),
    ] {
        let (ended, _) = Call { options, ..Call::default() }.run(hostile()).await;
        let CheckOutcome::Refused { why } = &ended.outcome else { panic!("{ended:?}") };
        assert!(why.starts_with("options: ") && why.contains(words), "{why}");
    }
}

#[tokio::test]
async fn what_is_not_granted_is_refused_with_the_line_to_write() {
    let call = Call { grants: BTreeSet::from([Grant::Baseline]), ..Call::default() };
    let (ended, report) = call.run(row_count()).await;
    let CheckOutcome::Refused { why } = &ended.outcome else { panic!("{ended:?}") };
    assert!(why.contains("`grants: { sql: {}, baseline: {} }`"), "{why}");
    assert!(report.findings.is_empty());
    // The fixture uses sql alone.
    assert_eq!(hostile().inspection().grants, BTreeSet::from([Grant::Sql]));
}

#[tokio::test]
async fn a_scan_is_finished_once_and_only_where_it_was_granted() {
    let component = host().load(&fixture("wants_digest")).unwrap();
    let (ended, _) = Call::default().run(&component).await;
    assert!(matches!(&ended.outcome, CheckOutcome::Refused { why } if why.contains("needs digest,")), "{ended:?}");

    let granted = || Call { grants: BTreeSet::from(Grant::ALL), ..Call::default() };
    let (ended, _) = granted().run(&component).await;
    assert!(matches!(&ended.outcome, CheckOutcome::Inconclusive { why } if why.contains("no digest")), "{ended:?}");

    let mut call = granted();
    let mismatch = Mismatch { keys: None, rows_expected: 7, rows_found: 7, rows_different: Some(1) };
    call.scans.insert("public.orders".to_owned(), Ok(scanned(7, vec![mismatch])));
    let (ended, _) = call.run(&component).await;
    let CheckOutcome::Completed { summary: Some(summary) } = &ended.outcome else { panic!("{ended:?}") };
    assert_eq!(summary, "7 of 7 rows, 1 differ, true");
}

#[test]
fn a_foreign_import_is_named() {
    match host().load(&fixture("wants_foreign")).err() {
        Some(HostError::ForeignImports { names }) => assert_eq!(names, ["fixture:foreign/shell@1.0.0"]),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_the_contract_does_not_have_is_named_before_any_call() {
    let other = replaced(&fixture("adds_up"), b"query", b"quarz");
    match host().load(&other).err() {
        Some(HostError::OtherContract { why }) => {
            assert!(why.contains("muster:check/sql@1.0.0") && why.contains("quarz"), "{why}");
        }
        other => panic!("{other:?}"),
    }
}

/// A component in which a name is another one of the same length, wherever it is written.
fn replaced(component: &[u8], name: &[u8], by: &[u8]) -> Vec<u8> {
    assert_eq!(name.len(), by.len());
    let mut changed = component.to_vec();
    let mut at = 0;
    while let Some(next) = changed[at..].windows(name.len()).position(|window| window == name) {
        at += next;
        changed[at..at + by.len()].copy_from_slice(by);
    }
    changed
}

#[tokio::test]
async fn a_plugin_describes_itself_without_any_grant() {
    let described = host().describe(row_count()).await.unwrap();
    assert_eq!((described.name.as_str(), described.version.as_str()), ("row-count", "0.1.0"));
    assert_eq!(described.options["additionalProperties"], serde_json::json!(false));
    assert!(described.options["properties"]["tolerance"].is_object());
    let described = host().describe(&host().load(&fixture("wants_digest")).unwrap()).await.unwrap();
    assert_eq!(described.name, "wants-digest");
}
