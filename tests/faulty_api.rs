use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

use crate::{Cluster, Place};

/// What pods reach of this machine, so that the probe's stranger can show that it is there.
const HERE: &str = "10.251.255.1:0";
const HEAD: usize = 64 << 10;

/// One request, and how many came before it.
pub struct Asked {
    pub method: String,
    /// With its query.
    pub path: String,
    pub nth: usize,
}

impl Asked {
    pub fn is_watch(&self) -> bool {
        self.path.contains("watch=true")
    }

    /// A command or a connection in a pod.
    pub fn is_stream(&self) -> bool {
        self.path.contains("/exec?") || self.path.contains("/portforward?")
    }
}

/// What becomes of a request.
pub enum Fault {
    Pass,
    Late(Duration),
    /// The status line's number, and the reason and the message of the API's own kind of error.
    Refuse(u16, &'static str),
    /// A watch that has gone on for too long, as the API says it.
    Expired,
}

type Rule = Box<dyn Fn(&Asked) -> Fault + Send + Sync>;

/// Stands between muster and the API server, and does as a test says. `kubectl proxy` behind it speaks TLS and has the account's
/// token, so that this one reads plain requests; each has a connection of its own.
pub struct FaultyApi {
    shared: Arc<Shared>,
    proxy: Child,
    accepts: Option<JoinHandle<()>>,
    /// Names this one in place of the API server.
    pub kubeconfig: PathBuf,
    address: SocketAddr,
}

struct Shared {
    rule: Mutex<Arc<Rule>>,
    asked: Mutex<Vec<String>>,
    watches: Mutex<Vec<TcpStream>>,
    open: Mutex<Vec<TcpStream>>,
    upstream: SocketAddr,
    ended: Mutex<bool>,
}

impl FaultyApi {
    /// In front of what `kubeconfig` names.
    pub fn start(cluster: &Cluster, place: &Place, kubeconfig: &Path) -> Self {
        let mut proxy = Command::new(cluster.program("kubectl"))
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(["proxy", "--port=0", "--reject-paths=^$", "--accept-hosts=.*"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("kubectl starts");
        let mut said = String::new();
        BufReader::new(proxy.stdout.take().expect("piped")).read_line(&mut said).expect("it says where");
        let upstream = said.trim().rsplit(' ').next().and_then(|word| word.parse().ok());
        let upstream = upstream.unwrap_or_else(|| panic!("kubectl proxy said: {said}"));
        let listener = TcpListener::bind(HERE).expect("the cluster's side of this machine");
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared {
            rule: Mutex::new(Arc::new(Box::new(|_: &Asked| Fault::Pass) as Rule)),
            asked: Mutex::default(),
            watches: Mutex::default(),
            open: Mutex::default(),
            upstream,
            ended: Mutex::new(false),
        });
        let accepting = Arc::clone(&shared);
        let accepts = std::thread::spawn(move || accepting.accept(&listener));
        let shown = Command::new(cluster.program("kubectl"))
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(["config", "view", "--raw", "-o", "json"])
            .output();
        let mut config: Value = serde_json::from_slice(&shown.expect("kubectl starts").stdout).expect("JSON");
        config["clusters"][0]["cluster"] = json!({ "server": format!("http://{address}") });
        config["users"][0]["user"] = json!({});
        let kubeconfig = place.write("faulty-kubeconfig", &config.to_string());
        Self { shared, proxy, accepts: Some(accepts), kubeconfig, address }
    }

    /// From now on.
    pub fn rule(&self, rule: impl Fn(&Asked) -> Fault + Send + Sync + 'static) {
        *lock(&self.shared.rule) = Arc::new(Box::new(rule));
    }

    /// `METHOD /path?query` of each request so far.
    pub fn asked(&self) -> Vec<String> {
        lock(&self.shared.asked).clone()
    }

    /// Every watch that goes on ends, as when the server is restarted.
    pub fn cut_watches(&self) -> usize {
        let watches = std::mem::take(&mut *lock(&self.shared.watches));
        watches.iter().filter(|watch| watch.shutdown(Shutdown::Both).is_ok()).count()
    }
}

impl Drop for FaultyApi {
    fn drop(&mut self) {
        *lock(&self.shared.ended) = true;
        // Wakes who accepts.
        let _ = TcpStream::connect(self.address);
        if let Some(accepts) = self.accepts.take() {
            let _ = accepts.join();
        }
        for stream in lock(&self.shared.open).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        let _ = self.proxy.kill();
        let _ = self.proxy.wait();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn accept(self: Arc<Self>, listener: &TcpListener) {
        while let Ok((client, _)) = listener.accept() {
            if *lock(&self.ended) {
                return;
            }
            let me = Arc::clone(&self);
            // Ends with its connection; `drop` shuts all of them down.
            std::thread::spawn(move || {
                if let Ok(clone) = client.try_clone() {
                    lock(&me.open).push(clone);
                }
                // A client that goes away is no error of ours.
                let _ = me.serve(client);
            });
        }
    }

    fn serve(&self, mut client: TcpStream) -> std::io::Result<()> {
        let (head, rest) = read_head(&mut client)?;
        let mut words = head.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let asked = {
            let mut all = lock(&self.asked);
            all.push(format!("{method} {path}"));
            Asked { method: method.to_owned(), path: path.to_owned(), nth: all.len() - 1 }
        };
        let rule = Arc::clone(&lock(&self.rule));
        match rule(&asked) {
            Fault::Pass => {}
            Fault::Late(by) => std::thread::sleep(by),
            Fault::Refuse(code, reason) => {
                drain(&mut client, &head, rest.len())?;
                let status = status(code, reason);
                return answer(&mut client, code, &status.to_string());
            }
            Fault::Expired => {
                let event = json!({ "type": "ERROR", "object": status(410, "Expired") });
                return answer(&mut client, 200, &format!("{event}\n"));
            }
        }
        if asked.is_watch() {
            lock(&self.watches).push(client.try_clone()?);
        }
        let mut server = TcpStream::connect(self.upstream)?;
        lock(&self.open).push(server.try_clone()?);
        let upgrades = head.to_ascii_lowercase().contains("\r\nupgrade:");
        // One request a connection: what follows would not be read here.
        let head = if upgrades { head } else { head.replacen("\r\n", "\r\nConnection: close\r\n", 1) };
        server.write_all(head.as_bytes())?;
        server.write_all(&rest)?;
        let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
        let up = std::thread::spawn(move || {
            let _ = std::io::copy(&mut from_client, &mut to_server);
            let _ = to_server.shutdown(Shutdown::Write);
        });
        let _ = std::io::copy(&mut server, &mut client);
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
        let _ = up.join();
        Ok(())
    }
}

/// As the API server words an error.
fn status(code: u16, reason: &str) -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
        "message": format!("the test's own answer: {reason}") })
}

fn answer(client: &mut TcpStream, code: u16, body: &str) -> std::io::Result<()> {
    let wait = if code == 429 { "Retry-After: 1\r\n" } else { "" };
    write!(
        client,
        "HTTP/1.1 {code} Test\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{wait}Connection: close\r\n\r\n{body}",
        body.len()
    )?;
    client.shutdown(Shutdown::Write)
}

/// The head, and what came with it.
fn read_head(client: &mut TcpStream) -> std::io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut piece = [0; 8 << 10];
    loop {
        let read = client.read(&mut piece)?;
        if read == 0 || bytes.len() > HEAD {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&piece[..read]);
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), rest));
        }
    }
}

/// A connection that is closed with something unread loses the answer, too.
fn drain(client: &mut TcpStream, head: &str, read: usize) -> std::io::Result<()> {
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<u64>().ok())?
    });
    let left = length.unwrap_or(0).saturating_sub(read as u64);
    std::io::copy(&mut client.take(left), &mut std::io::sink()).map(drop)
}
