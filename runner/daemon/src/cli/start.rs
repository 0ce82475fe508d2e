//! `muster start`.
use std::pin::pin;
use std::process::ExitCode;

use drill::id::{DrillName, RunId};
use drill::ledger::{Damage, Event, PhaseOutcome, Stamped};
use drill::stop::{OrStop, Stop};
use drill::verdict::{Leftovers, Reason, Verdict, exit_code};
use futures_util::StreamExt as _;
use serde::Deserialize;

use super::daemon::Daemon;
use super::style::{self, Mark, Style, clean};
use crate::client::Client;

/// How often a stream that was cut off is taken up again.
const TRIES: u32 = 5;

/// Ask the daemon to run a drill now, whatever its schedule says
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  muster start orders-nightly --wait\n  muster start orders-nightly --self-test byte --wait   \
    (damages a copy of the backup: the drill must notice)\n\nWithout a daemon: `muster run FILE`.\n\n\
    Exit codes: 0 it was begun, 3 it was not. With --wait the run's own: 0 passed, 1 failed, 2 inconclusive,\n4 something is \
    left over."
)]
pub(super) struct Args {
    /// The drill's name
    #[arg(value_name = "DRILL")]
    drill: DrillName,
    /// Stay until the run has ended, and say how it goes
    #[arg(long)]
    wait: bool,
    /// Damage a copy of the backup like this, which the drill must notice
    #[arg(long, value_name = "DAMAGE", value_parser = damage)]
    self_test: Option<Damage>,
    #[command(flatten)]
    daemon: Daemon,
}

#[derive(Deserialize)]
struct Started {
    run: RunId,
}

pub(super) async fn run(args: Args) -> Result<ExitCode, Stop> {
    let daemon = args.daemon.needed("`muster run FILE` runs a drill file here and now")?;
    let damaged = args.self_test.map(|damage| format!("?selfTest={damage}")).unwrap_or_default();
    let Started { run } = daemon.post(&format!("/api/v1/drills/{}/runs{damaged}", args.drill)).await?;
    style::print(&format!("{run} has begun\n"))?;
    if !args.wait {
        return Ok(ExitCode::SUCCESS);
    }
    let (verdict, leftovers) = wait(&daemon, &run, Style::of_stdout(), style::print).await?;
    style::print(&format!("  more: muster report {run}\n"))?;
    Ok(ExitCode::from(exit_code(verdict, leftovers)))
}

fn damage(text: &str) -> Result<Damage, String> {
    let damage = Damage::ALL.into_iter().find(|damage| damage.as_str() == text);
    damage.ok_or_else(|| format!("known here: {}", Damage::ALL.map(Damage::as_str).join(", ")))
}

/// Follows the run to its end.
pub(crate) async fn wait(
    daemon: &Client,
    run: &RunId,
    style: Style,
    mut say: impl FnMut(&str) -> Result<(), Stop>,
) -> Result<(Verdict, Leftovers), Stop> {
    let path = format!("/api/v1/runs/{run}/events");
    let (mut seen, mut concluded) = (0, None);
    for _ in 0..TRIES {
        let Some(stream) = daemon.follow(&path, seen).await? else { break };
        let mut stream = pin!(stream);
        while let Some(told) = stream.next().await {
            // One that was cut off is taken up where it was.
            let Ok(told) = told else { break };
            if told.kind != "ledger" {
                continue;
            }
            let stamped: Stamped =
                serde_json::from_str(&told.data).or_stop(Reason::Internal, "reading the run's events")?;
            seen = stamped.sequence;
            match stamped.event {
                Event::PhaseEnded { phase, duration, outcome } => {
                    let (mark, note) = match outcome {
                        PhaseOutcome::Done { note } => (Mark::Good, note),
                        PhaseOutcome::Stopped(stop) => (Mark::from(stop.reason.verdict()), stop.message),
                    };
                    let took = drill::unit::duration(duration);
                    let lead = format!("  {} {:<10} {took:>8}   ", style.sign(mark), phase.as_str());
                    say(&(style.hang(&lead, &clean(&note)) + "\n"))?;
                }
                Event::Concluded(summary) => {
                    let mark = Mark::from(summary.verdict);
                    let verdict = style.paint(mark, &summary.verdict.as_str().to_uppercase());
                    say(&(style.hang(&format!("\n  {verdict}   "), &clean(&summary.message)) + "\n"))?;
                    concluded = Some(summary.verdict);
                }
                Event::Ended { leftovers } => {
                    let verdict = concluded.ok_or_else(|| Stop::internal(format!("{run} ended without a verdict")))?;
                    return Ok((verdict, leftovers));
                }
                _ => {}
            }
        }
    }
    Err(Stop::internal(format!("the daemon stopped telling of {run} before its end"))
        .advise(format!("`muster report {run}` says how it stands")))
}
