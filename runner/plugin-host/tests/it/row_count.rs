//! The first plugin, with a database that answers from a list.
use std::sync::Arc;

use drill::agent::CheckOutcome;
use plugin_host::backend::{BaselineTable, TableInfo};
use serde_json::json;

use crate::world::{Call, FakeSql, Report, completed, row_count};

fn table(name: &str, kind: &str) -> TableInfo {
    TableInfo {
        schema: "public".to_owned(),
        name: name.to_owned(),
        kind: kind.to_owned(),
        parent: None,
        estimated_rows: 0,
        columns: Vec::new(),
    }
}

/// The baseline has `expected`, the database has `found` and answers with its counts.
fn call(expected: &[(&str, u64)], found: &[(&str, i64)], options: serde_json::Value) -> Call {
    let baseline = expected.iter().map(|(name, rows)| BaselineTable {
        schema: "public".to_owned(),
        name: (*name).to_owned(),
        rows: *rows,
        root: None,
        details: Vec::new(),
    });
    let counts = found.iter().map(|(name, rows)| (format!("\"public\".\"{}\"", name.replace('"', "\"\"")), Ok(*rows)));
    Call {
        options,
        tables: found.iter().map(|(name, _)| table(name, "table")).collect(),
        baseline: Some(baseline.collect()),
        sql: Arc::new(FakeSql { counts: counts.collect(), ..FakeSql::default() }),
        ..Call::default()
    }
}

async fn run(call: Call) -> (CheckOutcome, Report) {
    let (ended, report) = call.run(row_count()).await;
    (ended.outcome, report)
}

#[tokio::test]
async fn equal_counts_pass_in_silence() {
    let call = call(&[("a", 1_000), ("b\"c", 0)], &[("a", 1_000), ("b\"c", 0)], json!({}));
    let sql = Arc::clone(&call.sql);
    let (outcome, report) = run(call).await;
    assert_eq!(outcome, completed("2 tables, 1,000 rows"));
    assert_eq!(report.lines(), Vec::<String>::new());
    assert_eq!(report.progress.last(), Some(&(2, Some(2), "tables".to_owned())));
    let together = r#"SELECT 0, pg_catalog.count(*) FROM ONLY "public"."a" UNION ALL SELECT 1, pg_catalog.count(*) FROM ONLY "public"."b""c""#;
    assert_eq!(*sql.statements.lock().unwrap(), [together]);
}

#[tokio::test]
async fn large_tables_are_counted_by_themselves_and_all_are_where_one_of_them_fails() {
    let call = call(&[("a", 1), ("b", 2), ("large", 10_001), ("z", 4)], &[("a", 1), ("b", 2), ("z", 4)], json!({}));
    let mut sql = FakeSql { counts: call.sql.counts.clone(), ..FakeSql::default() };
    sql.counts.insert("\"public\".\"large\"".to_owned(), Ok(10_001));
    sql.counts.insert("\"public\".\"b\"".to_owned(), Err("XX001"));
    let sql = Arc::new(sql);
    let tables = ["a", "b", "large", "z"].map(|name| table(name, "table")).into();
    let (outcome, report) = run(Call { sql: Arc::clone(&sql), tables, ..call }).await;
    assert_eq!(outcome, completed("4 tables, 10,006 rows, 1 not as in the backup"));
    let said = report.lines();
    assert!(
        said.len() == 1 && said[0].starts_with("failure public.b: 2 rows expected, but it cannot be read"),
        "{said:?}"
    );
    let statements = sql.statements.lock().unwrap().clone();
    let of = |tables: &str| statements.iter().filter(|statement| statement.contains(tables)).count();
    assert_eq!((statements.len(), of("UNION ALL"), of("\"large\"")), (5, 1, 1), "{statements:?}");
}

#[tokio::test]
async fn every_difference_names_its_table() {
    let expected = [("fewer", 1_001), ("gone", 7), ("more", 1), ("same", 5)];
    let found = [("fewer", 1_000), ("more", 3), ("new", 9), ("same", 5)];
    let (outcome, report) = run(call(&expected, &found, json!({}))).await;
    assert_eq!(outcome, completed("4 tables, 1,008 rows, 3 not as in the backup"));
    assert_eq!(
        report.lines(),
        [
            "failure public.fewer: 1,001 rows expected, 1,000 found, 1 fewer",
            "failure public.gone: 7 rows expected, but the table is missing",
            "failure public.more: 1 row expected, 3 found, 2 more",
            "warning public.new: the table was restored, but the baseline does not have it",
        ]
    );
    let details = [("expected".to_owned(), "1001".to_owned()), ("found".to_owned(), "1000".to_owned())];
    assert_eq!(report.findings[0].3, details);
}

