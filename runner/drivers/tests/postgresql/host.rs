//! Commands of a throwaway server as a plain user: PostgreSQL refuses root. bubblewrap gives them paths of their own and
//! isolates nothing else.
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use tokio::process::Command;

pub(crate) struct Host {
    directory: tempfile::TempDir,
}

impl Host {
    pub(crate) fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("muster-test-").tempdir().expect("a temporary directory");
        own(directory.path(), 0o700);
        for name in ["data", "tmp"] {
            fs::create_dir(directory.path().join(name)).expect("a directory");
            own(&directory.path().join(name), 0o700);
        }
        let host = Self { directory };
        host.put("passwd", b"postgres:x:70:70::/tmp:/bin/false\n");
        host
    }

    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        self.directory.path().join(inside)
    }

    pub(crate) fn put(&self, inside: &str, contents: &[u8]) {
        let path = self.path(inside);
        fs::write(&path, contents).expect("a file");
        own(&path, 0o644);
    }

    /// Dropping the future ends the command.
    pub(crate) async fn exec(&self, argv: &[String]) -> Output {
        let at = |name: &str| self.path(name).to_string_lossy().into_owned();
        let mut command = Command::new("bwrap");
        command.args([
            "--unshare-user",
            "--unshare-net",
            "--uid",
            "70",
            "--gid",
            "70",
            "--die-with-parent",
            "--clearenv",
        ]);
        command.args(["--setenv", "PATH", "/usr/bin", "--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin"]);
        command.args(["--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64", "--dev", "/dev"]);
        command.args(["--bind", &at("data"), "/data", "--bind", &at("tmp"), "/tmp"]);
        command.args(["--ro-bind", &at("passwd"), "/etc/passwd", "--chdir", "/tmp", "--"]).args(argv);
        if rustix::process::geteuid().is_root() {
            command.uid(user()).gid(user());
        }
        command.env_clear().env("PATH", "/usr/bin:/bin").kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.output().await.expect("bubblewrap is installed")
    }
}

/// A user of nobody, where the tests run as root.
fn user() -> u32 {
    60_000 + std::process::id() % 900
}

fn own(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
    if rustix::process::geteuid().is_root() {
        chown(path, Some(user()), Some(user())).expect("an owner");
    }
}
