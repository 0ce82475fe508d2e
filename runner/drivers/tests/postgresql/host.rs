//! A sandbox that isolates nothing: for tests of the engine, where the local isolation is somebody else's. Commands run in
//! bubblewrap for the paths inside alone, as a plain user; the port on the host's loopback is one that was free.
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use async_trait::async_trait;
use drill::agent::ProbeTargets;
use drill::port::{AgentProcess, ByteStream, Exec, ExecOutput, ExitStatus, Output, Sandbox, SandboxInputs};
use drill::proof::Probe;
use drill::stop::Stop;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWriteExt as _, BufReader};
use tokio::process::Command;
use tokio_util::compat::TokioAsyncReadCompatExt as _;

pub(crate) struct HostSandbox {
    pub(crate) directory: tempfile::TempDir,
    port: u16,
}

impl HostSandbox {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        own(directory.path(), 0o700);
        for name in ["data", "conf", "backup", "tmp"] {
            fs::create_dir(directory.path().join(name)).expect("a directory");
            own(&directory.path().join(name), 0o700);
        }
        let file = directory.path().join("passwd");
        fs::write(&file, "postgres:x:70:70::/tmp:/bin/false\n").expect("passwd");
        own(&file, 0o644);
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
        Self { directory, port }
    }

    /// Makes the data directory and writes `/conf`.
    pub(crate) async fn prepare(inputs: &SandboxInputs) -> Arc<Self> {
        let sandbox = Self::new();
        for file in &inputs.files {
            let path = sandbox.path("conf").join(&file.name);
            let text = String::from_utf8(file.contents.clone()).expect("text");
            fs::write(&path, text.replace("port = '5432'", &format!("port = '{}'", sandbox.port))).expect("a file");
            own(&path, if file.secret { 0o600 } else { 0o644 });
        }
        let template = inputs.template.clone().expect("a template");
        let made = sandbox.exec(Exec::new(template.argv)).await.expect("initdb runs");
        assert_eq!(made.status, ExitStatus::Code(0), "{}", String::from_utf8_lossy(&made.stderr));
        Arc::new(sandbox)
    }

    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        self.directory.path().join(inside)
    }

    pub(crate) fn put(&self, inside: &str, contents: &[u8]) {
        let path = self.path(inside);
        fs::write(&path, contents).expect("a file");
        own(&path, 0o644);
    }

    fn command(&self, exec: &Exec) -> Command {
        let mut command = Command::new("bwrap");
        let at = |name: &str| self.path(name).to_string_lossy().into_owned();
        let words = [
            "--unshare-user",
            "--uid",
            "70",
            "--gid",
            "70",
            "--die-with-parent",
            "--clearenv",
            "--setenv",
            "PATH",
            "/usr/bin",
            "--ro-bind",
            "/usr",
            "/usr",
            "--symlink",
            "usr/bin",
            "/bin",
            "--symlink",
            "usr/lib",
            "/lib",
            "--symlink",
            "usr/lib64",
            "/lib64",
            "--dev",
            "/dev",
        ];
        command.args(words);
        for name in ["data", "tmp"] {
            command.args(["--bind", &at(name), &format!("/{name}")]);
        }
        for name in ["conf", "backup"] {
            command.args(["--ro-bind", &at(name), &format!("/{name}")]);
        }
        command.args(["--ro-bind", &at("passwd"), "/etc/passwd", "--chdir", "/tmp"]);
        for (name, value) in &exec.env {
            let value = if name == "PGPORT" { self.port.to_string() } else { value.clone() };
            command.args(["--setenv", name, &value]);
        }
        command.arg("--");
        command.args(exec.argv.iter().map(|word| word.replace("port=5432", &format!("port={}", self.port))));
        if rustix::process::geteuid().is_root() {
            command.uid(user()).gid(user());
        }
        command.env_clear().env("PATH", "/usr/bin:/bin").kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// A user of nobody, where the tests run as root: PostgreSQL refuses root.
fn user() -> u32 {
    64_000 + std::process::id() % 1_000
}

fn own(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
    if rustix::process::geteuid().is_root() {
        chown(path, Some(user()), Some(user())).expect("an owner");
    }
}

#[async_trait]
impl Sandbox for HostSandbox {
    fn handle(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    async fn deliver(&self) -> Result<(), Stop> {
        Ok(())
    }

    async fn exec(&self, exec: Exec) -> Result<ExecOutput, Stop> {
        let mut child = self.command(&exec).spawn().expect("bubblewrap is installed");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(&exec.stdin).await.expect("stdin");
        drop(stdin);
        let stdout = read(child.stdout.take().expect("a pipe"), Output::Stdout, &exec);
        let stderr = read(child.stderr.take().expect("a pipe"), Output::Stderr, &exec);
        let (stdout, stderr, status) = tokio::join!(stdout, stderr, child.wait());
        let status = status.expect("a status");
        let status = status.code().map_or(ExitStatus::Signal(9), ExitStatus::Code);
        Ok(ExecOutput { status, stdout, stderr, truncated: false })
    }

    async fn dial(&self) -> Result<Box<dyn ByteStream>, Stop> {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await;
        let stream = stream.map_err(|error| Stop::internal(error.to_string()))?;
        Ok(Box::new(stream.compat()))
    }

    fn probe_targets(&self) -> ProbeTargets {
        unimplemented!("nothing is isolated here")
    }

    async fn probe(&self) -> Result<Vec<Probe>, Stop> {
        unimplemented!("nothing is isolated here")
    }

    async fn run_agent(&self) -> Result<AgentProcess, Stop> {
        unimplemented!("there is no agent here")
    }

    async fn breach(&self) -> Stop {
        std::future::pending().await
    }
}

async fn read(from: impl AsyncRead + Unpin, output: Output, exec: &Exec) -> Vec<u8> {
    let mut lines = BufReader::new(from).split(b'\n');
    let mut kept = Vec::new();
    while let Ok(Some(line)) = lines.next_segment().await {
        if let Some(sink) = &exec.lines {
            sink(output, &String::from_utf8_lossy(&line));
        }
        kept.extend_from_slice(&line);
        kept.push(b'\n');
    }
    kept
}
