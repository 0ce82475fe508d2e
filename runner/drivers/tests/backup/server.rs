//! A throwaway PostgreSQL: an unprivileged user, a Unix socket in a private directory, no port, gone when dropped.
use std::io::{Seek, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use drivers::engine::postgresql::capture::{ConnInfo, Environment};

/// Whom root becomes; others stay themselves.
const NOBODY: u32 = 65_534;

pub(crate) struct Server {
    place: tempfile::TempDir,
    child: Child,
}

pub(crate) fn tool(name: &str) -> PathBuf {
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .unwrap()
        .map(|entry| entry.unwrap().path().join("bin").join(name))
        .filter(|path| path.exists())
        .collect();
    found.sort();
    found.pop().expect("PostgreSQL is installed by `make setup`")
}

fn unprivileged(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("LC_ALL", "C.UTF-8").env("TZ", "UTC").stdin(Stdio::null());
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_from(tool("postgres").parent().unwrap())
    }

    /// With the programs of one directory.
    pub(crate) fn start_from(programs: &Path) -> Self {
        let place = Self::place();
        let output = unprivileged(&programs.join("initdb"))
            .args(["--no-sync", "--encoding=UTF8", "--locale=C.UTF-8", "--auth=trust", "--username=postgres", "-D"])
            .arg(place.path().join("data"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self::run(place, &programs.join("postgres"))
    }

    /// A streaming standby of this server.
    pub(crate) fn standby(&self) -> Self {
        let place = Self::place();
        let output = unprivileged(&tool("pg_basebackup"))
            .args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync", "--username=postgres", "--host"])
            .arg(self.place.path())
            .arg("-D")
            .arg(place.path().join("data"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self::run(place, &tool("postgres"))
    }

    fn place() -> tempfile::TempDir {
        let place = tempfile::tempdir().unwrap();
        if rustix::process::geteuid().is_root() {
            chown(place.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        place
    }

    fn run(place: tempfile::TempDir, postgres: &Path) -> Self {
        let log = std::fs::File::create(place.path().join("log")).unwrap();
        let child = unprivileged(postgres)
            .arg("-D")
            .arg(place.path().join("data"))
            .args(["-c", "listen_addresses=", "-c", "fsync=off", "-c", "timezone=UTC", "-k"])
            .arg(place.path())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap();
        let server = Self { place, child };
        let deadline = Instant::now() + Duration::from_secs(30);
        while server.try_sql("postgres", "SELECT 1").is_err() {
            let log = || std::fs::read_to_string(server.place.path().join("log")).unwrap();
            assert!(Instant::now() < deadline, "the server did not start: {}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }

    pub(crate) fn socket(&self) -> &Path {
        self.place.path()
    }

    pub(crate) fn info(&self, database: &str) -> ConnInfo {
        self.info_as("postgres", database)
    }

    pub(crate) fn info_as(&self, user: &str, database: &str) -> ConnInfo {
        let quoted = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
        let host = self.socket().to_str().unwrap();
        let text = format!("host={host} user={user} dbname={}", quoted(database));
        ConnInfo::resolve(&text, &Environment::default()).unwrap()
    }

    /// Runs a script; the unaligned rows of it.
    pub(crate) fn sql(&self, database: &str, script: &str) -> String {
        self.try_sql(database, script).unwrap_or_else(|error| panic!("{error}"))
    }

    pub(crate) fn try_sql(&self, database: &str, script: &str) -> Result<String, String> {
        // From a file: each statement is its own transaction.
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(script.as_bytes()).unwrap();
        file.rewind().unwrap();
        let output = self.psql(database).args(["-f", "-"]).stdin(file).output().unwrap();
        if output.status.success() {
            Ok(String::from_utf8(output.stdout).unwrap().trim().to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    pub(crate) fn psql(&self, database: &str) -> Command {
        let mut command = self.client("psql", database);
        command.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]);
        command
    }

    /// A client tool that is connected by its environment.
    pub(crate) fn client(&self, name: &str, database: &str) -> Command {
        let mut command = Command::new(tool(name));
        command.env_clear().env("PGHOST", self.socket()).env("PGUSER", "postgres").env("PGDATABASE", database);
        command.stdin(Stdio::null());
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Immediate: nothing in it is needed any more, and its children end with it.
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
        let _ = self.child.wait();
    }
}
