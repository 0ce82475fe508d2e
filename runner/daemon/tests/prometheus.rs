//! What Prometheus itself makes of our metrics and rules: its own checker, and a real one that scrapes. Nothing it keeps
//! outlives the test, and all of it stays on loopback.
#![expect(clippy::unwrap_used, reason = "a test that meets what it did not expect must end")]
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use drill::agent::{CheckOutcome, CheckUsage};
use drill::finding::{Finding, Severity};
use drill::id::{DrillName, RunId, Sha256Digest};
use drill::ledger::{
    CheckEnded, Damage, Event, Figure, Owner, PhaseOutcome, Resource, RunStarted, Stamped, Summary, Trigger,
};
use drill::phase::Phase;
use drill::port::{Alert, Delivery, Outbox, Store};
use drill::spec::{Fidelity, Objectives};
use drill::stop::Stop;
use drill::verdict::{Leftovers, Reason};
use drivers::store::fake::MemoryStore;
use jiff::Timestamp;
use muster::dispatcher::{DrillView, FileView, Happening, Listener, RunUpdate, Skip, View};
use muster::metrics::{CONTENT_TYPE, Metrics, Timed};

/// A real server starts, scrapes twice and evaluates in a few seconds; a busy machine takes longer.
const PATIENCE: Duration = Duration::from_mins(2);

fn rules() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/prometheus")
}

#[test]
fn the_rules_that_ship_pass_their_tests() {
    assert_passes(promtool(&["check", "rules", "--lint-fatal", "muster.rules.yaml"], ""));
    assert_passes(promtool(&["test", "rules", "muster.rules.test.yaml"], ""));
    assert_passes(promtool(&["check", "config", "--lint-fatal", "prometheus.yaml"], ""));
}

/// A rule without a test is a rule that nobody knows to fire; a metric that no daemon writes would never let it.
#[tokio::test]
async fn every_rule_has_a_test_and_names_metrics_that_there_are() {
    let text = std::fs::read_to_string(rules().join("muster.rules.yaml")).unwrap();
    let tests = std::fs::read_to_string(rules().join("muster.rules.test.yaml")).unwrap();
    let alerts: Vec<&str> = text.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 15, "{alerts:?}");
    for alert in alerts {
        assert!(tests.contains(&format!("- alertname: {alert}\n")), "{alert} is never seen to fire");
        assert!(tests.contains(&format!("{{ alertname: {alert}, eval_time")), "{alert} is never seen to be silent");
    }
    let served = metrics().await.render();
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let named: Vec<&str> = words.filter(|word| word.starts_with("muster_")).collect();
    assert!(named.len() >= 15, "{named:?}");
    for name in named {
        assert!(served.contains(&format!("# TYPE {name} ")), "no daemon writes {name}");
    }
}

/// A panel that asks for what no daemon writes, or in words that Prometheus does not know, is empty for ever.
#[tokio::test]
async fn every_panel_of_the_dashboard_asks_for_metrics_that_there_are() {
    let path = rules().join("../grafana/muster.json");
    let dashboard: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let asked: Vec<&str> = targets.map(|target| target["expr"].as_str().unwrap()).collect();
    assert!(asked.len() >= 15, "{asked:?}");
    let served = metrics().await.render();
    for expression in asked {
        let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let named: Vec<&str> = words.filter(|word| word.starts_with("muster_")).collect();
        assert!(!named.is_empty(), "{expression}");
        for name in named {
            let family = name.strip_suffix("_bucket").unwrap_or(name);
            assert!(served.contains(&format!("# TYPE {family} ")), "no daemon writes {name}: {expression}");
        }
        let rule =
            format!("groups: [{{ name: a, rules: [{{ record: a, expr: {} }}] }}]", serde_json::json!(expression));
        let mut file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
        file.write_all(rule.as_bytes()).unwrap();
        assert_passes(promtool(&["check", "rules", file.path().to_str().unwrap()], ""));
    }
}

