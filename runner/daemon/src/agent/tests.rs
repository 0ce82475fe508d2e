//! Both sides of the protocol against each other, over memory, with checks that are not plugins; and the runner's side against
//! an agent that lies.
#![expect(clippy::unwrap_used, reason = "a test")]
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use drill::agent::{
    BaselinePart, CheckOutcome, CheckUsage, FromAgent, Hello, Job, JobCheck, JobDatabase, LeaseGrant, MAX_FRAME,
    PROTOCOL_VERSION, ProbeTargets, ToAgent,
};
use drill::finding::Severity;
use drill::id::Sha256Digest;
use drill::port::AgentProcess;
use drill::proof::Expected;
use drill::spec::{CheckLimits, Grant};
use drill::stop::Stop;
use drill::verdict::Reason;
use plugin_host::backend::{Backend, ColumnData};
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio_util::compat::{TokioAsyncReadCompatExt, TokioAsyncWriteCompatExt};
use tokio_util::sync::CancellationToken;

use super::checks::{CheckCall, CheckRunner, RunOutcome};
use super::frame::{FrameReader, FrameWriter, Kind};
use super::link::{AgentLink, BaselinePieces};
use super::process::{AgentError, serve};
use super::sql::TestServer;

/// The check's options say what it does.
struct FakeRunner;

#[async_trait]
impl CheckRunner for FakeRunner {
    async fn run(&self, call: CheckCall, backend: Backend, cancel: CancellationToken) -> RunOutcome {
        let outcome = match call.options.as_str().unwrap_or_default() {
            "wait" => {
                backend.reporter.log("waiting".to_owned());
                cancel.cancelled().await;
                CheckOutcome::Cancelled
            }
            "flood" => {
                for index in 0..2000 {
                    backend.reporter.finding(
                        Severity::Info,
                        format!("s{index}"),
                        "m\u{1b}[2J\nx".to_owned(),
                        vec![("k".to_owned(), "v".repeat(10_000))],
                    );
                }
                CheckOutcome::Completed { summary: None }
            }
            _ => count(&backend).await,
        };
        RunOutcome { outcome, usage: CheckUsage::default() }
    }
}

/// What a row count would do.
async fn count(backend: &Backend) -> CheckOutcome {
    let context = &backend.context;
    for table in backend.baseline.as_deref().unwrap_or_default() {
        let statement = format!("SELECT count(*) FROM \"{}\".\"{}\"", table.schema, table.name);
        let rows = backend.sql.query(&statement, Vec::new()).await;
        let batch = match rows {
            Ok(mut rows) => rows.next(1).await.unwrap().unwrap(),
            Err(error) => return CheckOutcome::Inconclusive { why: error.message },
        };
        let ColumnData::Integers(found) = &batch.columns[0].data else { panic!("a count is an integer") };
        if found[0] != i64::try_from(table.rows).unwrap() {
            let message = format!("{} rows of {}", found[0], table.rows);
            backend.reporter.finding(Severity::Failure, table.name.clone(), message, Vec::new());
        }
    }
    backend.reporter.metric("tables".to_owned(), Vec::new(), 1.0);
    let summary = format!("{} tables in {}", context.tables.len(), context.database);
    CheckOutcome::Completed { summary: Some(summary) }
}

fn process(stdin: DuplexStream, stdout: DuplexStream, stderr: &'static str) -> AgentProcess {
    AgentProcess {
        handle: serde_json::Value::Null,
        stdin: Box::pin(stdin.compat_write()),
        stdout: Box::pin(stdout.compat()),
        stderr: Arc::new(move || stderr.to_owned()),
    }
}

type Served = tokio::task::JoinHandle<Result<(), AgentError>>;

/// A real agent behind two small pipes.
async fn agent(socket: std::path::PathBuf) -> (AgentLink, Served) {
    let (stdin, input) = tokio::io::duplex(8 << 10);
    let (output, stdout) = tokio::io::duplex(8 << 10);
    let serving = tokio::spawn(serve(input, output, socket, Arc::new(FakeRunner)));
    (AgentLink::start(process(stdin, stdout, "")).await.unwrap(), serving)
}

