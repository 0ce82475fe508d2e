//! Tries to leave the sandbox, from inside. Every attempt must fail, and says how it failed.
//!
//! Nothing is sent to an address that is not this machine's loopback: that no other has a route is seen from `connect` alone.
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use drill::agent::ProbeTargets;
use serde::{Deserialize, Serialize};

use super::super::sys::try_syscall;

const PATIENCE: Duration = Duration::from_secs(1);
/// A query for the address of `muster.invalid`, as a resolver would send it.
const QUERY: &[u8] = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x06muster\x07invalid\x00\x00\x01\x00\x01";
const KEYCTL_GET_KEYRING_ID: libc::c_long = 0;
const KEY_SPEC_SESSION_KEYRING: libc::c_long = -3;

/// Every attempt, in order. The runner takes an attempt without an answer for one that succeeded.
pub(in super::super) const NAMES: [&str; 11] = [
    "TCP to the runner's listener",
    "the runner's abstract socket",
    "a datagram to the name server",
    "a route to any other network",
    "a network interface beside lo",
    "the runner's environment",
    "a new user namespace",
    "ptrace",
    "the keyring",
    "io_uring",
    "another process's descriptor",
];

/// What Linux puts into every new network namespace where the tunnel's module is loaded.
const TUNNELS: [&str; 9] = ["tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "sit0", "ip6tnl0", "ip6gre0", "ip6_vti0"];
const TUNNEL_ADVICE: &str = "the kernel puts its tunnels into every new network namespace; to keep them out: \
    `sudo sysctl net.core.fb_tunnels_only_for_init_net=1`, and the same line in /etc/sysctl.d for the next start";

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Question {
    pub(in super::super) targets: ProbeTargets,
    /// Name servers of this machine; only those on loopback are tried.
    pub(in super::super) name_servers: Vec<SocketAddr>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Answer {
    pub(in super::super) name: String,
    pub(in super::super) open: bool,
    pub(in super::super) detail: String,
}

/// The argument is a [`Question`]; standard output is one [`Answer`] a line.
pub(super) fn main(arguments: &[String]) -> ExitCode {
    let question = arguments.first().and_then(|text| serde_json::from_str::<Question>(text).ok());
    let Some(question) = question else {
        eprintln!("muster {}: it is not meant to be typed", super::PROBE);
        return ExitCode::FAILURE;
    };
    let attempts: [Box<dyn Fn() -> Seen>; 11] = [
        Box::new(|| tcp(&question.targets.tcp)),
        Box::new(|| abstract_socket(&question.targets.abstract_socket)),
        Box::new(|| name_servers(&question)),
        Box::new(other_networks),
        Box::new(interfaces),
        Box::new(environment),
        Box::new(|| refused(libc::SYS_unshare, [libc::CLONE_NEWUSER.into(), 0, 0, 0])),
        Box::new(|| refused(libc::SYS_ptrace, [libc::PTRACE_TRACEME.into(), 0, 0, 0])),
        Box::new(|| refused(libc::SYS_keyctl, [KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0, 0])),
        Box::new(|| refused(libc::SYS_io_uring_setup, [1, 0, 0, 0])),
        Box::new(|| refused(libc::SYS_pidfd_getfd, [-1, 0, 0, 0])),
    ];
    let mut out = io::stdout().lock();
    for (name, attempt) in NAMES.iter().zip(attempts) {
        let seen = attempt();
        let answer = Answer { name: (*name).to_owned(), open: seen.open, detail: seen.detail };
        let Ok(mut line) = serde_json::to_vec(&answer) else { return ExitCode::FAILURE };
        line.push(b'\n');
        if out.write_all(&line).is_err() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

pub(in super::super) struct Seen {
    pub(in super::super) open: bool,
    pub(in super::super) detail: String,
}

impl Seen {
    fn open(detail: impl Into<String>) -> Self {
        Self { open: true, detail: detail.into() }
    }

    fn closed(detail: impl Into<String>) -> Self {
        Self { open: false, detail: detail.into() }
    }

    /// Only an error of the attempt itself closes it; a mistake in asking is as bad as an open door.
    fn of<T>(result: io::Result<T>, what: &str) -> Self {
        match result {
            Ok(_) => Self::open(format!("{what} succeeded")),
            Err(error) => Self::closed(format!("{what}: {error}")),
        }
    }
}

/// The same code as the control outside.
pub(in super::super) fn tcp(target: &str) -> Seen {
    match target.parse::<SocketAddr>() {
        Err(error) => Seen::open(format!("no address: {error}")),
        Ok(address) => Seen::of(TcpStream::connect_timeout(&address, PATIENCE), "connect"),
    }
}

pub(in super::super) fn abstract_socket(name: &str) -> Seen {
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name);
    match address {
        Err(error) => Seen::open(format!("no address: {error}")),
        Ok(address) => Seen::of(UnixStream::connect_addr(&address), "connect"),
    }
}

/// Open only if an answer comes back; whether the datagram arrived is what the runner sees at the other end.
pub(in super::super) fn datagram(target: SocketAddr) -> Seen {
    let exchange = || -> io::Result<usize> {
        let own: SocketAddr =
            if target.is_ipv4() { ([127, 0, 0, 1], 0).into() } else { "[::1]:0".parse().map_err(io::Error::other)? };
        let socket = UdpSocket::bind(own)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect(target)?;
        socket.send(QUERY)?;
        let mut buffer = [0; 512];
        socket.recv(&mut buffer)
    };
    Seen::of(exchange(), "a query")
}

fn name_servers(question: &Question) -> Seen {
    let Ok(stand_in) = question.targets.dns.parse::<SocketAddr>() else { return Seen::open("no address") };
    let configured = question.name_servers.iter().copied().filter(|address| address.ip().is_loopback());
    let mut last = Seen::open("nothing was tried");
    for target in std::iter::once(stand_in).chain(configured.take(4)) {
        last = datagram(target);
        if last.open {
            break;
        }
    }
    last
}

/// Connecting a datagram socket sends nothing; it looks for a route. `192.0.2.0/24` and `2001:db8::/32` are for documentation.
fn other_networks() -> Seen {
    let mut seen = Seen::closed("");
    for (own, target) in [("0.0.0.0:0", "192.0.2.1:53"), ("[::]:0", "[2001:db8::1]:53")] {
        match UdpSocket::bind(own).and_then(|socket| socket.connect(target)) {
            Ok(()) => return Seen::open(format!("there is a route to {target}")),
            Err(error) => match error.raw_os_error() {
                // The second: a machine without IPv6.
                Some(libc::ENETUNREACH | libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL) => {
                    seen = Seen::closed(format!("connect: {error}"));
                }
                _ => return Seen::open(format!("{target}: {error}, which is not the lack of a route")),
            },
        }
    }
    seen
}

fn interfaces() -> Seen {
    let text = match std::fs::read_to_string("/proc/net/dev") {
        Ok(text) => text,
        Err(error) => return Seen::open(format!("/proc/net/dev: {error}")),
    };
    match beside_lo(&text) {
        Some(others) if others.is_empty() => Seen::closed("only lo"),
        Some(others) => match tunnel_advice(&others) {
            Some(advice) => Seen::open(format!("{}: {advice}", others.join(" "))),
            None => Seen::open(others.join(" ")),
        },
        None => Seen::open(format!("no lo in /proc/net/dev: {text}")),
    }
}

/// The interfaces of `/proc/net/dev` that are not the loopback's. None: the loopback's is not among them, so that the rest cannot be
/// believed either.
pub(in super::super) fn beside_lo(devices: &str) -> Option<Vec<&str>> {
    let names = devices.lines().skip(2).filter_map(|line| line.split(':').next()).map(str::trim);
    let (lo, others): (Vec<&str>, Vec<&str>) = names.partition(|name| *name == "lo");
    (lo.len() == 1).then_some(others)
}

/// What to type where all of these are tunnels of the kernel's own.
pub(in super::super) fn tunnel_advice(interfaces: &[&str]) -> Option<&'static str> {
    interfaces.iter().all(|name| TUNNELS.contains(name)).then_some(TUNNEL_ADVICE)
}

/// bubblewrap's own fork is process 1, and keeps what bubblewrap was started with.
fn environment() -> Seen {
    let mut bytes = Vec::new();
    match std::fs::File::open("/proc/1/environ").and_then(|file| file.take(4096).read_to_end(&mut bytes)) {
        Ok(0) => Seen::closed("process 1 has none"),
        Ok(_) => Seen::open("process 1 has an environment"),
        Err(error) => Seen::closed(format!("/proc/1/environ: {error}")),
    }
}

/// Refused by the filter, not by chance: EPERM is its answer.
fn refused(number: libc::c_long, arguments: [libc::c_long; 4]) -> Seen {
    match try_syscall(number, arguments) {
        Ok(_) => Seen::open("the call succeeded"),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Seen::closed("refused"),
        Err(error) => Seen::open(format!("not refused by the filter: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_beside_the_loopback_are_told() {
        let devices = |names: &[&str]| {
            let lines: Vec<String> = names.iter().map(|name| format!("{name:>6}:       0       0    0")).collect();
            format!(
                "Inter-|   Receive                |  Transmit\n face |bytes    packets errs\n{}\n",
                lines.join("\n")
            )
        };
        assert_eq!(beside_lo(&devices(&["lo"])), Some(vec![]));
        assert_eq!(beside_lo(&devices(&["lo", "sit0", "eth0"])), Some(vec!["sit0", "eth0"]));
        for unbelievable in ["", "lo: 0", &devices(&[]), &devices(&["eth0"])] {
            assert_eq!(beside_lo(unbelievable), None, "{unbelievable}");
        }
        assert!(
            tunnel_advice(&["sit0", "tunl0"]).is_some_and(|advice| advice.contains("fb_tunnels_only_for_init_net=1"))
        );
        assert_eq!(tunnel_advice(&["sit0", "eth0"]), None);
    }
}
