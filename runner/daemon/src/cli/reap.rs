use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use drill::ledger::Owner;
use drill::stop::Stop;
use drill::unit;
use drill::verdict::Leftovers;

use super::style::clean;
use crate::executor::{Silent, recover};
use crate::owner::{self, ThisProcess};
use crate::{state_dir, wiring};

/// Remove what runs left behind whose process is gone
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  muster reap\n\nRuns that are still going on are left alone. Exit code 4: something is still there."
)]
pub struct Args {}

pub async fn run(Args {}: Args) -> Result<ExitCode, Stop> {
    let state_directory = state_dir::resolve()?;
    let ports = wiring::local(&state_directory)?;
    let me = ThisProcess::register(&state_directory)?;
    let alive = |owner: &Owner| owner::is_alive(&state_directory, owner);
    let recovered = recover(&ports, Arc::new(Silent), &me.owner, alive).await?;
    let mut out = std::io::stdout().lock();
    let mut say = |line: String| {
        // What was done is in the ledger; a closed stream changes nothing.
        let _ = writeln!(out, "{}", clean(&line));
    };
    let mut owed = false;
    for (run, leftovers) in &recovered.settled {
        owed |= *leftovers == Leftovers::Some;
        match leftovers {
            Leftovers::None => say(format!("{run}: nothing is left of it")),
            Leftovers::Some => say(format!("{run}: something is still there; `muster report {run}` says what")),
        }
    }
    for orphan in &recovered.orphans {
        say(format!("{}: removed, though no ledger owed it: {}", orphan.run, orphan.what));
    }
    for run in &recovered.alive {
        say(format!("{run}: still going on"));
    }
    for (run, stop) in &recovered.troubles {
        owed = true;
        say(format!("{run}: {stop}"));
    }
    if recovered.settled.is_empty() && recovered.orphans.is_empty() && recovered.troubles.is_empty() {
        let running = u64::try_from(recovered.alive.len()).unwrap_or(u64::MAX);
        say(format!("nothing to reap, {} going on", unit::plural(running, "run")));
    }
    Ok(ExitCode::from(if owed { 4 } else { 0 }))
}
