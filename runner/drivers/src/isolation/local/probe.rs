//! The proof of isolation: what the runner owns outside, tried from inside, and from outside as the control.
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use drill::agent::ProbeTargets;
use drill::id::RunId;
use drill::port::{Exec, Sandbox};
use drill::proof::{Expected, Probe};
use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;
use tokio::net::{TcpListener, UdpSocket, UnixListener};
use tokio::task::JoinHandle;

use super::bwrap::PROGRAM;
use super::exec::clean;
use super::inside::{self, Answer, NAMES, Question};

const PATIENCE: Duration = Duration::from_secs(30);
/// For the listeners to notice what reached them.
const SETTLE: Duration = Duration::from_millis(20);
const CONTROL: Duration = Duration::from_secs(3);

/// The runner's own listeners, open while the sandbox lives. Each counts what reaches it.
pub(super) struct Targets {
    pub(super) addresses: ProbeTargets,
    reached: Arc<[AtomicU64; 3]>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Targets {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Targets {
    pub(super) fn open(run: &RunId) -> Result<Self, Stop> {
        Self::try_open(run).or_stop(Reason::Internal, "opening the runner's own listeners for the isolation probe")
    }

    fn try_open(run: &RunId) -> io::Result<Self> {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0")?;
        let udp = std::net::UdpSocket::bind("127.0.0.1:0")?;
        let mut nonce = [0; 8];
        getrandom::fill(&mut nonce).map_err(|error| io::Error::other(error.to_string()))?;
        let name = format!("muster-probe-{run}-{}", hex::encode(nonce));
        let local = std::os::unix::net::SocketAddr::from_abstract_name(&name)?;
        let local = std::os::unix::net::UnixListener::bind_addr(&local)?;
        let addresses = ProbeTargets {
            tcp: tcp.local_addr()?.to_string(),
            abstract_socket: name,
            dns: udp.local_addr()?.to_string(),
        };
        tcp.set_nonblocking(true)?;
        udp.set_nonblocking(true)?;
        local.set_nonblocking(true)?;
        let (tcp, udp, local) =
            (TcpListener::from_std(tcp)?, UdpSocket::from_std(udp)?, UnixListener::from_std(local)?);
        let reached = Arc::new([const { AtomicU64::new(0) }; 3]);
        let count = |target: usize| {
            let reached = Arc::clone(&reached);
            move || _ = reached[target].fetch_add(1, Ordering::SeqCst)
        };
        let (on_tcp, on_local, on_udp) = (count(0), count(1), count(2));
        let tasks = vec![
            tokio::spawn(async move {
                while tcp.accept().await.is_ok() {
                    on_tcp();
                }
            }),
            tokio::spawn(async move {
                while local.accept().await.is_ok() {
                    on_local();
                }
            }),
            tokio::spawn(async move {
                let mut buffer = [0; 512];
                while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
                    on_udp();
                    let _ = udp.send_to(&buffer[..length], from).await;
                }
            }),
        ];
        Ok(Self { addresses, reached, tasks })
    }

    fn reached(&self) -> [u64; 3] {
        [0, 1, 2].map(|target| self.reached[target].load(Ordering::SeqCst))
    }
}

pub(super) async fn probe(sandbox: &dyn Sandbox, targets: &Targets) -> Result<Vec<Probe>, Stop> {
    let question = Question { targets: targets.addresses.clone(), name_servers: name_servers() };
    let question = serde_json::to_string(&question).or_stop(Reason::Internal, "writing the probe's question")?;
    let before = targets.reached();
    let mut exec = Exec::new([PROGRAM, inside::PROBE, &question]);
    exec.deadline = PATIENCE;
    exec.keep = 64 << 10;
    let output = sandbox.exec(exec).await?;
    tokio::time::sleep(SETTLE).await;
    let reached = targets.reached();
    let touched = [0, 1, 2].map(|target| reached[target] > before[target]);
    let mut probes = judged(&output.stdout, touched);
    probes.extend(controls(targets).await?);
    Ok(probes)
}

/// What came from inside, against what must have come. An attempt without an answer counts as one that got through; so does one
/// whose target was reached, whatever it says itself.
fn judged(output: &[u8], touched: [bool; 3]) -> Vec<Probe> {
    let mut answers = HashMap::new();
    let mut nonsense = false;
    for line in output.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        match serde_json::from_slice::<Answer>(line) {
            Ok(answer) if NAMES.contains(&answer.name.as_str()) => {
                nonsense |= answers.insert(answer.name.clone(), answer).is_some();
            }
            Ok(_) | Err(_) => nonsense = true,
        }
    }
    let mut probes = Vec::new();
    for (index, name) in NAMES.iter().enumerate() {
        let (observed, detail) = match answers.get(*name) {
            _ if touched.get(index) == Some(&true) => {
                (Expected::Open, "the runner's own listener was reached".to_owned())
            }
            None => (Expected::Open, "no answer came from inside".to_owned()),
            Some(_) if nonsense => (Expected::Open, "what came from inside cannot be trusted".to_owned()),
            Some(answer) => (if answer.open { Expected::Open } else { Expected::Closed }, clean(&answer.detail)),
        };
        probes.push(Probe { name: format!("sandbox: {name}"), expected: Expected::Closed, observed, detail });
    }
    probes
}

