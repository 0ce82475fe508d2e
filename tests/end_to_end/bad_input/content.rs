//! Databases that are fine and unusual: they pass, and nothing of them reaches a terminal as it is.
use std::fmt::Write as _;
use std::fs;

use whole_program::{Backup, Place, captured, muster, on_terminal};

use super::{Answer, expect};

const PROVEN: Answer = Answer { code: 0, reason: "proven", says: &[] };

/// Quotes, newlines, 63 bytes, other scripts, terminal escapes, and names that shells, JSON and SQL would read as theirs.
const NAMES: [&str; 13] = [
    "it's \"quoted\"",
    "two\nlines",
    "tab\tand\rreturn",
    "\u{1b}[2J\u{1b}[31mred\u{1b}]0;title\u{7}",
    "\u{202e}reversed",
    "größe 日本語 🙂",
    "-- ; DROP TABLE x; \\",
    "$(touch /tmp/x)`id`",
    "--help",
    "{\"a\":1}",
    "%s %n {} ${x}",
    " ",
    "sixty-three-bytes-sixty-three-bytes-sixty-three-bytes-sixty-thr",
];

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn names() -> String {
    let mut sql = String::new();
    for name in NAMES {
        let quoted = quoted(name);
        let text = name.replace('\'', "''");
        writeln!(
            sql,
            "CREATE SCHEMA {quoted}; CREATE TABLE {quoted}.{quoted} ({quoted} text PRIMARY KEY);
             INSERT INTO {quoted}.{quoted} VALUES ('{text}'); COMMENT ON TABLE {quoted}.{quoted} IS '{text}';"
        )
        .expect("a string takes it");
    }
    sql
}

#[test]
fn names_of_every_kind_pass_and_are_shown_without_steering_the_terminal() {
    let place = Place::new();
    let backup = captured(&place, "names", &names());
    expect(&place, &backup.drill(), "as captured", PROVEN);

    // A row more in every baseline: each name is shown.
    let baseline = backup.file("baseline-0.jsonl");
    let lines: Vec<String> = fs::read_to_string(&baseline)
        .unwrap()
        .lines()
        .map(|line| {
            let mut table: serde_json::Value = serde_json::from_str(line).unwrap();
            if let Some(rows) = table["rows"].as_u64() {
                table["rows"] = (rows + 1).into();
            }
            table.to_string()
        })
        .collect();
    fs::write(&baseline, lines.join("\n") + "\n").unwrap();
    backup.sign_again();
    let drill = backup.drill();
    let run = expect(&place, &drill, "rows that are missing", Answer { code: 1, reason: "check-failed", says: &[] });
    let failures = run.events("finding").into_iter().filter(|finding| finding["severity"] == "failure").count();
    assert!(failures >= NAMES.len(), "{failures} findings");

    let plain = muster(&place, &["run", &drill]).expect(1);
    clean(&plain.stdout);
    clean(&plain.stderr);
    for output in ["text", "json", "html"] {
        let report = muster(&place, &["report", "names", "--output", output]).expect(0);
        clean(&report.stdout);
    }
    let (shown, _) = on_terminal(&place, 100, &[("TERM", "dumb")], &["run", &drill]);
    clean(&shown);
}

#[track_caller]
fn clean(shown: &str) {
    let steering = |c: char| c != '\n' && (c.is_control() || "\u{202e}\u{2066}\u{200b}".contains(c));
    assert!(!shown.contains(steering), "{shown:?}");
}