fn job(databases: &[(&str, Option<Sha256Digest>)], checks: &[(&str, &str)], component: Sha256Digest) -> Job {
    let database =
        |(name, baseline): &(&str, _)| JobDatabase { name: (*name).to_owned(), baseline: *baseline, schema: None };
    let names: Vec<String> = databases.iter().map(|(name, _)| (*name).to_owned()).collect();
    let check = |(name, options): &(&str, &str)| JobCheck {
        name: (*name).to_owned(),
        databases: names.clone(),
        component,
        compiled: None,
        grants: vec![Grant::Sql, Grant::Baseline],
        limits: CheckLimits { findings: 2000, ..CheckLimits::default() },
        options: (*options).into(),
    };
    Job {
        run: "orders-20261122t021500z-k7x2".parse().unwrap(),
        drill: "orders".parse().unwrap(),
        engine: "postgresql".to_owned(),
        started_at: jiff::Timestamp::UNIX_EPOCH,
        snapshot_time: None,
        recovery_point_objective_ms: None,
        databases: databases.iter().map(database).collect(),
        checks: checks.iter().map(check).collect(),
        deadline: Duration::from_mins(1),
    }
}

fn grant(server: &TestServer) -> LeaseGrant {
    LeaseGrant { identity: server.identity(), expires_at: jiff::Timestamp::MAX }
}

/// No check here asks for any.
struct NoPieces;

#[async_trait]
impl BaselinePieces for NoPieces {
    fn bytes(&self) -> u64 {
        0
    }

    async fn piece(&self, database: &str, part: BaselinePart, _: u64, _: u64) -> Result<Vec<u8>, Stop> {
        Err(Stop::internal(format!("{database} has no {part:?}")))
    }
}

/// What an executor does: from a spawned task, so that every future of the link must be `Send`.
async fn run(mut link: AgentLink, job: Job) -> (AgentLink, Result<(), Stop>, Vec<FromAgent>) {
    let work = async move {
        let (sender, mut heard) = mpsc::channel(1 << 16);
        let outcome = link.run_job(job, &NoPieces, sender).await;
        let mut events = Vec::new();
        heard.recv_many(&mut events, 1 << 16).await;
        (link, outcome, events)
    };
    tokio::spawn(work).await.unwrap()
}

