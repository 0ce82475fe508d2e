//! The agent's pod: a socket in the place where the agent looks for the database, relayed to the database's pod.
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::process::{Command, ExitCode};

use super::not_to_be_typed;
use crate::isolation::local::inside::relay;

const SOCKET: &str = "/tmp/db.sock";

/// The argument is the database's address. The agent gets our standard streams, and we wait for its end.
pub(super) fn main(arguments: &[String]) -> io::Result<ExitCode> {
    let [database] = arguments else { return Err(not_to_be_typed()) };
    let database: SocketAddr = database.parse().map_err(io::Error::other)?;
    let listener = UnixListener::bind(SOCKET)?;
    relay::serve(move || Ok(listener.accept()?.0), database)?;
    let status = Command::new("/proc/self/exe").args(["agent", SOCKET]).env_clear().current_dir("/tmp").status()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