/// The same attempts by the same code from outside: they get through, so those from inside could have.
async fn controls(targets: &Targets) -> Result<Vec<Probe>, Stop> {
    let before = targets.reached();
    let addresses = targets.addresses.clone();
    let attempts = tokio::task::spawn_blocking(move || {
        let name_server = addresses.dns.parse::<SocketAddr>();
        [
            inside::tcp(&addresses.tcp),
            inside::abstract_socket(&addresses.abstract_socket),
            name_server.map_or_else(|error| inside::Seen { open: false, detail: error.to_string() }, inside::datagram),
        ]
    });
    let attempts = attempts.await.or_stop(Reason::Internal, "trying the same from outside")?;
    let all_reached = async {
        while targets.reached().iter().zip(before).any(|(now, before)| *now <= before) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let _ = tokio::time::timeout(CONTROL, all_reached).await;
    let reached = targets.reached();
    let mut probes = Vec::new();
    for (index, seen) in attempts.into_iter().enumerate() {
        let arrived = reached[index] > before[index];
        let observed = if seen.open && arrived { Expected::Open } else { Expected::Closed };
        let detail = if arrived { seen.detail } else { format!("{}; it did not arrive", seen.detail) };
        probes.push(Probe { name: format!("runner: {}", NAMES[index]), expected: Expected::Open, observed, detail });
    }
    Ok(probes)
}

/// Those that this machine asks, if they are on its own loopback: nothing is ever sent to another address.
fn name_servers() -> Vec<SocketAddr> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let addresses = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver")?.trim().parse().ok());
    let on_loopback = addresses.filter(|address: &std::net::IpAddr| address.is_loopback());
    on_loopback.map(|address| SocketAddr::new(address, 53)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(open: &str) -> Vec<u8> {
        let mut text = Vec::new();
        for name in NAMES {
            let answer = Answer { name: name.to_owned(), open: name == open, detail: "x\n\u{1b}[2J".to_owned() };
            text.extend(serde_json::to_vec(&answer).expect("an answer"));
            text.push(b'\n');
        }
        text
    }

    fn all_closed(probes: &[Probe]) -> bool {
        probes.len() == NAMES.len() && probes.iter().all(|probe| probe.observed == Expected::Closed)
    }

    #[test]
    fn only_a_whole_and_clean_set_of_refusals_is_closed() {
        assert!(all_closed(&judged(&answers(""), [false; 3])));
        assert!(judged(&answers(""), [false; 3]).iter().all(|probe| !probe.detail.contains('\u{1b}')));
        assert!(!all_closed(&judged(&answers("ptrace"), [false; 3])));
        assert!(!all_closed(&judged(&answers(""), [false, true, false])));
        assert!(!all_closed(&judged(b"", [false; 3])));
        let mut twice = answers("");
        twice.extend(answers(""));
        assert!(!all_closed(&judged(&twice, [false; 3])));
        let mut chatty = answers("");
        chatty.extend(b"hello\n");
        assert!(!all_closed(&judged(&chatty, [false; 3])));
    }
}
