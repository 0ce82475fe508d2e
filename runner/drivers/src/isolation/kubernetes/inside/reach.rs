//! Tries to reach addresses, from wherever it runs: the same code is the attempt inside and the control outside.
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::not_to_be_typed;

const PATIENCE: Duration = Duration::from_millis(1_500);
/// A query for the address of `muster.invalid`, as a resolver would send it.
const QUERY: &[u8] = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x06muster\x07invalid\x00\x00\x01\x00\x01";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Attempt {
    /// Unique among those of one question.
    pub(in super::super) name: String,
    pub(in super::super) address: SocketAddr,
    /// A datagram that asks for an answer, in place of a TCP connection.
    pub(in super::super) datagram: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Seen {
    pub(in super::super) name: String,
    pub(in super::super) open: bool,
    pub(in super::super) detail: String,
}

/// The argument is a list of [`Attempt`]s; standard output is one [`Seen`] a line.
pub(super) fn main(arguments: &[String]) -> io::Result<ExitCode> {
    let [question] = arguments else { return Err(not_to_be_typed()) };
    let attempts: Vec<Attempt> = serde_json::from_str(question).map_err(io::Error::other)?;
    // All at once: what is closed says nothing until its patience has run out.
    let threads: Vec<_> = attempts.into_iter().map(|attempt| std::thread::spawn(move || try_it(attempt))).collect();
    let mut out = io::stdout().lock();
    for thread in threads {
        let seen = thread.join().map_err(|_| io::Error::other("an attempt failed by itself"))?;
        let mut line = serde_json::to_vec(&seen)?;
        line.push(b'\n');
        out.write_all(&line)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn try_it(attempt: Attempt) -> Seen {
    let result = if attempt.datagram { datagram(attempt.address) } else { connect(attempt.address) };
    let what = if attempt.datagram { "a query" } else { "connect" };
    let (open, detail) = match result {
        Ok(()) => (true, format!("{what} was answered")),
        // Whoever refuses was reached.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            (true, format!("{what} was refused by its target"))
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock) => {
            (false, format!("{what}: no answer"))
        }
        Err(error) => (false, format!("{what}: {error}")),
    };
    Seen { name: attempt.name, open, detail }
}

fn connect(address: SocketAddr) -> io::Result<()> {
    TcpStream::connect_timeout(&address, PATIENCE).map(drop)
}

fn datagram(address: SocketAddr) -> io::Result<()> {
    let any: SocketAddr =
        if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { "[::]:0".parse().map_err(io::Error::other)? };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(address)?;
    socket.send(QUERY)?;
    socket.recv(&mut [0; 512]).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(address: SocketAddr, datagram: bool) -> Seen {
        try_it(Attempt { name: "it".to_owned(), address, datagram })
    }

    #[test]
    fn an_answer_and_a_refusal_both_mean_that_it_was_reached() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("bound");
        assert!(seen(address, false).open);
        drop(listener);
        assert!(seen(address, false).open, "a refusal comes from the target");
        let quiet = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        assert!(!seen(quiet.local_addr().expect("bound"), true).open);
    }
}
