//! Who gets in while a doorway is open, and that nobody does after it.
use std::ffi::OsString;
use std::io::{BufRead, BufReader, ErrorKind, Lines, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use drill::id::RunId;
use drill::port::{Doorway, PROGRAM};
use drill::spec::{Kubernetes, Visitor};
use drill::verdict::Reason;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::{Held, Place, TestFn, asked, client, run_id};
use crate::test;

pub(crate) fn tests() -> Vec<(&'static str, TestFn)> {
    vec![
        test!(a_doorway_for_pods_lets_in_those_pods),
        test!(a_doorway_for_an_address_lets_in_nobody_from_another),
        test!(a_doorway_that_somebody_widens_ends_the_run),
        test!(whoever_stands_in_a_doorway_is_cut_when_it_closes),
        test!(a_doorway_whose_end_nobody_saw_is_not_called_closed),
    ]
}

/// This machine's address, as pods see it.
const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 251, 255, 1));
const AT_ONCE: Duration = Duration::from_secs(10);

async fn a_doorway_for_pods_lets_in_those_pods(place: Place) {
    let held = for_visitor(&place, witness).await;
    let doorway = held.sandbox.open_doorway().await.expect("a doorway");
    let address = address_of(doorway.as_ref());
    let mut reached = false;
    for _ in 0..10 {
        reached = reached || Pod::Witness.reaches(&held, address);
    }
    assert!(reached, "the pod that the doorway is for");
    assert!(!Pod::Stranger.reaches(&held, address), "another pod got in");
    drop(doorway);
    let gone = async {
        while policies(&held).await.get_opt("dr-drill-doorway").await.expect("looked").is_some() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(AT_ONCE, gone).await.expect("one that is dropped is closed, too");
    held.release().await;
}

async fn a_doorway_for_an_address_lets_in_nobody_from_another(place: Place) {
    let comes_in = |address: SocketAddr| {
        let tries = move || (0..10).any(|_| TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok());
        async move { tokio::task::spawn_blocking(tries).await.expect("no panic") }
    };
    let held = for_visitor(&place, |_| Visitor::Addresses(vec![HERE])).await;
    let doorway = held.sandbox.open_doorway().await.expect("a doorway");
    let address = address_of(doorway.as_ref());
    assert!(comes_in(address).await, "the machine that the doorway is for");
    for pod in [Pod::Witness, Pod::Stranger] {
        assert!(!pod.reaches(&held, address), "{pod:?} got in");
    }
    doorway.close().await.expect("closed");
    held.release().await;

    // Nobody has that address; whoever knocks comes from this machine's.
    let another = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 10));
    let held = for_visitor(&place, |_| Visitor::Addresses(vec![another])).await;
    let doorway = held.sandbox.open_doorway().await.expect("a doorway");
    assert!(!comes_in(address_of(doorway.as_ref())).await, "it is for {another}, and {HERE} got in");
    doorway.close().await.expect("closed");
    held.release().await;
}

async fn a_doorway_that_somebody_widens_ends_the_run(place: Place) {
    let held = for_visitor(&place, |_| Visitor::Addresses(vec![HERE])).await;
    let doorway = held.sandbox.open_doorway().await.expect("a doorway");
    let wider = json!({ "spec": { "ingress": [{}] } });
    let policies = policies(&held).await;
    policies.patch("dr-drill-doorway", &PatchParams::default(), &Patch::Merge(&wider)).await.expect("widened");
    let stop = tokio::time::timeout(AT_ONCE, held.sandbox.breach()).await.expect("at once");
    assert_eq!(stop.reason, Reason::IsolationBreached);
    assert!(stop.message.contains("policy `dr-drill-doorway` was changed"), "{stop:?}");
    drop(doorway);
    held.release().await;
}

async fn whoever_stands_in_a_doorway_is_cut_when_it_closes(place: Place) {
    let held = for_visitor(&place, witness).await;
    let doorway = held.sandbox.open_doorway().await.expect("a doorway");
    let mut server = stays(&held);
    let mut visitor = Visit::of(&held, address_of(doorway.as_ref()));
    assert_eq!(visitor.says(), "in");
    doorway.close().await.expect("closed");
    assert_eq!(visitor.says(), "out");
    server.kill().expect("ended");
    server.wait().expect("ended");
    held.release().await;
}

async fn a_doorway_whose_end_nobody_saw_is_not_called_closed(place: Place) {
    let held = for_visitor(&place, witness).await;
    let doorway = held.sandbox.open_doorway().await.expect("a doorway");
    // What carries the runner's stream to the pod.
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/services/cluster/signal");
    assert!(Command::new(script).args(["kubelet", "KILL"]).status().expect("it starts").success());
    let stop = doorway.close().await.expect_err("it may be open");
    assert_eq!(stop.reason, Reason::IsolationUnproven);
    assert!(stop.message.contains("nobody knows whether the relay in the sandbox ended"), "{stop:?}");
    held.release().await;
}

