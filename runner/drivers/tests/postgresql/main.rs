//! The engine and the embedded credentials against real servers in real sandboxes.
//!
//! This binary is also muster's own program inside the sandboxes, so it has no harness: `main` looks at its arguments first.
mod catalogue;
mod contract;
mod credentials;
mod host;
mod restore;
mod schema;
mod source;
#[path = "../vault/mod.rs"]
mod vault;

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use drill::id::{DrillName, RunId};
use drill::ledger::Resource;
use drill::port::{
    Engine as _, Inside, Isolation as _, LeaseRequest, Programs, Progress, Restored, Sandbox, SandboxSpec, Server,
};
use drill::spec::{Enforcement, Fidelity, Limits, Postgresql};
use drill::stop::Stop;
use drivers::engine::postgresql::PostgresqlEngine;
use drivers::isolation::local::{LocalConfig, LocalIsolation, inside};

use crate::source::Backup;

pub(crate) type TestFn = fn() -> Pin<Box<dyn Future<Output = ()>>>;

/// `test!(name)` for a list of [`TestFn`]s.
#[macro_export]
macro_rules! test {
    ($name:ident) => {
        (stringify!($name), (|| Box::pin($name())) as $crate::TestFn)
    };
}

/// What the tests share, so that `initdb` runs once for sandboxes and once for sources; gone when `main` ends.
static SHARED: OnceLock<PathBuf> = OnceLock::new();

pub(crate) fn shared() -> &'static Path {
    SHARED.get().expect("main made it")
}

const PATIENCE: Duration = Duration::from_mins(4);
pub(crate) const LIMITS: Limits =
    Limits { memory: Some(1 << 30), disk: Some(4 << 30), processes: 200, enforcement: Enforcement::BestEffort };

fn main() -> ExitCode {
    if let Some(code) = inside::dispatch(std::env::args_os()) {
        return code;
    }
    rustls::crypto::aws_lc_rs::default_provider().install_default().expect("installed once");
    let directory = tempfile::Builder::new().prefix("muster-test-").tempdir().expect("a directory");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory.path(), open).expect("its mode is set");
    SHARED.set(directory.path().to_path_buf()).expect("set once");
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let tests = [restore::tests(), catalogue::tests(), credentials::tests(), vault::tests()].concat();
    let mut failed = 0;
    for (name, test) in tests.into_iter().filter(|(name, _)| name.contains(&filter)) {
        let began = Instant::now();
        let outcome = std::panic::catch_unwind(|| run(test));
        let verdict = if outcome.is_ok() { "ok" } else { "FAILED" };
        eprintln!("test {name} ... {verdict} ({:.1} s)", began.elapsed().as_secs_f64());
        failed += usize::from(outcome.is_err());
    }
    vault::end();
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(test: TestFn) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let patience = if std::env::var_os("MUSTER_BENCH_LEASES").is_some() { PATIENCE * 10 } else { PATIENCE };
    runtime.block_on(async { tokio::time::timeout(patience, test()).await.expect("the test ends in time") });
}

/// A server inside a sandbox.
pub(crate) struct Running {
    pub(crate) server: Arc<dyn Server>,
    sandbox: Arc<dyn Sandbox>,
    isolation: LocalIsolation,
    run: RunId,
}

impl Running {
    pub(crate) fn inside(&self) -> Inside<'_> {
        Inside { server: self.server.as_ref(), sandbox: self.sandbox.as_ref() }
    }

    /// Everything is gone when it returns.
    pub(crate) async fn end(self) {
        self.server.stop().await.expect("it stops");
        let handle = self.sandbox.handle();
        drop((self.server, self.sandbox));
        self.isolation.release(&self.run, Resource::Sandbox, Some(&handle)).await.expect("the sandbox ends");
        self.isolation.release(&self.run, Resource::Storage, None).await.expect("the storage goes");
        let left = self.isolation.leftovers().await.expect("looked");
        assert_eq!(left.into_iter().filter(|left| left.run == self.run).collect::<Vec<_>>(), []);
    }
}

/// A server before the restore.
pub(crate) async fn serve(backup: &Backup, jobs: u32) -> Running {
    let wanted = Postgresql { major: None, jobs, fidelity: Fidelity::Production, settings: [].into() };
    let plan = PostgresqlEngine::new().plan(&backup.manifest, &wanted, Programs::Here).await.expect("the backup fits");
    let program = std::env::current_exe().expect("our own path");
    let isolation = LocalIsolation::new(LocalConfig::new(shared().join("state"), program)).expect("an isolation");
    let drill: DrillName = "test".parse().expect("a name");
    let mut entropy = [0; 4];
    getrandom::fill(&mut entropy).expect("entropy");
    let run = RunId::new(&drill, jiff::Timestamp::now(), entropy);
    let storage = isolation.prepare(&run).await.expect("prepared");
    for (path, contents) in &backup.files {
        std::fs::write(storage.staging.join(path), contents).expect("staged");
    }
    let spec = SandboxSpec { run: run.clone(), limits: LIMITS, inputs: plan.inputs() };
    let sandbox = isolation.provision(spec).await.expect("provisioned");
    let server = plan.serve(Arc::clone(&sandbox)).await.expect("the server starts");
    sandbox.deliver().await.expect("delivered");
    Running { server, sandbox, isolation, run }
}

pub(crate) async fn restored(backup: &Backup, jobs: u32) -> (Running, Restored) {
    let running = serve(backup, jobs).await;
    let restored = running.server.restore(&backup.manifest, &Silent).await.expect("the restore works");
    (running, restored)
}

pub(crate) async fn refused(backup: &Backup, jobs: u32) -> Stop {
    let running = serve(backup, jobs).await;
    let stop = running.server.restore(&backup.manifest, &Silent).await.expect_err("the restore fails");
    running.end().await;
    stop
}

pub(crate) struct Silent;

impl Progress for Silent {
    fn set(&self, _: u64, _: Option<u64>, _: &str) {}
}

pub(crate) fn request(run: &str, databases: &[&str], ttl: Duration) -> LeaseRequest {
    let run: RunId = run.parse().expect("a run");
    let not_after = jiff::Timestamp::now() + jiff::SignedDuration::from_mins(10);
    LeaseRequest { run, databases: databases.iter().map(|name| (*name).to_owned()).collect(), ttl, not_after }
}

/// One cell.
pub(crate) async fn ask(server: &dyn Server, database: &str, query: &str) -> String {
    let rows = server.admin(database, query).await.expect("an answer");
    rows.first().and_then(|row| row[0].clone()).unwrap_or_else(|| "NULL".to_owned())
}
