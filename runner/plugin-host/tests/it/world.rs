//! A host, the fixtures, a fake database, and somebody who remembers what was reported.
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use drill::agent::CheckOutcome;
use drill::finding::Severity;
use drill::spec::{CheckLimits, Grant};
use plugin_host::backend::{
    Backend, BaselineTable, Batch, Blame, Catalog, Cells, Column, ColumnData, ColumnInfo, Context, Digest, Error,
    Mismatch, Object, Objects, Reporter, Rows, Scan, ScanOutcome, ScanProgress, Side, Sql, TableInfo, Value,
};
use plugin_host::{Component, Host, RunOutcome};
use tokio_util::sync::CancellationToken;

pub(crate) const BOTH: [Grant; 2] = [Grant::Sql, Grant::Baseline];

static HOST: LazyLock<Host> = LazyLock::new(|| Host::new().unwrap());
static HOSTILE: LazyLock<Component> = LazyLock::new(|| host().load(&fixture("hostile")).unwrap());
static ROW_COUNT: LazyLock<Component> = LazyLock::new(|| builtin("row-count"));
static CHECKSUM: LazyLock<Component> = LazyLock::new(|| builtin("checksum"));
static FRESHNESS: LazyLock<Component> = LazyLock::new(|| builtin("freshness"));
static SCHEMA: LazyLock<Component> = LazyLock::new(|| builtin("schema"));

pub(crate) fn host() -> &'static Host {
    &HOST
}

pub(crate) fn hostile() -> &'static Component {
    &HOSTILE
}

pub(crate) fn row_count() -> &'static Component {
    &ROW_COUNT
}

pub(crate) fn checksum() -> &'static Component {
    &CHECKSUM
}

pub(crate) fn freshness() -> &'static Component {
    &FRESHNESS
}

pub(crate) fn schema() -> &'static Component {
    &SCHEMA
}

fn builtin(name: &str) -> Component {
    host().load(plugin_host::builtin(name).unwrap()).unwrap()
}

/// The bytes of a component of tests/fixtures/plugins.
pub(crate) fn fixture(name: &str) -> Vec<u8> {
    let release = "../../tests/fixtures/plugins/target/wasm32-wasip2/release";
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(release).join(name).with_extension("wasm");
    std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}; run `make plugins`", file.display()))
}

pub(crate) fn completed(summary: &str) -> CheckOutcome {
    CheckOutcome::Completed { summary: Some(summary.to_owned()) }
}

/// One call of a check, and all that is around it.
pub(crate) struct Call {
    pub(crate) grants: BTreeSet<Grant>,
    pub(crate) limits: CheckLimits,
    pub(crate) options: serde_json::Value,
    pub(crate) tables: Vec<TableInfo>,
    pub(crate) baseline: Option<Vec<BaselineTable>>,
    pub(crate) sql: Arc<FakeSql>,
    /// By `schema.table`; what is not in here has no digest.
    pub(crate) scans: BTreeMap<String, Result<ScanOutcome, Error>>,
    /// When scans began and ended.
    pub(crate) scanning: Arc<Mutex<Vec<String>>>,
    /// Of the baseline and of the restored database.
    pub(crate) schemas: [Option<Vec<Object>>; 2],
    pub(crate) snapshot_time: Option<jiff::Timestamp>,
    pub(crate) objective: Option<Duration>,
    pub(crate) cancel: CancellationToken,
}

impl Default for Call {
    fn default() -> Self {
        Self {
            grants: BTreeSet::from(BOTH),
            limits: CheckLimits { cpu_time: Duration::from_secs(30), ..CheckLimits::default() },
            options: serde_json::json!({}),
            tables: Vec::new(),
            baseline: None,
            sql: Arc::default(),
            scans: BTreeMap::new(),
            scanning: Arc::default(),
            schemas: [None, None],
            snapshot_time: None,
            objective: None,
            cancel: CancellationToken::new(),
        }
    }
}

