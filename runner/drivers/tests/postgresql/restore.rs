use drill::finding::Severity;
use drill::proof::IsolationProof;
use drill::verdict::Reason;

use crate::source::SourceServer;
use crate::{Silent, TestFn, ask, refused, restored, serve, test};

pub(crate) fn tests() -> Vec<(&'static str, TestFn)> {
    vec![
        test!(a_backup_with_roles_settings_and_partitions_is_restored),
        test!(progress_counts_entries_and_a_missing_tablespace_is_made),
        test!(the_server_lets_nobody_in_without_the_runs_certificate),
        test!(a_backup_without_its_roles_is_restored_with_a_warning_for_each),
        test!(what_the_dump_causes_fails_and_what_isolation_causes_does_not),
        test!(a_damaged_dump_fails_and_a_server_that_dies_is_no_verdict),
    ]
}

const SHOP: &str = r#"
CREATE ROLE app LOGIN PASSWORD 'production';
CREATE ROLE "odd ""name" NOLOGIN;
GRANT app TO "odd ""name";
CREATE DATABASE shop OWNER app;
ALTER DATABASE shop SET default_transaction_read_only = on;
ALTER DATABASE shop SET statement_timeout = '1ms';
ALTER ROLE ALL SET search_path = hostile, public;
ALTER DATABASE shop SET role = 'app';
ALTER DATABASE shop SET session_preload_libraries = 'auto_explain';
COMMENT ON DATABASE shop IS 'a comment';
\connect shop
RESET role;
SET default_transaction_read_only = off;
SET statement_timeout = 0;
CREATE EXTENSION pgcrypto SCHEMA public;
CREATE TABLE public.orders (id bigint PRIMARY KEY, at date NOT NULL, total numeric(12,2)) ;
ALTER TABLE public.orders OWNER TO app;
INSERT INTO public.orders SELECT g, '2026-01-01'::date + g % 365, g FROM generate_series(1, 5000) g;
CREATE TABLE public.events (id int, at date NOT NULL) PARTITION BY RANGE (at);
CREATE TABLE public.events_1 PARTITION OF public.events FOR VALUES FROM ('2026-01-01') TO ('2026-07-01');
CREATE TABLE public.events_2 PARTITION OF public.events FOR VALUES FROM ('2026-07-01') TO ('2027-01-01');
INSERT INTO public.events SELECT g, '2026-01-01'::date + g FROM generate_series(1, 300) g;
CREATE MATERIALIZED VIEW public.totals AS SELECT at, sum(total) FROM public.orders GROUP BY at;
CREATE VIEW public.recent AS SELECT * FROM public.orders;
GRANT SELECT ON public.orders TO "odd ""name";
"#;

async fn a_backup_with_roles_settings_and_partitions_is_restored() {
    let source = SourceServer::start().await;
    source.sql(SHOP).await;
    let backup = source.dump(&["shop", "postgres"], &["pgcrypto"]).await;
    for jobs in [1, 2] {
        let (running, restored) = restored(&backup, jobs).await;
        let server = running.server.as_ref();
        assert_eq!(restored.findings, [], "jobs {jobs}");
        assert_eq!(restored.databases, ["shop", "postgres"]);
        assert!(restored.note.ends_with("entries, 2 databases"), "{}", restored.note);
        assert_eq!(ask(server, "shop", "SELECT count(*) FROM public.orders").await, "5000");
        assert_eq!(ask(server, "shop", "SELECT count(*) FROM public.events").await, "300");
        assert_eq!(ask(server, "shop", "SELECT count(*) > 0 FROM public.totals").await, "t");
        let owner = "SELECT pg_catalog.pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'shop'";
        assert_eq!(ask(server, "shop", owner).await, "app");
        assert_eq!(ask(server, "shop", "SHOW role").await, "none");
        assert_eq!(ask(server, "shop", "SHOW search_path").await, "pg_catalog,pg_temp");
        let who = "SELECT string_agg(rolname, ',') FROM pg_authid WHERE rolcanlogin";
        assert_eq!(ask(server, "shop", who).await, "muster_sandbox", "nobody else logs in");
        let settings = "SELECT count(*) FROM pg_db_role_setting";
        // pg_dumpall knows the settings of a role and of a database, and leaves out those of `ALTER ROLE ALL`.
        assert_eq!(ask(server, "shop", settings).await, "1", "the backup's settings are there");
        server.stop().await.expect("it stops");
        assert!(server.gone().await.message.contains("ended"));
        running.end().await;
    }
}

async fn progress_counts_entries_and_a_missing_tablespace_is_made() {
    struct Seen(std::sync::Mutex<Vec<(u64, Option<u64>)>>);
    impl drill::port::Progress for Seen {
        fn set(&self, done: u64, total: Option<u64>, unit: &str) {
            assert_eq!(unit, "entries");
            self.0.lock().expect("a lock").push((done, total));
        }
    }
    let source = SourceServer::start().await;
    source
        .sql(
            "SET allow_in_place_tablespaces = on; CREATE TABLESPACE fast LOCATION ''; CREATE DATABASE d TABLESPACE fast;\n\\connect d\nCREATE TABLE t (a int); INSERT INTO t SELECT generate_series(1, 2000000);",
        )
        .await;
    let backup = source.dump(&["d"], &[]).await;
    let running = serve(&backup, 2).await;
    let seen = Seen(std::sync::Mutex::default());
    let restored = running.server.restore(&backup.manifest, &seen).await.expect("restored");
    assert_eq!(restored.findings[0].subject, "tablespace fast");
    let seen = seen.0.into_inner().expect("a lock");
    let (last, total) = seen.last().copied().expect("some progress");
    assert_eq!(Some(last), total);
    assert!(seen.len() > 1 && seen.is_sorted(), "{seen:?}");
    running.end().await;
}

