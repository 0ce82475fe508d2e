//! Capture from real servers.
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use drill::baseline::{Header, Table, TableKind};
use drill::port::Progress;
use drill::spec::TrustedKey;
use drill::stop::Stop;
use drivers::artifact::file::FileBackup;
use drivers::engine::postgresql::capture::{
    CaptureRequest, Captured, ConnInfo, Digests, Environment, LEAST_ROLE, capture,
};
use drivers::key::{SigningKey, Trust, generate};
use tokio_util::sync::CancellationToken;

use crate::server::Server;

pub(crate) struct Silent;

impl Progress for Silent {
    fn set(&self, _: u64, _: Option<u64>, _: &str) {}
}

pub(crate) struct Place {
    pub directory: tempfile::TempDir,
    key: PathBuf,
}

impl Place {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let key = generate(&directory.path().join("backup"), None).unwrap().secret;
        Self { directory, key }
    }

    pub(crate) fn out(&self) -> PathBuf {
        self.directory.path().join("orders")
    }

    pub(crate) fn trust(&self) -> Trust {
        Trust::load(&[TrustedKey::File("backup.pub".to_owned())], self.directory.path()).unwrap()
    }

    pub(crate) fn request(&self, databases: Vec<ConnInfo>) -> CaptureRequest {
        CaptureRequest {
            name: "orders".to_owned(),
            databases,
            key: SigningKey::load(&self.key, None).unwrap(),
            out: self.out(),
            digests: Digests::All,
            row_digests: true,
            jobs: 3,
            max_rate: None,
            lock_timeout: Duration::from_secs(2),
            environment: Environment::of_this_process(),
        }
    }

    pub(crate) async fn capture(&self, databases: Vec<ConnInfo>) -> Result<Captured, Stop> {
        capture(&self.request(databases), &Silent, &CancellationToken::new()).await
    }

    pub(crate) async fn verify(&self) -> Result<(), Stop> {
        let backup = FileBackup::open(&self.out().join("latest/manifest.json"), &self.trust())?;
        backup.verify(&Silent).await
    }

    /// Names in the directory that backups go to.
    fn names(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.out()) else { return Vec::new() };
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

pub(crate) fn baseline(directory: &Path, number: usize) -> (Header, BTreeMap<String, Table>) {
    let text = std::fs::read_to_string(directory.join(format!("baseline-{number}.jsonl"))).unwrap();
    let (header, tables) = text.split_once('\n').unwrap();
    let tables = tables.lines().map(|line| serde_json::from_str::<Table>(line).unwrap());
    (
        serde_json::from_str(header).unwrap(),
        tables.map(|table| (format!("{}.{}", table.schema, table.name), table)).collect(),
    )
}

pub(crate) const SAMPLE: &str = r#"
CREATE SCHEMA "odd ""schema";
CREATE TABLE "odd ""schema"."tä ble'; DROP" ("a b" int, "c""d" text);
INSERT INTO "odd ""schema"."tä ble'; DROP" SELECT n, n FROM generate_series(1, 7) n;
CREATE TABLE plain (id bigint PRIMARY KEY, price numeric(12,2) NOT NULL, note text);
INSERT INTO plain SELECT n, n, repeat('x', 100) FROM generate_series(1, 5000) n;
CREATE TABLE nothing ();
INSERT INTO nothing DEFAULT VALUES; INSERT INTO nothing DEFAULT VALUES;
CREATE TABLE empty (id int);
CREATE TABLE parted (day date, n int) PARTITION BY RANGE (day);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE parted_2 PARTITION OF parted DEFAULT;
INSERT INTO parted SELECT '2026-01-01'::date + n, n FROM generate_series(0, 40) n;
CREATE TABLE parent (id int); CREATE TABLE child (more int) INHERITS (parent);
INSERT INTO parent VALUES (1); INSERT INTO child VALUES (2, 3), (4, 5);
CREATE MATERIALIZED VIEW seen AS SELECT * FROM plain WHERE id <= 10;
CREATE MATERIALIZED VIEW unseen AS SELECT * FROM plain WITH NO DATA;
CREATE VIEW looking AS SELECT * FROM plain;
CREATE FOREIGN DATA WRAPPER nowhere; CREATE SERVER there FOREIGN DATA WRAPPER nowhere;
CREATE FOREIGN TABLE far (id int) SERVER there;
CREATE UNLOGGED TABLE quick (id int); INSERT INTO quick VALUES (1);
CREATE TABLE guarded (id int); INSERT INTO guarded VALUES (1), (2);
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
CREATE POLICY one ON guarded USING (id = 1);
CREATE SEQUENCE counter;
"#;