impl Call {
    pub(crate) async fn run(self, component: &Component) -> (RunOutcome, Report) {
        let recorder = Arc::new(Recorder::default());
        let context = Context {
            drill: "orders".to_owned(),
            run: "orders-1".to_owned(),
            engine: "postgresql".to_owned(),
            server_version: "15.4".to_owned(),
            database: "orders".to_owned(),
            databases: vec!["orders".to_owned()],
            started_at: "2026-11-22T02:15:00Z".parse().unwrap(),
            snapshot_time: self.snapshot_time,
            recovery_point_objective: self.objective,
            tables: self.tables,
        };
        let reporter: Arc<dyn Reporter> = Arc::clone(&recorder) as Arc<dyn Reporter>;
        let catalog = Arc::new(FakeCatalog(self.schemas));
        let digest = Arc::new(FakeDigest { scans: self.scans, scanning: self.scanning });
        let backend = Backend { context, sql: self.sql, baseline: self.baseline, catalog, digest, reporter };
        let outcome = host().run(component, &self.grants, &self.limits, &self.options, backend, &self.cancel).await;
        (outcome, Arc::into_inner(recorder).expect("the host keeps nothing of a call").0.into_inner().unwrap())
    }
}

/// A scan that found `rows`, and these blocks to be different.
pub(crate) fn scanned(rows: u64, mismatches: Vec<Mismatch>) -> ScanOutcome {
    let blocks_different = mismatches.len() as u64;
    ScanOutcome { rows, root: Some([7; 32]), blocks: blocks_different + 1, blocks_different, mismatches }
}

fn missing(what: &str) -> Error {
    Error { blame: Blame::Plugin, code: None, message: format!("there is no {what}") }
}

struct FakeCatalog([Option<Vec<Object>>; 2]);

#[async_trait]
impl Catalog for FakeCatalog {
    async fn read(&self, side: Side) -> Result<Box<dyn Objects>, Error> {
        let [baseline, restored] = &self.0;
        let objects = match side {
            Side::Baseline => baseline,
            Side::Restored => restored,
        };
        Ok(Box::new(FakeObjects(objects.clone().ok_or_else(|| missing("schema"))?)))
    }
}

struct FakeObjects(Vec<Object>);

#[async_trait]
impl Objects for FakeObjects {
    async fn next(&mut self, max: u32, _bytes: usize) -> Result<Vec<Object>, Error> {
        let page = self.0.len().min(max as usize);
        Ok(self.0.drain(..page).collect())
    }
}

struct FakeDigest {
    scans: BTreeMap<String, Result<ScanOutcome, Error>>,
    scanning: Arc<Mutex<Vec<String>>>,
}

#[async_trait]
impl Digest for FakeDigest {
    async fn start(&self, schema: &str, name: &str) -> Result<Box<dyn Scan>, Error> {
        let outcome = self.scans.get(&format!("{schema}.{name}")).cloned();
        let outcome = outcome.ok_or_else(|| missing("digest of this table"))?;
        self.scanning.lock().unwrap().push(format!("start {name}"));
        Ok(Box::new(FakeScan { name: name.to_owned(), outcome, scanning: Arc::clone(&self.scanning) }))
    }
}

struct FakeScan {
    name: String,
    outcome: Result<ScanOutcome, Error>,
    scanning: Arc<Mutex<Vec<String>>>,
}

#[async_trait]
impl Scan for FakeScan {
    fn progress(&self) -> ScanProgress {
        let rows = self.outcome.as_ref().map_or(0, |outcome| outcome.rows);
        ScanProgress { rows, bytes: rows * 100 }
    }

    async fn finish(self: Box<Self>) -> Result<ScanOutcome, Error> {
        self.scanning.lock().unwrap().push(format!("end {}", self.name));
        self.outcome
    }
}

/// Details or labels.
type Pairs = Vec<(String, String)>;

#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) findings: Vec<(Severity, String, String, Pairs)>,
    pub(crate) progress: Vec<(u64, Option<u64>, String)>,
    pub(crate) metrics: Vec<(String, Pairs, f64)>,
    pub(crate) log: Vec<String>,
}

impl Report {
    /// `severity subject: message`.
    pub(crate) fn lines(&self) -> Vec<String> {
        let line = |(severity, subject, message, _): &(Severity, String, String, _)| {
            format!("{severity:?} {subject}: {message}").to_lowercase()
        };
        self.findings.iter().map(line).collect()
    }
}

#[derive(Default)]
struct Recorder(Mutex<Report>);

impl Reporter for Recorder {
    fn finding(&self, severity: Severity, subject: String, message: String, details: Vec<(String, String)>) {
        self.0.lock().unwrap().findings.push((severity, subject, message, details));
    }

    fn progress(&self, done: u64, total: Option<u64>, unit: String) {
        self.0.lock().unwrap().progress.push((done, total, unit));
    }

    fn metric(&self, name: String, labels: Vec<(String, String)>, value: f64) {
        self.0.lock().unwrap().metrics.push((name, labels, value));
    }

