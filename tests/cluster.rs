use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use crate::{Place, program};

/// Held by whoever uses the one cluster, and alone by a test that disturbs it.
static USE: RwLock<()> = RwLock::new(());

/// The real cluster that `tests/services/cluster/with` brought up.
pub struct Cluster {
    kubeconfig: PathBuf,
    _use: Use,
}

enum Use {
    Shared { _guard: RwLockReadGuard<'static, ()> },
    Alone { _guard: RwLockWriteGuard<'static, ()> },
    CleaningUp,
}

impl Cluster {
    /// None where there is none: then `with` says so at the end of `make test`. Never somebody's own KUBECONFIG.
    pub fn there() -> Option<Self> {
        let kubeconfig = Self::named()?;
        let guard = USE.read().unwrap_or_else(PoisonError::into_inner);
        Some(Self { kubeconfig, _use: Use::Shared { _guard: guard } })
    }

    /// The same, while no other test uses it.
    pub fn alone() -> Option<Self> {
        let kubeconfig = Self::named()?;
        let guard = USE.write().unwrap_or_else(PoisonError::into_inner);
        Some(Self { kubeconfig, _use: Use::Alone { _guard: guard } })
    }

    /// For what is dropped after its test's own.
    pub fn to_clean_up(kubeconfig: &Path) -> Self {
        Self { kubeconfig: kubeconfig.to_owned(), _use: Use::CleaningUp }
    }

    fn named() -> Option<PathBuf> {
        let kubeconfig = std::env::var_os("MUSTER_TEST_KUBECONFIG");
        if kubeconfig.is_none() {
            eprintln!("NOT TESTED: MUSTER_TEST_KUBECONFIG names no cluster; tests/services/cluster/with sets it");
        }
        kubeconfig.map(PathBuf::from)
    }

    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Folders that a volume of the node can be in.
    pub fn volumes(&self) -> PathBuf {
        self.state().join("volumes")
    }

    /// What etcd wrote to its disk.
    pub fn etcd(&self) -> PathBuf {
        self.state().join("etcd")
    }

    fn state(&self) -> &Path {
        self.kubeconfig.parent().expect("it lies in the cluster's own folder")
    }

    /// One that was built for the cluster.
    pub fn program(&self, name: &str) -> PathBuf {
        self.state().with_file_name("bin").join(name)
    }

    /// What it printed, whatever the exit code.
    pub fn try_kubectl(&self, arguments: &[&str], stdin: &str) -> Output {
        let mut child = Command::new(self.program("kubectl"))
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl starts");
        // One that does not read its input is no error.
        let _ = child.stdin.take().expect("piped").write_all(stdin.as_bytes());
        child.wait_with_output().expect("it is ours")
    }

    #[track_caller]
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        self.succeed(arguments, "")
    }

    #[track_caller]
    pub fn apply(&self, manifests: &str) {
        self.succeed(&["apply", "-f", "-"], manifests);
    }

    /// What it says where it must refuse.
    #[track_caller]
    pub fn refused(&self, arguments: &[&str], stdin: &str) -> String {
        let output = self.try_kubectl(arguments, stdin);
        assert!(!output.status.success(), "kubectl {arguments:?} was not refused");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    #[track_caller]
    fn succeed(&self, arguments: &[&str], stdin: &str) -> String {
        let output = self.try_kubectl(arguments, stdin);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl {arguments:?}: {stderr}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Waits for it to be so.
    #[track_caller]
    pub fn assert_node_comes_back(&self) {
        within(60, "the node is itself again", || {
            let ready = ["wait", "--for=condition=Ready", "node", "--all", "--timeout=1s"];
            self.try_kubectl(&ready, "").status.success().then_some(())
        });
    }

    /// One of the scripts beside the cluster.
    #[track_caller]
    pub fn script(&self, name: &str, arguments: &[&str]) -> String {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("services/cluster");
        let home = self.state().parent().expect("it lies in the cluster's own folder");
        run(Command::new(scripts.join(name)).args(arguments).env("MUSTER_CLUSTER_DIR", home))
    }

    /// muster's image, of the program that cargo built beside the tests, by digest.
    pub fn muster_image(&self) -> &'static str {
        static IMAGE: OnceLock<String> = OnceLock::new();
        IMAGE.get_or_init(|| {
            let container = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/container");
            let place = Place::new();
            let root = place.path("root");
            run(Command::new(container.join("rootfs")).arg(program()).arg(&root));
            let config = std::fs::read_to_string(container.join("config.json")).expect("it is there");
            self.script("load", &["muster.local/muster:dev", root.to_str().expect("a plain path"), &config])
        })
    }

    /// PostgreSQL's image, by digest.
    pub fn postgresql_image(&self) -> &'static str {
        static IMAGE: OnceLock<String> = OnceLock::new();
        IMAGE.get_or_init(|| {
            let place = Place::new();
            let root = place.path("root").display().to_string();
            self.script("postgres-rootfs", &[&root]);
            self.script("load", &["muster.local/postgres:15", &root, r#"{"User":"999"}"#])
        })
    }

    /// Namespaces of runs.
    pub fn sandboxes(&self) -> Vec<String> {
        let namespaces = self.kubectl(&["get", "namespaces", "-o", "name"]);
        let names = namespaces.lines().filter_map(|line| line.strip_prefix("namespace/"));
        names.filter(|name| name.starts_with("dr-")).map(str::to_owned).collect()
    }
}

/// Asks until there is an answer.
#[track_caller]
pub fn within<T>(seconds: u64, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: not within {seconds} s");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.output().expect("the script starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
