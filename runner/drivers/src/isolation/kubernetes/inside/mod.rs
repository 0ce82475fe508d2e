//! What muster does inside the pods of its own sandboxes: their first processes ([`pod`]), commands for the runner ([`run`]), files
//! from the runner ([`receive`]), a backup on a volume compared with its manifest ([`verify`]), attempts to leave ([`reach`]), and the
//! ways to the database, the agent's ([`agent`]) and a visitor's ([`doorway`]).
//!
//! `exec` into a pod loses what it likes and ends commands with nobody, so nothing here trusts it: streams are cut into
//! [`frame`]s whose last one says that it is the last, and a command ends when the runner's stream does.
mod agent;
mod doorway;
pub(super) mod frame;
mod pod;
mod reach;
mod receive;
mod run;
mod verify;

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

pub(super) use reach::{Attempt, Seen};
pub(super) use receive::{Received, Sent};
pub(super) use run::{Command, Ended};

/// The hidden subcommands.
pub(super) const PREPARE: &str = "pod-prepare";
pub(super) const POD: &str = "pod-main";
pub(super) const RUN: &str = "pod-run";
pub(super) const RECEIVE: &str = "pod-receive";
pub(super) const VERIFY: &str = "pod-verify";
pub(super) const REACH: &str = "pod-reach";
pub(super) const AGENT: &str = "pod-agent";
pub(super) const DOORWAY: &str = "pod-doorway";

/// Answers the hidden subcommands; None where the arguments are for somebody else. Call it before anything else in `main`.
pub fn dispatch(arguments: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut arguments = arguments.into_iter().skip(1);
    let command = arguments.next()?;
    let rest: Vec<String> = arguments.map(|argument| argument.to_string_lossy().into_owned()).collect();
    let name = command.to_str()?;
    let result = match name {
        PREPARE => pod::prepare(&rest),
        POD => pod::main(&rest),
        RUN => run::main(),
        RECEIVE => receive::main(&rest),
        VERIFY => verify::main(&rest),
        REACH => reach::main(&rest),
        AGENT => agent::main(&rest),
        DOORWAY => doorway::main(&rest),
        _ => return None,
    };
    Some(match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("muster {name}: {error}");
            ExitCode::FAILURE
        }
    })
}

fn not_to_be_typed() -> io::Error {
    io::Error::other("it is not meant to be typed")
}
