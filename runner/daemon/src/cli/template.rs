//! `muster render`.
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use drill::file::Options;
use drill::id::Sha256Digest;
use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;

use super::drill_file;
use crate::{state_dir, wiring};

/// Print the isolation template of a drill: what its sandbox is made of, and the digest that evidence holds
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  muster render schedules/smallest.yaml\n\nThe template goes to standard output, its digest to \
                        standard error; `approvedTemplate` of the configuration takes the digest."
)]
pub struct Args {
    /// The drill file, or a compact manifest
    drill: PathBuf,
    /// The daemon's configuration, for a compact manifest [default: /etc/muster/muster.yaml, if that is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub fn run(args: &Args) -> Result<ExitCode, Stop> {
    let drill = match drill_file::load(&args.drill, Options::default(), args.config.as_deref()) {
        Ok((drill, _, _)) => drill,
        Err(error) => return Ok(error.report()),
    };
    let isolation = wiring::local(&state_dir::resolve()?)?.isolations.of(&drill.isolation)?;
    let template = isolation.template(&drill.isolation.limits())?;
    match io::stdout().lock().write_all(template.as_bytes()) {
        // Whoever read it has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
        written => written.or_stop(Reason::Internal, "printing the template")?,
    }
    let digest = Sha256Digest::of(template.as_bytes());
    let _ = writeln!(io::stderr().lock(), "{digest}");
    Ok(ExitCode::SUCCESS)
}
