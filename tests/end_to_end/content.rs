//! What a drill says of a restored database that is not what was backed up.
use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;
use whole_program::{Finished, Place, Server, muster, programs};

/// A type, a value, and another value that a careless comparison would take for the same.
const CHANGES: [(&str, &str, &str); 20] = [
    ("text", "''", "NULL"),
    ("text", "E'e\\u0301'", "E'\\u00e9'"),
    ("varchar(20)", "'a'", "'a '"),
    ("bytea", "'\\x00ff'", "'\\x00fe'"),
    ("int", "1", "2"),
    ("bigint", "9007199254740992", "9007199254740993"),
    ("numeric", "1.0", "1.00"),
    ("float8", "0", "'-0'"),
    ("float4", "1", "1.0000001"),
    ("money", "12.34", "12.35"),
    ("timestamptz", "'2026-11-22 02:15:00.000001+00'", "'2026-11-22 02:15:00.000002+00'"),
    ("timetz", "'12:00:00+00'", "'13:00:00+01'"),
    ("interval", "'1 mon'", "'30 days'"),
    ("jsonb", "'{\"a\": 1.0}'", "'{\"a\": 1.00}'"),
    ("json", "'{\"a\":1}'", "'{\"a\": 1}'"),
    ("inet", "'10.0.0.1/24'", "'10.0.0.1/25'"),
    ("bit varying(8)", "B'101'", "B'1010'"),
    ("int[]", "'[0:0]={1}'", "'{1}'"),
    ("int4range", "'[1,5)'", "'[1,6)'"),
    ("tsvector", "'cat:1A'", "'cat:1B'"),
];

/// Two thousand rows a table, so that the change is in one of two blocks.
fn tables() -> String {
    let table = |(number, (kind, value, _)): (usize, &(&str, &str, &str))| {
        format!(
            "CREATE TABLE t{number} (id int PRIMARY KEY, v {kind});
             INSERT INTO t{number} SELECT g, {value} FROM generate_series(1, 2000) g;\n"
        )
    };
    CHANGES.iter().enumerate().map(table).collect()
}

fn changes() -> String {
    let change = |(number, (_, _, value)): (usize, &(&str, &str, &str))| {
        format!("UPDATE t{number} SET v = {value} WHERE id = {};\n", 1_500 + number)
    };
    CHANGES.iter().enumerate().map(change).collect()
}

const OBJECTS: &str = "
CREATE TABLE keyless (word text);
INSERT INTO keyless SELECT 'word ' || g FROM generate_series(1, 50) g;
CREATE TABLE stays (id int PRIMARY KEY, price numeric(10, 2) DEFAULT 0);
INSERT INTO stays SELECT g, g FROM generate_series(1, 3000) g;
CREATE INDEX by_price ON stays (price);
CREATE FUNCTION tax(numeric) RETURNS numeric LANGUAGE sql AS 'SELECT $1 * 0.19';
CREATE VIEW dear AS SELECT * FROM stays WHERE price > 1000;
CREATE MATERIALIZED VIEW dearest AS SELECT max(price) AS price FROM stays;
";

struct Shop<'a> {
    place: &'a Place,
    server: Server,
}

impl<'a> Shop<'a> {
    fn new(place: &'a Place, sql: &str) -> Self {
        let server = Server::start();
        server.psql("postgres", "CREATE DATABASE shop");
        server.psql("shop", sql);
        muster(place, &["key", "generate", "backup"]).expect(0);
        Self { place, server }
    }

    fn capture(&self, more: &[&str]) {
        let conninfo = self.server.conninfo("shop");
        let capture =
            ["capture", "--name", "shop", "--key", "backup.key", "--out", "backups/shop", "--database", &conninfo];
        muster(self.place, &[&capture[..], more].concat()).expect(0);
    }

