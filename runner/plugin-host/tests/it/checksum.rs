//! The builtin plugin `checksum` in the real host, its scans answered from a list.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use drill::agent::CheckOutcome;
use drill::finding::Severity;
use drill::spec::Grant;
use plugin_host::backend::{BaselineTable, Blame, Error, Mismatch, ScanOutcome};
use serde_json::json;

use crate::world::{Call, Report, checksum, completed, scanned};

/// The root that every fake scan finds.
const SAME: Option<[u8; 32]> = Some([7; 32]);

/// Rows that are expected, the root, and what the scan finds.
type Given<'a> = (&'a str, u64, Option<[u8; 32]>, Result<ScanOutcome, &'static str>);

fn same(name: &str, rows: u64) -> Given<'_> {
    (name, rows, SAME, Ok(scanned(rows, Vec::new())))
}

fn different(name: &str, rows: u64, mismatches: Vec<Mismatch>) -> Given<'_> {
    (name, rows, Some([1; 32]), Ok(scanned(rows, mismatches)))
}

fn refused<'a>(name: &'a str, code: &'static str) -> Given<'a> {
    (name, 3, SAME, Err(code))
}

fn without_digest(name: &str) -> Given<'_> {
    (name, 3, None, Err("00000"))
}

fn block(keys: Option<(&str, &str)>, rows_expected: u64, rows_found: u64) -> Mismatch {
    let keys = keys.map(|(first, last)| (first.to_owned(), last.to_owned()));
    Mismatch { keys, rows_expected, rows_found, rows_different: None }
}