#[tokio::test]
async fn roots_foreign_tables_and_matviews_are_no_strangers() {
    let mut call = call(&[("leaf", 1)], &[("leaf", 1)], json!({}));
    call.tables.extend([table("root", "partitioned"), table("far", "foreign"), table("view", "matview")]);
    assert_eq!(run(call).await.1.lines(), Vec::<String>::new());
}

#[tokio::test]
async fn a_table_of_another_kind_is_a_failure_and_is_not_asked() {
    let mut call = call(&[("a", 1)], &[], json!({}));
    call.tables.push(table("a", "foreign"));
    let sql = Arc::clone(&call.sql);
    let (_, report) = run(call).await;
    assert_eq!(report.lines(), ["failure public.a: 1 row expected, but a table of kind `foreign` is in its place"]);
    assert!(sql.statements.lock().unwrap().is_empty());
}

#[tokio::test]
async fn options_choose_expect_and_tolerate() {
    let expected = [("a", 1_000), ("b", 10), ("c", 10)];
    let found = [("a", 1_005), ("b", 13), ("c", 1)];
    let options = json!({
        "tables": ["*.a", "public.b"],
        "tolerance": { "public.a": "1%", "public.b": 2 },
        "expect": { "public.c": 1 },
    });
    let (outcome, report) = run(call(&expected, &found, options)).await;
    assert_eq!(outcome, completed("3 tables, 1,019 rows, 1 not as in the backup"));
    assert_eq!(
        report.lines(),
        [
            "info public.a: 1,000 rows expected, 1,005 found, 5 more, within the tolerance of 10 rows",
            "failure public.b: 10 rows expected, 13 found, 3 more, beyond the tolerance of 2 rows",
        ]
    );
}

#[tokio::test]
async fn without_a_baseline_what_is_compared_with_is_said() {
    let without = |options| Call { baseline: None, ..call(&[], &[("a", 3), ("b", 100)], options) };
    let (outcome, report) = run(without(json!({}))).await;
    assert_eq!(outcome, completed("2 tables, 103 rows; there is no baseline and nothing else to compare with"));
    let lines = report.lines();
    assert!(
        lines[0].starts_with("info baseline: the backup has no baseline") && lines[0].contains("nothing could be"),
        "{lines:?}"
    );
    assert_eq!(lines[1], "info counts: rows of 2 tables");

    let (outcome, _) = run(without(json!({ "expect": { "public.a": 3 } }))).await;
    assert_eq!(outcome, completed("2 tables, 103 rows; no baseline, 1 count compared"));
    let (outcome, report) = run(without(json!({ "expect": { "public.a": 4, "public.c": 1 } }))).await;
    assert_eq!(outcome, completed("2 tables, 103 rows, 2 not as expected"));
    assert_eq!(
        report.lines()[..2],
        [
            "failure public.a: 4 rows expected, 3 found, 1 fewer",
            "failure public.c: 1 row expected, but the table is missing",
        ]
    );
}

#[tokio::test]
async fn without_a_baseline_the_last_passed_run_is_near_enough_or_not() {
    let last = json!({ "run": "orders-20261121t021500z-aaaa", "databases": { "orders": {
        "public.a": 3, "public.b": 108, "public.gone": 7, "public.few": 9, "public.lost": 500,
    } } });
    let with = |options: serde_json::Value| {
        let mut options = options;
        options["lastRun"] = last.clone();
        let found = [("a", 4_000), ("b", 100), ("few", 0), ("lost", 300)];
        Call { baseline: None, ..call(&[], &found, options) }
    };
    let (outcome, report) = run(with(json!({}))).await;
    assert_eq!(outcome, completed("4 tables, 4,400 rows, 2 not as expected"));
    let by = "(by the last passed run)";
    let once = |option: &str| {
        format!(
            "if that is meant, run once with `{option}` in the check's options, and the next run is compared with that one"
        )
    };
    let lines = report.lines();
    assert_eq!(
        lines[..5],
        [
            format!("info public.a: 3 rows expected, 4,000 found, 3,997 more {by}"),
            format!("info public.b: 108 rows expected, 100 found, 8 fewer, within the tolerance of 100 rows {by}"),
            format!("warning public.few: 9 rows expected, 0 found, 9 fewer, within the tolerance of 100 rows {by}"),
            format!(
                "failure public.gone: 7 rows expected {by}, but the table is missing: {}",
                once("tolerance: { \"public.gone\": \"100%\" }")
            ),
            format!(
                "failure public.lost: 500 rows expected, 300 found, 200 fewer, beyond the tolerance of 100 rows {by}: {}",
                once("expect: { \"public.lost\": 300 }")
            ),
        ]
    );
    assert!(lines[5].contains("orders-20261121t021500z-aaaa"), "{lines:?}");

    // Both ways to accept it are ways to pass.
    let accepted = json!({ "expect": { "public.lost": 300 }, "tolerance": { "public.gone": "100%" } });
    let (outcome, report) = run(with(accepted)).await;
    assert_eq!(outcome, completed("4 tables, 4,400 rows; no baseline, 5 counts compared"));
    assert!(report.lines()[3].starts_with("warning public.gone: 7 rows expected"), "{:?}", report.lines());

    let (_, report) = run(with(json!({ "sinceLastRun": "1%", "tables": ["public.b"] }))).await;
    assert!(report.lines()[0].starts_with("failure public.b: 108 rows expected, 100 found"), "{:?}", report.lines());
    // What the drill itself expects counts more.
    let (_, report) = run(with(json!({ "expect": { "public.b": 100 }, "tables": ["public.b"] }))).await;
    assert!(report.lines()[0].starts_with("info baseline"), "{:?}", report.lines());
}

