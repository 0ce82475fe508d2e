//! Tries to leave the agent's boundary, and, as the control, tries the one way that must be open.
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use drill::agent::{ClientIdentity, ProbeTargets};
use drill::proof::{Expected, Probe};
use tokio::net::{TcpStream, UdpSocket, UnixStream};
use tokio::time::timeout;

use super::{sql, text};

const ATTEMPT: Duration = Duration::from_secs(2);
/// Exists in every cluster, unless somebody removed it: then the server refuses after the login, and says so.
const CONTROL_DATABASE: &str = "postgres";

pub(super) async fn run(targets: &ProbeTargets, socket: &Path, identity: &ClientIdentity) -> Vec<Probe> {
    let (tcp, abstract_socket, dns, login) =
        tokio::join!(tcp(&targets.tcp), unix(&targets.abstract_socket), dns(&targets.dns), login(socket, identity));
    vec![
        probe("agent: TCP to the runner's listener", Expected::Closed, tcp),
        probe("agent: the runner's abstract socket", Expected::Closed, abstract_socket),
        probe("agent: DNS", Expected::Closed, dns),
        probe("agent: login with its certificate", Expected::Open, login),
    ]
}

type Seen = (Expected, String);

fn probe(name: &str, expected: Expected, (observed, detail): Seen) -> Probe {
    Probe { name: name.to_owned(), expected, observed, detail: text::bounded(&detail, 512) }
}

async fn tcp(target: &str) -> Seen {
    let Ok(address) = target.parse::<SocketAddr>() else { return untried(target) };
    match timeout(ATTEMPT, TcpStream::connect(address)).await {
        Ok(Ok(_)) => (Expected::Open, "connected".to_owned()),
        Ok(Err(error)) => (Expected::Closed, format!("connect: {error}")),
        Err(_) => (Expected::Closed, "connect: no answer".to_owned()),
    }
}

async fn unix(target: &str) -> Seen {
    // `@name` is how tools print an abstract name.
    let name = target.strip_prefix('@').unwrap_or(target);
    if name.is_empty() {
        return untried(target);
    }
    match timeout(ATTEMPT, UnixStream::connect(format!("\0{name}"))).await {
        Ok(Ok(_)) => (Expected::Open, "connected".to_owned()),
        Ok(Err(error)) => (Expected::Closed, format!("connect: {error}")),
        Err(_) => (Expected::Closed, "connect: no answer".to_owned()),
    }
}

/// A datagram that leaves is seen by the runner's listener too; here only an answer shows that it left.
async fn dns(target: &str) -> Seen {
    let Ok(address) = target.parse::<SocketAddr>() else { return untried(target) };
    let attempt = async {
        let local: SocketAddr = if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
        let socket = UdpSocket::bind(local).await?;
        socket.connect(address).await?;
        // A question for the A record of `muster.invalid`.
        let mut question = vec![0x6d, 0x75, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        question.extend_from_slice(b"\x06muster\x07invalid\0\0\x01\0\x01");
        socket.send(&question).await?;
        socket.recv(&mut [0; 512]).await
    };
    match timeout(ATTEMPT / 2, attempt).await {
        Ok(Ok(_)) => (Expected::Open, "answered".to_owned()),
        Ok(Err(error)) => (Expected::Closed, format!("send: {error}")),
        Err(_) => (Expected::Closed, "no answer".to_owned()),
    }
}

async fn login(socket: &Path, identity: &ClientIdentity) -> Seen {
    match sql::login(socket, identity, CONTROL_DATABASE).await {
        Ok(()) => (Expected::Open, format!("logged in as {}", identity.role)),
        Err(error) => (Expected::Closed, error.message),
    }
}

/// What was not tried proves nothing, so it counts as open.
fn untried(target: &str) -> Seen {
    (Expected::Open, format!("not tried: `{target}` is no address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listener_that_can_be_reached_is_seen_as_open() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound").to_string();
        assert_eq!(tcp(&address).await.0, Expected::Open);
        drop(listener);
        assert_eq!(tcp(&address).await.0, Expected::Closed);
        assert_eq!(tcp("nowhere").await.0, Expected::Open);
    }

    #[tokio::test]
    async fn an_abstract_socket_is_found_under_both_spellings() {
        let name = format!("muster-probe-test-{}", std::process::id());
        assert_eq!(unix(&name).await.0, Expected::Closed);
        let _listener = tokio::net::UnixListener::bind(format!("\0{name}")).expect("an abstract name");
        assert_eq!(unix(&name).await.0, Expected::Open);
        assert_eq!(unix(&format!("@{name}")).await.0, Expected::Open);
    }

    #[tokio::test]
    async fn an_answer_to_a_datagram_is_seen_as_open() {
        let server = UdpSocket::bind("127.0.0.1:0").await.expect("loopback");
        let address = server.local_addr().expect("bound").to_string();
        let answering = tokio::spawn(async move {
            let (size, peer) = server.recv_from(&mut [0; 512]).await.expect("a question");
            server.send_to(&vec![0; size], peer).await.expect("an answer");
        });
        assert_eq!(dns(&address).await.0, Expected::Open);
        answering.await.expect("no panic");
        assert_eq!(dns(&address).await.0, Expected::Closed);
    }
}
