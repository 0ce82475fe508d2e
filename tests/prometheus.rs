use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::daemon::exchange;

const PATIENCE: Duration = Duration::from_mins(1);

/// A real Prometheus with the configuration and the rules that ship, made impatient. Killed when dropped.
pub struct Prometheus {
    child: Child,
    address: SocketAddr,
    directory: tempfile::TempDir,
}

impl Prometheus {
    pub fn start(target: SocketAddr) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus");
        let text = fs::read_to_string(shipped.join("prometheus.yaml")).expect("the example ships");
        let ours = text.replace("127.0.0.1:9642", &target.to_string()).replace("30s", "1s");
        assert!(ours.contains(&target.to_string()), "the example names another address:\n{text}");
        let file = directory.path().join("prometheus.yaml");
        fs::write(&file, ours).expect("it is ours");
        fs::copy(shipped.join("muster.rules.yaml"), directory.path().join("muster.rules.yaml"))
            .expect("the rules ship");
        // Found free a moment ago. Should somebody take it meanwhile, the server ends and says so.
        let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("loopback is there");
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(directory.path().join("log")).expect("it is ours"))
            .spawn()
            .expect("Prometheus is installed: `make setup`");
        Self { child, address, directory }
    }

    /// Until the query, of letters that need no encoding in a URL beside braces and quotes, has a result.
    #[track_caller]
    pub fn wait_for(&self, query: &str) {
        let encoded = query.replace('{', "%7B").replace('}', "%7D").replace('"', "%22").replace(' ', "%20");
        let begun = Instant::now();
        loop {
            let answer = exchange(self.address, &format!("/api/v1/query?query={encoded}")).unwrap_or_default();
            let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
            let answer: Value = serde_json::from_str(body).unwrap_or_default();
            assert_ne!(answer["status"], "error", "{query}: {answer}");
            if answer["data"]["result"].as_array().is_some_and(|found| !found.is_empty()) {
                return;
            }
            let log = || fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            assert!(begun.elapsed() < PATIENCE, "nothing for `{query}`\n{}", log());
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Ended already, or a test that failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
