//! What muster does inside its own sandboxes: the first command of one ([`init`]), and the attempts to leave it ([`probe`]).
//!
//! Needs no runtime and no file: what is here shares the sandbox with whatever a backup brought along.
mod feed;
mod init;
mod probe;
pub(in crate::isolation) mod relay;

use std::ffi::OsString;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

pub(super) use probe::{Answer, NAMES, Question, Seen, abstract_socket, beside_lo, datagram, tcp, tunnel_advice};

/// The hidden subcommands.
pub const INIT: &str = "sandbox-init";
pub const PROBE: &str = "sandbox-probe";

/// Relayed connections at one time.
pub(super) const MAX_CONNECTIONS: usize = 64;
/// Bytes of one message to or from the init: a datagram must fit into a socket's buffer.
pub(super) const MAX_MESSAGE: usize = 128 << 10;

/// Answers the hidden subcommands; None where the arguments are for somebody else. Call it before anything else in `main`.
pub fn dispatch(arguments: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut arguments = arguments.into_iter().skip(1);
    let command = arguments.next()?;
    let rest: Vec<String> = arguments.map(|argument| argument.to_string_lossy().into_owned()).collect();
    match command.to_str()? {
        INIT => Some(init::main(&rest)),
        PROBE => Some(probe::main(&rest)),
        drill::port::FEED => Some(feed::main(&rest)),
        _ => None,
    }
}

/// `/etc/passwd` and `/etc/group` of every sandbox: programs want a name for their user id.
pub(in crate::isolation) fn users() -> [(&'static str, &'static str); 2] {
    let passwd = "root:x:0:0:root:/nonexistent:/usr/sbin/nologin\n\
                  postgres:x:70:70:postgres:/tmp:/bin/sh\nagent:x:71:71:agent:/tmp:/usr/sbin/nologin\n";
    [("passwd", passwd), ("group", "root:x:0:\npostgres:x:70:\nagent:x:71:\n")]
}

/// From the runner to the init. An [`Exec`](ToInit::Exec) comes with three pipes: stdin, stdout, stderr.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum ToInit {
    Exec { id: u64, argv: Vec<String>, env: Vec<(String, String)> },
    Kill { id: u64 },
}

/// From the init to the runner, who believes none of it beyond its form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum FromInit {
    Ready,
    /// The command runs; its number inside.
    Started {
        id: u64,
        pid: u32,
    },
    Exited {
        id: u64,
        code: i32,
    },
    Signaled {
        id: u64,
        signal: i32,
    },
    /// It could not be started.
    Refused {
        id: u64,
        why: String,
        /// Of processes, memory or descriptors.
        limit: bool,
    },
}