    fn log(&self, message: String) {
        self.0.lock().unwrap().log.push(message);
    }
}

/// Newest time, rows that are later than the backup, all rows.
pub(crate) type Newest = (Option<i64>, i64, i64);

/// Answers counts by the table's quoted name, newest rows by the column's, and a few statements of the fixtures.
#[derive(Default)]
pub(crate) struct FakeSql {
    pub(crate) counts: BTreeMap<String, Result<i64, &'static str>>,
    pub(crate) newest: BTreeMap<String, Result<Newest, &'static str>>,
    pub(crate) statements: Mutex<Vec<String>>,
    pub(crate) arguments: Mutex<Vec<Vec<Value>>>,
    pub(crate) open: Arc<AtomicUsize>,
}

const COUNT: &str = "pg_catalog.count(*) FROM ONLY ";

impl FakeSql {
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    fn count(&self, statement: &str, before: &str) -> Result<i64, &'static str> {
        let table = statement.strip_prefix(before).and_then(|count| count.strip_prefix(COUNT)).ok_or("42601")?;
        self.counts.get(table).copied().unwrap_or(Err("42P01"))
    }

    /// Of several tables, the last one first: a server promises no order.
    fn together(&self, statement: &str) -> Result<Vec<Column>, &'static str> {
        let (mut places, mut counts) = (Vec::new(), Vec::new());
        for (place, one) in (0..).zip(statement.split(" UNION ALL ")) {
            places.insert(0, place);
            counts.insert(0, self.count(one, &format!("SELECT {place}, "))?);
        }
        Ok([places, counts].map(|data| Column { nulls: Vec::new(), data: ColumnData::Integers(data) }).into())
    }
}

#[async_trait]
impl Sql for FakeSql {
    async fn query(&self, statement: &str, arguments: Vec<Value>) -> Result<Box<dyn Rows>, Error> {
        self.statements.lock().unwrap().push(statement.to_owned());
        self.arguments.lock().unwrap().push(arguments);
        let failed = |code: &str| Error {
            blame: Blame::Plugin,
            code: Some(code.to_owned()),
            message: "the server says no".to_owned(),
        };
        let asks = |column: &String| statement.contains(&format!("pg_catalog.max({column})"));
        let newest = self.newest.iter().find(|(column, _)| asks(column)).map(|(_, newest)| newest);
        let one = |data| vec![Column { nulls: Vec::new(), data }];
        let data = match statement {
            _ if newest.is_some() => newest_row(newest.copied().unwrap().map_err(failed)?),
            "SELECT 1" => one(ColumnData::Integers(vec![1])),
            "SELECT pg_sleep" => {
                tokio::time::sleep(Duration::from_millis(700)).await;
                one(ColumnData::Integers(vec![1]))
            }
            "SELECT large" => one(ColumnData::Texts(Cells { ends: vec![2 << 20], data: vec![b'x'; 2 << 20] })),
            together if together.starts_with("SELECT 0, ") => self.together(together).map_err(failed)?,
            count => one(ColumnData::Integers(vec![self.count(count, "SELECT ").map_err(failed)?])),
        };
        let columns = vec![ColumnInfo { name: "one".to_owned(), type_name: "int8".to_owned() }; data.len()];
        let rows = match &data[0].data {
            ColumnData::Integers(values) => u32::try_from(values.len()).unwrap(),
            _ => 1,
        };
        let batch = Some(Batch { rows, columns: data });
        self.open.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(FakeRows { columns, batch, open: Arc::clone(&self.open) }))
    }
}

fn newest_row((newest, ahead, rows): Newest) -> Vec<Column> {
    let time = ColumnData::Timestamps(vec![newest.unwrap_or_default()]);
    let nulls = if newest.is_none() { vec![1] } else { Vec::new() };
    let counts = [ahead, rows].map(|count| Column { nulls: Vec::new(), data: ColumnData::Integers(vec![count]) });
    std::iter::once(Column { nulls, data: time }).chain(counts).collect()
}

struct FakeRows {
    columns: Vec<ColumnInfo>,
    batch: Option<Batch>,
    pub(crate) open: Arc<AtomicUsize>,
}

#[async_trait]
impl Rows for FakeRows {
    fn columns(&self) -> &[ColumnInfo] {
        &self.columns
    }

    async fn next(&mut self, _max_rows: u32) -> Result<Option<Batch>, Error> {
        Ok(self.batch.take())
    }
}

impl Drop for FakeRows {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}
