//! What a plugin costs, for `make bench`: one line a figure, its name and its value. Give it a directory for the cache.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark")]
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use drill::agent::CheckOutcome;
use drill::finding::Severity;
use drill::spec::{CheckLimits, Grant};
use plugin_host::backend::{
    Backend, Batch, Blame, Catalog, Cells, Column, ColumnData, ColumnInfo, Context, Digest, Error, Objects, Reporter,
    Rows, Scan, Side, Sql, Value,
};
use plugin_host::{Compiler, Component, Host};
use tokio_util::sync::CancellationToken;

const CALLS: usize = 2_000;
const ROWS: u32 = 5_000_000;
/// What a database answers with at a time.
const BATCH: u32 = 1_000;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let directory = PathBuf::from(std::env::args_os().nth(1).expect("a directory for the cache"));
    let host = Host::new().unwrap();
    let cold = least(5, || {
        let fresh = tempfile::tempdir_in(&directory).unwrap();
        // Of its own making: a cache that others can read is refused.
        let compiler = Compiler::open(&fresh.path().join("cache")).unwrap();
        timed(|| compiler.builtin("row-count").unwrap().unwrap())
    });
    let compiler = Compiler::open(&directory.join("cache")).unwrap();
    compiler.builtin("row-count").unwrap().unwrap();
    let warm = least(20, || timed(|| cached(&compiler, &host)));
    println!("compile {}", cold.as_micros());
    println!("load {}", warm.as_micros());

    let component = host.load(&fixture("hostile")).unwrap();
    let options = serde_json::json!({ "act": "behave" });
    let mut calls = Vec::new();
    for _ in 0..CALLS {
        let begun = Instant::now();
        call(&host, &component, &options).await;
        calls.push(begun.elapsed());
    }
    calls.sort_unstable();
    println!("call {}", calls[CALLS / 2].as_micros());

    let component = host.load(&fixture("adds_up")).unwrap();
    let mut reading = Vec::new();
    for _ in 0..3 {
        let begun = Instant::now();
        let said = call(&host, &component, &serde_json::json!({})).await;
        assert!(said.starts_with(&format!("{ROWS} rows,")), "{said}");
        reading.push(begun.elapsed());
    }
    println!("rows {:.0}", f64::from(ROWS) / reading.iter().min().unwrap().as_secs_f64());
}

/// From the runner's cache into the agent's memory.
#[expect(unsafe_code, reason = "compiled code is what is loaded")]
fn cached(compiler: &Compiler, host: &Host) -> Component {
    let code = compiler.builtin("row-count").unwrap().unwrap();
    assert!(code.cached);
    // SAFETY: the compiler's own.
    unsafe { host.load_compiled(plugin_host::builtin("row-count").unwrap(), &code.bytes) }.unwrap()
}

fn least(times: usize, mut measure: impl FnMut() -> Duration) -> Duration {
    (0..times).map(|_| measure()).min().unwrap()
}

fn timed<T>(work: impl FnOnce() -> T) -> Duration {
    let begun = Instant::now();
    let done = work();
    let took = begun.elapsed();
    drop(done);
    took
}

fn fixture(name: &str) -> Vec<u8> {
    let release = "../../tests/fixtures/plugins/target/wasm32-wasip2/release";
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(release).join(name).with_extension("wasm");
    std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}; run `make plugins`", file.display()))
}

/// One instance, one call, and its end.
async fn call(host: &Host, component: &Component, options: &serde_json::Value) -> String {
    let nothing = Arc::new(Nothing);
    let backend = Backend {
        context: Context {
            drill: "orders".to_owned(),
            run: "orders-1".to_owned(),
            engine: "postgresql".to_owned(),
            server_version: "15.4".to_owned(),
            database: "orders".to_owned(),
            databases: vec!["orders".to_owned()],
            started_at: "2026-11-22T02:15:00Z".parse().unwrap(),
            snapshot_time: None,
            recovery_point_objective: None,
            tables: Vec::new(),
        },
        sql: nothing.clone(),
        baseline: None,
        catalog: nothing.clone(),
        digest: nothing.clone(),
        reporter: nothing,
    };
    let grants = BTreeSet::from([Grant::Sql]);
    let limits = CheckLimits { cpu_time: Duration::from_mins(5), ..CheckLimits::default() };
    let outcome = host.run(component, &grants, &limits, options, backend, &CancellationToken::new()).await;
    match outcome.outcome {
        CheckOutcome::Completed { summary } => summary.unwrap_or_default(),
        other => panic!("{other:?}"),
    }
}

/// A database that answers with rows, and nobody who listens.
struct Nothing;

#[async_trait]
impl Sql for Nothing {
    async fn query(&self, _: &str, _: Vec<Value>) -> Result<Box<dyn Rows>, Error> {
        let info = |name: &str, kind: &str| ColumnInfo { name: name.to_owned(), type_name: kind.to_owned() };
        let columns = vec![info("id", "int8"), info("at", "timestamptz"), info("name", "text")];
        let texts = Cells { ends: (1..=BATCH).map(|row| row * 12).collect(), data: vec![b'x'; BATCH as usize * 12] };
        let column = |data| Column { nulls: Vec::new(), data };
        let batch = Batch {
            rows: BATCH,
            columns: vec![
                column(ColumnData::Integers((0..i64::from(BATCH)).collect())),
                column(ColumnData::Timestamps((0..i64::from(BATCH)).collect())),
                column(ColumnData::Texts(texts)),
            ],
        };
        Ok(Box::new(Endless { columns, batch, left: ROWS }))
    }
}

struct Endless {
    columns: Vec<ColumnInfo>,
    batch: Batch,
    left: u32,
}

#[async_trait]
impl Rows for Endless {
    fn columns(&self) -> &[ColumnInfo] {
        &self.columns
    }

    async fn next(&mut self, _: u32) -> Result<Option<Batch>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= BATCH;
        Ok(Some(self.batch.clone()))
    }
}

fn absent() -> Error {
    Error { blame: Blame::Plugin, code: None, message: "there is none".to_owned() }
}

#[async_trait]
impl Catalog for Nothing {
    async fn read(&self, _: Side) -> Result<Box<dyn Objects>, Error> {
        Err(absent())
    }
}

#[async_trait]
impl Digest for Nothing {
    async fn start(&self, _: &str, _: &str) -> Result<Box<dyn Scan>, Error> {
        Err(absent())
    }
}

impl Reporter for Nothing {
    fn finding(&self, _: Severity, _: String, _: String, _: Vec<(String, String)>) {}

    fn progress(&self, _: u64, _: Option<u64>, _: String) {}

    fn metric(&self, _: String, _: Vec<(String, String)>, _: f64) {}

    fn log(&self, _: String) {}
}
