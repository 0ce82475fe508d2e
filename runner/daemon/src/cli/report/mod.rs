//! `muster report`: all that the ledger knows of a run.
pub(crate) mod html;
pub(crate) mod json;
#[cfg(test)]
mod tests;
mod text;
pub(crate) mod words;

use std::path::PathBuf;
use std::process::ExitCode;

use drill::id::{DrillName, RunId};
use drill::ledger::{Event, Stamped, State};
use drill::port::Store;
use drill::stop::{OrStop, Stop};
use drill::verdict::{Leftovers, Reason};
use drivers::store;

use super::advice;
use super::style::{self, Style};
use crate::state_dir;

/// Tell all that is known of a run: phases, findings, proofs, what is left, what to do
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  muster runs\n  muster report orders-nightly      # the newest run of a drill\n  \
                        muster report orders-nightly-20261122t021500z-k7x2 --output json\n  \
                        muster report orders-nightly --output html --out orders-nightly.html")]
pub struct Args {
    /// A run, or a drill, which stands for its newest run
    #[arg(value_name = "RUN")]
    run: String,
    /// How the report is written
    #[arg(long, value_enum, default_value = "text")]
    output: Form,
    /// Write the report into this file, in place of what it held [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// For people
    Text,
    /// JSON with stable field names
    Json,
    /// One page that needs nothing else: no script, no other file, no network
    Html,
}

pub async fn run(args: Args) -> Result<ExitCode, Stop> {
    let directory = state_dir::find()?;
    let Some(store) = store::look(&directory)? else {
        return Err(Stop::internal(format!("no drill has run yet: {} holds no ledger", directory.display()))
            .advise("`muster run DRILL.yaml` runs one; another state directory is named with MUSTER_STATE_DIR"));
    };
    let events = find(&*store, &args.run).await?;
    let report = Report::of(&events)?;
    let style = if args.out.is_some() { Style::plain() } else { Style::of_stdout() };
    let shown = match args.output {
        Form::Text => text::text(&report, style),
        Form::Json => json::json(&report)?,
        Form::Html => html::html(&report)?,
    };
    match &args.out {
        Some(file) => std::fs::write(file, shown)
            .or_stop(Reason::Internal, format!("writing the report to {}", file.display()))?,
        None => style::print(&shown)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What a run's events say.
pub(crate) struct Report {
    pub(crate) state: State,
    pub(crate) ended: Option<jiff::Timestamp>,
}

impl Report {
    pub(crate) fn of(events: &[Stamped]) -> Result<Self, Stop> {
        let state = State::replay(events).map_err(|error| {
            Stop::internal(format!("the ledger of this run cannot be read: {error}"))
                .advise("this is a defect of muster, or the state directory was changed by hand; please report it")
        })?;
        let ended = events.iter().find(|stamped| matches!(stamped.event, Event::Ended { .. }));
        Ok(Self { state, ended: ended.map(|stamped| stamped.at) })
    }

    /// For whatever has happened to the run by now.
    pub(crate) fn next_steps(&self) -> Vec<String> {
        let state = &self.state;
        let mut steps = Vec::new();
        if self.ended.is_none() {
            let pid = state.started.owner.pid;
            steps.push(format!(
                "process {pid} ran it; where that is gone, `muster reap` cleans up and concludes the run"
            ));
        } else if state.leftovers() == Leftovers::Some {
            steps.push("`muster reap` removes what is left over, and says what stands in its way".to_owned());
        }
        steps.extend(state.summary.iter().flat_map(|summary| advice::steps(state, summary)));
        steps
    }
}

async fn find(store: &dyn Store, given: &str) -> Result<Vec<Stamped>, Stop> {
    if let Ok(run) = given.parse::<RunId>() {
        let events = store.events(&run).await?;
        if !events.is_empty() {
            return Ok(events);
        }
    }
    if let Ok(drill) = given.parse::<DrillName>()
        && let Some(newest) = store.runs(Some(&drill), 1).await?.first()
    {
        return store.events(&newest.run).await;
    }
    Err(Stop::internal(format!("there is no run and no drill `{}` in the ledger", style::clean(given)))
        .advise("`muster runs` lists the runs"))
}