#[tokio::test]
async fn prometheus_finds_no_fault_with_what_is_served() {
    let text = metrics().await.render();
    assert!(text.contains("later\\\"}\\nmuster_x 1"), "the awkward destination is not there");
    let checked = promtool(&["check", "metrics"], &text);
    assert_passes(checked);
    // It does find fault with what is wrong.
    let broken = text.replacen("# TYPE muster_runs_total counter", "# TYPE muster_runs_total gauge", 1);
    assert!(!promtool(&["check", "metrics"], &broken).status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_prometheus_scrapes_and_fires() {
    let metrics = Arc::new(metrics().await);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    let answer = move || {
        let metrics = Arc::clone(&metrics);
        async move { ([("content-type", CONTENT_TYPE)], metrics.render()) }
    };
    let app = axum::Router::new().route("/metrics", axum::routing::get(answer));
    let serving = tokio::spawn(async move { axum::serve(listener, app).await });

    let prometheus = Prometheus::start(&target.to_string());
    prometheus.wait_for("the target is up", "up{job=\"muster\"} == 1").await;
    for (what, query) in [
        ("counters", "muster_runs_total{drill=\"orders\",reason=\"check-failed\"} == 1"),
        ("histograms", "muster_phase_duration_seconds_count{phase=\"restore\"} == 1"),
        ("a drill that never ran", "muster_last_success_timestamp_seconds{drill=\"never\"} == 0"),
        (
            "an awkward label",
            "muster_alert_deliveries_total{destination=~\"(?s).*muster_x 1.*\",outcome=\"later\"} == 1",
        ),
        ("the process", "process_resident_memory_bytes{job=\"muster\"} > 0"),
        ("an alert that fires", "ALERTS{alertname=\"MusterDrillFailed\",alertstate=\"firing\",drill=\"orders\"}"),
        ("damage unseen", "ALERTS{alertname=\"MusterSelfTestPassed\",alertstate=\"firing\",damage=\"byte\"}"),
        ("the clock of the daemon is read", "ALERTS{alertname=\"MusterLeftovers\",alertstate=\"pending\"}"),
    ] {
        prometheus.wait_for(what, query).await;
    }
    // Before its first scrape it is pending, and rightly so.
    assert_eq!(prometheus.query("ALERTS{alertname=\"MusterDown\",alertstate=\"firing\"}").await, 0);
    let targets = prometheus.get("/api/v1/targets").await;
    assert!(targets.contains("\"lastError\":\"\"") && targets.contains("\"health\":\"up\""), "{targets}");
    let loaded = prometheus.get("/api/v1/rules").await;
    assert!(loaded.contains("MusterScheduleStalled"), "{loaded}");
    assert!(!loaded.contains("\"health\":\"err\""), "a rule cannot be evaluated: {loaded}");
    serving.abort();
}

struct Prometheus {
    child: Child,
    address: String,
    directory: tempfile::TempDir,
}

impl Prometheus {
    /// With the configuration that ships, made impatient.
    fn start(target: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let shipped = std::fs::read_to_string(rules().join("prometheus.yaml")).unwrap();
        let ours = shipped.replace("127.0.0.1:9642", target).replace("30s", "1s");
        assert!(ours.contains(target), "the example names another address:\n{shipped}");
        std::fs::write(directory.path().join("prometheus.yaml"), ours).unwrap();
        std::fs::copy(rules().join("muster.rules.yaml"), directory.path().join("muster.rules.yaml")).unwrap();
        // Found free a moment ago. Should somebody take it meanwhile, the server ends and says so.
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", directory.path().join("prometheus.yaml").display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("Prometheus is installed: `make setup`");
        Self { child, address, directory }
    }

    async fn wait_for(&self, what: &str, query: &str) {
        let until = Instant::now() + PATIENCE;
        while self.query(query).await == 0 {
            let log = || std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < until, "{what}: nothing for `{query}`\n{}", log());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// How many series answer.
    async fn query(&self, query: &str) -> usize {
        let encoded = query.bytes().fold(String::new(), |mut encoded, byte| {
            // Writing to text does not fail.
            let _ = write!(encoded, "%{byte:02X}");
            encoded
        });
        let answer = self.get(&format!("/api/v1/query?query={encoded}")).await;
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap_or_default();
        assert_ne!(answer["status"], "error", "{query}: {answer}");
        answer["data"]["result"].as_array().map_or(0, Vec::len)
    }

    /// Empty until it answers.
    async fn get(&self, path: &str) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let Ok(mut stream) = tokio::net::TcpStream::connect(&self.address).await else { return String::new() };
        // HTTP/1.0: the answer is whole, and ends with the connection.
        let request = format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.address);
        let mut answer = Vec::new();
        if stream.write_all(request.as_bytes()).await.is_err() || stream.read_to_end(&mut answer).await.is_err() {
            return String::new();
        }
        let answer = String::from_utf8(answer).unwrap();
        answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn promtool(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new("promtool")
        .args(arguments)
        .current_dir(rules())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is installed: `make setup`");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[track_caller]
fn assert_passes(output: Output) {
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

/// A daemon with a drill that failed and left something, one that never ran, a bad file, damage unseen, and names that no
/// sensible person would choose.
async fn metrics() -> Metrics {
    let drills = ["orders", "never"].map(|name| {
        let text = format!(
            "apiVersion: muster.dev/v1\nkind: Drill\nmetadata: {{ name: {name} }}\nspec:\n  schedule: {{ cron: '15 2 * * *' }}\n  \
             objectives: {{ recoveryTime: 30m, recoveryPoint: 24h }}\n  \
             source: {{ manifest: /b/manifest.json, trustedKeys: [{{ file: k.pub }}] }}\n"
        );
        let drill = drill::file::parse(&text, drill::file::Options::default()).unwrap();
        let view = DrillView {
            drill: Arc::new(drill),
            file: PathBuf::from("/etc/muster/drills/x.yaml"),
            known_since: Timestamp::now(),
            next: None,
            waiting: None,
            running: None,
            last: None,
            last_success: None,
        };
        (view.drill.name.clone(), Arc::new(view))
    });
    let slot = drill::schedule::Slot { scheduled_for: Timestamp::now(), starts: Timestamp::now() };
    let file = FileView {
        path: PathBuf::from("/etc/muster/drills/bad\n\".yaml"),
        keeps: None,
        problem: "unknown key".to_owned(),
        since: Timestamp::now(),
    };
    let view = move || {
        Arc::new(View {
            at: Timestamp::now(),
            ticked: Some(Timestamp::now()),
            stopping: false,
            drills: Arc::new(BTreeMap::from(drills.clone())),
            files: Arc::new(vec![file.clone()]),
            slots: 2,
            stalled: false,
        })
    };
    let metrics = Arc::new(Metrics::new().unwrap());
    metrics.follow(view);
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let timed = Timed::new(Arc::clone(&store), Arc::clone(&metrics));
    let alert = Alert {
        kind: "kind \"of\\\n alert".to_owned(),
        subject: "orders".to_owned(),
        drill: None,
        run: None,
        at: Timestamp::now(),
        message: "something".to_owned(),
        advice: None,
        details: serde_json::json!({}),
    };
    timed.raise(&alert).await.unwrap();
    metrics.refresh(store.as_ref()).await.unwrap();
    let destination = "later\"}\nmuster_x 1\\";
    let delivery = Delivery { id: 1, revision: 1, alert, resolved: None, attempts: 1, failing_since: None };
    // Only the attempt matters here: this store need not know the delivery.
    let _ = timed.undelivered(&[delivery], destination, Timestamp::now(), Some(Timestamp::MAX), "no answer").await;
    let drill: DrillName = "orders".parse().unwrap();
    tell(
        &metrics,
        &drill,
        Trigger::SelfTest { damage: Damage::Byte, scheduled_for: None },
        vec![concluded(Reason::DamageUnnoticed)],
    );
    tell(&metrics, &drill, Trigger::Command, events());
    metrics.heard(&Happening::Skipped { drill: drill.clone(), self_test: None, slot, why: Skip::Overlap, count: 3 });
    metrics.heard(&Happening::NotBegun { drill, why: "the store is full".to_owned() });
    drop(timed);
    Arc::into_inner(metrics).unwrap()
}

fn events() -> Vec<Event> {
    let usage =
        CheckUsage { cpu_time: Duration::from_millis(3), wall_time: Duration::from_millis(20), memory: 1 << 20 };
    vec![
        Event::Intended { resource: Resource::Storage },
        Event::PhaseStarted { phase: Phase::Restore },
        Event::PhaseEnded {
            phase: Phase::Restore,
            duration: Duration::from_millis(20_060),
            outcome: PhaseOutcome::Done { note: "done".to_owned() },
        },
        Event::Finding(Finding {
            source: "rows".to_owned(),
            database: None,
            severity: Severity::Failure,
            subject: "public.orders".to_owned(),
            message: "a row is missing".to_owned(),
            details: Vec::new(),
        }),
        Event::CheckEnded(CheckEnded {
            check: "awk\"ward\\\nrows{}".to_owned(),
            database: "d".to_owned(),
            outcome: CheckOutcome::Completed { summary: None },
            usage,
            figures: vec![figure("rows", &[("table", "public.\"orders\"")]), figure("age_seconds", &[])],
        }),
        Event::ReleaseFailed { resource: Resource::Storage, stop: Stop::internal("busy") },
        concluded(Reason::CheckFailed),
        Event::EvidenceWritten { path: "/e".to_owned(), digest: Sha256Digest::of(b"e"), sequence: 1 },
        Event::Ended { leftovers: Leftovers::Some },
    ]
}

fn figure(name: &str, labels: &[(&str, &str)]) -> Figure {
    let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Figure::new(name.to_owned(), labels, 0.5).expect("a figure")
}

fn concluded(reason: Reason) -> Event {
    Event::Concluded(Summary {
        verdict: reason.verdict(),
        reason,
        message: "said".to_owned(),
        advice: None,
        recovery_time_milliseconds: Some(21_400),
        recovery_point_milliseconds: Some(22_320_000),
        boundary_overhead_milliseconds: Some(900),
    })
}

fn tell(metrics: &Metrics, drill: &DrillName, trigger: Trigger, events: Vec<Event>) {
    let run = RunId::new(drill, Timestamp::now(), [1, 2, 3, 4]);
    let started = RunStarted {
        run: run.clone(),
        drill: drill.clone(),
        drill_digest: Sha256Digest::of(b"drill"),
        drill_file: "/etc/muster/drills/orders.yaml".to_owned(),
        labels: BTreeMap::new(),
        at: Timestamp::now(),
        owner: Owner { pid: 1, start_ticks: 1, boot_id: "boot".to_owned() },
        muster_version: "0".to_owned(),
        fidelity: Fidelity::Production,
        objectives: Objectives::default(),
        evidence_directory: "/e".to_owned(),
        trigger,
    };
    for (event, sequence) in std::iter::once(Event::Started(started)).chain(events).zip(1..) {
        let update = RunUpdate::Event(Arc::new(Stamped { sequence, at: Timestamp::now(), event }));
        metrics.heard(&Happening::Run { drill: drill.clone(), run: run.clone(), update });
    }
}
