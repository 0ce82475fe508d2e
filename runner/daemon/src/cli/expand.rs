//! `muster expand`.
use std::path::PathBuf;
use std::process::ExitCode;

use drill::stop::Stop;

use super::{drill_file, style};

/// Print the drill file that a compact manifest stands for
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  muster expand orders.json --config /etc/muster/muster.yaml > orders.yaml\n\nWhat the manifest leaves out \
                  is the configuration's `compact`. What is printed is a drill file like any other: `muster run` does the same with \
                  either. A file that is no compact manifest is printed as it is."
)]
pub(super) struct Args {
    /// The compact manifest
    drill: PathBuf,
    /// The daemon's configuration [default: /etc/muster/muster.yaml, if that is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, Stop> {
    match drill_file::expanded(&args.drill, args.config.as_deref()) {
        Ok(text) => {
            style::print(&text)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => Ok(error.report()),
    }
}