#[tokio::test]
async fn a_materialized_view_that_was_stale_is_worth_a_look_and_no_failure() {
    let refreshed = |options| {
        let mut call = call(&[("a", 3), ("view", 10)], &[("a", 3), ("view", 12)], options);
        call.tables[1] = table("view", "matview");
        call
    };
    let (outcome, report) = run(refreshed(json!({}))).await;
    assert_eq!(outcome, completed("2 tables, 15 rows"));
    let words = "10 rows expected, 12 found, 2 more; a restore refreshes a materialized view";
    assert_eq!(report.lines(), [format!("warning public.view: {words}")]);
    let (_, report) = run(refreshed(json!({ "expect": { "public.view": 10 } }))).await;
    assert_eq!(report.lines(), ["failure public.view: 10 rows expected, 12 found, 2 more"], "the drill says so itself");
}

#[tokio::test]
async fn counts_that_are_not_kept_are_said_to_be_not() {
    let names: Vec<String> = (0..1_002).map(|number| format!("t{number:04}")).collect();
    let found: Vec<(&str, i64)> = names.iter().map(|name| (name.as_str(), 2)).collect();
    let (_, report) = run(Call { baseline: None, ..call(&[], &found, json!({})) }).await;
    let lines = report.lines();
    assert!(
        lines.iter().any(|line| line.starts_with("warning baseline: 2 tables from public.t1000 on")),
        "{:?}",
        lines.last()
    );
}

#[tokio::test]
async fn a_misspelled_table_is_never_a_pass() {
    let with = |options| call(&[("a", 3)], &[("a", 3)], options);
    let (outcome, _) = run(with(json!({ "tables": ["public.b*"] }))).await;
    let CheckOutcome::Inconclusive { why } = outcome else { panic!("{outcome:?}") };
    assert!(why.contains("`public.b*` matches no table"), "{why}");
    let (outcome, _) = run(with(json!({ "tolerance": { "public.b": 1 } }))).await;
    let CheckOutcome::Refused { why } = outcome else { panic!("{outcome:?}") };
    assert!(why.contains("`public.b`, is it misspelled?"), "{why}");
    let unbased = Call { baseline: None, ..with(json!({ "tolerance": { "public.b": 1 } })) };
    let CheckOutcome::Refused { why } = run(unbased).await.0 else { panic!("no misspelled table passes") };
    assert!(why.contains("`public.b`: is it misspelled, or was it for one run?"), "{why}");
    let (_, report) = run(with(json!({ "expect": { "public.b": 1 } }))).await;
    assert_eq!(report.lines(), ["failure public.b: 1 row expected, but the table is missing"]);
}

#[tokio::test]
async fn damage_is_a_failure_and_trouble_is_not() {
    let answering = |code| {
        let mut call = call(&[("a", 3)], &[("a", 3)], json!({}));
        let counts = [("\"public\".\"a\"".to_owned(), Err(code))].into();
        call.sql = Arc::new(FakeSql { counts, ..FakeSql::default() });
        call
    };
    let (outcome, report) = run(answering("XX001")).await;
    assert_eq!(outcome, completed("1 table, 0 rows, 1 not as in the backup"));
    let damage = "failure public.a: 3 rows expected, but it cannot be read: the server says no (sqlstate xx001)";
    assert_eq!(report.lines(), [damage]);
    let (outcome, report) = run(answering("57014")).await;
    let why = "counting public.a failed: the server says no (SQLSTATE 57014)".to_owned();
    assert_eq!((outcome, report.lines()), (CheckOutcome::Refused { why }, vec![]));
}

#[tokio::test]
async fn many_tables_come_by_the_page() {
    let names: Vec<String> = (0..3_000).map(|number| format!("table_with_a_long_name_{number:04}")).collect();
    let expected: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 2)).collect();
    let found: Vec<(&str, i64)> = names.iter().map(|name| (name.as_str(), 2)).collect();
    let (outcome, report) = run(call(&expected, &found, json!({}))).await;
    assert_eq!((outcome, report.lines()), (completed("3,000 tables, 6,000 rows"), vec![]));
}
