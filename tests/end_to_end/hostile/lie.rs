//! Backups that lie to the checks: the baseline was signed with the honest database, and the dump is another's.
use std::fs;
use std::path::Path;
use std::process::Command;

use whole_program::{Backup, Finished, Place, Server, captured, muster, programs};

use super::{shell, statement};
use crate::bad_input::{Answer, run};

pub(super) const HONEST: &str = "CREATE TABLE orders (id int PRIMARY KEY, v text NOT NULL);
    INSERT INTO orders SELECT g, 'order ' || g FROM generate_series(1, 100) g;";
/// The same, less one row.
const SHORT: &str = "CREATE TABLE orders (id int PRIMARY KEY, v text NOT NULL);
    INSERT INTO orders SELECT g, 'order ' || g FROM generate_series(1, 99) g;";
pub(super) const CHECKS: &str = "  checks:\n    - { name: schema, plugin: builtin:schema }\n    - { name: rows, plugin: builtin:row-count }\n    - { name: content, plugin: builtin:checksum }\n";

/// Puts the dump of another database of the same name in place of the backup's own, and signs: the worst that a writer of
/// backups with the key can do.
fn replace_dump(backup: &Backup<'_>, sql: &str) {
    replace_dump_from(&programs(), backup, sql, "");
}

/// By the server and the `pg_dump` of one directory of programs; `pg_dump` logs in with `options`.
pub(super) fn replace_dump_from(programs: &Path, backup: &Backup<'_>, sql: &str, options: &str) {
    let server = Server::start_from(programs.to_owned());
    server.psql("postgres", &format!("CREATE DATABASE {}", backup.name));
    server.psql_script(&backup.name, sql);
    let dumped = Command::new(programs.join("pg_dump"))
        .args(["--host", &server.host(), "--username", "postgres", "--format=custom", "--file"])
        .arg(backup.file(".dump"))
        .arg(&backup.name)
        .env("PGOPTIONS", options)
        .status()
        .unwrap();
    assert!(dumped.success());
    backup.sign_again();
}

struct Lie {
    case: &'static str,
    sql: String,
    answer: Answer,
    /// Checks and their subjects that must say so.
    failures: &'static [&'static str],
}

pub(super) fn failing(run: &Finished) -> Vec<String> {
    let findings = run.events("finding").into_iter().filter(|finding| finding["severity"] == "failure");
    findings
        .map(|finding| format!("{} {}", finding["source"].as_str().unwrap(), finding["subject"].as_str().unwrap()))
        .collect()
}

pub(super) const FAILED: Answer = Answer { code: 1, reason: "check-failed", says: &[] };
pub(super) const PROVEN: Answer = Answer { code: 0, reason: "proven", says: &[] };

