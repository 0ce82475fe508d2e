//! A real Chromium, driven over its debugging protocol (<https://chromedevtools.github.io/devtools-protocol/>).
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStderr, Command};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

const PATIENCE: Duration = Duration::from_mins(1);

pub(super) struct Browser {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    session: String,
    last: u64,
    /// What went wrong on the page, as the console would show it.
    pub(super) troubles: Vec<String>,
    loaded: bool,
    child: Child,
    _stderr: BufReader<ChildStderr>,
    _profile: TempDir,
}

impl Browser {
    pub(super) async fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut command = Command::new("chromium");
        command
            .args(["--headless=new", "--remote-debugging-port=0", "--disable-gpu", "--no-first-run", "--disable-sync"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-default-apps"])
            .args(["--disable-dev-shm-usage", "--hide-scrollbars", "--no-proxy-server"])
            .arg("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
            .arg(format!("--user-data-dir={}", profile.path().display()));
        if rustix::process::geteuid().is_root() {
            command.arg("--no-sandbox");
        }
        command.arg("about:blank").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.kill_on_drop(true).as_std_mut().process_group(0);
        let mut child = command.spawn().expect("chromium is needed for this test; `make setup` installs it");
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let listening = async {
            let mut line = String::new();
            while stderr.read_line(&mut line).await.unwrap() > 0 {
                if let Some(address) = line.trim().strip_prefix("DevTools listening on ") {
                    return address.to_owned();
                }
                line.clear();
            }
            panic!("chromium ended before it listened");
        };
        let address = tokio::time::timeout(PATIENCE, listening).await.unwrap();
        let (socket, _) = connect_async(address).await.unwrap();
        let mut browser = Self {
            socket,
            session: String::new(),
            last: 0,
            troubles: Vec::new(),
            loaded: false,
            child,
            _stderr: stderr,
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" })).await;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", attach).await;
        browser.session = attached["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({})).await;
        }
        browser
    }

    pub(super) async fn look(&mut self, width: u32, scheme: &str) {
        let metrics = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", metrics).await;
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", media).await;
    }

    pub(super) async fn open(&mut self, url: &str) {
        self.loaded = false;
        let opened = self.call("Page.navigate", json!({ "url": url })).await;
        assert!(opened.get("errorText").is_none(), "{opened}");
        self.until_loaded().await;
    }

    pub(super) async fn until_loaded(&mut self) {
        while !self.loaded {
            self.receive().await;
        }
    }

    pub(super) fn expect_reload(&mut self) {
        self.loaded = false;
    }

    /// The value of an expression, or what its promise gives.
    pub(super) async fn evaluate(&mut self, expression: &str) -> Value {
        let ask = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let answer = self.call("Runtime.evaluate", ask).await;
        assert!(answer.get("exceptionDetails").is_none(), "{answer}");
        answer["result"]["value"].clone()
    }

    pub(super) async fn press_tab(&mut self) {
        for kind in ["rawKeyDown", "keyUp"] {
            let key = json!({ "type": kind, "key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9 });
            self.call("Input.dispatchKeyEvent", key).await;
        }
    }

    /// A PNG of the whole page.
    pub(super) async fn screenshot(&mut self) -> Vec<u8> {
        use base64::Engine as _;
        let shot = self.call("Page.captureScreenshot", json!({ "captureBeyondViewport": true })).await;
        base64::engine::general_purpose::STANDARD.decode(shot["data"].as_str().unwrap()).unwrap()
    }

    async fn call(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let mut ask = json!({ "id": self.last, "method": method, "params": params });
        if !self.session.is_empty() {
            ask["sessionId"] = json!(self.session);
        }
        self.socket.send(Message::text(ask.to_string())).await.unwrap();
        loop {
            let told = self.receive().await;
            if told["id"] == json!(self.last) {
                assert!(told.get("error").is_none(), "{method}: {told}");
                return told["result"].clone();
            }
        }
    }

    async fn receive(&mut self) -> Value {
        let message = tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("chromium says nothing any more");
        let Message::Text(text) = message.unwrap().unwrap() else { return Value::Null };
        let told: Value = serde_json::from_str(&text).unwrap();
        match told["method"].as_str() {
            Some("Page.loadEventFired") => self.loaded = true,
            Some("Runtime.exceptionThrown" | "Log.entryAdded") => self.troubles.push(told["params"].to_string()),
            Some("Runtime.consoleAPICalled") => self.troubles.push(told["params"]["args"].to_string()),
            _ => {}
        }
        told
    }

    pub(super) async fn end(mut self) {
        // It may be gone before it answers.
        let close = json!({ "id": 0, "method": "Browser.close" });
        let _ = self.socket.send(Message::text(close.to_string())).await;
        let _ = tokio::time::timeout(Duration::from_secs(10), self.child.wait()).await;
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its helpers too, also where a test failed.
        if let Some(group) = self.child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}