/// Each passes, and a check compares every table of it.
#[test]
fn tables_of_unusual_shapes_pass() {
    let columns = |many: u32| (1..=many).map(|n| format!("c{n} int DEFAULT {n}")).collect::<Vec<_>>().join(", ");
    let place = Place::new();
    let sql = format!(
        "CREATE TABLE no_key (a int); INSERT INTO no_key SELECT g % 7 FROM generate_series(1, 100) g;
         CREATE TABLE no_key_at_all (a int, b text); INSERT INTO no_key_at_all VALUES (1, 'x'), (1, 'x'), (NULL, NULL);
         CREATE TABLE empty (id int PRIMARY KEY); CREATE TABLE no_columns (); INSERT INTO no_columns DEFAULT VALUES;
         CREATE TABLE widest ({}); INSERT INTO widest DEFAULT VALUES; {OBJECTS}",
        columns(1_600)
    );
    let backup = captured(&place, "shapes", &sql);
    let checks = "  checks:\n    - { name: schema, plugin: builtin:schema }\n    - { name: rows, plugin: builtin:row-count }\n    - { name: content, plugin: builtin:checksum }\n";
    let run = expect(&place, &backup.drill_with(checks), "unusual shapes", PROVEN);
    let findings = run.events("finding");
    let wrong: Vec<_> = findings.iter().filter(|finding| finding["severity"] == "failure").collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// What the sample has not: kinds that a tool might meet for the first time in a disaster.
const OBJECTS: &str = "
CREATE TYPE colour AS ENUM ('red', 'it''s green'); CREATE TYPE pair AS (a int, b colour[]);
CREATE DOMAIN positive AS int CHECK (VALUE > 0); CREATE TYPE span AS RANGE (subtype = float8);
CREATE TABLE kinds (id positive PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED, p pair, r span,
    colours colour[], many span[], document oid);
INSERT INTO kinds (id, p, r, colours, many, document) SELECT g, ROW(g, '{red}')::pair, span(g, g + 1), '{red,\"it''s green\"}'::colour[],
    ARRAY[span(1, 2)], lo_from_bytea(0, repeat('x', 5000)::bytea) FROM generate_series(1, 5) g;
CREATE UNLOGGED TABLE unlogged (a int PRIMARY KEY); INSERT INTO unlogged VALUES (1), (2);
CREATE EXTENSION file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
CREATE FOREIGN TABLE elsewhere (line text) SERVER files OPTIONS (filename '/nonexistent/file');
CREATE TABLE parent (a int); CREATE TABLE child (b int) INHERITS (parent); INSERT INTO parent VALUES (1);
INSERT INTO child VALUES (2, 3);
CREATE TABLE secret (owner name, v int); ALTER TABLE secret ENABLE ROW LEVEL SECURITY; ALTER TABLE secret FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON secret USING (owner = current_user); INSERT INTO secret VALUES ('a', 1), ('b', 2);
CREATE TABLE ruled (a int); INSERT INTO ruled VALUES (1);
CREATE RULE nothing AS ON INSERT TO ruled DO INSTEAD NOTHING; CREATE RULE none AS ON DELETE TO ruled DO INSTEAD NOTHING;
CREATE FUNCTION noted() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'noted'; END $$;
CREATE EVENT TRIGGER noted ON ddl_command_end EXECUTE FUNCTION noted();
";

/// Labels need the provider that made them: what is missing is a library here, and not a part of the backup.
#[test]
fn a_security_label_without_its_provider_is_said() {
    let place = Place::new();
    let script = "--\n-- PostgreSQL database dump\n--\n\n-- Dumped from database version 15.18\n\
        -- Dumped by pg_dump version 15.18\n\nSET client_encoding = 'UTF8';\nCREATE TABLE t (a int);\n\
        SECURITY LABEL FOR selinux ON TABLE t IS 'system_u:object_r:sepgsql_table_t:s0';\n\n\
        --\n-- PostgreSQL database dump complete\n--\n";
    place.write("labels.sql", script);
    let run = muster(&place, &["run", "--dump", "labels.sql", "--output", "json"]);
    let answer = Answer { code: 2, reason: "sandbox-unfit", says: &["selinux"] };
    if let Some(difference) = answer.differs("a label", &run) {
        panic!("{difference}");
    }
}

#[test]
#[ignore = "takes a minute: 3,000 tables are made, captured and restored"]
fn three_thousand_tables_pass() {
    let place = Place::new();
    let backup = captured(&place, "many", &many_tables(3_000));
    let run = expect(&place, &backup.drill(), "3,000 tables", PROVEN);
    let ended = run.events("check-ended");
    let rows = ended.iter().find(|ended| ended["check"].as_str().is_some_and(|name| name.contains("row"))).unwrap();
    assert!(rows.to_string().contains("3,000"), "{rows}");
}

/// In transactions of 500: a transaction's locks have a bound.
fn many_tables(count: u32) -> String {
    format!(
        "DO $$ BEGIN FOR g IN 1..{count} LOOP
             EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY, v text)', g);
             EXECUTE format('INSERT INTO t%s VALUES (1, ''x'')', g);
             IF g % 500 = 0 THEN COMMIT; END IF;
         END LOOP; END $$"
    )
}

#[test]
#[ignore = "takes a minute: a row of 200 MB"]
fn a_row_of_200_megabytes_passes() {
    let place = Place::new();
    let sql =
        "CREATE TABLE huge (id int PRIMARY KEY, v text); INSERT INTO huge VALUES (1, repeat('0123456789', 20000000))";
    let backup: Backup<'_> = captured(&place, "huge", sql);
    let checks = "  checks:\n    - { name: rows, plugin: builtin:row-count }\n    - { name: content, plugin: builtin:checksum }\n";
    expect(&place, &backup.drill_with(checks), "200 MB", PROVEN);
}