fn witness(run: &RunId) -> Visitor {
    Visitor::Pods {
        namespace: format!("dr-witness-{run}"),
        labels: [("muster.dev/run".to_owned(), run.to_string())].into(),
    }
}

async fn for_visitor(place: &Place, visitor: impl FnOnce(&RunId) -> Visitor) -> Held {
    let run = run_id();
    let doorway = Some(visitor(&run));
    place.asking(Kubernetes { doorway, ..asked() }).try_sandbox(&run).await.expect("provisioned")
}

async fn policies(held: &Held) -> Api<NetworkPolicy> {
    Api::namespaced(client().await, &held.namespace())
}

fn address_of(doorway: &dyn Doorway) -> SocketAddr {
    format!("{}:{}", doorway.host(), doorway.port()).parse().expect("an address")
}

/// One of this program's commands in a pod.
fn exec(namespace: &str, pod: &str, arguments: &[&str]) -> Command {
    let kubeconfig = std::env::var("KUBECONFIG").expect("in a cluster");
    let kubectl = Path::new(&kubeconfig).parent().expect("a folder").with_file_name("bin").join("kubectl");
    let mut command = Command::new(kubectl);
    command.args(["-n", namespace, "exec", pod, "--", PROGRAM]).args(arguments);
    command
}

/// Where the database's server would be, one that keeps every connection.
fn stays(held: &Held) -> Child {
    exec(&held.namespace(), "database", &[STAY]).stdout(Stdio::null()).spawn().expect("kubectl starts")
}

/// A connection through a doorway, from the pod that it is for.
struct Visit {
    command: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Visit {
    fn of(held: &Held, address: SocketAddr) -> Self {
        let mut command = exec(&format!("dr-witness-{}", held.run), "witness", &[VISIT, &address.to_string()]);
        let mut command = command.stdout(Stdio::piped()).spawn().expect("kubectl starts");
        let said = BufReader::new(command.stdout.take().expect("piped")).lines();
        Self { command, said }
    }

    fn says(&mut self) -> String {
        self.said.next().expect("it has not ended").expect("a line")
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let _ = self.command.kill();
        let _ = self.command.wait();
    }
}

const STAY: &str = "test-stay";
const VISIT: &str = "test-visit";
/// Longer than any of these tests needs, and then the command in the pod ends.
const STAYS: Duration = Duration::from_secs(90);
/// Of a visitor: much less than the server's, which would cut it too.
const VISITS: Duration = Duration::from_secs(30);

pub(crate) fn in_a_pod(arguments: &[OsString]) -> Option<ExitCode> {
    let arguments: Vec<&str> = arguments.iter().filter_map(|one| one.to_str()).collect();
    match arguments.as_slice() {
        [STAY] => stay(),
        [VISIT, address] => visit(address.parse().expect("an address")),
        _ => return None,
    }
    Some(ExitCode::SUCCESS)
}

fn stay() {
    let listener = TcpListener::bind(("127.0.0.1", 5432)).expect("the port is free");
    std::thread::spawn(move || listener.incoming().collect::<Vec<_>>());
    std::thread::sleep(STAYS);
}

/// Says when it is in, and when it is out again. The policy and the server may take a moment to let it in.
fn visit(address: SocketAddr) {
    let until = Instant::now() + VISITS;
    let stream = loop {
        assert!(Instant::now() < until, "nobody let it in");
        let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) else { continue };
        if stands(&stream, Duration::from_secs(1)) {
            break stream;
        }
    };
    let say = |word: &[u8]| std::io::stdout().write_all(word).expect("somebody listens");
    say(b"in\n");
    say(if stands(&stream, VISITS) { b"still in\n" } else { b"out\n" });
}

fn stands(mut stream: &TcpStream, so_long: Duration) -> bool {
    stream.set_read_timeout(Some(so_long)).expect("a timeout");
    matches!(stream.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

#[derive(Debug, Clone, Copy)]
enum Pod {
    /// Of another namespace.
    Witness,
    /// Of the same, without a label.
    Stranger,
}

impl Pod {
    fn reaches(self, held: &Held, address: SocketAddr) -> bool {
        let (namespace, pod) = match self {
            Self::Witness => (format!("dr-witness-{}", held.run), "witness"),
            Self::Stranger => (held.namespace(), "stranger"),
        };
        let question = json!([{ "name": "it", "address": address, "datagram": false }]).to_string();
        let output = exec(&namespace, pod, &["pod-reach", &question]).output().expect("kubectl starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let seen: Value = serde_json::from_slice(&output.stdout).expect("an answer");
        seen["open"].as_bool().expect("yes or no")
    }
}
