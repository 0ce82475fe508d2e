//! What a digest sees and what it does not, on real tables: each mutation is made in a transaction that is rolled back.
use std::collections::BTreeMap;
use std::convert::Infallible;

use drill::baseline::{Form, Layout, Table};
use drill::content::{Block, Collector, Group, MAX_HELD, RowReader, cut, decode, root};
use drill::id::Sha256Digest;
use drivers::engine::postgresql::capture::{Captured, capture};
use drivers::engine::postgresql::content::{COLUMNS, Cells, KEYS, PINNED, PageRange, TYPES, copy_statement, layouts};
use futures_util::{StreamExt, pin_mut};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};
use tokio_util::sync::CancellationToken;

use crate::capture::{Place, Silent, baseline};
use crate::server::Server;

async fn connect(server: &Server, database: &str) -> Client {
    let mut config = tokio_postgres::Config::new();
    let pinned = PINNED.iter().filter(|(name, _)| *name != "default_transaction_read_only");
    let options = pinned.map(|(name, value)| format!("-c {name}={} ", value.replace(' ', "\\ ")));
    config.host_path(server.socket()).user("postgres").dbname(database).options(options.collect::<String>());
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn cells<const COLUMNS: usize>(client: &Client, query: &str) -> Cells<COLUMNS> {
    let messages = client.simple_query(query).await.unwrap();
    let row = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => Some(std::array::from_fn(|column| row.get(column).map(str::to_owned))),
        _ => None,
    };
    messages.iter().filter_map(row).collect()
}

type Tables = BTreeMap<(String, String), Layout>;

/// As capture would choose them.
async fn tables(client: &Client) -> Tables {
    let mut all = layouts(cells(client, TYPES).await, cells(client, COLUMNS).await, cells(client, KEYS).await);
    let list = "SELECT c.oid, n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'm') AND c.relispopulated AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'";
    let nothing = layouts(Vec::new(), Vec::new(), Vec::new());
    assert!(nothing.is_empty());
    let none = Layout { form: Form::Binary, columns: vec![], bucketing: drill::baseline::Bucketing::RowDigest };
    let mut tables = Tables::new();
    for [oid, schema, name] in cells::<3>(client, list).await {
        let layout = all.remove(&oid.unwrap().parse().unwrap()).unwrap_or_else(|| none.clone());
        tables.insert((schema.unwrap(), name.unwrap()), layout);
    }
    tables
}

async fn digests(client: &Client, tables: &Tables) -> BTreeMap<(String, String), (u64, Sha256Digest)> {
    let mut roots = BTreeMap::new();
    for ((schema, name), layout) in tables {
        let stream = client.copy_out(&copy_statement(schema, name, layout, PageRange::ALL)).await.unwrap();
        pin_mut!(stream);
        let mut reader = RowReader::new(layout).unwrap();
        let mut collector = Collector::new(MAX_HELD);
        while let Some(message) = stream.next().await {
            reader.feed(&message.unwrap()).unwrap();
            reader.end().unwrap().into_iter().for_each(|row| assert!(!collector.push(row)));
        }
        reader.finish().unwrap();
        let mut blocks: Vec<Block> = Vec::new();
        let entries = collector.sorted().iter().copied().map(Ok::<_, Infallible>);
        let each = |groups: &[Group<'_>]| {
            blocks.extend(groups.iter().map(Group::block));
            Ok(())
        };
        cut(entries, MAX_HELD, each).unwrap().unwrap();
        let seen = blocks.iter().map(|block| block.rows).sum();
        roots.insert((schema.clone(), name.clone()), (seen, root(layout, &blocks)));
    }
    roots
}

enum Seen {
    D,
    S,
}
use Seen::{D, S};

