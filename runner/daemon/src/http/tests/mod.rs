//! A server with real sockets, before a store in memory and a dispatcher that only says what it was asked.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::needless_raw_string_hashes, reason = "expect-test writes them")]
mod answers;
mod bounds;
mod browser;
mod pages;
mod streams;
mod who;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use drill::config::{Http, Role, Token};
use drill::file::{Options, parse};
use drill::id::{DrillName, RunId, Sha256Digest};
use drill::ledger::{Event, Trigger};
use drill::port::Store;
use drill::schedule::Slot;
use drivers::store::fake::MemoryStore;
use jiff::{SignedDuration, Timestamp};
use reqwest::Client;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::server::Bounds;
use super::{App, SOCKET, Server};
use crate::dispatcher::{CancelError, DrillView, Event as Asked, FileView, Handle, Request, Running, StartError, View};
use crate::feed::Feed;
use crate::guard::Guarded;
use crate::sample;

const OPERATOR: &str = "an operator's token";
const VIEWER: &str = "a viewer's token";

struct World {
    place: TempDir,
    address: SocketAddr,
    store: MemoryStore,
    /// The same, as the daemon has it.
    daemons: Arc<MemoryStore>,
    view: watch::Sender<Arc<View>>,
    feed: Feed,
    stop: CancellationToken,
    server: JoinHandle<Result<(), drill::stop::Stop>>,
    /// What the dispatcher was asked, and by whom.
    asked: Arc<Mutex<Vec<String>>>,
    dispatcher: JoinHandle<()>,
}

fn config() -> Http {
    Http { listen: "127.0.0.1:0".parse().unwrap(), tls: None, tokens: Vec::new(), socket: None }
}

fn with_tokens() -> Http {
    let token =
        |name: &str, role, text: &str| Token { name: name.to_owned(), role, sha256: Sha256Digest::of(text.as_bytes()) };
    let tokens = vec![token("ops", Role::Operator, OPERATOR), token("eyes", Role::Viewer, VIEWER)];
    Http { tokens, ..config() }
}

impl World {
    fn new(config: &Http) -> Self {
        Self::within(Bounds::default(), config)
    }

    fn within(bounds: Bounds, config: &Http) -> Self {
        // Some other test may have been faster.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let place = tempfile::tempdir().unwrap();
        let store = MemoryStore::new();
        let daemons = Arc::new(store.reopen());
        let (events, received) = mpsc::channel(16);
        let (view, watched) = watch::channel(Arc::new(view(BTreeMap::new())));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let dispatcher = tokio::spawn(dispatcher(received, Arc::clone(&asked)));
        let (feed, stop) = (Feed::new(), CancellationToken::new());
        let server = Server::within(bounds, config, &place.path().join(SOCKET)).unwrap();
        let address = server.address();
        let app = App {
            dispatcher: Handle::new(events, watched),
            store: Arc::clone(&daemons) as Arc<dyn Store>,
            feed: feed.clone(),
            guarded: Guarded::default(),
            metrics: Arc::new(|| "# HELP muster_up One.\n".to_owned()),
        };
        let server = tokio::spawn(server.serve(app, stop.clone()));
        Self { place, address, store, daemons, view, feed, stop, server, asked, dispatcher }
    }