fn sampled() -> Server {
    let server = Server::start();
    server.sql("postgres", "CREATE DATABASE orders");
    server.sql("orders", SAMPLE);
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_is_verified_and_describes_the_database() {
    let server = sampled();
    server.sql("postgres", "CREATE ROLE app LOGIN PASSWORD 'hunter2'; CREATE DATABASE \"o=d 'd\"");
    let place = Place::new();
    let captured = place.capture(vec![server.info("orders"), server.info("o=d 'd")]).await.unwrap();
    place.verify().await.unwrap();

    let (header, tables) = baseline(&captured.directory, 0);
    assert_eq!((header.database.as_str(), header.tables), ("orders", tables.len() as u64));
    let rows: BTreeMap<&str, Option<u64>> = tables.iter().map(|(name, table)| (name.as_str(), table.rows)).collect();
    let expected = [
        ("odd \"schema.tä ble'; DROP", Some(7)),
        ("public.child", Some(2)),
        ("public.empty", Some(0)),
        ("public.far", None),
        ("public.guarded", Some(2)),
        ("public.nothing", Some(2)),
        ("public.parent", Some(1)),
        ("public.parted", None),
        ("public.parted_1", Some(31)),
        ("public.parted_2", Some(10)),
        ("public.plain", Some(5000)),
        ("public.quick", Some(1)),
        ("public.seen", Some(10)),
        ("public.unseen", None),
    ];
    assert_eq!(rows, expected.into());
    assert_eq!(tables["public.parted_1"].parents, [("public".to_owned(), "parted".to_owned())]);
    assert_eq!(tables["public.parted"].kind, TableKind::Partitioned);
    assert_eq!(tables["public.nothing"].columns, []);
    let price = &tables["public.plain"].columns[1];
    assert_eq!((price.name.as_str(), price.type_name.as_str(), price.not_null), ("price", "numeric(12,2)", true));

    let manifest = &captured.manifest;
    assert_eq!(manifest.parts[0].files[0].path, "orders.dump");
    assert_eq!(
        (manifest.parts[1].database.as_str(), manifest.parts[1].files[0].path.as_str()),
        ("o=d 'd", "database-1.dump")
    );
    assert_eq!(manifest.parts[0].locale.as_ref().unwrap().encoding, "UTF8");
    assert_eq!(manifest.parts[0].extensions[0].name, "plpgsql");
    assert!((jiff::Timestamp::now() - manifest.snapshot_time.unwrap()).total(jiff::Unit::Second).unwrap() < 60.0);
    let globals = std::fs::read_to_string(captured.directory.join("globals.sql")).unwrap();
    assert!(globals.contains("CREATE ROLE app") && !globals.contains("SCRAM-SHA-256"), "{globals}");

    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&captured.directory), 0o700);
    for entry in std::fs::read_dir(&captured.directory).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
    let name = captured.directory.file_name().unwrap();
    assert_eq!(std::fs::read_link(place.out().join("latest")).unwrap(), Path::new(name));
    assert_eq!(place.names().len(), 2, "the backup and the link");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_least_role_that_is_printed_is_enough() {
    let server = sampled();
    server.sql("postgres", &LEAST_ROLE.replace("\\\\password", "password"));
    let place = Place::new();
    place.capture(vec![server.info_as("muster_capture", "orders")]).await.unwrap();
    place.verify().await.unwrap();

    server.sql("postgres", "ALTER ROLE muster_capture NOBYPASSRLS");
    let stop = place.capture(vec![server.info_as("muster_capture", "orders")]).await.unwrap_err();
    assert!(stop.message.contains("guarded"), "{stop}");
    assert!(stop.advice.unwrap().contains("--print-role"));
    server.sql("postgres", "CREATE ROLE nobody LOGIN");
    let stop = place.capture(vec![server.info_as("nobody", "orders")]).await.unwrap_err();
    assert!(stop.message.contains("permission denied") && stop.advice.is_some(), "{stop}");
    assert_eq!(place.names().len(), 2, "only the first one is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_can_be_captured() {
    let server = sampled();
    let standby = server.standby();
    let place = Place::new();
    let captured = place.capture(vec![standby.info("orders")]).await.unwrap();
    place.verify().await.unwrap();
    assert_eq!(baseline(&captured.directory, 0).1["public.plain"].rows, Some(5000));
    assert_eq!(baseline(&captured.directory, 0).1["public.quick"].rows, Some(0));
    assert!(captured.warnings.iter().any(|warning| warning.contains("unlogged")), "{:?}", captured.warnings);
}

/// Rows of every table of a dump, as a restore of it shows them.
fn restored(server: &Server, captured: &Captured, database: &str) -> BTreeMap<String, u64> {
    server.sql("postgres", &format!("CREATE DATABASE {database}"));
    let dump = captured.directory.join(&captured.manifest.parts[0].files[0].path);
    let output = server
        .client("pg_restore", database)
        .args(["--exit-on-error", "--no-password", "--dbname", database])
        .arg(&dump)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let query = "SELECT format('SELECT %L, count(*) FROM ONLY %I.%I', nspname || '.' || relname, nspname, relname)
        FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
        WHERE relkind IN ('r', 'm') AND relispopulated AND nspname !~ '^pg_' AND nspname <> 'information_schema'";
    let queries = server.sql(database, query).lines().collect::<Vec<_>>().join(" UNION ALL ");
    let rows = server.sql(database, &queries);
    let pair = |line: &str| line.rsplit_once('|').map(|(name, rows)| (name.to_owned(), rows.parse().unwrap()));
    rows.lines().filter_map(pair).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_baseline_is_the_dumps_while_everybody_writes() {
    let server = sampled();
    let writer = server.psql("orders")
        .args(["-c", "DO $$ BEGIN LOOP INSERT INTO plain SELECT coalesce(max(id), 0) + 1, 1 FROM plain; DELETE FROM empty; \
                      INSERT INTO empty VALUES (1), (2); INSERT INTO parted VALUES (now(), 1); COMMIT; END LOOP; END $$"])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut writer = Ended(writer);
    let place = Place::new();
    for round in 0..3 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let captured = place.capture(vec![server.info("orders")]).await.unwrap();
        let counted: BTreeMap<String, u64> = baseline(&captured.directory, 0)
            .1
            .into_iter()
            .filter_map(|(name, table)| Some((name, table.rows?)))
            .collect();
        assert_eq!(counted, restored(&server, &captured, &format!("again_{round}")));
        assert!(counted["public.plain"] > 5000);
    }
    assert!(writer.0.try_wait().unwrap().is_none(), "the writer wrote to the end");
}

struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn truncate_and_drop_meanwhile_change_nothing_or_stop_it() {
    let server = sampled();
    server.sql("orders", "CREATE TABLE turned AS SELECT generate_series(1, 1000) AS id");
    let meddle = "DO $$ BEGIN FOR round IN 1..100000 LOOP
        BEGIN
            TRUNCATE turned; INSERT INTO turned SELECT generate_series(1, 1000);
            DROP TABLE IF EXISTS passing; CREATE TABLE passing (id int);
        END;
        COMMIT; PERFORM pg_sleep(1); END LOOP; END $$";
    let meddler = server.psql("orders").args(["-c", meddle]).stderr(std::process::Stdio::null()).spawn().unwrap();
    let _meddler = Ended(meddler);
    let place = Place::new();
    let mut made = 0;
    for round in 0..4 {
        match place.capture(vec![server.info("orders")]).await {
            Ok(captured) => {
                made += 1;
                let tables = baseline(&captured.directory, 0).1;
                assert_eq!(tables["public.turned"].rows, Some(1000), "TRUNCATE is not MVCC-safe");
                assert_eq!(restored(&server, &captured, &format!("turned_{round}"))["public.turned"], 1000);
            }
            Err(stop) => assert!(stop.message.contains("created, dropped or locked"), "{stop}"),
        }
    }
    assert!(made > 0, "not one capture got through");
    assert!(place.names().iter().all(|name| !name.starts_with('.')), "{:?}", place.names());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_stronger_lock_does_not_stop_the_counting() {
    let server = sampled();
    server.sql("orders", "CREATE TABLE big AS SELECT n, md5(n::text) FROM generate_series(1, 300000) n");
    let place = Place::new();
    let meddler = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            for _ in 0..20 {
                let _ = server
                    .try_sql("orders", "SET lock_timeout = '300ms'; LOCK TABLE big, plain IN ACCESS EXCLUSIVE MODE");
                std::thread::sleep(Duration::from_millis(30));
            }
        });
        let runtime = tokio::runtime::Handle::current();
        let captured = tokio::task::block_in_place(|| runtime.block_on(place.capture(vec![server.info("orders")])));
        waiting.join().unwrap();
        captured
    });
    let captured = meddler.unwrap();
    assert_eq!(baseline(&captured.directory, 0).1["public.big"].rows, Some(300_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_capture_leaves_nothing() {
    let server = sampled();
    server.sql("orders", "CREATE TABLE big AS SELECT n, md5(n::text) FROM generate_series(1, 400000) n");
    let place = Place::new();
    for pause in [0, 50, 100, 200, 300, 400] {
        let cancel = CancellationToken::new();
        let request = place.request(vec![server.info("orders")]);
        let (captured, ()) = tokio::join!(capture(&request, &Silent, &cancel), async {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            cancel.cancel();
        });
        match captured {
            Err(stop) => assert_eq!(stop.reason, drill::verdict::Reason::Interrupted, "{stop}"),
            Ok(captured) => std::fs::remove_dir_all(captured.directory).unwrap(),
        }
        let _ = std::fs::remove_file(place.out().join("latest"));
        assert_eq!(place.names(), Vec::<String>::new());
    }
    let query = "SELECT count(*) FROM pg_stat_activity WHERE application_name IN ('muster capture', 'pg_dump')";
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while server.sql("postgres", query) != "0" {
        assert!(std::time::Instant::now() < deadline, "a connection is still there");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
