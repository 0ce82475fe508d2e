//! `muster health`.
use std::process::ExitCode;

use drill::stop::Stop;

use super::daemon::Daemon;
use super::style::{self, clean};

/// Ask the daemon whether it lives: for probes of whatever keeps it running
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  muster health --ready\n\nExit codes: 0 it does, 3 it does not, and why.")]
pub(super) struct Args {
    /// Whether runs can begin, too: the scheduler ticks and the store can be written
    #[arg(long)]
    ready: bool,
    #[command(flatten)]
    daemon: Daemon,
}

pub(super) async fn run(args: Args) -> Result<ExitCode, Stop> {
    let daemon = args.daemon.needed("its log says why it ended")?;
    let answer = daemon.probe(if args.ready { "/readyz" } else { "/healthz" }).await?;
    style::print(&format!("{}\n", clean(answer.trim())))?;
    Ok(ExitCode::SUCCESS)
}
