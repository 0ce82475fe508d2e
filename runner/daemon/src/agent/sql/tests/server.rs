//! A throwaway server that a test owns: an unprivileged user, a private directory, TLS with client certificates, and a relay
//! that gives it the shape that the agent sees: one Unix socket.
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use drill::agent::{ClientIdentity, SecretText};
use drill::secret::Secret;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

const SERVER_NAME: &str = "db.run.test";
/// `nobody`: initdb wants a user that has a name.
const USER: u32 = 65_534;

pub(in crate::agent) struct TestServer {
    child: Child,
    directory: tempfile::TempDir,
    programs: PathBuf,
    authority: Authority,
    relay: tokio::task::JoinHandle<()>,
}

pub(in crate::agent) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub(in crate::agent) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "run");
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn certificate(&self, common_name: &str, names: &[&str]) -> (String, String) {
        self.certificate_of(common_name, names, false)
    }

    fn certificate_of(&self, common_name: &str, names: &[&str], expired: bool) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        if expired {
            params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        }
        params.distinguished_name.push(DnType::CommonName, common_name);
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    pub(in crate::agent) fn identity(&self, role: &str) -> ClientIdentity {
        self.identity_with(role, false)
    }

    fn identity_with(&self, role: &str, expired: bool) -> ClientIdentity {
        let (certificate, key) = self.certificate_of(role, &[], expired);
        ClientIdentity {
            role: role.to_owned(),
            server_name: SERVER_NAME.to_owned(),
            ca: self.pem.clone(),
            certificate,
            key: SecretText(Secret::new(key)),
        }
    }
}

impl TestServer {
    /// With a role `reader` that may read everything, and database `orders`.
    pub(in crate::agent) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let programs = programs();
        let authority = Authority::new();
        let (certificate, key) = authority.certificate("server", &[SERVER_NAME]);
        std::fs::write(root.join("server.crt"), certificate).unwrap();
        std::fs::write(root.join("server.key"), key).unwrap();
        std::fs::write(root.join("ca.crt"), &authority.pem).unwrap();
        std::fs::write(root.join("hba"), "local all all trust\nhostssl all all 127.0.0.1/32 cert\n").unwrap();
        restrict(root);
        let data = root.join("data");
        let initdb = unprivileged(&programs.join("initdb"))
            .args(["-D".as_ref(), data.as_os_str()])
            .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"])
            .output()
            .unwrap();
        assert!(initdb.status.success(), "{}", String::from_utf8_lossy(&initdb.stderr));

        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let at = |name: &str| root.join(name).display().to_string();
        let settings = [
            ("port", port.to_string()),
            ("listen_addresses", "127.0.0.1".to_owned()),
            ("unix_socket_directories", at("")),
            ("hba_file", at("hba")),
            ("ssl", "on".to_owned()),
            ("ssl_cert_file", at("server.crt")),
            ("ssl_key_file", at("server.key")),
            ("ssl_ca_file", at("ca.crt")),
            ("fsync", "off".to_owned()),
            ("shared_buffers", "16MB".to_owned()),
        ];
        let mut command = unprivileged(&programs.join("postgres"));
        command.arg("-D").arg(&data).stdout(Stdio::null()).stderr(Stdio::null());
        for (name, value) in settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let child = command.spawn().unwrap();
        let relay = tokio::spawn(relay(root.join("db.sock"), port));
        let server = Self { child, directory, programs, authority, relay };
        server.wait(port);
        server.admin("postgres", "CREATE ROLE reader LOGIN BYPASSRLS; GRANT pg_read_all_data TO reader");
        server.admin("postgres", "CREATE DATABASE orders");
        server
    }

    fn wait(&self, port: u16) {
        let deadline = Instant::now() + Duration::from_secs(30);
        let socket = self.directory.path().join(format!(".s.PGSQL.{port}"));
        std::fs::write(self.directory.path().join("port"), port.to_string()).unwrap();
        while !socket.exists() || self.psql("postgres", "SELECT 1").is_err() {
            assert!(Instant::now() < deadline, "the server did not start");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(in crate::agent) fn socket(&self) -> PathBuf {
        self.directory.path().join("db.sock")
    }

    pub(in crate::agent) fn identity(&self) -> ClientIdentity {
        self.identity_of("reader")
    }

    pub(in crate::agent) fn identity_of(&self, role: &str) -> ClientIdentity {
        self.authority.identity(role)
    }

    /// Whose certificate has ended.
    pub(in crate::agent) fn expired_identity(&self) -> ClientIdentity {
        self.authority.identity_with("reader", true)
    }

    pub(in crate::agent) fn admin(&self, database: &str, statements: &str) -> String {
        self.psql(database, statements).unwrap_or_else(|error| panic!("{error}"))
    }

    fn psql(&self, database: &str, statements: &str) -> Result<String, String> {
        let port = std::fs::read_to_string(self.directory.path().join("port")).unwrap();
        let output = Command::new(self.programs.join("psql"))
            .arg("-h")
            .arg(self.directory.path())
            .args(["-p", &port, "-U", "postgres", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", database])
            .args(statements.split(';').flat_map(|statement| ["-c", statement]))
            .env_clear()
            .output()
            .unwrap();
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.relay.abort();
        // An immediate shutdown: SIGQUIT to the postmaster ends every process of it.
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
        let deadline = Instant::now() + Duration::from_secs(10);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn programs() -> PathBuf {
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .expect("PostgreSQL is installed: `make setup`")
        .map(|entry| entry.unwrap().path().join("bin"))
        .filter(|path| path.join("postgres").exists())
        .collect();
    found.sort();
    found.pop().expect("PostgreSQL is installed: `make setup`")
}

fn restrict(root: &Path) {
    use std::os::unix::fs::{PermissionsExt, chown};
    std::fs::set_permissions(root.join("server.key"), std::fs::Permissions::from_mode(0o600)).unwrap();
    if rustix::process::geteuid().is_root() {
        for path in ["", "server.key"] {
            chown(root.join(path), Some(USER), Some(USER)).unwrap();
        }
    }
}

/// The server refuses to run as root. It ends with the test, whatever ends the test.
fn unprivileged(program: &Path) -> Command {
    let mut command = Command::new("/usr/bin/setpriv");
    if rustix::process::geteuid().is_root() {
        let user = USER.to_string();
        command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]);
    }
    command.args(["--pdeathsig", "QUIT", "--"]).arg(program).env_clear().current_dir("/").stdin(Stdio::null());
    command
}

/// From the socket that the agent knows to the server's port.
async fn relay(path: PathBuf, port: u16) {
    let listener = tokio::net::UnixListener::bind(path).unwrap();
    while let Ok((mut near, _)) = listener.accept().await {
        tokio::spawn(async move {
            if let Ok(mut far) = tokio::net::TcpStream::connect(("127.0.0.1", port)).await {
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            }
        });
    }
}
