use std::time::Duration;

use bytes::Bytes;
use plugin_host::backend::{Batch, Blame, Catalog, Cells, Column, ColumnData, Error, Rows, Side, Sql, Value};
use tokio::sync::watch;
use tokio::time::Instant;

use super::super::check::CheckSql;
use super::super::{Database, login};
use super::{Authority, TestServer, rotation};

const HOUR: Duration = Duration::from_hours(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_against_a_real_server() {
    let server = TestServer::start();
    certificates_are_what_lets_in(&server).await;
    settings_are_pinned_and_tables_found(&server).await;
    let objects = "CREATE SEQUENCE numbers START 7; SELECT lo_put(lo_create(4711), 1000000, 'end')";
    server.admin("orders", objects);
    let database = open(&server, "orders").await;
    types_cross_as_they_are(&database).await;
    timestamps_beyond_64_bits_come_as_the_servers_text(&database).await;
    arguments_reach_the_server(&database).await;
    many_batches_and_several_results(&database).await;
    large_cells_are_named(&database).await;
    errors_leave_the_rest_as_it_was(&database).await;
    the_snapshot_cannot_be_left(&server, &database).await;
    dropped_results_are_closed(&database).await;
    a_held_up_result_does_not_block_another(&database).await;
    statements_are_cancelled(&server, &database).await;
    the_schema_is_read_in_order_and_in_the_snapshot(&server, &database).await;
    database.close().await;
    rotation::another_login_takes_over(&server).await;
    rotation::another_certificate_takes_over(&server).await;
    an_ascii_database_is_read_as_far_as_it_is_text(&server).await;
    assert_eq!(connections(&server), "0", "nothing is left connected");
}

async fn the_schema_is_read_in_order_and_in_the_snapshot(server: &TestServer, database: &Database) {
    server.admin("orders", "CREATE TABLE later_than_the_snapshot (id int)");
    let taken = r#"{"kind":"privileges on system objects","identity":"routine pg_read_file(text)","entry":"EXECUTE to PUBLIC"}"#;
    let baseline = Bytes::from(format!(r#"{{"schema":1,"database":"orders","taken":[{taken}]}}"#));
    let schemas = database.schemas(Some(baseline), Instant::now() + HOUR);
    assert_eq!(schemas.read(Side::Baseline).await.unwrap().next(1, 1).await.unwrap(), []);
    let mut objects = schemas.read(Side::Restored).await.unwrap();
    let mut read = Vec::new();
    loop {
        let page = objects.next(7, 1 << 20).await.unwrap();
        assert!(page.len() <= 7);
        if page.is_empty() {
            break;
        }
        read.extend(page);
    }
    assert!(read.is_sorted_by(|a, b| (&a.kind, &a.identity) < (&b.kind, &b.identity)));
    let content = |kind: &str, identity: &str| {
        let object = read.iter().find(|object| object.kind == kind && object.identity == identity);
        object.map(|object| serde_json::from_str::<serde_json::Value>(&object.content).unwrap())
    };
    assert_eq!(content("relation", "public.later_than_the_snapshot"), None);
    assert_eq!(content("schema", "public"), Some(serde_json::json!({})));
    let put_back = content("privileges on system objects", "routine pg_read_file(text)").unwrap();
    assert_eq!(put_back, serde_json::json!({"granted": ["EXECUTE to PUBLIC"]}));
    let sequence = content("sequence", "public.numbers").unwrap();
    assert_eq!((&sequence["lastValue"], &sequence["called"]), (&serde_json::json!(7), &serde_json::json!(false)));
    let bytes = content("large object", "4711").unwrap();
    assert_eq!((&bytes["size"], bytes["sha256"].as_str().unwrap().len()), (&serde_json::json!(1_000_003), 64));
    let late = database.schemas(None, Instant::now());
    assert_eq!(late.read(Side::Baseline).await.err().unwrap().blame, Blame::Plugin);
    assert!(
        late.read(Side::Restored)
            .await
            .unwrap()
            .next(1, 1)
            .await
            .unwrap_err()
            .message
            .contains("longer than the check has")
    );
}

async fn open(server: &TestServer, name: &str) -> Database {
    let identity = watch::channel(server.identity()).1;
    Database::open(&server.socket(), identity, "reader", name, Instant::now() + HOUR).await.unwrap()
}

fn sql(database: &Database) -> CheckSql {
    database.sql(Instant::now() + HOUR)
}

fn connections(server: &TestServer) -> String {
    let count = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'reader'";
    for _ in 0..100 {
        if server.admin("postgres", count) == "0" {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    server.admin("postgres", count)
}

async fn failure(sql: &CheckSql, statement: &str) -> Error {
    match sql.query(statement, Vec::new()).await {
        Err(error) => error,
        Ok(mut rows) => loop {
            match rows.next(1000).await {
                Err(error) => return error,
                Ok(Some(_)) => {}
                Ok(None) => panic!("`{statement}` was not refused"),
            }
        },
    }
}

async fn batch(sql: &CheckSql, statement: &str, arguments: Vec<Value>) -> Batch {
    let mut rows = sql.query(statement, arguments).await.unwrap();
    let batch = rows.next(1000).await.unwrap().unwrap();
    assert!(rows.next(1000).await.unwrap().is_none());
    batch
}

fn text_of(column: &Column) -> Vec<String> {
    let (ColumnData::Texts(cells) | ColumnData::Binaries(cells)) = &column.data else {
        panic!("not text: {:?}", column.data)
    };
    split(cells)
}

fn split(Cells { ends, data }: &Cells) -> Vec<String> {
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let cell = |(start, end): (u32, &u32)| String::from_utf8(data[start as usize..*end as usize].to_vec()).unwrap();
    starts.zip(ends).map(cell).collect()
}

async fn texts(sql: &CheckSql, statement: &str) -> Vec<String> {
    batch(sql, statement, Vec::new()).await.columns.iter().flat_map(text_of).collect()
}

async fn certificates_are_what_lets_in(server: &TestServer) {
    let refused = async |identity| login(&server.socket(), &identity, "orders").await.unwrap_err().message;
    login(&server.socket(), &server.identity(), "orders").await.unwrap();

    let stranger = Authority::new();
    assert!(
        refused(stranger.identity("reader")).await.contains("TLS"),
        "a server of another authority is not believed"
    );

    let ours = server.identity();
    let theirs = stranger.identity("reader");
    let mixed = drill::agent::ClientIdentity { ca: ours.ca.clone(), ..theirs };
    let message = refused(mixed).await;
    assert!(message.contains("lost") || message.contains("closed") || message.contains("TLS"), "{message}");

    let elsewhere = drill::agent::ClientIdentity { server_name: "other.test".to_owned(), ..server.identity() };
    assert!(refused(elsewhere).await.contains("TLS"), "a certificate for another name is not believed");

    let other_role = drill::agent::ClientIdentity { role: "postgres".to_owned(), ..server.identity() };
    assert!(refused(other_role).await.contains("refused the login"));

    let broken = drill::agent::ClientIdentity { certificate: "-".to_owned(), ..server.identity() };
    assert!(refused(broken).await.contains("cannot be used"));
}

async fn settings_are_pinned_and_tables_found(server: &TestServer) {
    server.admin(
        "orders",
        "CREATE TABLE parts (id bigint NOT NULL, at date) PARTITION BY RANGE (at);
         CREATE TABLE parts_2026 PARTITION OF parts FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
         CREATE TABLE lines (id bigint PRIMARY KEY, gone text, price numeric(12,2), secret text);
         ALTER TABLE lines DROP COLUMN gone;
         INSERT INTO lines SELECT g, g, 'x' FROM generate_series(1, 10) g;
         ALTER TABLE lines ENABLE ROW LEVEL SECURITY;
         CREATE POLICY none ON lines USING (false);
         CREATE MATERIALIZED VIEW sums AS SELECT 1 AS one;
         CREATE VIEW plain AS SELECT 1 AS one;
         CREATE SCHEMA \"Odd \"\"name\";
         CREATE TABLE \"Odd \"\"name\".\"ta.ble\" ();
         CREATE TYPE mood AS ENUM ('sad', 'glad');
         CREATE DOMAIN small AS int4;
         ALTER DATABASE orders SET search_path = public;
         ALTER DATABASE orders SET default_transaction_read_only = off;
         ALTER DATABASE orders SET datestyle = 'German';
         ALTER ROLE reader SET timezone = 'Asia/Tokyo'",
    );
    // What a backup could bring along to answer in the place of the system's own.
    let evil = "CREATE FUNCTION public.evil(oid, oid) RETURNS bool LANGUAGE sql AS 'SELECT true'";
    server.admin("orders", evil);
    server.admin("orders", "CREATE OPERATOR public.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = public.evil)");
    let database = open(server, "orders").await;
    assert!(database.server_version().starts_with(|c: char| c.is_ascii_digit()));
    let found: Vec<String> = database
        .tables()
        .iter()
        .map(|table| {
            let columns: Vec<_> = table.columns.iter().map(|c| format!("{} {}", c.name, c.type_name)).collect();
            let parent = table.parent.as_ref().map(|(s, n)| format!(" of {s}.{n}")).unwrap_or_default();
            format!("{} {}.{}{parent} ({})", table.kind, table.schema, table.name, columns.join(", "))
        })
        .collect();
    let expected = [
        "table Odd \"name.ta.ble ()",
        "table public.lines (id bigint, price numeric(12,2), secret text)",
        "partitioned public.parts (id bigint, at date)",
        "table public.parts_2026 of public.parts (id bigint, at date)",
        "matview public.sums (one integer)",
    ];
    assert_eq!(found, expected);
    let sql = sql(&database);
    let pinned = "SELECT current_setting('search_path'), current_setting('TimeZone'), current_setting('DateStyle'), \
         current_setting('transaction_read_only'), current_setting('transaction_isolation'), \
         current_setting('application_name'), current_setting('row_security')";
    let expected = ["", "UTC", "ISO, YMD", "on", "repeatable read", "muster-agent", "off"];
    assert_eq!(texts(&sql, pinned).await, expected);
    let count = batch(&sql, "SELECT count(*) FROM public.lines", Vec::new()).await;
    assert_eq!(count.columns[0].data, ColumnData::Integers(vec![10]), "no row is hidden by a policy");
    drop(sql);
    database.close().await;
}

async fn types_cross_as_they_are(database: &Database) {
    let sql = sql(database);
    let statement = "SELECT true, 2::int2, -4::int4, 8::int8, 0.5::float4, 'NaN'::float8, '\\x00ff'::bytea, \
         '2000-01-01 00:00:01'::timestamp, '1970-01-01 01:00+01'::timestamptz, 12.50::numeric(12,2), 'ä'::text, \
         '{\"a\": 1}'::jsonb, '{1,2}'::int4[], 'glad'::public.mood, 7::public.small, '2026-11-22'::date, \
         ROW(1,'x'), '1 mon'::interval, 'pg_catalog.pg_class'::regclass, 'c'::\"char\" \
         UNION ALL SELECT NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL";
    let mut rows = sql.query(&statement.replace(" UNION ALL", " WHERE true UNION ALL"), Vec::new()).await.unwrap();
    let types: Vec<_> = rows.columns().iter().map(|column| column.type_name.as_str()).collect();
    assert_eq!(types[..4], ["boolean", "smallint", "integer", "bigint"]);
    assert_eq!((types[9], types[13], types[12]), ("numeric", "public.mood", "integer[]"));
    let batch = rows.next(10).await.unwrap().unwrap();
    assert!(rows.next(10).await.unwrap().is_none());
    assert!(rows.next(10).await.unwrap().is_none(), "the end stays the end");
    assert_eq!(batch.rows, 2);
    assert!(batch.columns.iter().all(|column| column.nulls == [0b10]), "the second row is NULL");
    let data: Vec<_> = batch.columns.iter().map(|column| &column.data).collect();
    assert_eq!(data[0], &ColumnData::Booleans(vec![true, false]));
    assert_eq!(data[1], &ColumnData::Integers(vec![2, 0]));
    assert_eq!(data[2], &ColumnData::Integers(vec![-4, 0]));
    assert_eq!(data[3], &ColumnData::Integers(vec![8, 0]));
    assert_eq!(data[4], &ColumnData::Floats(vec![0.5, 0.0]));
    assert!(matches!(data[5], ColumnData::Floats(values) if values[0].is_nan()));
    assert_eq!(data[6], &ColumnData::Binaries(Cells { ends: vec![2, 2], data: vec![0, 0xff] }));
    assert_eq!(data[7], &ColumnData::Timestamps(vec![946_684_801_000_000, 0]));
    assert_eq!(data[8], &ColumnData::Timestamps(vec![0, 0]));
    let first = |index: usize| text_of(&batch.columns[index])[0].clone();
    let texts: Vec<_> = (9..14).map(first).collect();
    assert_eq!(texts, ["12.50", "ä", "{\"a\": 1}", "{1,2}", "glad"]);
    assert_eq!(data[14], &ColumnData::Integers(vec![7, 0]), "a domain is described as its base type");
    let texts: Vec<_> = (15..20).map(first).collect();
    assert_eq!(texts, ["2026-11-22", "(1,x)", "1 mon", "pg_class", "c"]);
    let empty = sql.query("SELECT FROM public.lines LIMIT 3", Vec::new()).await.unwrap().next(10).await.unwrap();
    assert_eq!(empty, Some(Batch { rows: 3, columns: Vec::new() }), "a row need not have columns");
}

async fn timestamps_beyond_64_bits_come_as_the_servers_text(database: &Database) {
    let sql = sql(database);
    let samples = "(VALUES ('infinity'), ('-infinity'), ('294276-12-31 23:59:59.999999'), ('4714-11-24 00:00:00 BC'), \
         ('0001-12-31 23:59:59.5 BC'), ('0001-01-01 00:00:00'), ('2024-02-29 12:34:56.000120'), \
         ('1900-03-01 00:00:00.1'), (NULL)) AS v (t)";
    for zoned in ["timestamp", "timestamptz"] {
        let statement = format!("SELECT t::{zoned}, coalesce(t::{zoned}::text, '') FROM {samples}");
        let batch = batch(&sql, &statement, Vec::new()).await;
        assert_eq!(text_of(&batch.columns[0]), text_of(&batch.columns[1]), "{zoned}");
        assert_eq!(batch.columns[0].nulls, [0, 1]);
    }
}

async fn arguments_reach_the_server(database: &Database) {
    let sql = sql(database);
    let arguments = vec![
        Value::Boolean(true),
        Value::Integer(i64::MIN),
        Value::Float(f64::NEG_INFINITY),
        Value::Text("'; --".to_owned()),
        Value::Binary(vec![0, 255]),
        Value::Timestamp(-1),
        Value::Null,
        Value::Float(0.1),
    ];
    let statement =
        "SELECT $1::bool, $2::int8, $3::float8, $4::text, $5::bytea, $6::timestamptz, $7::text IS NULL, $8::float8";
    let batch = batch(&sql, statement, arguments).await;
    let data: Vec<_> = batch.columns.into_iter().map(|column| column.data).collect();
    assert_eq!(data[0], ColumnData::Booleans(vec![true]));
    assert_eq!(data[1], ColumnData::Integers(vec![i64::MIN]));
    assert_eq!(data[2], ColumnData::Floats(vec![f64::NEG_INFINITY]));
    assert_eq!(data[3], ColumnData::Texts(Cells { ends: vec![5], data: b"'; --".to_vec() }));
    assert_eq!(data[4], ColumnData::Binaries(Cells { ends: vec![2], data: vec![0, 255] }));
    assert_eq!(data[5], ColumnData::Timestamps(vec![-1]));
    assert_eq!(data[6], ColumnData::Booleans(vec![true]));
    assert_eq!(data[7], ColumnData::Floats(vec![0.1]));

    let wrong = sql.query("SELECT $1::text", Vec::new()).await.err().unwrap();
    assert_eq!(wrong.code.as_deref(), Some("08P01"), "too few arguments: {wrong:?}");
    let wrong = sql.query("SELECT $1::text", vec![Value::Text("\0".to_owned())]).await.err().unwrap();
    assert_eq!(wrong.blame, Blame::Plugin);
    assert_eq!(texts(&sql, "SELECT 'still here'").await, ["still here"]);
}

async fn sum(rows: &mut Box<dyn Rows>, max: u32, limit: usize) -> (i64, u32) {
    let (mut sum, mut count) = (0, 0);
    for _ in 0..limit {
        let Some(batch) = rows.next(max).await.unwrap() else { break };
        assert!(batch.rows > 0 && batch.rows <= max);
        let ColumnData::Integers(values) = &batch.columns[0].data else { panic!("integers") };
        assert_eq!(values.len(), batch.rows as usize);
        sum += values.iter().sum::<i64>();
        count += batch.rows;
    }
    (sum, count)
}

async fn many_batches_and_several_results(database: &Database) {
    let sql = sql(database);
    let series =
        async |n: i64| sql.query("SELECT generate_series(1, $1::int8)", vec![Value::Integer(n)]).await.unwrap();
    let (mut a, mut b) = (series(30_000).await, series(5).await);
    let (first, rows) = sum(&mut a, 700, 3).await;
    assert_eq!(rows, 2100);
    assert_eq!(sum(&mut b, 2, 10).await, (15, 5));
    let (rest, rows) = sum(&mut a, 100_000, 1000).await;
    assert_eq!((first + rest, rows), (30_000 * 30_001 / 2, 27_900));
    let show = batch(&sql, "EXPLAIN SELECT 1", Vec::new()).await;
    assert_eq!(show.rows, 1, "utility statements that give rows work too");
}

async fn large_cells_are_named(database: &Database) {
    let sql = sql(database);
    let mut fits =
        sql.query("SELECT g, repeat('x', 900000) AS wide FROM generate_series(1, 5) g", Vec::new()).await.unwrap();
    for _ in 0..5 {
        assert_eq!(fits.next(100).await.unwrap().unwrap().rows, 1, "1 MiB bounds a batch");
    }
    assert!(fits.next(1).await.unwrap().is_none());
    for size in [1_100_000, 1_400_000, 5_000_000] {
        let error = failure(&sql, &format!("SELECT 1 AS a, repeat('x', {size}) AS wide, 'b' AS b")).await;
        assert!(error.message.contains("`wide`"), "{error:?}");
        assert_eq!(error.code, None);
    }
    let mut rows = sql
        .query(
            "SELECT repeat('x', CASE g WHEN 40 THEN 5000000 ELSE 10 END) AS w FROM generate_series(1, 99) g",
            Vec::new(),
        )
        .await
        .unwrap();
    let mut seen = 0;
    let error = loop {
        match rows.next(1000).await {
            Ok(Some(batch)) => seen += batch.rows,
            Ok(None) => panic!("the large row was lost"),
            Err(error) => break error,
        }
    };
    assert!(seen == 39 && error.message.contains("`w`"), "{seen} {error:?}");
    assert_eq!(rows.next(10).await.unwrap_err(), error, "an error stays");
    assert_eq!(texts(&sql, "SELECT 'still here'").await, ["still here"]);
}

async fn errors_leave_the_rest_as_it_was(database: &Database) {
    let sql = sql(database);
    let mut open = sql.query("SELECT generate_series(1, 5000)", Vec::new()).await.unwrap();
    assert_eq!(sum(&mut open, 10, 1).await.1, 10);
    for (statement, code) in [
        ("SELEC 1", "42601"),
        ("SELECT * FROM nowhere", "42P01"),
        ("SELECT 1; SELECT 2", "42601"),
        ("SELECT 1 / (100 - g) FROM generate_series(1, 200) g", "22012"),
        ("DELETE FROM public.lines RETURNING id", "25006"),
        ("SELECT set_config('transaction_isolation', 'serializable', true)", "25001"),
    ] {
        let error = failure(&sql, statement).await;
        assert_eq!((error.blame, error.code.as_deref()), (Blame::Plugin, Some(code)), "{statement}: {error:?}");
        assert!(!error.message.is_empty());
    }
    assert_eq!(failure(&sql, "SELECT '\0'").await.blame, Blame::Plugin);
    let zero = sql.query("SELECT 1", Vec::new()).await.unwrap().next(0).await.unwrap_err();
    assert_eq!(zero.blame, Blame::Plugin);
    assert_eq!(sum(&mut open, 1000, 100).await.1, 4990, "the open result was not disturbed");
}

async fn the_snapshot_cannot_be_left(server: &TestServer, database: &Database) {
    let (one, two) = (sql(database), sql(database));
    let snapshot = "SELECT pg_catalog.pg_current_snapshot()::pg_catalog.text";
    let before = texts(&one, snapshot).await;
    for statement in [
        "COMMIT",
        "COMMIT AND CHAIN",
        "ROLLBACK",
        "ROLLBACK AND CHAIN",
        "BEGIN",
        "SET TRANSACTION READ WRITE",
        "SAVEPOINT muster_savepoint",
        "RELEASE muster_savepoint",
        "SET search_path = public",
        "DO 'BEGIN COMMIT; END'",
        "COPY public.lines TO STDOUT",
        "LISTEN x",
        "DEALLOCATE ALL",
        "DISCARD ALL",
        "",
        "-- nothing",
    ] {
        let error = failure(&one, statement).await;
        assert_eq!(error.blame, Blame::Plugin, "{statement}");
        assert!(error.message.contains("gives none"), "{statement}: {error:?}");
    }
    server.admin("orders", "INSERT INTO lines VALUES (11, 11, 'late')");
    assert_eq!(texts(&one, snapshot).await, before);
    assert_eq!(texts(&two, snapshot).await, before, "checks share one snapshot");
    for sql in [&one, &two] {
        let count = batch(sql, "SELECT count(*) FROM public.lines", Vec::new()).await;
        assert_eq!(count.columns[0].data, ColumnData::Integers(vec![10]));
    }
}

async fn dropped_results_are_closed(database: &Database) {
    let sql = sql(database);
    for n in 0..50 {
        let mut rows = sql.query("SELECT generate_series(1, 100000)", Vec::new()).await.unwrap();
        if n % 2 == 0 {
            rows.next(5).await.unwrap();
        }
    }
    let count = batch(&sql, "SELECT count(*) FROM pg_catalog.pg_cursors WHERE name LIKE 'muster%'", Vec::new()).await;
    assert_eq!(count.columns[0].data, ColumnData::Integers(vec![1]), "only its own");
}

/// Small rows make the client ask for many at a time; then they turn large.
async fn a_held_up_result_does_not_block_another(database: &Database) {
    let sql = sql(database);
    let statement = "SELECT g, repeat('x', CASE WHEN g < 3000 THEN 1 ELSE 50000 END) FROM generate_series(1, 4000) g";
    let mut rows = sql.query(statement, Vec::new()).await.unwrap();
    let (_, mut count) = sum(&mut rows, 1000, 4).await;
    assert_eq!(texts(&sql, "SELECT 'meanwhile'").await, ["meanwhile"]);
    count += sum(&mut rows, 1000, 1000).await.1;
    assert_eq!(count, 4000);
}

async fn statements_are_cancelled(server: &TestServer, database: &Database) {
    let sleeping = || {
        let count = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(61)%' \
             AND usename = 'reader'";
        server.admin("postgres", count) != "0"
    };
    // The guest is stopped: its future is dropped.
    let sql = sql(database);
    let mut rows = sql.query("SELECT pg_sleep(61)", Vec::new()).await.unwrap();
    let waiting = tokio::time::timeout(Duration::from_millis(400), rows.next(1));
    waiting.await.unwrap_err();
    for _ in 0..100 {
        if !sleeping() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!sleeping(), "the statement did not end");
    let error = sql.query("SELECT 1", Vec::new()).await.err().unwrap();
    assert!(error.message.contains("cancelled"), "{error:?}");

    // The time of the check is over.
    let sql = database.sql(Instant::now() + Duration::from_millis(600));
    let started = Instant::now();
    let mut rows = sql.query("SELECT pg_sleep(61)", Vec::new()).await.unwrap();
    let error = rows.next(1).await.unwrap_err();
    assert!(error.message.contains("past the time"), "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(!sleeping());
}

async fn an_ascii_database_is_read_as_far_as_it_is_text(server: &TestServer) {
    server.admin("postgres", "CREATE DATABASE old TEMPLATE template0 ENCODING 'SQL_ASCII'");
    server.admin("old", "CREATE TABLE t AS SELECT 'plain' AS a, convert_from('\\xe9', 'SQL_ASCII') AS b");
    let database = open(server, "old").await;
    let sql = sql(&database);
    assert_eq!(texts(&sql, "SELECT a FROM public.t").await, ["plain"]);
    let error = failure(&sql, "SELECT b FROM public.t").await;
    assert!(error.message.contains("`b`") && error.message.contains("UTF-8"), "{error:?}");
    drop(sql);
    database.close().await;
}
