//! The builtin plugin `freshness` in the real host, its statements answered from a list.
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use drill::agent::CheckOutcome;
use drill::spec::Grant;
use plugin_host::backend::{ColumnInfo, TableInfo, Value};
use serde_json::json;

use crate::world::{Call, FakeSql, Newest, Report, completed, freshness};

const HOUR: i64 = 3_600_000_000;
/// 2026-11-22 02:15 UTC, when the run of [`Call`] starts.
const STARTED: i64 = 1_795_313_700_000_000;

fn table(name: &str, kind: &str) -> TableInfo {
    let columns = [
        ("tz", "timestamp with time zone"),
        ("plain", "timestamp(3) without time zone"),
        ("day", "date"),
        ("odd\"name", "timestamp with time zone"),
        ("total", "numeric(10,2)"),
    ];
    let column =
        |(name, type_name): (&str, &str)| ColumnInfo { name: name.to_owned(), type_name: type_name.to_owned() };
    TableInfo {
        schema: "public".to_owned(),
        name: name.to_owned(),
        kind: kind.to_owned(),
        parent: None,
        estimated_rows: 0,
        columns: columns.map(column).into(),
    }
}

/// Each column of `public.orders` with what the database answers, all of them asked for.
fn call(answers: &[(&str, Result<Newest, &'static str>)]) -> Call {
    let columns: Vec<_> =
        answers.iter().map(|(column, _)| json!({ "table": "public.orders", "column": column })).collect();
    let newest = answers.iter().map(|(column, newest)| (format!("\"{}\"", column.replace('"', "\"\"")), *newest));
    Call {
        grants: BTreeSet::from([Grant::Sql]),
        options: json!({ "columns": columns }),
        tables: vec![table("orders", "partitioned"), table("far", "foreign")],
        sql: Arc::new(FakeSql { newest: newest.collect(), ..FakeSql::default() }),
        snapshot_time: Some("2026-11-22T02:00:00Z".parse().unwrap()),
        objective: Some(Duration::from_hours(24)),
        ..Call::default()
    }
}

async fn run(call: Call) -> (CheckOutcome, Report) {
    let (ended, report) = call.run(freshness()).await;
    (ended.outcome, report)
}

#[tokio::test]
async fn new_rows_pass_in_silence_and_are_measured() {
    let call = call(&[("tz", Ok((Some(STARTED - HOUR / 2), 0, 9))), ("day", Ok((Some(STARTED - 6 * HOUR), 0, 9)))]);
    let sql = Arc::clone(&call.sql);
    let (outcome, report) = run(call).await;
    assert_eq!(outcome, completed("2 columns, oldest newest row 6 h before the run"));
    assert_eq!(report.lines(), Vec::<String>::new());
    assert_eq!(report.progress.last(), Some(&(2, Some(2), "columns".to_owned())));
    let metric = |column: &str, seconds: f64| {
        let labels =
            [("column", column), ("table", "public.orders")].map(|(key, text)| (key.to_owned(), text.to_owned()));
        ("freshness_seconds".to_owned(), labels.to_vec(), seconds)
    };
    assert_eq!(report.metrics, [metric("day", 21_600.0), metric("tz", 1_800.0)]);

    assert_eq!(
        *sql.statements.lock().unwrap(),
        [
            "SELECT pg_catalog.max(\"tz\") FILTER (WHERE pg_catalog.isfinite(\"tz\") AND \"tz\" OPERATOR(pg_catalog.<=) $1), \
             pg_catalog.count(*) FILTER (WHERE pg_catalog.isfinite(\"tz\") AND \"tz\" OPERATOR(pg_catalog.>) $1), \
             pg_catalog.count(*) FROM \"public\".\"orders\"",
            "SELECT pg_catalog.\"timestamp\"(pg_catalog.max(\"day\") FILTER (WHERE pg_catalog.isfinite(\"day\") AND \"day\" \
             OPERATOR(pg_catalog.<=) $1)), pg_catalog.count(*) FILTER (WHERE pg_catalog.isfinite(\"day\") AND \"day\" \
             OPERATOR(pg_catalog.>) $1), pg_catalog.count(*) FROM \"public\".\"orders\"",
        ]
    );
    let snapshot = STARTED - HOUR / 4;
    let limits = [snapshot + HOUR / 12, snapshot + 24 * HOUR].map(|limit| vec![Value::Timestamp(limit)]);
    assert_eq!(*sql.arguments.lock().unwrap(), limits);
}

#[tokio::test]
async fn every_column_that_is_not_fresh_is_named() {
    let mut call = call(&[
        ("tz", Ok((Some(STARTED - 26 * HOUR - HOUR / 20), 0, 9))),
        ("plain", Ok((Some(STARTED - 2 * HOUR), 1, 9))),
        ("odd\"name", Ok((None, 0, 0))),
        ("gone", Ok((None, 0, 0))),
    ]);
    let columns = call.options["columns"].as_array_mut().unwrap();
    columns[1]["within"] = json!("1h30m");
    columns.push(json!({ "table": "public.nowhere", "column": "tz" }));
    columns.push(json!({ "table": "public.far", "column": "tz" }));
    let sql = Arc::clone(&call.sql);
    let (outcome, report) = run(call).await;
    assert_eq!(outcome, completed("6 columns, oldest newest row 26 h 3 m before the run, 6 too old or missing"));
    assert_eq!(
        report.lines(),
        [
            "failure public.orders.tz: newest row 2026-11-21 00:12 utc, 26 h 3 m before the run, 24 h allowed",
            "failure public.orders.plain: newest row 2026-11-22 00:15 (read as utc), 2 h before the run, 1 h 30 m allowed",
            "warning public.orders.plain: 1 of 9 rows is later than the backup, 2026-11-22 02:00 utc, and left out; local \
             times? the column is read as utc",
            "failure public.orders.odd\"name: no rows",
            "failure public.orders.gone: the column is missing",
            "failure public.nowhere.tz: the table is missing",
            "failure public.far.tz: a table of kind `foreign` is in its place",
        ]
    );
    assert_eq!(sql.statements.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn options_that_can_prove_nothing_are_refused() {
    let with = |options, objective| Call { options, objective, ..call(&[]) };
    let day = Some(Duration::from_hours(24));
    for (options, objective, words) in [
        (
            json!({ "columns": [{ "table": "public.orders", "column": "tz" }] }),
            None,
            "`public.orders.tz` has no `within`",
        ),
        (json!({ "columns": [] }), day, "`columns` must name from 1 to 100 columns"),
        (json!({}), day, "missing field `columns`"),
        (
            json!({ "columns": [{ "table": "public.orders", "column": "total" }] }),
            day,
            "`public.orders.total` is of type `numeric(10,2)`: only `timestamptz`, `timestamp` and `date`",
        ),
        (
            json!({ "columns": [{ "database": "order", "table": "public.orders", "column": "tz" }] }),
            day,
            "the run restores no database `order`",
        ),
    ] {
        let (outcome, report) = run(with(options, objective)).await;
        let CheckOutcome::Refused { why } = outcome else { panic!("{outcome:?}") };
        assert!(why.contains(words), "{why}");
        assert_eq!(report.lines(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn damage_is_a_failure_and_trouble_is_not() {
    let fresh = Ok((Some(STARTED - HOUR), 0, 1));
    let (outcome, report) = run(call(&[("tz", Err("XX001")), ("day", fresh)])).await;
    assert_eq!(outcome, completed("2 columns, oldest newest row 1 h before the run, 1 too old or missing"));
    let damage = "failure public.orders.tz: the table cannot be read: the server says no (sqlstate xx001)";
    assert_eq!(report.lines(), [damage]);

    let (outcome, report) = run(call(&[("tz", Err("42501")), ("day", Ok((None, 0, 0)))])).await;
    let why = "public.orders.tz may not be read: the server says no (SQLSTATE 42501); 2 columns, 1 too old or missing";
    assert_eq!(outcome, CheckOutcome::Inconclusive { why: why.to_owned() });
    assert_eq!(report.lines(), ["failure public.orders.day: no rows"]);

    let (outcome, report) = run(call(&[("tz", Err("57014")), ("day", fresh)])).await;
    let why = "asking for the newest public.orders.tz failed: the server says no (SQLSTATE 57014)".to_owned();
    assert_eq!((outcome, report.lines()), (CheckOutcome::Refused { why }, vec![]));
}
