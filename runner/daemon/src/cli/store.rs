//! `muster store`.
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use drill::port::{RunSummary, Store};
use drill::stop::{OrStop, Stop};
use drill::unit;
use drill::verdict::Reason;
use drivers::key::EvidenceKey;
use drivers::store;
use jiff::Timestamp;

use super::style::{self, Mark, Style, clean};
use crate::evidence::{Forgotten, prune};
use crate::state_dir;

/// The memory of muster: check it, copy it, forget old runs
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Check(CheckArgs),
    Backup(BackupArgs),
    Prune(PruneArgs),
}

/// Read all of the store and say what is damaged
///
/// Reads every page, every reference between tables, and the ledger of each run as recovery would read it. Changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  muster store check\n\nExit codes: 0 whole, 3 damaged, or it could not be read.")]
struct CheckArgs {}

/// Copy the store into a new file while muster goes on
///
/// The copy is readable by its owner alone. It holds the ledger, not the evidence and not the key that signs it: keep those
/// with it. To put it back, stop muster and let the copy take the place of muster.db in the state directory; files that end
/// in -wal and -shm beside it belong to the old one and go.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  muster store backup /backups/muster-$(date +%F).db")]
struct BackupArgs {
    /// A file that does not exist
    file: PathBuf,
}

/// Forget old runs and delete their evidence
///
/// Never forgotten are runs that have not ended or still owe something, the last success of each drill, and the run that the
/// chain of evidence ends with. A signed tombstone beside the evidence accounts for what was deleted, so that the chain of what
/// is left still verifies.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  muster store prune --older-than 400d --keep 100 --dry-run")]
#[group(id = "bounds", required = true, multiple = true, args = ["older_than", "keep"])]
struct PruneArgs {
    /// Runs that began longer ago than this
    #[arg(long, value_name = "DURATION", value_parser = unit::parse_duration)]
    older_than: Option<Duration>,
    /// Runs of a drill beyond its newest N; its self-tests are counted on their own
    #[arg(long, value_name = "N")]
    keep: Option<u32>,
    /// Only say which
    #[arg(long)]
    dry_run: bool,
    /// The key that signs the tombstone; without it, the key of the state directory
    #[arg(long, value_name = "KEY")]
    evidence_key: Option<PathBuf>,
}

pub(super) async fn run(args: Args) -> Result<ExitCode, Stop> {
    match args.command {
        Command::Check(CheckArgs {}) => check().await,
        Command::Backup(args) => back_up(args).await,
        Command::Prune(args) => forget(args).await,
    }
}

fn existing() -> Result<Arc<dyn Store>, Stop> {
    let directory = state_dir::find()?;
    store::look(&directory)?.ok_or_else(|| {
        Stop::internal(format!("there is no store in {}", directory.display()))
            .advise("the first run makes it; MUSTER_STATE_DIR names another state directory")
    })
}

async fn check() -> Result<ExitCode, Stop> {
    existing()?.check().await?;
    let style = Style::of_stdout();
    style::print(&format!("{} the store is whole, and the ledger of each run can be read\n", style.sign(Mark::Good)))?;
    Ok(ExitCode::SUCCESS)
}

async fn back_up(args: BackupArgs) -> Result<ExitCode, Stop> {
    let to = std::path::absolute(&args.file).or_stop(Reason::Internal, format!("finding {}", args.file.display()))?;
    existing()?.back_up(&to).await?;
    let line = Style::of_stdout().hang("copied to ", &clean(&to.display().to_string()));
    style::print(&format!("{line}\n"))?;
    Ok(ExitCode::SUCCESS)
}

async fn forget(args: PruneArgs) -> Result<ExitCode, Stop> {
    let before = match args.older_than {
        None => None,
        Some(age) => Some(Timestamp::now().checked_sub(age).or_stop(Reason::Internal, "reading --older-than")?),
    };
    if args.dry_run {
        let found = existing()?.prunable(before, args.keep).await?;
        style::print(&would(&found))?;
        return Ok(ExitCode::SUCCESS);
    }
    let key = args.evidence_key.as_deref().map(EvidenceKey::load).transpose()?;
    // Not made where there is none: nothing was ever run here.
    existing()?;
    let directory = state_dir::resolve()?;
    let open = store::open(&directory)?;
    let mut all = Forgotten::default();
    loop {
        let portion = prune(open.as_ref(), &directory, key.as_ref(), before, args.keep).await?;
        all.runs += portion.runs;
        all.evidence += portion.evidence;
        all.strange.extend(portion.strange);
        if !portion.more {
            break;
        }
    }
    style::print(&done(&all, Style::of_stdout()))?;
    Ok(ExitCode::SUCCESS)
}

fn would(found: &[RunSummary]) -> String {
    let mut text = String::new();
    for run in found {
        let verdict = run.verdict.map_or_else(|| "no verdict".to_owned(), |verdict| verdict.to_string());
        let _ = writeln!(text, "{}  {}  {verdict}", run.run, style::time(run.started));
    }
    let number = u64::try_from(found.len()).unwrap_or(u64::MAX);
    let _ = match number {
        0 => writeln!(text, "nothing would be forgotten"),
        // A look is as bounded as a portion.
        201.. => writeln!(text, "these and more would be forgotten"),
        _ => writeln!(text, "{} would be forgotten", unit::plural(number, "run")),
    };
    text
}

fn done(all: &Forgotten, style: Style) -> String {
    let mut text = match (all.runs, all.evidence) {
        (0, 0) => "nothing was to be forgotten\n".to_owned(),
        (runs, evidence) => format!(
            "{} forgotten, {} of evidence deleted; a signed tombstone accounts for them\n",
            unit::plural(runs, "run"),
            unit::plural(evidence, "file")
        ),
    };
    for path in &all.strange {
        let what = format!("{} is not the evidence that muster wrote there, and stays", path.display());
        let _ = writeln!(text, "{}", style.hang(&format!("{} ", style.sign(Mark::Warning)), &clean(&what)));
    }
    text
}