async fn the_server_lets_nobody_in_without_the_runs_certificate() {
    let source = SourceServer::start().await;
    let backup = source.dump(&["postgres"], &[]).await;
    let running = serve(&backup, 1).await;
    let proof = IsolationProof { probes: running.server.probe().await.expect("probes") };
    proof.judge().expect("the proof holds");
    assert_eq!((proof.closed(), proof.controls()), (4, 2));
    for probe in &proof.probes {
        assert!(!probe.detail.is_empty(), "{probe:?}");
    }
    assert_eq!(running.server.connections(), [""; 0], "the runner's own are left out");
    running.end().await;
}

async fn a_backup_without_its_roles_is_restored_with_a_warning_for_each() {
    let source = SourceServer::start().await;
    source.sql(SHOP).await;
    let mut backup = source.dump(&["shop"], &["pgcrypto"]).await;
    backup.manifest.globals = None;
    let (running, restored) = restored(&backup, 2).await;
    let subjects: Vec<&str> = restored.findings.iter().map(|finding| finding.subject.as_str()).collect();
    assert_eq!(subjects, ["roles", "app", "odd \"name"]);
    assert!(restored.findings.iter().all(|finding| finding.severity == Severity::Warning));
    running.end().await;
}

async fn what_the_dump_causes_fails_and_what_isolation_causes_does_not() {
    let source = SourceServer::start().await;
    source
        .sql(
            "CREATE DATABASE twice; CREATE DATABASE outside; CREATE DATABASE roleless;\n\
             \\connect twice\nCREATE TABLE t (a int); INSERT INTO t VALUES (1), (1);\n\
             CREATE FUNCTION f() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';\n\
             CREATE MATERIALIZED VIEW m AS SELECT 1 / (SELECT count(*) FROM t) AS x;\n\
             DELETE FROM t;\n\
             \\connect outside\nCREATE EXTENSION dblink;\n\
             CREATE FUNCTION away() RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN\n\
               IF pg_catalog.current_setting('port') = '5432' AND pg_catalog.current_setting('ssl') = 'off' THEN RETURN 1; END IF;\n\
               RETURN (SELECT x FROM public.dblink('host=192.0.2.1 connect_timeout=1', 'SELECT 1') AS t(x bigint));\n\
             END $$;\n\
             CREATE MATERIALIZED VIEW remote AS SELECT public.away() AS x;\n\
             \\connect roleless\nCREATE ROLE bob; CREATE TABLE t (a int); ALTER TABLE t OWNER TO bob;",
        )
        .await;
    let stop = refused(&source.dump(&["twice"], &[]).await, 2).await;
    assert_eq!(stop.reason, Reason::RestoreFailed);
    assert!(stop.message.contains("MATERIALIZED VIEW DATA m") && stop.message.contains("division by zero"), "{stop:?}");

    let (running, restored) = restored(&source.dump(&["outside"], &["dblink"]).await, 1).await;
    assert_eq!(restored.findings.len(), 1, "{:?}", restored.findings);
    assert_eq!(restored.findings[0].severity, Severity::Warning);
    assert!(restored.findings[0].message.starts_with("blocked by isolation"), "{:?}", restored.findings);
    running.end().await;

    let mut roleless = source.dump(&["roleless"], &[]).await;
    roleless.files[0].1 = b"CREATE ROLE postgres;".to_vec();
    let stop = refused(&roleless, 1).await;
    assert_eq!(stop.reason, Reason::RestoreFailed);
    assert!(stop.message.contains("role \"bob\" does not exist"), "{stop:?}");
    assert!(stop.advice.expect("advice").contains("globals.sql"));
}

async fn a_damaged_dump_fails_and_a_server_that_dies_is_no_verdict() {
    let source = SourceServer::start().await;
    source
        .sql("CREATE DATABASE d; \\connect d\nCREATE TABLE t (a text); INSERT INTO t SELECT md5(g::text) FROM generate_series(1, 100000) g;")
        .await;
    let backup = source.dump(&["d"], &[]).await;
    let mut short = source.dump(&["d"], &[]).await;
    let half = short.files[1].1.len() / 2;
    short.files[1].1.truncate(half);
    let stop = refused(&short, 1).await;
    assert_eq!(stop.reason, Reason::RestoreFailed, "{stop:?}");

    let mut nonsense = source.dump(&["d"], &[]).await;
    nonsense.files[1].1 = b"this is no archive".repeat(100);
    let stop = refused(&nonsense, 1).await;
    assert_eq!(stop.reason, Reason::RestoreFailed, "{stop:?}");

    // Roles that end the server while they are restored.
    let mut deadly = backup;
    deadly.files[0].1 =
        b"CREATE ROLE a;\n\\! kill -9 $(head -1 /data/postmaster.pid)\n\\! sleep 1\nCREATE ROLE b;".to_vec();
    let running = serve(&deadly, 1).await;
    let stop = running.server.restore(&deadly.manifest, &Silent).await.expect_err("the server is gone");
    assert_ne!(stop.reason, Reason::RestoreFailed, "{stop:?}");
    assert!(stop.message.contains("PostgreSQL ended in the sandbox"), "{stop:?}");
    running.end().await;
}
