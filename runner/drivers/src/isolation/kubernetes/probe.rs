//! The proof of isolation: attempts from inside that must fail, and the same attempts by the same code from places without a
//! policy, which show that they could have succeeded.
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use drill::network::Target;
use drill::port::{Exec, ExitStatus};
use drill::proof::{Expected, Probe};
use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::channel::Place;
use super::cluster::Cluster;
use super::exec;
use super::inside::{self, Attempt, Seen};
use super::objects::WITNESS_PORT;
use super::pods::Running;
use crate::isolation::local::exec::clean;

/// How long enforcement may lag behind the policies.
const LAG: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(200);
const ROUND: Duration = Duration::from_secs(12);
const KUBELET: u16 = 10250;
const METADATA: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), 80);
const PORT_OF_DATABASE: &str = "the database's port";
const PORT_OF_DOORWAY: &str = "the doorway's port";

/// Where the attempts are made from, and what they aim at.
pub(super) struct Ground {
    pub(super) database: Place,
    pub(super) agent: Place,
    pub(super) stranger: Place,
    pub(super) witness: Place,
    pub(super) targets: Targets,
    pub(super) database_port: SocketAddr,
    /// Where a doorway is while one is open. Those who try are never its visitors.
    pub(super) doorway: Option<SocketAddr>,
    /// Until isolation was proven there is a pod that may go anywhere; from then on the witness alone shows what could be reached.
    pub(super) stranger_there: Arc<AtomicBool>,
}

pub(super) struct Targets {
    attempts: Vec<Attempt>,
    /// Those whose control must succeed: they are known to be there. Of the others the proof says where nothing answered.
    certain: Vec<String>,
}

impl Targets {
    pub(super) async fn find(
        cluster: &Cluster,
        database: &Running,
        witness: &Running,
        production: &[Target],
    ) -> Result<Self, Stop> {
        let mut targets = Self { attempts: Vec::new(), certain: Vec::new() };
        targets.add("a pod of another namespace", SocketAddr::new(witness.address, WITNESS_PORT), false, true);
        targets.add("a datagram to a pod of another namespace", witness_datagrams(witness), true, true);
        targets.add("the node", SocketAddr::new(database.node, KUBELET), false, true);
        targets.add("the metadata address", METADATA, false, false);
        let (host, port) = &cluster.server;
        let tried = format!("looking up the API server {host}");
        let mut servers = tokio::net::lookup_host((host.as_str(), *port)).await.or_stop(Reason::SandboxUnfit, tried)?;
        if let Some(server) = servers.next().filter(|server| !server.ip().is_loopback()) {
            targets.add("the API server", server, false, false);
        }
        for (namespace, service, port, name, datagram) in [
            ("default", "kubernetes", 443, "the API server's service", false),
            ("kube-system", "kube-dns", 53, "the cluster's name server", true),
        ] {
            if let Some(address) = service_address(cluster, namespace, service).await {
                targets.add(name, SocketAddr::new(address, port), datagram, false);
            }
        }
        for target in production {
            targets.add_production(target);
        }
        Ok(targets)
    }

    /// Listed addresses by themselves, others as their network's.
    fn add_production(&mut self, target: &Target) {
        let tries = target.tries();
        let alone = tries.len() == 1;
        for address in tries {
            let of = if alone { String::new() } else { format!(", of {target}") };
            if !self.attempts.iter().any(|known| known.address == address && !known.datagram) {
                self.add(&format!("production at {address}{of}"), address, false, false);
            }
        }
    }

    fn add(&mut self, name: &str, address: SocketAddr, datagram: bool, certain: bool) {
        self.attempts.push(Attempt { name: name.to_owned(), address, datagram });
        if certain {
            self.certain.push(name.to_owned());
        }
    }
}

pub(super) fn witness_datagrams(witness: &Running) -> SocketAddr {
    SocketAddr::new(witness.address, WITNESS_PORT)
}

/// None where muster may not look, or there is none: the proof does without.
async fn service_address(cluster: &Cluster, namespace: &str, name: &str) -> Option<IpAddr> {
    let services: Api<Service> = Api::namespaced(cluster.client.clone(), namespace);
    let service = super::cluster::get(&services, name).await.ok()??;
    service.spec?.cluster_ip?.parse().ok()
}

