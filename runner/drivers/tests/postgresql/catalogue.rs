//! What restores of real dumps say: each is classed, and what to do is said. One server makes the dumps; each is restored into a
//! sandbox of its own.
use drill::finding::{Finding, Severity};
use drill::manifest::{DumpFormat, Manifest, Part};
use drill::verdict::Reason;

use crate::source::{Backup, SourceServer, entry};
use crate::{Silent, TestFn, serve, test};

pub(crate) fn tests() -> Vec<(&'static str, TestFn)> {
    vec![test!(what_real_dumps_say_is_classed_and_explained)]
}

/// Of each kind that is known to trouble restores.
const KINDS: &str = r"
CREATE ROLE owner_of_all;
CREATE DATABASE kinds;
\connect kinds
COMMENT ON SCHEMA public IS 'ours';
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO owner_of_all;
COMMENT ON EXTENSION plpgsql IS 'ours';
CREATE EXTENSION pgcrypto;
COMMENT ON EXTENSION pgcrypto IS 'ours';
CREATE TABLE t (a int PRIMARY KEY);
ALTER TABLE t OWNER TO owner_of_all;
INSERT INTO t VALUES (1), (2);
CREATE PUBLICATION p FOR TABLE t;
CREATE SUBSCRIPTION s CONNECTION 'host=192.0.2.1' PUBLICATION p WITH (connect = false);
CREATE COLLATION german (provider = icu, locale = 'de');
SELECT pg_catalog.lo_from_bytea(4711, 'x');
ALTER LARGE OBJECT 4711 OWNER TO owner_of_all;
ALTER DEFAULT PRIVILEGES FOR ROLE owner_of_all GRANT SELECT ON TABLES TO PUBLIC;
CREATE FUNCTION seen() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION seen();
";

enum Expected {
    /// Each finding of the restore holds one of these.
    Harmless(&'static [&'static str]),
    Stops(Reason, &'static str, &'static str),
}

struct Case {
    name: &'static str,
    script: String,
    globals: Option<&'static str>,
    expected: Expected,
}

fn cases(whole: &str, clean: &str, rows: &str) -> Vec<Case> {
    use Expected::{Harmless, Stops};
    let case = |name, script: String, expected| Case { name, script, globals: Some("globals.sql"), expected };
    let change = |from: &str, to: &str| {
        assert!(whole.contains(from), "{from} is in the dump");
        whole.replacen(from, to, 1)
    };
    let more = |statement: &str| {
        change(
            "--\n-- PostgreSQL database dump complete",
            &format!("{statement}\n--\n-- PostgreSQL database dump complete"),
        )
    };
    vec![
        case("whole", whole.to_owned(), Harmless(&[])),
        case("clean", clean.to_owned(), Harmless(&["`--clean` drops"])),
        case(
            "newer client",
            change("SET lock_timeout = 0;", "SET lock_timeout = 0;\nSET transaction_timeout = 0;"),
            Harmless(&["transaction_timeout"]),
        ),
        case(
            "tablespace",
            change("SET default_tablespace = '';", "SET default_tablespace = fast;"),
            Harmless(&["a sandbox has one tablespace"]),
        ),
        case("public", more("CREATE SCHEMA public;\nCREATE LANGUAGE plpgsql;"), Harmless(&["every database has it"])),
        case(
            "access method",
            change("SET default_table_access_method = heap;", "SET default_table_access_method = columnar;"),
            Stops(Reason::SandboxUnfit, "columnar", "table access method"),
        ),
        case(
            "extension",
            whole.replace("pgcrypto", "nosuchext"),
            Stops(Reason::SandboxUnfit, "nosuchext", "install the extension's package"),
        ),
        case(
            "collation",
            more("CREATE TABLE public.c (a text COLLATE \"xx_YY\");"),
            Stops(Reason::SandboxUnfit, "xx_YY", "localedef"),
        ),
        case(
            "setting",
            more("ALTER DATABASE kinds SET transaction_timeout = 0;"),
            Stops(Reason::SandboxUnfit, "transaction_timeout", "the major that knows the setting"),
        ),
        case(
            "language",
            more("ALTER DATABASE kinds SET lc_messages TO 'xx_YY.UTF-8';"),
            Stops(Reason::SandboxUnfit, "lc_messages", "localedef"),
        ),
        case("rows alone", rows.to_owned(), Stops(Reason::RestoreFailed, "does not exist", "--data-only")),
        case(
            "twice",
            more("INSERT INTO public.t VALUES (1);"),
            Stops(Reason::RestoreFailed, "duplicate key value", "holds rows twice"),
        ),
        case(
            "search path",
            more(
                "CREATE FUNCTION public.f() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM t';\nCREATE MATERIALIZED VIEW public.m AS SELECT public.f() AS n;",
            ),
            Stops(Reason::RestoreFailed, "relation \"t\" does not exist", "search_path"),
        ),
        case(
            "newer server",
            more("CREATE TABLE public.x (a int) WITH;"),
            Stops(Reason::RestoreFailed, "syntax error", "its own major"),
        ),
        Case {
            name: "roles",
            script: whole.to_owned(),
            globals: Some("no-roles.sql"),
            expected: Stops(Reason::RestoreFailed, "role \"postgres\" does not exist", "globals.sql"),
        },
    ]
}