/// `a(id int, v TYPE)` holds the value; the mutation writes another.
fn value(kind: &str, was: &str, is: &str) -> (String, String) {
    (
        format!("CREATE TABLE m.a (id int, v {kind}); INSERT INTO m.a VALUES (1, {was})"),
        format!("UPDATE m.a SET v = {is}"),
    )
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn mutations() -> Vec<(Seen, String, String)> {
    let rows = "CREATE TABLE m.a (id int, v text); INSERT INTO m.a VALUES (1, 'x'), (2, 'y')";
    let family = "CREATE TABLE m.p (id int); CREATE TABLE m.c () INHERITS (m.p); INSERT INTO m.c VALUES (1), (2)";
    let parts = "CREATE TABLE m.p (id int) PARTITION BY HASH (id);
        CREATE TABLE m.p0 PARTITION OF m.p FOR VALUES WITH (MODULUS 2, REMAINDER 0);
        CREATE TABLE m.p1 PARTITION OF m.p FOR VALUES WITH (MODULUS 2, REMAINDER 1); INSERT INTO m.p VALUES (1)";
    let hidden =
        "CREATE TABLE m.a (id int); INSERT INTO m.a VALUES (1), (2); ALTER TABLE m.a ENABLE ROW LEVEL SECURITY;
        CREATE POLICY one ON m.a USING (id = 1)";
    let one = |seen, was: &str, change: &str| (seen, was.to_owned(), change.to_owned());
    let of = |seen, kind: &str, was: &str, is: &str| {
        let (setup, change) = value(kind, was, is);
        (seen, setup, change)
    };
    let constant_cast =
        "CREATE TYPE m.e AS (x int); CREATE FUNCTION m.f(m.e) RETURNS text LANGUAGE sql AS 'SELECT ''same''';
        CREATE CAST (m.e AS text) WITH FUNCTION m.f(m.e); CREATE TABLE m.a (v m.e); INSERT INTO m.a VALUES (ROW(1))";
    let constant_send =
        "CREATE TYPE m.u; CREATE FUNCTION m.ui(cstring) RETURNS m.u LANGUAGE internal IMMUTABLE STRICT AS 'textin';
        CREATE FUNCTION m.uo(m.u) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout';
        CREATE TYPE m.u (INPUT = m.ui, OUTPUT = m.uo, LIKE = text);
        CREATE FUNCTION m.us(m.u) RETURNS bytea LANGUAGE plpgsql IMMUTABLE STRICT AS 'BEGIN RETURN ''same''; END';
        ALTER TYPE m.u SET (SEND = m.us); CREATE TABLE m.a (v m.u); INSERT INTO m.a VALUES ('one')";
    vec![
        one(D, rows, "INSERT INTO m.a VALUES (3, 'z')"),
        one(D, rows, "DELETE FROM m.a WHERE id = 1"),
        one(D, rows, "INSERT INTO m.a VALUES (1, 'x')"),
        one(D, "CREATE TABLE m.a ()", "INSERT INTO m.a DEFAULT VALUES"),
        one(D, family, "INSERT INTO m.p SELECT * FROM ONLY m.c"),
        one(D, parts, "UPDATE m.p SET id = 2"),
        one(D, hidden, "UPDATE m.a SET id = 3 WHERE id = 2"),
        one(
            S,
            "CREATE TABLE m.a (id int PRIMARY KEY, v text); INSERT INTO m.a SELECT -n, n FROM generate_series(1, 3000) n",
            "CLUSTER m.a USING a_pkey",
        ),
        one(S, rows, "UPDATE m.a SET v = v; UPDATE m.a SET v = v WHERE id = 1"),
        of(D, "text", "NULL", "''"),
        of(D, "\"char\"", "NULL", "''"),
        one(
            D,
            "CREATE TYPE m.e AS (x text); CREATE TABLE m.a (v m.e); INSERT INTO m.a VALUES (ROW(NULL))",
            "UPDATE m.a SET v = ROW('')",
        ),
        one(
            D,
            "CREATE TYPE m.e AS (x int, y int); CREATE TABLE m.a (v m.e); INSERT INTO m.a VALUES (NULL)",
            "UPDATE m.a SET v = ROW(NULL, NULL)",
        ),
        of(D, "int[]", "'{NULL}'", "'{}'"),
        of(D, "public.hstore", "'a=>NULL'", "'a=>\"NULL\"'"),
        one(D, "CREATE TABLE m.a (x int, y int); INSERT INTO m.a VALUES (1, 2)", "UPDATE m.a SET x = y, y = x"),
        one(D, rows, "UPDATE m.a SET v = CASE id WHEN 1 THEN 'y' ELSE 'x' END"),
        of(D, "float4", "'0'", "'-0'"),
        of(D, "float8", "'0'", "'-0'"),
        of(D, "float8", "'1'", "'1.0000000000000002'"),
        of(D, "float4", "'1'", "'1.0000001'"),
        of(D, "numeric", "'1.0'", "'1.00'"),
        of(D, "float8", "'Infinity'", "'-Infinity'"),
        of(D, "float8", "'NaN'", "NULL"),
        of(D, "numeric", "'NaN'", "'Infinity'"),
        of(D, "money", "'1.00'", "'1.01'"),
        of(D, "point", "'(1,1)'", "'(1,1.0000000000000002)'"),
        of(S, "float8", "'NaN'", "'Infinity'::float8 - 'Infinity'::float8"),
        of(S, "float4", "'NaN'", "'Infinity'::float4 - 'Infinity'::float4"),
        of(S, "float8[]", "'{NaN}'", "ARRAY['Infinity'::float8 - 'Infinity'::float8]"),
        of(S, "point", "'(NaN,0)'", "point('Infinity'::float8 - 'Infinity'::float8, 0)"),
        of(S, "circle", "'<(0,0),NaN>'", "circle(point(0, 0), 'Infinity'::float8 - 'Infinity'::float8)"),
        of(D, "varchar(9)", "'a'", "'a '"),
        of(D, "text", "U&'\\00e9'", "U&'e\\0301'"),
        of(D, "public.citext", "'a'", "'A'"),
        of(S, "char(5)", "'a'", "'a  '"),
        of(D, "jsonb", "'{\"a\": 1.0}'", "'{\"a\": 1.00}'"),
        of(D, "json", "'{\"a\": 1, \"b\": 2}'", "'{\"b\": 2, \"a\": 1}'"),
        of(D, "json", "'{\"a\": 1}'", "'{\"a\":1}'"),
        of(D, "tsvector", "'a:1A'", "'a:1B'"),
        of(D, "xml", "'<a/>'", "'<a></a>'"),
        of(S, "jsonb", "'{\"a\": 1, \"b\": 2}'", "'{\"b\": 2, \"a\": 1}'"),
        of(S, "tsvector", "'a b'", "'b a'"),
        of(D, "timestamp", "'2026-01-01 00:00:00'", "'2026-01-01 00:00:00.000001'"),
        of(D, "timetz", "'12:00+00'", "'13:00+01'"),
        of(D, "interval", "'1 mon'", "'30 days'"),
        of(S, "timestamptz", "'2026-01-01 12:00+00'", "'2026-01-01 13:00+01'"),
        one(
            D,
            "CREATE TYPE m.e AS ENUM ('x', 'y'); CREATE TABLE m.a (v m.e); INSERT INTO m.a VALUES ('x')",
            "UPDATE m.a SET v = 'y'",
        ),
        of(D, "int[]", "'{1}'", "'[2:2]={1}'"),
        one(
            D,
            "CREATE TYPE m.i AS (x int); CREATE TYPE m.e AS (i m.i); CREATE TABLE m.a (v m.e); INSERT INTO m.a VALUES (ROW(ROW(1)))",
            "UPDATE m.a SET v = ROW(ROW(2))",
        ),
        of(D, "numrange", "'[1,2)'", "'[1,2]'"),
        of(S, "int4range", "'[1,2]'", "'[1,3)'"),
        of(D, "regclass", "'pg_catalog.pg_class'", "'pg_catalog.pg_type'"),
        of(D, "bytea", "'\\x00'", "'\\x'"),
        of(D, "bit varying", "B'1'", "B'10'"),
        of(D, "inet", "'10.0.0.1/8'", "'10.0.0.1/16'"),
        of(D, "aclitem", "'postgres=r/postgres'", "'postgres=w/postgres'"),
        one(
            D,
            "CREATE TABLE m.a (v int, g int GENERATED ALWAYS AS (v / 2) STORED); INSERT INTO m.a VALUES (2)",
            "UPDATE m.a SET v = 4",
        ),
        one(D, constant_cast, "UPDATE m.a SET v = ROW(2)"),
        one(D, constant_send, "UPDATE m.a SET v = 'two'"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mutation_is_seen_as_what_it_is() {
    let server = Server::start();
    server.sql("postgres", "CREATE EXTENSION hstore; CREATE EXTENSION citext");
    let client = connect(&server, "postgres").await;
    let mut wrong = Vec::new();
    let all = mutations();
    assert_eq!(all.len(), 60);
    for (seen, setup, change) in all {
        client
            .batch_execute(&format!("BEGIN; CREATE SCHEMA m; {setup}"))
            .await
            .unwrap_or_else(|e| panic!("{setup}: {e:?}"));
        let tables = tables(&client).await;
        let before = digests(&client, &tables).await;
        client.batch_execute(&change).await.unwrap_or_else(|e| panic!("{change}: {e:?}"));
        let after = digests(&client, &tables).await;
        client.batch_execute("ROLLBACK").await.unwrap();
        if (before != after) != matches!(seen, D) {
            wrong.push(change);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shuffled_heap_and_a_restored_dump_have_the_same_roots() {
    let server = Server::start();
    server.sql("postgres", "CREATE DATABASE source; CREATE DATABASE target");
    server.sql("source", include_str!("edges.sql"));
    let client = connect(&server, "source").await;
    let tables = tables(&client).await;
    let form = |name: &str| tables[&("public".to_owned(), name.to_owned())].form;
    for name in ["numbers", "times", "texts", "bits", "keyed_int", "nothing", "broad"] {
        assert_eq!(form(name), Form::Binary, "{name}");
    }
    for name in ["nested", "shapes", "regs", "extensions"] {
        assert_eq!(form(name), Form::Text, "{name}");
    }
    let before = digests(&client, &tables).await;
    server.sql(
        "source",
        "UPDATE keyed_int SET v = v WHERE id % 3 = 0; UPDATE keyed_text SET n = n; UPDATE no_key SET v = v WHERE v > 5;
         DELETE FROM no_key WHERE v = 3; INSERT INTO no_key SELECT 3 FROM generate_series(1, 500);",
    );
    server.sql(
        "source",
        "VACUUM FULL; CLUSTER keyed_int USING keyed_int_pkey; CLUSTER keyed_text USING keyed_text_k_n_key",
    );
    assert_eq!(digests(&client, &tables).await, before, "a shuffled heap");
    let dump = server.socket().join("dump");
    for (name, arguments, database) in [
        ("pg_dump", ["--format=custom", "--file"], "source"),
        ("pg_restore", ["--exit-on-error", "--dbname=target"], "target"),
    ] {
        let output = server.client(name, database).args(arguments).arg(&dump).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let restored = connect(&server, "target").await;
    let found = digests(&restored, &tables).await;
    for (table, digest) in &before {
        assert_eq!(found.get(table), Some(digest), "{table:?}");
    }
    assert_eq!(before.len(), 22);
}

/// The blocks of a table as the drill reads them.
fn blocks_of(captured: &Captured, number: usize, table: &str) -> (Table, Vec<Block>) {
    let table = baseline(&captured.directory, number).1.remove(table).unwrap();
    let content = table.digest.clone().unwrap();
    let bytes = std::fs::read(captured.directory.join(format!("blocks-{number}.bin"))).unwrap();
    let at = usize::try_from(content.at).unwrap();
    let blocks = decode(&bytes[at..at + usize::try_from(content.blocks).unwrap() * 48], &content).unwrap();
    assert_eq!(table.rows, Some(blocks.iter().map(|block| block.rows).sum()));
    (table, blocks)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_digests_large_tables_in_ranges_and_any_bytes() {
    let server = Server::start();
    server.sql(
        "postgres",
        "CREATE DATABASE orders; CREATE DATABASE bytes ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0",
    );
    server.sql(
        "orders",
        "CREATE TABLE large (id int PRIMARY KEY, pad text);
         INSERT INTO large SELECT n, repeat('x', 700) FROM generate_series(1, 60000) n;
         CREATE TABLE small (id int); INSERT INTO small VALUES (1); CREATE TABLE cell (v bytea);
         INSERT INTO cell SELECT convert_to(repeat('0123456789', 20000000), 'UTF8')",
    );
    server.sql("bytes", "CREATE TABLE odd (v text); INSERT INTO odd VALUES (E'\\xe9')");
    let many = "DO $$ BEGIN FOR n IN 1..3000 LOOP EXECUTE 'CREATE TABLE many_' || n || ' (id int PRIMARY KEY)';
        IF n % 500 = 0 THEN COMMIT; END IF; END LOOP; END $$";
    server.sql("bytes", many);
    let place = Place::new();
    let captured = place.capture(vec![server.info("orders"), server.info("bytes")]).await.unwrap();
    place.verify().await.unwrap();

    let (large, blocks) = blocks_of(&captured, 0, "public.large");
    assert_eq!((large.rows, blocks.len()), (Some(60_000), 60));
    assert_eq!((blocks[0].first, blocks[1].first), (0, 1001 + (1 << 63)), "ranges of keys");
    // The same by one connection in one piece.
    let client = connect(&server, "orders").await;
    let tables = tables(&client).await;
    for (key, (rows, root)) in digests(&client, &tables).await {
        let (table, _) = blocks_of(&captured, 0, &format!("{}.{}", key.0, key.1));
        assert_eq!((table.rows, table.digest.unwrap().root), (Some(rows), root), "{key:?}");
    }
    assert_eq!(blocks_of(&captured, 1, "public.odd").0.rows, Some(1));
    assert_eq!(baseline(&captured.directory, 1).1.len(), 3001);
    let row_digests = captured.directory.join("rowdigests-0.bin").metadata().unwrap().len();
    assert_eq!(row_digests, 8 * 60_002);

    let mut request = place.request(vec![server.info("orders")]);
    request.digests = "*.small".parse().unwrap();
    request.row_digests = false;
    let captured = capture(&request, &Silent, &CancellationToken::new()).await.unwrap();
    let tables = baseline(&captured.directory, 0).1;
    assert!(tables["public.small"].digest.is_some() && tables["public.large"].digest.is_none());
    assert_eq!(tables["public.large"].rows, Some(60_000));
    assert!(captured.manifest.parts[0].row_digests.is_none() && captured.manifest.parts[0].blocks.is_some());

    // The option says how long it takes at least: 60,000 rows of more than 700 bytes.
    let mut request = place.request(vec![server.info("orders")]);
    request.digests = "*.large".parse().unwrap();
    request.max_rate = Some(14_000_000);
    let begin = std::time::Instant::now();
    let captured = capture(&request, &Silent, &CancellationToken::new()).await.unwrap();
    assert!(begin.elapsed() >= std::time::Duration::from_secs(3), "it read faster than it should");
    assert_eq!(blocks_of(&captured, 0, "public.large").1, blocks);
}