fn call(tables: &[Given<'_>], options: serde_json::Value) -> Call {
    let baseline = tables.iter().map(|(name, rows, root, _)| BaselineTable {
        schema: "public".to_owned(),
        name: (*name).to_owned(),
        rows: *rows,
        root: root.map(Vec::from),
        details: vec![("kind".to_owned(), if name.starts_with("mv") { "matview" } else { "table" }.to_owned())],
    });
    let scans = tables.iter().filter(|(_, _, root, _)| root.is_some()).map(|(name, _, _, found)| {
        let message = "the server says no".to_owned();
        let failed = |code: &str| Error { blame: Blame::Plugin, code: Some(code.to_owned()), message };
        (format!("public.{name}"), found.clone().map_err(failed))
    });
    Call {
        grants: BTreeSet::from([Grant::Baseline, Grant::Digest]),
        options,
        baseline: Some(baseline.collect()),
        scans: scans.collect::<BTreeMap<_, _>>(),
        ..Call::default()
    }
}

async fn run(call: Call) -> (CheckOutcome, Report) {
    let (ended, report) = call.run(checksum()).await;
    (ended.outcome, report)
}

async fn why(call: Call) -> String {
    match run(call).await.0 {
        CheckOutcome::Inconclusive { why } | CheckOutcome::Refused { why } => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn equal_digests_pass_in_silence() {
    let (outcome, report) = run(call(&[same("a", 1_000), same("b", 0)], json!({}))).await;
    assert_eq!(outcome, completed("2 tables, 1,000 rows, 2 blocks"));
    assert_eq!(report.lines(), Vec::<String>::new());
    assert_eq!(report.progress.last(), Some(&(1_000, Some(1_000), "rows".to_owned())));
}

#[tokio::test]
async fn every_difference_names_its_table_and_blocks() {
    let changed = vec![block(Some(("48129", "49152")), 1_024, 1_024)];
    let several: Vec<_> = (0..5).map(|_| block(Some(("-", "9")), 10, 9)).collect();
    let tables = [
        different("buckets", 50, vec![block(None, 50, 51)]),
        different("changed", 1_000_000, changed),
        different("mv", 7, vec![block(None, 7, 7)]),
        different("root_alone", 1, Vec::new()),
        same("same", 5),
        different("several", 45, several),
    ];
    let (outcome, report) = run(call(&tables, json!({}))).await;
    assert_eq!(outcome, completed("6 tables, 1,000,108 rows, 14 blocks, 4 not as in the backup"));
    assert_eq!(
        report.lines(),
        [
            "failure public.buckets: 1 of 2 buckets differs, 50 rows expected, 51 found",
            "failure public.changed: 1 of 2 blocks differs, keys 48129 to 49152, 1,024 rows expected and found",
            "warning public.mv: 1 of 2 buckets differs, 7 rows expected and found; a restore refreshes a materialized view",
            "failure public.root_alone: the digest of 1 block differs, and no block of them does",
            "failure public.several: 5 of 6 blocks differ: keys up to 9, 10 rows expected, 9 found; keys up to 9, 10 rows \
             expected, 9 found; keys up to 9, 10 rows expected, 9 found; and 2 more",
        ]
    );
    let details = [
        ("rowsExpected", "1000000"),
        ("rowsFound", "1000000"),
        ("blocks", "2"),
        ("blocksDifferent", "1"),
        ("firstKeys", "keys 48129 to 49152"),
    ];
    assert_eq!(report.findings[1].3, details.map(|(key, value)| (key.to_owned(), value.to_owned())));
}

#[tokio::test]
async fn as_many_scans_as_are_wanted_run_at_once_in_the_order_of_tables() {
    let tables = [same("a", 1), same("b", 1), same("c", 1), same("d", 1)];
    let call = call(&tables, json!({ "concurrency": 3 }));
    let scanning: Arc<Mutex<Vec<String>>> = Arc::clone(&call.scanning);
    run(call).await;
    let expected = ["start a", "start b", "start c", "end a", "start d", "end b", "end c", "end d"];
    assert_eq!(*scanning.lock().unwrap(), expected);
}

#[tokio::test]
async fn a_large_table_that_is_short_of_rows_is_not_waited_for_forever() {
    let mut short = same("a", 1_000_000);
    short.3 = Ok(scanned(10, Vec::new()));
    let (outcome, report) = run(call(&[short], json!({}))).await;
    assert_eq!(outcome, completed("1 table, 10 rows, 1 block"));
    assert!(report.progress.contains(&(10, Some(1_000_000), "rows".to_owned())), "{:?}", report.progress);
}

#[tokio::test]
async fn what_cannot_be_scanned_is_told_by_whose_fault_it_is() {
    let tables = [refused("a", "42P01"), refused("b", "42703"), refused("c", "XX001"), same("d", 1)];
    let (outcome, report) = run(call(&tables, json!({}))).await;
    assert_eq!(outcome, completed("4 tables, 1 row, 1 block, 3 not as in the backup"));
    assert_eq!(
        report.lines(),
        [
            "failure public.a: the table is missing",
            "failure public.b: a column that the backup had is missing: the server says no (sqlstate 42703)",
            "failure public.c: the table cannot be read: the server says no (sqlstate xx001)",
        ]
    );
    let tables = [refused("a", "42501"), refused("b", "42P01"), refused("c", "42501")];
    let (outcome, report) = run(call(&tables, json!({}))).await;
    let why = "public.a may not be read: the server says no (SQLSTATE 42501), nor may 1 other table; 1 table, 0 rows, 0 \
               blocks, 1 not as in the backup";
    assert_eq!(outcome, CheckOutcome::Inconclusive { why: why.to_owned() });
    assert_eq!(report.lines(), ["failure public.b: the table is missing"]);
}

#[tokio::test]
async fn trouble_ends_the_check_and_keeps_what_was_found() {
    let tables = [refused("a", "42P01"), refused("b", "57014"), refused("c", "42P01")];
    let (outcome, report) = run(call(&tables, json!({}))).await;
    let why = "scanning public.b failed: the server says no (SQLSTATE 57014)".to_owned();
    assert_eq!(outcome, CheckOutcome::Refused { why });
    assert_eq!(report.lines(), ["failure public.a: the table is missing"]);
}

#[tokio::test]
async fn tables_without_a_digest_are_counted_and_never_all_of_them() {
    let (outcome, report) = run(call(&[without_digest("a"), same("b", 1), without_digest("c")], json!({}))).await;
    assert_eq!(outcome, completed("1 table, 1 row, 1 block"));
    assert_eq!(report.lines(), ["info digests: the baseline has no digest of 2 tables: not compared"]);
    let none = why(call(&[without_digest("a"), same("b", 1)], json!({ "tables": ["*.a"] }))).await;
    assert!(
        none.contains("no digest of any of these tables") && none.contains("`muster capture --digests all`"),
        "{none}"
    );
    let nothing = why(Call { baseline: None, ..call(&[], json!({})) }).await;
    assert!(nothing.contains("no baseline of this database"), "{nothing}");
    let (outcome, _) = run(call(&[], json!({}))).await;
    assert_eq!(outcome, completed("0 tables, 0 rows, 0 blocks"));
}

#[tokio::test]
async fn options_choose_and_a_misspelled_one_is_never_a_pass() {
    let tables = [same("a", 1), same("b", 2), same("tmp_c", 4)];
    let with = |options| call(&tables, options);
    let (outcome, _) = run(with(json!({ "except": ["public.tmp_*"] }))).await;
    assert_eq!(outcome, completed("2 tables, 3 rows, 2 blocks"));
    let (outcome, _) = run(with(json!({ "tables": ["*.?"], "except": ["*.a"] }))).await;
    assert_eq!(outcome, completed("1 table, 2 rows, 1 block"));
    for (options, words) in [
        (json!({ "tables": ["public.*", "public.x"] }), "`tables`: `public.x` matches no table"),
        (json!({ "except": ["public.x"] }), "`except`: `public.x` matches no table"),
        (json!({ "except": ["*"] }), "`except` leaves none of the tables"),
        (json!({ "concurrency": 0 }), "`concurrency` is 0, and must be from 1 to 32"),
    ] {
        let why = why(with(options)).await;
        assert!(why.contains(words), "{why}");
    }
}

#[tokio::test]
async fn no_number_of_tables_reaches_the_limit_of_findings() {
    let names: Vec<String> = (0..2_000).map(|number| format!("table_with_a_long_name_{number:04}")).collect();
    let tables: Vec<Given<'_>> =
        names.iter().map(|name| different(name, 1, vec![block(Some(("1", "1")), 1, 1)])).collect();
    let (outcome, report) = run(call(&tables, json!({}))).await;
    assert_eq!(outcome, completed("2,000 tables, 2,000 rows, 4,000 blocks, 2,000 not as in the backup"));
    assert_eq!(report.findings.len(), 901);
    let (severity, _, message, _) = report.findings.last().unwrap();
    assert_eq!(
        (severity, message.as_str()),
        (&Severity::Failure, "1,100 tables beyond these are not as in the backup")
    );
}
