use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::Place;

/// A real Vault of one test's own, set up as docs/vault.md says, with the policy that ships.
pub struct Vault {
    directory: tempfile::TempDir,
    program: PathBuf,
    address: String,
    up: Child,
}

impl Vault {
    pub fn start() -> Self {
        let services = Path::new(env!("CARGO_MANIFEST_DIR")).join("services/vault");
        let built = Command::new(services.join("build")).output().expect("the script is there");
        let program = PathBuf::from(String::from_utf8(built.stdout).expect("a path").trim());
        let directory = tempfile::Builder::new().prefix("muster-vault-").tempdir_in("/var/tmp").expect("a directory");
        let ports = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port"));
        let ports = ports.map(|listener| listener.local_addr().expect("bound").port().to_string());
        let mut command = Command::new(services.join("up"));
        command.arg(directory.path()).args(&ports).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut up = command.spawn().expect("it starts");
        let mut line = String::new();
        BufReader::new(up.stdout.take().expect("piped")).read_line(&mut line).expect("text");
        assert_eq!(line.trim(), "ready", "Vault did not come up");
        let vault = Self { directory, program, address: format!("https://127.0.0.1:{}", ports[0]), up };
        vault.set_up();
        vault
    }

    /// The quick start.
    fn set_up(&self) {
        let policy = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/vault/muster.hcl");
        self.cli(&["secrets", "enable", "database"]);
        self.cli(&["policy", "write", "muster", policy]);
        self.cli(&["auth", "enable", "approle"]);
        let role = "auth/approle/role/muster";
        self.cli(&["write", role, "token_policies=muster", "token_no_default_policy=true", "token_period=20m"]);
    }

    /// As root.
    #[track_caller]
    pub fn cli(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().expect("it starts");
        assert!(output.status.success(), "vault {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let token = std::fs::read_to_string(self.directory.path().join("root-token")).expect("it was initialized");
        let mut command = Command::new(&self.program);
        command.args(arguments).env_clear().env("VAULT_ADDR", &self.address).env("VAULT_TOKEN", token.trim());
        command.env("VAULT_CACERT", self.directory.path().join("ca.pem")).stdin(Stdio::null());
        command
    }

    /// What a drill's `credentials` says, with the files that it names beside the drill.
    pub fn credentials(&self, place: &Place) -> String {
        let secret = self.cli(&["write", "-f", "-field=secret_id", "auth/approle/role/muster/secret-id"]);
        let role_id = self.cli(&["read", "-field=role_id", "auth/approle/role/muster/role-id"]);
        place.write("secret-id", &secret);
        self.credentials_by(place, &format!("appRole: {{ roleId: {role_id}, secretId: {{ file: secret-id }} }}"))
    }

    /// The same, for another way to log in.
    pub fn credentials_by(&self, place: &Place, auth: &str) -> String {
        place.write("vault-ca.pem", &std::fs::read_to_string(self.directory.path().join("ca.pem")).expect("its CA"));
        let address = &self.address;
        format!(
            "  credentials:\n    vault:\n      address: {address}\n      ca: vault-ca.pem\n      auth:\n        {auth}\n"
        )
    }

    pub fn seal(&self) {
        self.cli(&["operator", "seal"]);
    }

    pub fn unseal(&self) {
        let key = std::fs::read_to_string(self.directory.path().join("unseal-key")).expect("it was initialized");
        self.cli(&["operator", "unseal", key.trim()]);
        for _ in 0..200 {
            if self.command(&["token", "lookup"]).output().is_ok_and(|output| output.status.success()) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("Vault is not active after it was unsealed");
    }

    /// What is there beneath a path; empty where nothing is.
    pub fn list(&self, path: &str) -> String {
        let output = self.command(&["list", path]).output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() || said.contains("No value found"), "vault list {path}: {said}");
        if output.status.success() { String::from_utf8_lossy(&output.stdout).into_owned() } else { String::new() }
    }

    #[track_caller]
    pub fn assert_nothing_left(&self) {
        self.assert_no_lease_left();
        assert_eq!(self.list("sys/leases/lookup/auth/approle/login"), "", "a token of muster's is left");
    }

    /// Asserted of each Vault when it ends, too.
    #[track_caller]
    pub fn assert_no_lease_left(&self) {
        for path in ["sys/leases/lookup/database/creds", "database/roles", "database/config"] {
            assert_eq!(self.list(path), "", "{path}");
        }
    }
}

impl Drop for Vault {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.assert_no_lease_left();
        }
        drop(self.up.stdin.take());
        let ended = self.up.wait();
        assert!(ended.is_ok_and(|status| status.success()) || std::thread::panicking(), "Vault did not stop");
    }
}
