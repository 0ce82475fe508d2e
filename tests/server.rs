use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::place::{NOBODY, is_root};

/// A PostgreSQL server of one test's own, on a Unix socket in a directory of its own, ended when dropped.
pub struct Server {
    directory: tempfile::TempDir,
    programs: PathBuf,
}

impl Server {
    pub fn start() -> Self {
        Self::start_from(programs())
    }

    /// With the programs of one directory.
    pub fn start_from(programs: PathBuf) -> Self {
        let directory = tempfile::Builder::new().prefix("muster-source-").tempdir_in("/var/tmp").expect("a directory");
        if is_root() {
            std::os::unix::fs::chown(directory.path(), Some(NOBODY), Some(NOBODY)).expect("root may");
        }
        let server = Self { directory, programs };
        let data = server.data();
        server.run(
            "initdb",
            &["-D", &data, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8"],
        );
        let options = format!(
            "-c listen_addresses='' -c unix_socket_directories='{}' -c fsync=off -c max_connections=40 -c max_locks_per_transaction=256",
            server.host()
        );
        let log = server.directory.path().join("log").display().to_string();
        server.run("pg_ctl", &["start", "-D", &data, "-w", "-t", "60", "-l", &log, "-o", &options]);
        server
    }

    pub fn host(&self) -> String {
        self.directory.path().display().to_string()
    }

    pub fn conninfo(&self, database: &str) -> String {
        format!("host={} dbname={database} user=postgres", self.host())
    }

    #[track_caller]
    pub fn psql(&self, database: &str, sql: &str) -> String {
        self.run(
            "psql",
            &[
                "-X",
                "-q",
                "-A",
                "-t",
                "-v",
                "ON_ERROR_STOP=1",
                "-h",
                &self.host(),
                "-U",
                "postgres",
                "-d",
                database,
                "-c",
                sql,
            ],
        )
    }

    #[track_caller]
    pub fn psql_file(&self, database: &str, file: &Path, variables: &[&str]) {
        self.feed(database, &fs::read(file).expect("the script is there"), variables);
    }

    #[track_caller]
    pub fn psql_script(&self, database: &str, script: &str) {
        self.feed(database, script.as_bytes(), &[]);
    }

    #[track_caller]
    fn feed(&self, database: &str, script: &[u8], variables: &[&str]) {
        let mut command = self.command("psql");
        command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", &self.host(), "-U", "postgres", "-d", database]);
        for variable in variables {
            command.args(["-v", variable]);
        }
        // The server's user need not be able to read where the tests lie.
        let mut child = command
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("psql starts");
        std::io::Write::write_all(&mut child.stdin.take().expect("piped"), script).expect("psql reads");
        let output = child.wait_with_output().expect("it is ours");
        assert!(output.status.success(), "psql: {}", String::from_utf8_lossy(&output.stderr));
    }

    #[track_caller]
    fn run(&self, program: &str, arguments: &[&str]) -> String {
        // pg_ctl leaves its standard streams to the server, which would keep a pipe open.
        let daemon = program == "pg_ctl";
        let mut command = self.command(program);
        command.args(arguments);
        if daemon {
            let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("it starts");
            assert!(status.success(), "{program} {arguments:?} failed");
            return String::new();
        }
        let output = command.output().expect("it starts");
        assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn command(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        let mut command = if is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.env_clear().env("PATH", "/usr/bin:/bin").env("LANG", "C.UTF-8").current_dir("/").stdin(Stdio::null());
        command
    }

    fn data(&self) -> String {
        self.directory.path().join("data").display().to_string()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let data = self.data();
        let stop = self
            .command("pg_ctl")
            .args(["stop", "-D", &data, "-m", "immediate", "-w"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        assert!(stop.is_ok_and(|status| status.success()) || std::thread::panicking(), "the server did not stop");
    }
}

/// Where the newest PostgreSQL's programs are.
pub fn programs() -> PathBuf {
    let candidates = fs::read_dir("/usr/lib/postgresql").expect("`make setup` installs PostgreSQL");
    let mut majors: Vec<u32> =
        candidates.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    majors.sort_unstable();
    let newest = majors.last().expect("`make setup` installs PostgreSQL");
    PathBuf::from(format!("/usr/lib/postgresql/{newest}/bin"))
}
