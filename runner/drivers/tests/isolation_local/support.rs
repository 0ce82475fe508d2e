//! A state directory, its isolation, and a server inside.
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use drill::id::{DrillName, RunId};
use drill::ledger::Resource;
use drill::port::{Exec, ExecOutput, ExitStatus, Isolation, Sandbox, SandboxInputs, SandboxSpec, Storage, Template};
use drill::spec::{Enforcement, Limits};
use drivers::isolation::local::{LocalConfig, LocalIsolation};

pub(crate) type TestFn = fn(Place) -> Pin<Box<dyn Future<Output = ()>>>;

/// `test!(name)` for a list of [`TestFn`]s.
#[macro_export]
macro_rules! test {
    ($name:ident) => {
        (stringify!($name), (|place| Box::pin($name(place))) as $crate::support::TestFn)
    };
}

pub(crate) const LIMITS: Limits =
    Limits { memory: Some(1 << 30), disk: Some(2 << 30), processes: 100, enforcement: Enforcement::BestEffort };

#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) root: PathBuf,
    pub(crate) isolation: Arc<LocalIsolation>,
    _directory: Arc<tempfile::TempDir>,
}

impl Place {
    pub(crate) fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("muster-isolation-").tempdir().expect("a directory");
        open_to_all(directory.path());
        let root = directory.path().join("state");
        Self { isolation: Arc::new(isolation(&root)), root, _directory: Arc::new(directory) }
    }

    pub(crate) async fn sandbox(&self) -> Held {
        self.sandbox_with(SandboxInputs { port: 5432, ..SandboxInputs::default() }, LIMITS).await
    }

    pub(crate) async fn sandbox_with(&self, inputs: SandboxInputs, limits: Limits) -> Held {
        let run = run_id();
        let storage = self.isolation.prepare(&run).await.expect("prepared");
        let spec = SandboxSpec { run: run.clone(), limits, inputs };
        let sandbox = self.isolation.provision(spec).await.expect("provisioned");
        Held { place: self.clone(), run, storage, sandbox }
    }

    /// The directory that is `/data` inside.
    pub(crate) fn data(&self, run: &RunId) -> PathBuf {
        self.root.join("runs").join(run.as_str()).join("data")
    }

    /// After a test that failed.
    pub(crate) async fn clean_up(&self) {
        for left in self.isolation.leftovers().await.unwrap_or_default().into_iter().rev() {
            let _ = self.isolation.release(&left.run, left.resource, None).await;
        }
    }

    pub(crate) async fn must_be_empty(&self) {
        assert_eq!(self.isolation.leftovers().await.expect("looked"), []);
        let runs = std::fs::read_dir(self.root.join("runs")).expect("read").count();
        assert_eq!(runs, 0, "directories of runs");
        let cache = std::fs::read_dir(self.root.join("cache")).expect("read").flatten();
        let cache: Vec<_> = cache.map(|entry| entry.file_name()).collect();
        assert!(cache.iter().all(|name| !name.to_string_lossy().starts_with(".tmp")), "{cache:?}");
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("read");
        assert!(!mounts.contains(&*self.root.to_string_lossy()), "{mounts}");
    }
}

pub(crate) fn run_id() -> RunId {
    let drill: DrillName = "test".parse().expect("a name");
    let mut entropy = [0; 4];
    getrandom::fill(&mut entropy).expect("entropy");
    RunId::new(&drill, jiff::Timestamp::now(), entropy)
}

pub(crate) fn isolation(root: &Path) -> LocalIsolation {
    let program = std::env::current_exe().expect("our own path");
    LocalIsolation::new(LocalConfig::new(root, program)).expect("an isolation")
}

/// A provisioned sandbox that a test gives back by [`Held::release`].
pub(crate) struct Held {
    place: Place,
    pub(crate) run: RunId,
    pub(crate) storage: Storage,
    pub(crate) sandbox: Arc<dyn Sandbox>,
}

impl Held {
    pub(crate) async fn sh(&self, script: &str) -> ExecOutput {
        self.sandbox.exec(Exec::new(["/bin/sh", "-c", script])).await.expect("the command ran")
    }

    /// Standard output of a script that must succeed.
    pub(crate) async fn say(&self, script: &str) -> String {
        let output = self.sh(script).await;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status, ExitStatus::Code(0), "{script}: {stdout} {stderr}");
        stdout.trim().to_owned()
    }

    pub(crate) async fn release(self) {
        let handle = self.sandbox.handle();
        let isolation = &self.place.isolation;
        isolation.release(&self.run, Resource::Agent, None).await.expect("no agent, or an ended one");
        isolation.release(&self.run, Resource::Sandbox, Some(&handle)).await.expect("the sandbox ends");
        isolation.release(&self.run, Resource::Storage, None).await.expect("the storage goes");
    }
}

/// The newest server of the distribution's packages.
pub(crate) fn postgresql(program: &str) -> String {
    let majors = std::fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed").flatten();
    let newest = majors.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).max().expect("a major");
    format!("/usr/lib/postgresql/{newest}/bin/{program}")
}

pub(crate) fn initdb() -> Template {
    let argv = [&postgresql("initdb"), "-D", "/data", "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8"];
    Template { key: "test".to_owned(), argv: argv.map(str::to_owned).into() }
}

pub(crate) fn server() -> Exec {
    let mut exec = Exec::new([
        postgresql("postgres").as_str(),
        "-D",
        "/data",
        "-c",
        "listen_addresses=127.0.0.1",
        "-c",
        "port=5432",
        "-c",
        "unix_socket_directories=",
        "-c",
        "shared_buffers=16MB",
    ]);
    exec.deadline = Duration::from_mins(5);
    exec
}

pub(crate) fn open_to_all(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("its mode is set");
}

/// Waits until `seen` is true, for ten seconds.
pub(crate) async fn until(what: &str, seen: impl Fn() -> bool) {
    for _ in 0..1000 {
        if seen() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: not within ten seconds");
}
