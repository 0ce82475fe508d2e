use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use drill::file::Options;
use drill::stop::{OrStop, Stop};
use drill::verdict::{Reason, exit_code};
use tokio::signal::unix::{SignalKind, signal};

use super::drill_file;
use super::render::{Json, Output, Text};
use crate::executor::{Cancel, Observer, Request, Silent, execute, load_checks, recover};
use crate::{owner, state_dir, wiring};

/// Run one drill now
#[derive(clap::Args)]
#[command(after_help = "Example:\n  muster run schedules/smallest.yaml\n\n\
    Exit codes: 0 passed, 1 failed, 2 inconclusive, 3 nothing was begun, 4 something is left over.")]
pub struct Args {
    /// The drill file
    drill: PathBuf,
    /// What is printed
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
    /// Print only if the drill does not pass
    #[arg(long)]
    quiet: bool,
    /// Where the signed evidence goes [default: `evidence` in the state directory]
    #[arg(long, value_name = "DIR")]
    evidence_dir: Option<PathBuf>,
}

pub async fn run(args: Args) -> Result<ExitCode, Stop> {
    let (drill, drill_file, directory) = match drill_file::load(&args.drill, Options::default()) {
        Ok(loaded) => loaded,
        Err(error) => return Ok(error.report()),
    };
    let checks = load_checks(&drill, &directory)?;
    let state_directory = state_dir::resolve()?;
    let ports = wiring::local(&state_directory)?;
    let me = owner::this_process()?;
    recover(&ports, Arc::new(Silent), &me, owner::is_alive).await?;

    let evidence_directory = match args.evidence_dir {
        Some(directory) => std::path::absolute(&directory).or_stop(Reason::Internal, "resolving --evidence-dir")?,
        None => state_directory.join("evidence"),
    };
    let observer: Arc<dyn Observer> = match args.output {
        Output::Text => Arc::new(Text::new(args.quiet)),
        Output::Json => Arc::new(Json::new(args.quiet)),
    };
    let cancel = Cancel::default();
    let signals = tokio::spawn(forward_signals(cancel.clone())?);
    let request = Request { drill, drill_file, checks, evidence_directory, owner: me };
    let ended = execute(request, &ports, observer, cancel).await;
    signals.abort();
    match ended {
        Ok(ended) => Ok(ExitCode::from(exit_code(ended.summary.verdict, ended.leftovers))),
        // The drill was not begun because it runs already: inconclusive, not a mistake of the caller.
        Err(stop) if stop.reason == Reason::AlreadyRunning => {
            super::report_error(&stop);
            Ok(ExitCode::from(exit_code(stop.reason.verdict(), drill::verdict::Leftovers::None)))
        }
        Err(stop) => Err(stop),
    }
}

/// SIGINT and SIGTERM end the work; the second one ends the waiting. Neither ends the teardown.
fn forward_signals(cancel: Cancel) -> Result<impl Future<Output = ()>, Stop> {
    let mut interrupt = signal(SignalKind::interrupt()).or_stop(Reason::Internal, "listening for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).or_stop(Reason::Internal, "listening for SIGTERM")?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            cancel.signal();
        }
    })
}