/// Tries until all is as it must be, or the lag that a network may have is over.
pub(super) async fn probe(ground: &Ground, leaving: &TaskTracker) -> Result<Vec<Probe>, Stop> {
    let first = ground.stranger_there.load(Ordering::SeqCst);
    let began = Instant::now();
    loop {
        let mut round = Box::pin(round(ground, first, leaving)).await?;
        // Nothing lags any more: what is open now was opened.
        if !first && round.hole {
            return Ok(round.probes);
        }
        let proven = round.probes.iter().all(|probe| probe.expected == probe.observed);
        if proven || began.elapsed() >= LAG {
            // What a busy pod did not answer is no hole, once there was a proof: whoever asked asks again.
            if let Some(silent) = round.silent.filter(|_| !first) {
                let message = format!("the probe in {silent} did not answer for {} s", LAG.as_secs());
                return Err(Stop::new(Reason::IsolationUnproven, message));
            }
            if let (true, Some(one)) = (first, round.probes.first_mut()) {
                let lag = began.elapsed().as_millis();
                one.detail = format!("{}; in force within {lag} ms of the first attempt", one.detail);
            }
            return Ok(round.probes);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

struct Round {
    probes: Vec<Probe>,
    /// A place that did not answer all that it was asked.
    silent: Option<&'static str>,
    /// Something answered that must not.
    hole: bool,
}

async fn round(ground: &Ground, first: bool, leaving: &TaskTracker) -> Result<Round, Stop> {
    let out = &ground.targets.attempts;
    let attempt_at = |name: &str, address| Attempt { name: name.to_owned(), address, datagram: false };
    let doorway = ground.doorway.map(|address| attempt_at(PORT_OF_DOORWAY, address));
    let inward: Vec<Attempt> =
        std::iter::once(attempt_at(PORT_OF_DATABASE, ground.database_port)).chain(doorway).collect();
    let both = [out.clone(), inward.clone()].concat();
    let (outsider, whose) = if first {
        (&ground.stranger, "an unlabelled pod that may go anywhere")
    } else {
        (&ground.witness, "a pod that no policy holds")
    };
    let only_inward =
        async { if first { attempt(&ground.witness, &inward, leaving).await } else { Ok(HashMap::new()) } };
    let (database, agent, outsider, witness) = tokio::try_join!(
        attempt(&ground.database, out, leaving),
        attempt(&ground.agent, &both, leaving),
        attempt(outsider, &both, leaving),
        only_inward,
    )?;
    let asked =
        [("the sandbox", &database, out.len()), ("the agent", &agent, both.len()), (whose, &outsider, both.len())];
    let silent = asked.into_iter().find(|(_, seen, asked)| seen.len() < *asked).map(|(place, ..)| place);
    let mut probes = Vec::new();
    let answers = |name: &str| outsider.get(name).is_some_and(|seen| seen.open);
    for name in out.iter().map(|attempt| attempt.name.as_str()) {
        for (place, seen) in [("sandbox", &database), ("agent", &agent)] {
            let mut probe = judged(place, name, Expected::Closed, seen);
            if !answers(name) {
                probe.detail.push_str("; nothing answers there without a policy either");
            }
            probes.push(probe);
        }
    }
    let certain = |name: &str| ground.targets.certain.iter().any(|one| one == name);
    for name in out.iter().map(|attempt| attempt.name.as_str()).filter(|name| certain(name) || answers(name)) {
        probes.push(judged(whose, name, Expected::Open, &outsider));
    }
    let elsewhere = if first { &witness } else { &outsider };
    for name in inward.iter().map(|attempt| attempt.name.as_str()) {
        if first {
            probes.push(judged("an unlabelled pod", name, Expected::Closed, &outsider));
        }
        probes.push(judged("a pod of another namespace", name, Expected::Closed, elsewhere));
    }
    if ground.doorway.is_some() {
        probes.push(judged("the agent's pod", PORT_OF_DOORWAY, Expected::Closed, &agent));
    }
    let is_open = |seen: &HashMap<String, Seen>, name: &str| seen.get(name).is_some_and(|seen| seen.open);
    let hole = out.iter().any(|attempt| is_open(&database, &attempt.name) || is_open(&agent, &attempt.name))
        || inward.iter().any(|attempt| is_open(elsewhere, &attempt.name))
        || is_open(&agent, PORT_OF_DOORWAY);
    probes.push(judged("the agent's pod", PORT_OF_DATABASE, Expected::Open, &agent));
    Ok(Round { probes, silent, hole })
}

/// An attempt without an answer counts against the proof, whichever way it goes.
fn judged(place: &str, name: &str, expected: Expected, seen: &HashMap<String, Seen>) -> Probe {
    let (observed, detail) = match (seen.get(name), expected) {
        (Some(seen), _) => (if seen.open { Expected::Open } else { Expected::Closed }, clean(&seen.detail)),
        (None, Expected::Closed) => (Expected::Open, "no answer came from there".to_owned()),
        (None, Expected::Open) => (Expected::Closed, "no answer came from there".to_owned()),
    };
    Probe { name: format!("{place}: {name}"), expected, observed, detail }
}

pub(super) async fn attempt(
    place: &Place,
    attempts: &[Attempt],
    leaving: &TaskTracker,
) -> Result<HashMap<String, Seen>, Stop> {
    let question = serde_json::to_string(attempts).or_stop(Reason::Internal, "writing the probe's question")?;
    let mut command = Exec::new([drill::port::PROGRAM, inside::REACH, &question]);
    command.deadline = ROUND;
    command.keep = 64 << 10;
    let output = exec::exec(place, command, leaving).await?;
    if output.status == ExitStatus::DeadlineExceeded {
        // Nothing was seen, which counts against the proof; the next round may see more.
        return Ok(HashMap::new());
    }
    if output.status != ExitStatus::Code(0) {
        let said = clean(String::from_utf8_lossy(&output.stderr).trim());
        let message = format!("probing from pod `{}`: it ended with {:?}: {said}", place.pod, output.status);
        return Err(Stop::new(Reason::IsolationUnproven, message));
    }
    Ok(answers(&output.stdout, attempts))
}

/// Nothing of an output that holds anything else than one answer to each question, or fewer.
fn answers(output: &[u8], attempts: &[Attempt]) -> HashMap<String, Seen> {
    let mut seen = HashMap::new();
    for line in output.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let answer = serde_json::from_slice::<Seen>(line).ok();
        let answer = answer.filter(|answer| attempts.iter().any(|attempt| attempt.name == answer.name));
        let Some(answer) = answer else { return HashMap::new() };
        if seen.insert(answer.name.clone(), answer).is_some() {
            return HashMap::new();
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempts() -> Vec<Attempt> {
        let attempt = |name: &str| Attempt { name: name.to_owned(), address: METADATA, datagram: false };
        vec![attempt("one"), attempt("two")]
    }

    fn line(name: &str, open: bool) -> String {
        format!("{}\n", serde_json::json!({ "name": name, "open": open, "detail": "x\u{1b}" }))
    }

    #[test]
    fn only_a_clean_set_of_answers_is_believed() {
        let clean = answers((line("one", false) + &line("two", true)).as_bytes(), &attempts());
        assert_eq!(judged("here", "one", Expected::Closed, &clean).observed, Expected::Closed);
        assert_eq!(judged("here", "two", Expected::Closed, &clean).observed, Expected::Open);
        assert!(!judged("here", "two", Expected::Closed, &clean).detail.contains('\u{1b}'));
        for text in [line("one", false) + &line("one", false), line("one", false) + "hello\n", line("three", false)] {
            assert!(answers(text.as_bytes(), &attempts()).is_empty(), "{text}");
        }
    }

    #[test]
    fn what_was_not_answered_counts_against_the_proof() {
        let nothing = HashMap::new();
        assert_eq!(judged("here", "one", Expected::Closed, &nothing).observed, Expected::Open);
        assert_eq!(judged("here", "one", Expected::Open, &nothing).observed, Expected::Closed);
    }
}