    fn socket(&self) -> PathBuf {
        self.place.path().join(SOCKET)
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    async fn get(&self, path: &str) -> reqwest::Response {
        client().get(self.url(path)).send().await.unwrap()
    }

    fn show(&self, drills: BTreeMap<DrillName, Arc<DrillView>>) {
        self.view.send_replace(Arc::new(view(drills)));
    }

    /// A run with these events, newest last.
    async fn run(&self, drill: &str, events: Vec<Event>) -> RunId {
        let at = Timestamp::now() - SignedDuration::from_secs(2);
        let started = drill::ledger::RunStarted { at, ..sample::started(drill, self.place.path()) };
        self.store.claim(&started).await.unwrap();
        for event in events {
            self.store.append(&started.run, &event).await.unwrap();
        }
        started.run
    }

    /// Its evidence is a file here.
    async fn proven(&self, drill: &str) -> (RunId, PathBuf) {
        let path = self.place.path().join(format!("{drill}.json"));
        std::fs::write(&path, "{\"payloadType\": \"x\"}").unwrap();
        let digest = Sha256Digest::of(&std::fs::read(&path).unwrap());
        let events = sample::passed().into_iter().map(|event| match event {
            Event::EvidenceWritten { sequence, .. } => {
                Event::EvidenceWritten { path: path.display().to_string(), digest, sequence }
            }
            other => other,
        });
        let events = events.collect();
        (self.run(drill, events).await, path)
    }

    async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(20), self.server).await.unwrap().unwrap().unwrap();
        assert!(!self.place.path().join(SOCKET).exists(), "the socket is left behind");
        tokio::time::timeout(Duration::from_secs(20), self.dispatcher).await.unwrap().unwrap();
    }
}

fn client() -> Client {
    Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().unwrap()
}

async fn dispatcher(mut received: mpsc::Receiver<Asked>, asked: Arc<Mutex<Vec<String>>>) {
    while let Some(event) = received.recv().await {
        match event {
            Asked::Request(Request::Start { drill, self_test, by, answer }) => {
                let damaged = self_test.map(|damage| format!(", damaged: {damage}")).unwrap_or_default();
                asked.lock().unwrap().push(format!("start {drill}{damaged} by {by}"));
                let run = RunId::new(&drill, "2026-11-22T02:15:00Z".parse().unwrap(), [9, 30, 22, 24]);
                let known = drill.as_str() != "unknown";
                let _ = answer.send(if known { Ok(run) } else { Err(StartError::NoSuchDrill(drill)) });
            }
            Asked::Request(Request::Cancel { run, by, answer }) => {
                asked.lock().unwrap().push(format!("cancel {run} by {by}"));
                let known = run.as_str().starts_with("orders");
                let _ = answer.send(if known { Ok(()) } else { Err(CancelError::NotRunning(run)) });
            }
            _ => {}
        }
    }
}

fn view(drills: BTreeMap<DrillName, Arc<DrillView>>) -> View {
    let now = Timestamp::now();
    View {
        at: now,
        ticked: Some(now),
        stopping: false,
        drills: Arc::new(drills),
        files: Arc::new(Vec::new()),
        slots: 2,
        stalled: false,
    }
}

/// A drill that never ran.
fn drill_view(name: &str, since: Timestamp) -> DrillView {
    let text = format!(
        "apiVersion: muster.dev/v1\nkind: Drill\nmetadata: {{ name: {name}, labels: {{ team: payments }} }}\nspec:\n  \
         schedule: {{ cron: \"15 2 * * *\" }}\n  objectives: {{ recoveryTime: 30s, recoveryPoint: 24h }}\n  source:\n    \
         manifest: /backups/{name}/latest/manifest.json\n    trustedKeys: [{{ file: /etc/muster/keys/backup.pub }}]\n"
    );
    let drill = parse(&text, Options::default()).unwrap();
    let next = Timestamp::now() + SignedDuration::from_hours(3);
    DrillView {
        drill: Arc::new(drill),
        file: format!("/etc/muster/drills/{name}.yaml").into(),
        known_since: since,
        next: Some(Slot { scheduled_for: next, starts: next }),
        waiting: None,
        running: None,
        last: None,
        last_success: None,
    }
}

fn running(run: &RunId) -> Running {
    Running { run: Some(run.clone()), since: Timestamp::now(), trigger: Trigger::Command, cancelled: false }
}

fn bad_file(text: &str) -> FileView {
    FileView {
        path: format!("/etc/muster/drills/{text}.yaml").into(),
        keeps: Some("orders".parse().unwrap()),
        problem: format!("unknown key `{text}`\n 7 |   objectives: {{ recoverTime: 30m }}\n   |                 ^^^"),
        since: Timestamp::now(),
    }
}