async fn what_real_dumps_say_is_classed_and_explained() {
    let source = SourceServer::start().await;
    source.sql(KINDS).await;
    let archive = source.dump(&["kinds"], &["pgcrypto"]).await;
    let whole = source.script(&["--create", "kinds"]).await;
    let clean = source.script(&["--clean", "kinds"]).await;
    let rows = source.script(&["--create", "--data-only", "kinds"]).await;
    let cases = cases(&whole, &clean, &rows);
    let mut files = archive.files.clone();
    files.push(("no-roles.sql".to_owned(), b"SELECT 1;\n".to_vec()));
    files.extend(cases.iter().map(|case| (path(case), case.script.clone().into_bytes())));
    for case in cases {
        // Roles and databases of the case before must not be there.
        let backup = Backup { manifest: manifest(&archive.manifest, &case), files: files.clone() };
        let running = serve(&backup, 1).await;
        let restored = running.server.restore(&backup.manifest, &Silent).await;
        let name = case.name;
        match (case.expected, restored) {
            (Expected::Harmless(words), Ok(restored)) => {
                let told = |finding: &Finding| words.iter().any(|word| finding.message.contains(word));
                assert!(
                    restored.findings.iter().all(|finding| finding.severity == Severity::Info && told(finding)),
                    "{name}: {:?}",
                    restored.findings
                );
                assert_eq!(restored.findings.is_empty(), words.is_empty(), "{name}: {:?}", restored.findings);
            }
            (Expected::Stops(reason, said, advised), Err(stop)) => {
                assert_eq!(stop.reason, reason, "{name}: {stop:?}");
                assert!(stop.message.contains(said), "{name}: {stop:?}");
                assert!(stop.advice.as_deref().is_some_and(|advice| advice.contains(advised)), "{name}: {stop:?}");
            }
            (_, restored) => panic!("{name}: {restored:?}"),
        }
        running.end().await;
    }
}

fn path(case: &Case) -> String {
    format!("{}.sql", case.name.replace(' ', "-"))
}

fn manifest(archive: &Manifest, case: &Case) -> Manifest {
    let part = &archive.parts[0];
    let makes_its_database = case.script.contains("\nCREATE DATABASE ");
    let part = Part {
        format: DumpFormat::Plain,
        files: vec![entry(&path(case))],
        locale: part.locale.clone().filter(|_| makes_its_database),
        ..part.clone()
    };
    Manifest { globals: case.globals.map(entry), parts: vec![part], ..archive.clone() }
}
