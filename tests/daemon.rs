use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{Place, program};

/// What a test waits for at most; a machine that is this slow proves nothing.
const PATIENCE: Duration = Duration::from_mins(3);

/// A daemon that runs. Killed when dropped.
pub struct Daemon {
    child: Child,
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
    pub address: SocketAddr,
}

impl Daemon {
    /// By the command line of the unit that ships, with the program and the configuration of the test. `configuration` is what
    /// the file holds beside the format's version, the address and the logs.
    pub fn start(place: &Place, configuration: &str) -> Self {
        Self::start_with(place, configuration, |_| {})
    }

    pub fn start_with(place: &Place, configuration: &str, prepare: impl FnOnce(&mut Command)) -> Self {
        let text = format!(
            "apiVersion: muster.dev/v1\nkind: Config\nhttp: {{ listen: '127.0.0.1:0' }}\nlogs: {{ format: json }}\n{configuration}"
        );
        let file = place.write("muster.yaml", &text);
        let mut command = place.command(program());
        command.args(shipped_arguments(&file)).stdout(Stdio::null()).stderr(Stdio::piped());
        prepare(&mut command);
        let mut child = command.spawn().expect("muster starts");
        let mut stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        let log = Arc::new(Mutex::new(String::new()));
        let address = loop {
            let mut line = String::new();
            let read = stderr.read_line(&mut line).expect("it logs text");
            log.lock().expect("nobody panics with it").push_str(&line);
            assert!(read > 0, "the daemon ended before it listened: {}", log.lock().expect("nobody panics with it"));
            let address = serde_json::from_str::<Value>(&line).ok().and_then(|line| {
                let line = line.get("fields").cloned().unwrap_or(line);
                line.get("address")?.as_str()?.parse().ok()
            });
            if let Some(address) = address {
                break address;
            }
        };
        let into = Arc::clone(&log);
        let reader = std::thread::spawn(move || {
            let mut line = String::new();
            while stderr.read_line(&mut line).is_ok_and(|read| read > 0) {
                into.lock().expect("nobody panics with it").push_str(&line);
                line.clear();
            }
        });
        Self { child, log, reader: Some(reader), address }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        self.log.lock().expect("nobody panics with it").clone()
    }

    /// The body of an answer with status 200.
    #[track_caller]
    pub fn get(&self, path: &str) -> String {
        let (status, body) = self.ask(path);
        assert_eq!(status, 200, "GET {path}: {body}");
        body
    }

    #[track_caller]
    pub fn get_json(&self, path: &str) -> Value {
        serde_json::from_str(&self.get(path)).expect("the answer is JSON")
    }

    /// Status and body.
    pub fn ask(&self, path: &str) -> (u16, String) {
        let answer =
            exchange(self.address, path).unwrap_or_else(|error| panic!("GET {path}: {error}; log:\n{}", self.log()));
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("an answer has a status");
        (status, body.to_owned())
    }

    /// Asks again and again until there is an answer.
    #[track_caller]
    pub fn wait_for<T>(&self, what: &str, mut look: impl FnMut(&Self) -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            assert!(begun.elapsed() < PATIENCE, "{what} did not come; log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it is ours and not waited for");
    }

    /// SIGKILL, as the kernel does it when memory is out.
    pub fn kill(mut self) {
        self.signal(Signal::KILL);
        self.child.wait().expect("it is ours");
    }

    /// Waits for its end; its exit code and what it logged.
    pub fn end(mut self) -> (Option<i32>, String) {
        let status = self.child.wait().expect("it is ours");
        if let Some(reader) = self.reader.take() {
            reader.join().expect("it only reads");
        }
        (status.code(), self.log())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Ended already, or a test that failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// HTTP/1.0: the answer ends with the connection, and comes in one piece.
pub(crate) fn exchange(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// The arguments of `ExecStart` in the unit that ships.
fn shipped_arguments(configuration: &Path) -> Vec<String> {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd/muster.service");
    let unit = fs::read_to_string(unit).expect("the unit ships");
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/muster "));
    let arguments = line.expect("the unit starts muster").split(' ');
    let here = configuration.to_str().expect("a plain path");
    let arguments: Vec<String> =
        arguments.map(|one| if one == "/etc/muster/muster.yaml" { here.to_owned() } else { one.to_owned() }).collect();
    assert!(arguments.iter().any(|one| one == here), "the unit names its configuration");
    arguments
}
