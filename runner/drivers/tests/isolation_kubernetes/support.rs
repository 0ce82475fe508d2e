//! A cluster with this binary as muster's image, a state directory, and sandboxes in it.
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use drill::id::{DrillName, RunId};
use drill::ledger::Resource;
use drill::port::{Exec, ExecOutput, Isolation, Sandbox, SandboxInputs, SandboxSpec, Storage};
use drill::spec::{self, Kubernetes};
use drill::stop::Stop;
use drivers::isolation::kubernetes::{KubernetesIsolation, KubernetesState};

pub(crate) type TestFn = fn(Place) -> Pin<Box<dyn Future<Output = ()>>>;

/// `test!(name)` for a list of [`TestFn`]s.
#[macro_export]
macro_rules! test {
    ($name:ident) => {
        (stringify!($name), (|place| Box::pin($name(place))) as $crate::support::TestFn)
    };
}

/// The engine's and muster's, with a space between them.
pub(crate) const IMAGES: &str = "MUSTER_TEST_IMAGES";

pub(crate) struct Cluster {
    pub(crate) kubeconfig: String,
    pub(crate) images: String,
}

/// The one that `tests/services/cluster/with` brought up; never somebody's own.
pub(crate) fn cluster() -> Option<Cluster> {
    let kubeconfig = std::env::var("MUSTER_TEST_KUBECONFIG").ok()?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let scripts = root.join("tests/services/cluster");
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    let mut rootfs = Command::new(scripts.join("postgres-rootfs"));
    rootfs.arg(path("postgres"));
    said(rootfs);
    let image = load(&scripts, "muster.local/postgres:15", &path("postgres"), r#"{"User":"999"}"#);
    let mut rootfs = Command::new(root.join("deploy/container/rootfs"));
    rootfs.arg(std::env::current_exe().expect("our own path")).arg(path("muster"));
    said(rootfs);
    let muster = load(&scripts, "muster.local/isolation-test:1", &path("muster"), "{}");
    Some(Cluster { kubeconfig, images: format!("{image} {muster}") })
}

fn load(scripts: &Path, name: &str, directory: &Path, config: &str) -> String {
    let mut command = Command::new(scripts.join("load"));
    command.arg(name).arg(directory).arg(config);
    said(command)
}

/// The last line of what it printed.
fn said(mut command: Command) -> String {
    let output = command.stderr(Stdio::inherit()).output().expect("it starts");
    assert!(output.status.success(), "{command:?}");
    String::from_utf8(output.stdout).expect("text").lines().last().unwrap_or_default().to_owned()
}

pub(crate) fn asked() -> Kubernetes {
    let images = std::env::var(IMAGES).expect("in a cluster");
    let (image, muster_image) = images.split_once(' ').expect("two images");
    Kubernetes {
        context: None,
        image: image.to_owned(),
        muster_image: muster_image.to_owned(),
        memory: 512 << 20,
        disk: 1 << 30,
        cpu_millis: None,
        production: ["10.250.0.10:5432", "10.250.0.0/24:5432"].map(|text| text.parse().expect("a target")).to_vec(),
        orchestrator: None,
        probe_interval: Duration::from_mins(1),
        claim: None,
        port: 5432,
        doorway: None,
        remove_finalizers_after: None,
        artifact: None,
    }
}

#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) isolation: Arc<KubernetesIsolation>,
    asked: Kubernetes,
    directory: Arc<tempfile::TempDir>,
}

impl Place {
    pub(crate) fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("muster-kubernetes-").tempdir().expect("a directory");
        let state = KubernetesState::open(directory.path()).expect("a state");
        let asked = asked();
        Self { isolation: Arc::new(state.isolation(&asked)), asked, directory: Arc::new(directory) }
    }

    /// The same state, for a drill that asks for something else.
    pub(crate) fn asking(&self, asked: Kubernetes) -> Self {
        let state = KubernetesState::open(self.directory.path()).expect("a state");
        Self { isolation: Arc::new(state.isolation(&asked)), asked, directory: Arc::clone(&self.directory) }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    pub(crate) async fn sandbox(&self) -> Held {
        let run = run_id();
        self.try_sandbox(&run).await.expect("provisioned")
    }

    pub(crate) async fn try_sandbox(&self, run: &RunId) -> Result<Held, Stop> {
        let storage = self.isolation.prepare(run).await.expect("prepared");
        let limits = spec::Isolation::Kubernetes(Box::new(self.asked.clone())).limits();
        let inputs = SandboxInputs { port: 5432, ..SandboxInputs::default() };
        let spec = SandboxSpec { run: run.clone(), limits, inputs };
        let sandbox = self.isolation.provision(spec).await?;
        Ok(Held { place: self.clone(), run: run.clone(), storage, sandbox })
    }

    pub(crate) async fn must_be_empty(&self) {
        assert_eq!(self.isolation.leftovers().await.expect("looked"), []);
    }

    /// After a test that failed.
    pub(crate) async fn clean_up(&self) {
        for left in self.isolation.leftovers().await.unwrap_or_default().into_iter().rev() {
            let _ = self.isolation.release(&left.run, left.resource, None).await;
        }
    }
}

pub(crate) struct Held {
    pub(crate) place: Place,
    pub(crate) run: RunId,
    pub(crate) storage: Storage,
    pub(crate) sandbox: Arc<dyn Sandbox>,
}

impl Held {
    pub(crate) fn namespace(&self) -> String {
        format!("dr-sandbox-{}", self.run)
    }

    pub(crate) async fn run(&self, argv: &[&str]) -> ExecOutput {
        self.sandbox.exec(Exec::new(argv.iter().copied())).await.expect("it ran")
    }

    pub(crate) async fn release(self) {
        for resource in [Resource::Agent, Resource::Sandbox, Resource::Storage] {
            self.place.isolation.release(&self.run, resource, None).await.expect("released");
        }
    }
}

pub(crate) fn run_id() -> RunId {
    let drill: DrillName = "isolation".parse().expect("a name");
    let mut entropy = [0; 4];
    getrandom::fill(&mut entropy).expect("entropy");
    RunId::new(&drill, jiff::Timestamp::now(), entropy)
}

pub(crate) async fn client() -> kube::Client {
    kube::Client::try_default().await.expect("a client")
}