    /// Another dump takes the place of the one that was captured, and is signed for.
    fn swap_dump(&self) {
        let directory = self.place.path("backups/shop/latest").canonicalize().expect("it was captured");
        let output = Command::new(programs().join("pg_dump"))
            .args(["--format=custom", "--host", &self.server.host(), "--username", "postgres", "--file"])
            .arg(directory.join("shop.dump"))
            .arg("shop")
            .env("TZ", "UTC")
            .output()
            .expect("it starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let directory = directory.display().to_string();
        muster(self.place, &["manifest", "sign", &directory, "--key", "backup.key"]).expect(0);
    }

    fn drill(&self) -> Finished {
        drill(self.place)
    }
}

/// Of the backup that `latest` leads to, with the default checks.
fn drill(place: &Place) -> Finished {
    let text = "apiVersion: muster.dev/v1\nkind: Drill\nmetadata: { name: shop }\nspec:\n  source: { manifest: backups/shop/latest/manifest.json, trustedKeys: [{ file: backup.pub }] }\n";
    place.write("shop.yaml", text);
    muster(place, &["run", "shop.yaml", "--output", "json"])
}

/// What a check found to be wrong, by subject.
fn failures(run: &Finished, check: &str) -> BTreeMap<String, String> {
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let findings = run.events("finding");
    let wrong = findings.iter().filter(|finding| finding["source"] == check && finding["severity"] == "failure");
    wrong.map(|finding| (text(finding, "subject"), text(finding, "message"))).collect()
}

#[test]
fn each_of_twenty_changed_values_is_named() {
    let place = Place::new();
    let shop = Shop::new(&place, &(tables() + OBJECTS));
    shop.capture(&["--row-digests"]);
    let intact = shop.drill().expect(0);
    assert_eq!(intact.result()["verdict"], "passed");

    shop.server.psql("shop", &changes());
    shop.server.psql("shop", "UPDATE keyless SET word = 'other' WHERE word = 'word 7'");
    shop.server.psql("shop", "DROP INDEX by_price");
    shop.server
        .psql("shop", "CREATE OR REPLACE FUNCTION tax(numeric) RETURNS numeric LANGUAGE sql AS 'SELECT $1 * 0.20'");
    shop.swap_dump();
    let run = shop.drill().expect(1);
    assert_eq!(run.result()["reason"], "check-failed");

    let content = failures(&run, "content");
    for (number, (kind, ..)) in CHANGES.iter().enumerate() {
        let message =
            content.get(&format!("public.t{number}")).unwrap_or_else(|| panic!("{kind} was not seen: {content:#?}"));
        assert!(message.contains("1 of 2 blocks differs"), "{kind}: {message}");
        assert!(message.contains("keys from 1001"), "{kind}: {message}");
        assert!(message.contains("1 row differs"), "{kind}: {message}");
    }
    assert!(content["public.keyless"].contains("1 row differs"), "{content:#?}");
    assert_eq!(content.len(), CHANGES.len() + 1, "{content:#?}");

    let schema = failures(&run, "schema");
    assert!(schema.values().any(|message| message.contains("missing")), "{schema:#?}");
    assert_eq!(schema.len(), 2, "{schema:#?}");
    assert_eq!(failures(&run, "rows"), BTreeMap::new());
    place.assert_nothing_left();
}

#[test]
fn without_row_digests_nobody_says_how_many_rows_differ() {
    let place = Place::new();
    let shop = Shop::new(&place, OBJECTS);
    shop.capture(&[]);
    shop.server.psql("shop", "UPDATE stays SET price = 0 WHERE id IN (5, 6)");
    shop.swap_dump();
    let content = failures(&shop.drill().expect(1), "content");
    let message = &content["public.stays"];
    assert!(
        message.contains("1 of 3 blocks differs") && message.contains("1,000 rows expected and found"),
        "{message}"
    );
    assert!(!message.contains("differ,") && !message.contains("2 rows"), "{message}");
}

#[test]
fn what_was_not_captured_is_left_out_and_said() {
    let place = Place::new();
    let shop = Shop::new(&place, OBJECTS);
    shop.capture(&["--digests", "none"]);
    let run = shop.drill().expect(0);
    let checks: Vec<String> =
        run.events("check-ended").iter().map(|event| event["check"].as_str().unwrap_or_default().to_owned()).collect();
    assert_eq!(checks, ["schema", "rows"]);
}

/// Every built-in type's edge values and every kind of table and object, through a whole drill: what the agent reads of a
/// restored server is what a capture read of the source.
#[test]
fn values_and_objects_of_every_kind_come_back_as_they_were() {
    let place = Place::new();
    let server = Server::start();
    muster(&place, &["key", "generate", "backup"]).expect(0);
    server.psql("postgres", "CREATE DATABASE edges");
    server.psql("postgres", "CREATE DATABASE objects");
    server.psql("postgres", "CREATE ROLE alice; CREATE ROLE bob");
    let large = "SELECT lo_from_bytea(4242, 'x'); SELECT lo_put(4242, 5000000, 'y');
        CREATE TABLE cell (id int PRIMARY KEY, v text); INSERT INTO cell VALUES (1, repeat('0123456789', 3000000));";
    server.psql_script("edges", include_str!("../../runner/drivers/tests/backup/edges.sql"));
    server.psql_script("edges", large);
    server.psql_script("objects", include_str!("../../runner/drivers/tests/backup/schema/fixture.sql"));
    let (edges, objects) = (server.conninfo("edges"), server.conninfo("objects"));
    let capture = ["capture", "--name", "shop", "--key", "backup.key", "--out", "backups/shop"];
    let databases = ["--database", &edges, "--database", &objects];
    muster(&place, &[capture.as_slice(), &databases].concat()).expect(0);
    drop(server);

    let run = drill(&place);
    let wrong: Vec<Value> =
        run.events("finding").into_iter().filter(|finding| finding["severity"] == "failure").collect();
    assert_eq!(wrong, Vec::<Value>::new());
    assert_eq!(run.result()["verdict"], "passed", "{}", run.result());
    place.assert_nothing_left();
}

/// A materialized view that was stale, because a restore fills it anew; an encoding whose bytes have another order; and a
/// database of which no schema could be captured.
#[test]
fn what_is_no_fault_of_the_backup_is_told_and_no_failure() {
    let place = Place::new();
    let shop = Shop::new(
        &place,
        "CREATE TABLE orders (id int PRIMARY KEY);
         INSERT INTO orders SELECT g FROM generate_series(1, 100) g;
         CREATE MATERIALIZED VIEW recent AS SELECT * FROM orders;
         INSERT INTO orders SELECT g FROM generate_series(101, 150) g;",
    );
    let cyrillic =
        "SET client_encoding = UTF8; CREATE TABLE ю (v text); CREATE TABLE а (v text); INSERT INTO а VALUES ('ё')";
    let bytes = "SET client_encoding = SQL_ASCII; CREATE TABLE t (id int); COMMENT ON TABLE t IS E'caf\\xe9'";
    for (database, encoding, sql) in [("koi", "KOI8R", cyrillic), ("bytes", "SQL_ASCII", bytes)] {
        let create = format!("CREATE DATABASE {database} ENCODING {encoding} LOCALE 'C' TEMPLATE template0");
        shop.server.psql("postgres", &create);
        shop.server.psql_script(database, sql);
    }
    let (koi, bytes) = (shop.server.conninfo("koi"), shop.server.conninfo("bytes"));
    shop.capture(&["--database", &koi, "--database", &bytes]);
    let run = shop.drill().expect(0);
    assert_eq!(run.result()["verdict"], "passed", "{}", run.result());
    let findings = run.events("finding");
    let told = |check: &str, subject: &str| {
        let told = findings.iter().find(|finding| finding["source"] == check && finding["subject"] == subject);
        let told = told.unwrap_or_else(|| panic!("{check} said nothing of {subject}: {findings:#?}"));
        (told["database"].clone(), told["severity"].clone(), told["message"].as_str().unwrap_or_default().to_owned())
    };
    for check in ["rows", "content"] {
        let (database, severity, message) = told(check, "public.recent");
        assert_eq!((database, severity), ("shop".into(), "warning".into()));
        assert!(message.contains("a restore refreshes a materialized view"), "{check}: {message}");
    }
    let (database, severity, message) = told("schema", "baseline");
    assert_eq!((database, severity), ("bytes".into(), "info".into()));
    assert_eq!(message, "the backup has no schema of this database to compare with");
    let ended = run.events("check-ended");
    let summary = |database: &str| {
        let schema = ended.iter().find(|ended| ended["check"] == "schema" && ended["database"] == database);
        schema.expect("it ended")["outcome"]["completed"]["summary"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(summary("bytes"), "left out, as there is nothing to compare with");
    assert!(summary("koi").ends_with(" as in the backup"), "{}", summary("koi"));
    place.assert_nothing_left();
}
