//! `muster cancel`.
use std::process::ExitCode;

use drill::id::RunId;
use drill::stop::Stop;
use serde::de::IgnoredAny;

use super::daemon::Daemon;
use super::style;

/// Ask the daemon to end a run: what it made is torn down, and its evidence says that it was interrupted
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  muster runs --limit 5\n  muster cancel orders-nightly-20261122t021500z-k7x2\n\n\
    Exit codes: 0 it is being torn down, 3 it does not go on.")]
pub(super) struct Args {
    /// The run
    #[arg(value_name = "RUN")]
    run: RunId,
    #[command(flatten)]
    daemon: Daemon,
}

pub(super) async fn run(args: Args) -> Result<ExitCode, Stop> {
    let daemon = args
        .daemon
        .needed("end a `muster run` with Ctrl-C where it goes on; `muster runs` lists what has not ended")?;
    let _: IgnoredAny = daemon.post(&format!("/api/v1/runs/{}/cancel", args.run)).await?;
    style::print(&format!("{} is being torn down; `muster report {}` says how it ended\n", args.run, args.run))?;
    Ok(ExitCode::SUCCESS)
}