/// Every object that the backup brought in excess is told by the schema check; what the lie is meant to hide, by the others.
fn lies() -> Vec<Lie> {
    let shadows = "
        CREATE FUNCTION public.same(int, int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT true';
        CREATE OPERATOR public.= (LEFTARG = int, RIGHTARG = int, FUNCTION = public.same);
        CREATE FUNCTION public.int8inc(bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT 100::bigint';
        CREATE AGGREGATE public.count(*) (SFUNC = public.int8inc, STYPE = bigint, INITCOND = '100');
        CREATE FUNCTION public.sha256(bytea) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$ SELECT '\\x00'::bytea $$;
        CREATE FUNCTION public.current_setting(text) RETURNS text LANGUAGE sql AS $$ SELECT 'on'::text $$;
        CREATE VIEW public.pg_class AS SELECT * FROM pg_catalog.pg_class WHERE relname = 'orders';
        ALTER DATABASE lie SET search_path = public, pg_catalog;";
    vec![
        Lie {
            case: "functions, operators, aggregates and views that shadow those of pg_catalog",
            sql: format!("{SHORT}{shadows}"),
            answer: FAILED,
            failures: &["rows public.orders", "content public.orders"],
        },
        Lie {
            case: "a view that says what the table should",
            sql: "CREATE VIEW orders AS SELECT g AS id, 'order ' || g AS v FROM generate_series(1, 100) g".to_owned(),
            answer: FAILED,
            failures: &["schema"],
        },
        Lie {
            case: "rules that rewrite what is written and read",
            sql: format!(
                "{SHORT} CREATE RULE one AS ON INSERT TO orders DO INSTEAD NOTHING; CREATE TABLE other (id int, v text);
                 CREATE RULE \"_RETURN\" AS ON SELECT TO other DO INSTEAD SELECT g AS id, 'order ' || g AS v FROM generate_series(1, 100) g;"
            ),
            answer: FAILED,
            failures: &["schema", "rows public.orders", "content public.orders"],
        },
        Lie {
            case: "row security that hides rows from everybody",
            sql: format!(
                "{HONEST} ALTER TABLE orders ENABLE ROW LEVEL SECURITY; ALTER TABLE orders FORCE ROW LEVEL SECURITY;
                 CREATE POLICY none ON orders USING (pg_catalog.pg_sleep(100) IS NULL);"
            ),
            answer: FAILED,
            failures: &["schema"],
        },
        Lie {
            case: "a row that makes up for a lost one, with another value",
            sql: format!("{SHORT} INSERT INTO orders VALUES (1000, 'made up');"),
            answer: FAILED,
            failures: &["content public.orders"],
        },
        Lie {
            case: "event triggers that refuse whatever comes after the restore",
            sql: format!(
                "{HONEST} CREATE FUNCTION public.no() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
                     RAISE EXCEPTION 'no'; END $$;
                 CREATE EVENT TRIGGER no ON ddl_command_start EXECUTE FUNCTION public.no();"
            ),
            answer: FAILED,
            failures: &["schema"],
        },
        Lie {
            case: "event triggers that delay whatever comes after the restore, without end",
            sql: format!(
                "{HONEST} CREATE FUNCTION public.later() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
                     PERFORM pg_catalog.pg_sleep(1e9); END $$;
                 CREATE EVENT TRIGGER later ON ddl_command_end EXECUTE FUNCTION public.later();"
            ),
            answer: FAILED,
            failures: &["schema"],
        },
    ]
}

#[test]
fn a_lie_to_the_checks_is_found_out() {
    let place = Place::new();
    let backup = captured(&place, "lie", HONEST);
    let mut wrong = Vec::new();
    for lie in lies() {
        replace_dump(&backup, &lie.sql);
        let run = run(&place, &backup.drill_with(CHECKS));
        wrong.extend(lie.answer.differs(lie.case, &run));
        let failing = failing(&run);
        for failure in lie.failures {
            if !failing.iter().any(|found| found.starts_with(failure)) {
                wrong.push(format!("{}: no failure {failure:?} among {failing:?}", lie.case));
            }
        }
        place.assert_nothing_left();
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Rules and event triggers would answer the attempts of the lease in the server's place: those attempts are left out, the catalog
/// answers for them, and the evidence says so.
#[test]
fn an_honest_backup_with_rules_and_event_triggers_passes() {
    let place = Place::new();
    let refuses = "CREATE FUNCTION public.no() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
            IF session_user <> 'postgres' THEN RAISE EXCEPTION '% is for postgres', tg_tag; END IF; END $$;";
    let sql = format!(
        "{HONEST} CREATE RULE kept AS ON INSERT TO orders DO INSTEAD NOTHING;
         CREATE RULE unchanged AS ON UPDATE TO orders DO INSTEAD NOTHING; {refuses}
         CREATE EVENT TRIGGER no ON ddl_command_start EXECUTE FUNCTION public.no();"
    );
    let backup = captured(&place, "honest", &sql);
    let run = run(&place, &backup.drill_with(CHECKS));
    if let Some(difference) = PROVEN.differs("rules and event triggers", &run) {
        panic!("{difference}");
    }
    let report = muster(&place, &["report", "honest"]).expect(0).stdout;
    for said in [
        "did not try to create a schema in honest: an event trigger of the backup would answer",
        "did not try to insert with read-only turned off in honest: every table has rules, which would answer",
        "could not truncate a table in honest (SQLSTATE 42501)",
        "could not hold any right to write that the catalog knows of in honest",
    ] {
        assert!(report.contains(said), "no {said:?} in\n{report}");
    }
    place.assert_nothing_left();
}

/// What a superuser's function does to the catalogs while it is restored, which the checks of the schema join.
#[test]
fn statistics_that_mislead_the_planner_change_no_verdict() {
    let place = Place::new();
    // Where the dump is made there is no sandbox, and nothing is misled. In the sandbox, it is or the restore fails.
    let mislead = format!(
        "{HONEST} CREATE TABLE wide ({});
         CREATE FUNCTION public.mislead() RETURNS int LANGUAGE plpgsql AS $$ DECLARE misled int; BEGIN
             IF pg_catalog.pg_stat_file('/conf/pg_hba.conf', true) IS NULL THEN RETURN 0; END IF;
             DELETE FROM pg_catalog.pg_statistic;
             UPDATE pg_catalog.pg_class SET reltuples = CASE WHEN relkind = 'r' THEN 1e30 ELSE 0 END, relpages = 2147483647
                 WHERE relkind IN ('r', 'i');
             GET DIAGNOSTICS misled = ROW_COUNT;
             IF misled < 200 THEN RAISE EXCEPTION 'only % were misled', misled; END IF;
             RETURN 1; END $$;
         CREATE MATERIALIZED VIEW public.trap AS SELECT public.mislead() AS x;",
        (0..1_000).map(|n| format!("c{n} int CHECK (c{n} > 0)")).collect::<Vec<_>>().join(", ")
    );
    let backup = captured(&place, "stats", &mislead);
    let run = run(&place, &backup.drill_with(CHECKS));
    if let Some(difference) = PROVEN.differs("statistics", &run) {
        panic!("{difference}");
    }
    place.assert_nothing_left();
}

/// A role that muster would make, made before it with other rights, and settings that apply to every login.
#[test]
fn roles_and_settings_named_like_musters_own_change_nothing() {
    let place = Place::new();
    let backup = captured(&place, "roles", HONEST);
    let path = backup.file("globals.sql");
    let globals = fs::read_to_string(&path).unwrap();
    for (case, roles, answer) in [
        (
            "settings for everybody who logs in",
            "ALTER ROLE ALL SET session_preload_libraries = 'auto_explain'; ALTER ROLE ALL SET search_path = public;
             ALTER ROLE ALL SET statement_timeout = '1ms'; ALTER ROLE ALL SET default_transaction_read_only = off;\n",
            PROVEN,
        ),
        (
            "a role of muster's name",
            "CREATE ROLE muster_sandbox LOGIN SUPERUSER PASSWORD 'known';\n",
            Answer { code: 2, reason: "sandbox-unfit", says: &["rename `muster_sandbox` at the source"] },
        ),
        (
            "an end of muster's role",
            "ALTER ROLE muster_sandbox NOSUPERUSER;\n",
            Answer { code: 1, reason: "restore-failed", says: &["must be superuser to alter superuser roles"] },
        ),
    ] {
        fs::write(&path, format!("{roles}{globals}")).unwrap();
        backup.sign_again();
        let run = run(&place, &backup.drill());
        if let Some(difference) = answer.differs(case, &run) {
            panic!("{difference}");
        }
        place.assert_nothing_left();
    }
}

/// `ALTER SYSTEM` in a dump, and lines in the server's own files: what a restart would load, and what a connection would be given.
#[test]
fn settings_that_a_backup_ships_change_nothing() {
    let place = Place::new();
    let alter = "ALTER SYSTEM SET shared_preload_libraries = '/data/evil';
        ALTER SYSTEM SET session_preload_libraries = '/data/evil';
        ALTER SYSTEM SET listen_addresses = '*';
        ALTER SYSTEM SET ssl = off;
        ALTER SYSTEM SET hba_file = '/data/evil.conf';
        DO $$ BEGIN EXECUTE 'COPY (SELECT ''host all all 0.0.0.0/0 trust'') TO ''/data/evil.conf'''; END $$;
        SELECT pg_reload_conf();
        SELECT pg_sleep(0.5);
        ";
    // Where it comes from decides what a file can change, at a reload or later.
    let setting = |name, setting: &str, may_see| {
        let source = format!("(SELECT setting || ' of the ' || source FROM pg_settings WHERE name = '{setting}')");
        statement(name, &format!("DO $x$ BEGIN RAISE EXCEPTION '%', {source}; END $x$"), may_see)
    };
    let attacks = [
        shell(
            "arrived",
            "cat /data/postgresql.auto.conf /data/*/postgresql.auto.conf 2>/dev/null | grep hba_file",
            "/data/evil.conf",
        ),
        setting("ssl", "ssl", "=on of the command line"),
        setting("hba file", "hba_file", "=/conf/pg_hba.conf of the override"),
        setting("addresses", "listen_addresses", "=127.0.0.1 of the command line"),
        shell("own conf", "echo \"ssl = off\" >>/conf/postgresql.conf", "Read-only file system"),
        shell("own hba", "echo \"host all all 0.0.0.0/0 trust\" >>/conf/pg_hba.conf", "Read-only file system"),
    ];
    let dump = super::script(&place, "settings", &format!("{alter}{}", super::sql("SELECT", &attacks)));
    let run = muster(&place, &["run", "--dump", &dump, "--output", "json"]);
    place.assert_nothing_left();
    super::all_held(&run, &attacks);
    assert_eq!(run.expect(0).result()["reason"], "proven");
}

/// Whatever a backup can make a server say is shown without steering the terminal.
#[test]
fn escape_codes_in_errors_reach_no_terminal() {
    let place = Place::new();
    let evil = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{1b}[31m\u{202e}\r\u{8}\u{9b}31m";
    let dump = super::script(
        &place,
        "escapes",
        &format!(
            "DO $$ BEGIN RAISE WARNING '{evil}'; RAISE EXCEPTION '{evil}' USING DETAIL = '{evil}', HINT = '{evil}'; END $$;\n"
        ),
    );
    let shown = muster(&place, &["run", "--dump", &dump]).expect(1);
    let steering = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
    assert!(
        !shown.stdout.contains(steering) && !shown.stderr.contains(steering),
        "{:?} {:?}",
        shown.stdout,
        shown.stderr
    );
    let report = muster(&place, &["report", "escapes"]).expect(0);
    assert!(!report.stdout.contains(steering), "{:?}", report.stdout);
    place.assert_nothing_left();
}

/// A function of the server called with what it does not expect: the server crashes, and starts again.
#[test]
fn a_dump_that_crashes_the_server_is_said() {
    let place = Place::new();
    let crash = "CREATE FUNCTION public.crash(bigint) RETURNS int LANGUAGE internal STRICT AS 'textlen';\nSELECT public.crash(1);\n";
    let dump = super::script(&place, "crash", crash);
    let run = muster(&place, &["run", "--dump", &dump, "--output", "json"]);
    place.assert_nothing_left();
    let answer = Answer { code: 2, reason: "sandbox-unfit", says: &["connection to server was lost"] };
    if let Some(difference) = answer.differs("a crash", &run) {
        panic!("{difference}");
    }
}
