//! A visitor's way to the database: a port of the pod's own address, for as long as the runner's stream lasts.
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::process::ExitCode;

use rustix::process::DumpableBehavior;

use super::{frame, not_to_be_typed};
use crate::isolation::local::inside::relay;

/// Arguments: the port here, and the database's on the loopback. Says that it listens, and that it ends when its input
/// has: whoever is in goes with this process.
pub(super) fn main(arguments: &[String]) -> io::Result<ExitCode> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let [own, database] = arguments else { return Err(not_to_be_typed()) };
    relay_to(own, database)?;
    frame::write(&mut io::stdout(), frame::RESULT, b"")?;
    // An input that breaks off has ended, too.
    let _ = io::copy(&mut io::stdin(), &mut io::sink());
    // Nobody hears it where the stream broke off.
    let _ = frame::write(&mut io::stdout(), frame::END, b"");
    Ok(ExitCode::SUCCESS)
}

/// From a port of the pod's own address to one of its loopback.
pub(super) fn relay_to(own: &str, database: &str) -> io::Result<()> {
    let address: IpAddr = std::env::var("POD_IP").map_err(io::Error::other)?.parse().map_err(io::Error::other)?;
    let port = |text: &str| text.parse::<u16>().map_err(io::Error::other);
    let listener = TcpListener::bind(SocketAddr::new(address, port(own)?))?;
    relay::serve(move || Ok(listener.accept()?.0), SocketAddr::from((Ipv4Addr::LOCALHOST, port(database)?)))
}
