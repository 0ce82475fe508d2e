//! A real Vault for the tests of this binary, started when the first of them asks and ended by `main`; and a fault proxy.
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};

use reqwest::{Certificate, Client, Method};
use serde_json::{Value, json};

static SERVER: OnceLock<Arc<VaultServer>> = OnceLock::new();

pub(super) struct VaultServer {
    directory: PathBuf,
    ports: [u16; 2],
    up: Mutex<Option<Child>>,
}

/// The Vault that the tests share.
pub(super) async fn vault() -> Arc<VaultServer> {
    let server = SERVER.get_or_init(|| {
        let server =
            VaultServer { directory: crate::shared().join("vault"), ports: free_ports(), up: Mutex::default() };
        server.start();
        Arc::new(server)
    });
    let enabled = server.ok(Method::GET, "sys/auth", None).await;
    if enabled["data"].get("approle/").is_none() {
        for method in ["approle", "cert"] {
            server.ok(Method::POST, &format!("sys/auth/{method}"), Some(json!({ "type": method }))).await;
        }
    }
    Arc::clone(server)
}

/// Whatever a test leased is gone, and then Vault is.
pub(crate) fn end() {
    let Some(server) = SERVER.get() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (status, left) = runtime.block_on(server.root("LIST", "sys/leases/lookup/", None));
    server.stop();
    assert_eq!(status, 404, "leases are left in Vault: {left}");
}

impl VaultServer {
    /// Again after [`Self::stop`], it goes on with what is there.
    pub(super) fn start(&self) {
        let mut command = Command::new(services().join("vault/up"));
        command.arg(&self.directory).args(self.ports.map(|port| port.to_string()));
        *self.up.lock().expect("not poisoned") = Some(ready(command));
    }

    pub(super) fn stop(&self) {
        if let Some(up) = self.up.lock().expect("not poisoned").take() {
            ended(up);
        }
    }

    pub(super) fn address(&self) -> String {
        format!("https://127.0.0.1:{}", self.port())
    }

    pub(super) fn port(&self) -> u16 {
        self.ports[0]
    }

    pub(super) fn ca(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    pub(super) fn token(&self) -> String {
        let token = std::fs::read_to_string(self.directory.join("root-token")).expect("it was initialized");
        token.trim().to_owned()
    }

    /// As root.
    pub(super) async fn root(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let ca = std::fs::read(self.ca()).expect("its certificate");
        let client = Client::builder().tls_certs_only([Certificate::from_pem(&ca).expect("a certificate")]).build();
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let url = format!("{}/v1/{path}", self.address());
        let mut request = client.expect("a client").request(method, url).header("x-vault-token", self.token());
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.expect("Vault answers");
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or_default())
    }

    pub(super) async fn ok(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let (status, answer) = self.root(method.as_str(), path, body).await;
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }

    pub(super) async fn seal(&self) {
        self.ok(Method::PUT, "sys/seal", None).await;
    }

    pub(super) async fn unseal(&self) {
        let key = std::fs::read_to_string(self.directory.join("unseal-key")).expect("it was initialized");
        self.ok(Method::PUT, "sys/unseal", Some(json!({ "key": key.trim() }))).await;
        for _ in 0..200 {
            if self.root("GET", "auth/token/lookup-self", None).await.0 == 200 {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("it is not active ten seconds after it was unsealed");
    }
}

/// A way to the Vault that can be made bad.
pub(super) struct Proxy {
    up: Option<Child>,
    api: String,
    client: Client,
    pub(super) address: String,
}

impl Proxy {
    pub(super) async fn to(port: u16) -> Self {
        let [api, listen] = free_ports();
        let mut command = Command::new(services().join("toxiproxy/up"));
        command.arg(api.to_string());
        let up = Some(ready(command));
        let client = Client::builder().tls_certs_only([]).build().expect("a client");
        let api = format!("http://127.0.0.1:{api}/proxies");
        let proxy = Self { up, api, client, address: format!("https://127.0.0.1:{listen}") };
        let wanted = json!({ "name": "vault", "listen": format!("127.0.0.1:{listen}"), "upstream": format!("127.0.0.1:{port}") });
        proxy.post("", wanted).await;
        proxy
    }

    pub(super) async fn toxic(&self, kind: &str, stream: &str, attributes: Value) {
        let toxic = json!({ "name": kind, "type": kind, "stream": stream, "attributes": attributes });
        self.post("/vault/toxics", toxic).await;
    }

    pub(super) async fn heal(&self, kind: &str) {
        let answer = self.client.delete(format!("{}/vault/toxics/{kind}", self.api)).send().await.expect("it answers");
        assert!(answer.status().is_success());
    }

    async fn post(&self, path: &str, body: Value) {
        let answer = self.client.post(format!("{}{path}", self.api)).json(&body).send().await.expect("it answers");
        assert!(answer.status().is_success(), "{body}: {}", answer.text().await.unwrap_or_default());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(up) = self.up.take() {
            ended(up);
        }
    }
}

pub(super) fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn services() -> PathBuf {
    repository().join("tests/services")
}

/// It ends when its standard input does: with the tests at the latest.
fn ready(mut command: Command) -> Child {
    let mut up = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut line = String::new();
    BufReader::new(up.stdout.take().expect("piped")).read_line(&mut line).expect("text");
    assert_eq!(line.trim(), "ready", "{command:?} did not come up");
    up
}

fn ended(mut up: Child) {
    drop(up.stdin.take());
    assert!(up.wait().expect("it is ours").success());
}

fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("bound").port())
}