fn outcomes(events: &[FromAgent]) -> Vec<(String, CheckOutcome)> {
    let ended = events.iter().filter_map(|event| match event {
        FromAgent::CheckEnded { check, database, outcome, .. } => {
            Some((format!("{check}@{database}"), outcome.clone()))
        }
        _ => None,
    });
    ended.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_runs_on_a_real_server() {
    let server = TestServer::start();
    server.admin("postgres", "CREATE DATABASE shop");
    server.admin("orders", "CREATE TABLE lines AS SELECT generate_series(1, 3) AS id");
    server.admin("shop", "CREATE TABLE lines AS SELECT generate_series(1, 4) AS id");
    let (mut link, serving) = agent(server.socket()).await;

    let targets = closed_targets();
    let probes = link.probe(targets, server.identity()).await.unwrap();
    assert!(
        probes.iter().all(|probe| probe.name.starts_with("agent: ") && probe.expected == probe.observed),
        "{probes:?}"
    );
    assert_eq!(probes.iter().filter(|probe| probe.expected == Expected::Open).count(), 1);

    let component = link.send_blob(&vec![7; 3 << 20]).await.unwrap();
    let baseline = |database: &str| {
        format!(
            "{{\"baseline\":1,\"database\":\"{database}\",\"tables\":1}}\n{}\n",
            r#"{"schema":"public","name":"lines","kind":"table","rows":3,"columns":[]}"#
        )
    };
    let orders = link.send_blob(baseline("orders").as_bytes()).await.unwrap();
    let shop = link.send_blob(baseline("shop").as_bytes()).await.unwrap();
    let broken = link.send_blob(b"{}").await.unwrap();
    link.lease(grant(&server)).await.unwrap();
    let databases = [("orders", Some(orders)), ("shop", Some(shop)), ("postgres", Some(broken)), ("missing", None)];
    let (mut link, outcome, events) = run(link, job(&databases, &[("rows", "")], component)).await;
    outcome.unwrap();

    let ended = outcomes(&events);
    let completed = |summary: &str| CheckOutcome::Completed { summary: Some(summary.to_owned()) };
    assert_eq!(ended[0], ("rows@orders".to_owned(), completed("1 tables in orders")));
    assert_eq!(ended[1], ("rows@shop".to_owned(), completed("1 tables in shop")));
    assert!(matches!(&ended[2].1, CheckOutcome::Inconclusive { why } if why.contains("line 1 of the baseline")));
    assert!(matches!(&ended[3].1, CheckOutcome::Inconclusive { why } if why.contains("does not exist")), "{ended:?}");
    let findings: Vec<_> = events.iter().filter(|event| matches!(event, FromAgent::Finding { .. })).collect();
    assert!(
        matches!(findings[..], [FromAgent::Finding { database, message, .. }] if database == "shop" && message == "4 rows of 3")
    );

    // A second job needs its blobs again; without them it says so.
    let (next, outcome, events) = run(link, job(&[("orders", None)], &[("rows", "")], component)).await;
    outcome.unwrap();
    assert!(matches!(&outcomes(&events)[0].1, CheckOutcome::Inconclusive { why } if why.contains("component")));
    link = next;

    // More than the pipe and the queue hold, cleaned on the way.
    link.send_blob(b"flood").await.unwrap();
    let flood = job(&[("orders", None)], &[("flood", "flood")], Sha256Digest::of(b"flood"));
    let (link, outcome, events) = run(link, flood).await;
    outcome.unwrap();
    let findings = events.iter().filter(|event| {
        matches!(event, FromAgent::Finding { message, details, .. } if message == "m[2J x" && details[0].1.len() <= 4096)
    });
    assert_eq!(findings.count(), 2000);

    cancelling_ends_a_job(link, &server).await;
    serving.await.unwrap().unwrap();
}

async fn cancelling_ends_a_job(mut link: AgentLink, server: &TestServer) {
    link.send_blob(b"wait").await.unwrap();
    let control = link.control();
    let wait = job(&[("orders", None)], &[("a", "wait"), ("b", "wait")], Sha256Digest::of(b"wait"));
    let (sender, mut receiver) = mpsc::channel(64);
    let running = tokio::spawn(async move {
        let outcome = link.run_job(wait, &NoPieces, sender).await;
        (link, outcome)
    });
    let mut heard = Vec::new();
    while !heard.iter().any(|event| matches!(event, FromAgent::Log { .. })) {
        heard.push(receiver.recv().await.unwrap());
    }
    control.lease(grant(server)).await.unwrap();
    control.cancel().await.unwrap();
    let (link, outcome) = running.await.unwrap();
    outcome.unwrap();
    receiver.recv_many(&mut heard, 64).await;
    let ended = outcomes(&heard);
    assert_eq!(
        ended,
        [("a@orders".to_owned(), CheckOutcome::Cancelled), ("b@orders".to_owned(), CheckOutcome::Cancelled)]
    );
    link.close().await;
}

/// Addresses where nothing listens.
fn closed_targets() -> ProbeTargets {
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let dns = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    ProbeTargets { tcp, abstract_socket: format!("muster-nobody-{}", std::process::id()), dns }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_that_fails_is_seen_as_closed() {
    let authority = super::sql::Authority::new();
    let (mut link, serving) = agent("/nowhere/db.sock".into()).await;
    let probes = link.probe(closed_targets(), authority.identity("reader")).await.unwrap();
    let login = probes.iter().find(|probe| probe.expected == Expected::Open).unwrap();
    assert_eq!(login.observed, Expected::Closed, "{login:?}");
    drop(link);
    serving.await.unwrap().unwrap();
}

/// Sends raw frames to a real agent and returns how it ended.
async fn told(frames: &[(Kind, Vec<u8>)]) -> Result<(), AgentError> {
    let (stdin, input) = tokio::io::duplex(4 << 20);
    let (output, _stdout) = tokio::io::duplex(1 << 20);
    let mut writer = FrameWriter::new(stdin);
    for (kind, payload) in frames {
        writer.frame(*kind, payload).await.unwrap();
    }
    drop(writer);
    serve(input, output, "/nowhere".into(), Arc::new(FakeRunner)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_ends_at_what_it_does_not_understand() {
    let hello = Hello { version: PROTOCOL_VERSION, nonce: "n".to_owned() };
    let digest = Sha256Digest::of(b"abc");
    let blob = ToAgent::Blob { digest, size: 3 };
    let raw = |bytes: &[u8]| (Kind::Raw, bytes.to_vec());

    told(&[json(&hello)]).await.unwrap();
    told(&[json(&hello), json(&blob), raw(b"ab"), raw(b"c"), json(&ToAgent::Cancel)]).await.unwrap();
    let error = told(&[]).await.unwrap_err();
    assert!(drill::stop::chain(&error).contains("before it said hello"));
    let old = Hello { version: 9, nonce: String::new() };
    assert!(drill::stop::chain(&told(&[json(&old)]).await.unwrap_err()).contains("version 9"));
    for wrong in [
        vec![json(&hello), raw(b"x")],
        vec![json(&hello), json(&blob), raw(b"abx")],
        vec![json(&hello), json(&blob), json(&ToAgent::Cancel)],
        vec![json(&hello), (Kind::Json, b"{\"unknown\":1}".to_vec())],
        vec![json(&hello), json(&hello)],
        vec![raw(b"hello")],
    ] {
        told(&wrong).await.unwrap_err();
    }
}

fn json(message: &impl serde::Serialize) -> (Kind, Vec<u8>) {
    (Kind::Json, serde_json::to_vec(message).unwrap())
}

/// The runner's side against an agent that says `messages` and goes.
async fn lied(messages: Vec<FromAgent>) -> (Result<(), Stop>, Vec<FromAgent>) {
    let (stdin, input) = tokio::io::duplex(1 << 20);
    let (output, stdout) = tokio::io::duplex(1 << 20);
    let lying = tokio::spawn(async move {
        let (mut reader, mut writer) = (FrameReader::new(input), FrameWriter::new(output));
        writer.hello().await.unwrap();
        writer.message(&FromAgent::Ready).await.unwrap();
        reader.hello().await.unwrap();
        reader.next().await.unwrap();
        for message in messages {
            if writer.message(&message).await.is_err() {
                break;
            }
        }
    });
    let link = AgentLink::start(process(stdin, stdout, "panicked at\n\u{1b}[31mlease")).await.unwrap();
    let limited = job(&[("d", None)], &[("c", "")], Sha256Digest::of(b""));
    let (link, outcome, events) = run(link, limited).await;
    drop(link);
    lying.await.unwrap();
    (outcome, events)
}

fn started() -> FromAgent {
    FromAgent::CheckStarted { check: "c".to_owned(), database: "d".to_owned() }
}

fn ended() -> FromAgent {
    let outcome = CheckOutcome::Completed { summary: Some("fine\u{7}".to_owned()) };
    FromAgent::CheckEnded { check: "c".to_owned(), database: "d".to_owned(), outcome, usage: CheckUsage::default() }
}

fn logged(bytes: usize) -> FromAgent {
    FromAgent::Log { check: "c".to_owned(), database: "d".to_owned(), message: "x".repeat(bytes) }
}

fn metric() -> FromAgent {
    let (check, database, name) = ("c".to_owned(), "d".to_owned(), "m".to_owned());
    FromAgent::Metric { check, database, name, labels: Vec::new(), value: 1.0 }
}

fn found() -> FromAgent {
    FromAgent::Finding {
        check: "c".to_owned(),
        database: "d".to_owned(),
        severity: Severity::Info,
        subject: "s".to_owned(),
        message: "m".to_owned(),
        details: Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_over_only_with_done_and_the_right_count() {
    let (outcome, events) = lied(vec![started(), ended(), FromAgent::Done { events: 2 }]).await;
    outcome.unwrap();
    assert!(matches!(&events[1], FromAgent::CheckEnded { outcome, .. }
        if *outcome == CheckOutcome::Completed { summary: Some("fine".to_owned()) }));

    let message = async |messages| {
        let stop = lied(messages).await.0.unwrap_err();
        assert_eq!(stop.reason, Reason::CheckInconclusive);
        stop.message
    };
    let cut = message(vec![started(), ended()]).await;
    assert!(cut.contains("ended before its work was done; it wrote: panicked at [31mlease"), "{cut}");
    assert!(message(vec![started(), ended(), FromAgent::Done { events: 3 }]).await.contains("3 messages, and 2 came"));
    assert!(message(vec![started(), FromAgent::Done { events: 1 }]).await.contains("to its end"));
    assert!(message(vec![FromAgent::Done { events: 0 }]).await.contains("to its end"));
    assert!(message(vec![started(), started()]).await.contains("out of turn"));
    assert!(message(vec![ended()]).await.contains("out of turn"));
    assert!(message(vec![started(), ended(), logged(1)]).await.contains("out of turn"));
    assert!(message(vec![FromAgent::Ready]).await.contains("no place"));
    let elsewhere = FromAgent::CheckStarted { check: "c".to_owned(), database: "x\u{1b}".to_owned() };
    assert!(message(vec![elsewhere]).await.contains("`x`, which the job does not hold"));
    let flood = |one: fn() -> FromAgent, count| [vec![started()], vec![one(); count]].concat();
    assert!(message(flood(|| logged(10_000), 8)).await.contains("more log"));
    assert!(message(flood(metric, 200)).await.contains("more metrics"));
    assert!(message(flood(found, 2100)).await.contains("more findings"));
}

#[tokio::test]
async fn a_link_refuses_what_is_no_agent() {
    let start = async |bytes: Vec<u8>| {
        let (stdin, _input) = tokio::io::duplex(1 << 10);
        let (mut output, stdout) = tokio::io::duplex(1 << 20);
        output.write_all(&bytes).await.unwrap();
        drop(output);
        AgentLink::start(process(stdin, stdout, "bwrap: no such file")).await.err().unwrap().message
    };
    assert_eq!(start(Vec::new()).await, "the agent ended before it said hello; it wrote: bwrap: no such file");
    assert!(start(b"Usage: muster".to_vec()).await.contains("cannot be talked to"));
    let mut large = (MAX_FRAME + 1).to_be_bytes().to_vec();
    large.push(1);
    assert!(start(large).await.contains("larger than"));
}
