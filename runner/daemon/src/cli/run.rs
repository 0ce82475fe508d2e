use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use drill::config::Production;
use drill::file::Options;
use drill::id::Sha256Digest;
use drill::ledger::{Damage, Owner, Trigger};
use drill::spec::{Credentials, Drill, DumpSource, Isolation, Place};
use drill::stop::{OrStop, Stop};
use drill::verdict::{EXIT_NOTHING_BEGUN, Leftovers, Reason, exit_code};
use tokio::signal::unix::{SignalKind, signal};

use super::render::{Json, Text};
use super::style::{Output, clean};
use super::{drill_file, serve};
use crate::executor::{Cancel, Observer, Ports, Request, Silent, execute, load_checks, recover};
use crate::owner::{self, ThisProcess};
use crate::{evidence, state_dir, wiring};

/// Run one drill now
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  muster run schedules/smallest.yaml\n  \
    muster run --dump orders.sql.gz   (a first drill: no file, no signature, and every result says so)\n  \
    muster run orders.json --config /etc/muster/muster.yaml   (a compact manifest; `muster expand` prints what it stands for)\n  \
    muster run schedules/smallest.yaml --self-test   (damages copies of the backup: the drill must notice each)\n\n\
    Exit codes: 0 passed, 1 failed, 2 inconclusive, 3 nothing was begun, 4 something is left over.")]
pub struct Args {
    /// The drill file, or a compact manifest
    #[arg(required_unless_present = "dump", conflicts_with = "dump")]
    drill: Option<PathBuf>,
    /// A dump of `pg_dump` in place of a drill file: custom, directory, tar, plain, or plain with gzip or zstd
    #[arg(long, value_name = "FILE")]
    dump: Option<PathBuf>,
    /// Digest that the dump must have; of a directory, of what `LC_ALL=C sha256sum *` prints in it
    #[arg(long, value_name = "DIGEST", requires = "dump", value_parser = digest)]
    sha256: Option<Sha256Digest>,
    /// Time zone of the machine that made the dump [default: UTC]
    #[arg(long, value_name = "ZONE", requires = "dump")]
    timezone: Option<String>,
    /// What is printed
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
    /// Print only if the drill does not pass
    #[arg(long)]
    quiet: bool,
    /// Where the signed evidence goes [default: `evidence` in the state directory]
    #[arg(long, value_name = "DIR")]
    evidence_dir: Option<PathBuf>,
    /// The daemon's configuration: no drill may use what it lists under `production`, and `compact` is what a compact manifest
    /// leaves out [default: /etc/muster/muster.yaml, if that is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Damage a copy of the backup and see whether the drill notices: `byte`, `signature`, `truncated`, `baseline-rows`,
    /// `baseline-digest`, `baseline-column`, or `all` that the drill can notice, one after the other
    #[arg(long, value_name = "DAMAGE", num_args = 0..=1, default_missing_value = "all", value_parser = damages)]
    #[arg(conflicts_with = "dump")]
    self_test: Option<Damages>,
}

/// What is damaged; None: all that the drill can notice.
#[derive(Clone)]
struct Damages(Option<Damage>);

pub async fn run(args: Args) -> Result<ExitCode, Stop> {
    let loaded = match (&args.drill, &args.dump) {
        (_, Some(dump)) => of_dump(dump, &args)?,
        (Some(file), None) => match drill_file::load(file, Options::default(), args.config.as_deref()) {
            Ok(loaded) => loaded,
            Err(error) => return Ok(error.report()),
        },
        (None, None) => return Err(Stop::internal("a drill file or --dump is needed")),
    };
    let (drill, drill_file, directory) = loaded;
    let planned = planned(&drill, args.self_test.as_ref())?;
    // Before anything is begun: what cannot be loaded is a mistake of the drill file.
    let mut loaded = Some(load_checks(&drill, &directory)?);
    let state_directory = state_dir::resolve()?;
    let mut ports = wiring::local(&state_directory)?;
    ports.production = match (&drill.credentials, &drill.isolation) {
        (Credentials::Embedded { .. }, Isolation::Local(_)) => Production::default(),
        (Credentials::Vault(_), _) | (_, Isolation::Kubernetes(_)) => {
            serve::in_force(args.config.as_deref())?.map(|config| config.production).unwrap_or_default()
        }
    };
    let me = ThisProcess::register(&state_directory)?;
    settle(&ports, &me, &state_directory).await;

    let evidence_directory = match args.evidence_dir {
        Some(directory) => std::path::absolute(&directory).or_stop(Reason::Internal, "resolving --evidence-dir")?,
        None => state_directory.join("evidence"),
    };
    evidence::make_directory(&evidence_directory)?;
    let cancel = Cancel::default();
    let signals = tokio::spawn(forward_signals(cancel.clone())?);
    let (mut worst, mut begun) = (0, false);
    for (trigger, only) in planned {
        let observer: Arc<dyn Observer> = match args.output {
            Output::Text => Arc::new(Text::new(args.quiet)),
            Output::Json => Arc::new(Json::new(args.quiet)),
        };
        let request = Request {
            drill: drill.clone(),
            drill_file: drill_file.clone(),
            checks: loaded.take().map_or_else(|| load_checks(&drill, &directory), Ok)?,
            evidence_directory: evidence_directory.clone(),
            owner: me.owner.clone(),
            trigger,
            only,
        };
        let code = match Box::pin(execute(request, &ports, observer, cancel.clone())).await {
            Ok(ended) => ended.exit_code(),
            // The drill was not begun because it runs already: inconclusive, not a mistake of the caller.
            Err(stop) if stop.reason == Reason::AlreadyRunning || begun => {
                super::report_error(&stop);
                let code = exit_code(stop.reason.verdict(), Leftovers::None);
                if args.output == Output::Json {
                    Json::not_begun(&stop, code);
                }
                code
            }
            Err(stop) => {
                signals.abort();
                if args.output == Output::Json {
                    Json::not_begun(&stop, EXIT_NOTHING_BEGUN);
                }
                return Err(stop);
            }
        };
        begun = true;
        worst = worse(worst, code);
        if cancel.is_asked() {
            break;
        }
    }
    signals.abort();
    Ok(ExitCode::from(worst))
}

/// What one order means, one run after the other.
fn planned(drill: &Drill, self_test: Option<&Damages>) -> Result<Vec<(Trigger, Option<Place>)>, Stop> {
    let Some(Damages(damage)) = self_test else {
        return Ok(drill.runs().into_iter().map(|only| (Trigger::Command, only)).collect());
    };
    let damages = match damage {
        None => drill.damages(),
        Some(damage) if drill.can_notice(*damage) => vec![*damage],
        Some(damage) => {
            return Err(Stop::internal(format!("nothing in this drill could notice {damage}"))
                .advise("add the built-in check that compares it, or try another damage"));
        }
    };
    if damages.is_empty() {
        return Err(Stop::internal("there is nothing that a self-test of this drill could damage")
            .advise("self-tests need a backup with a manifest: make one with `muster capture` or `muster adopt`"));
    }
    Ok(damages.into_iter().map(|damage| (Trigger::SelfTest { damage, scheduled_for: None }, None)).collect())
}

/// By the precedence of exit codes: failed, leftovers, inconclusive, passed.
fn worse(one: u8, other: u8) -> u8 {
    [1, 4, 2].into_iter().find(|code| one == *code || other == *code).unwrap_or(0)
}

fn damages(text: &str) -> Result<Damages, String> {
    if text == "all" {
        return Ok(Damages(None));
    }
    let known = || Damage::ALL.map(Damage::as_str).join(", ");
    let damage = Damage::ALL.into_iter().find(|damage| damage.as_str() == text);
    damage.map(|damage| Damages(Some(damage))).ok_or_else(|| format!("known here: {}, all", known()))
}

/// A drill without a file: the dump, and every default.
fn of_dump(dump: &Path, args: &Args) -> Result<(Drill, PathBuf, PathBuf), Stop> {
    let path = std::path::absolute(dump).or_stop(Reason::Internal, "resolving --dump")?;
    let text = path.to_str().ok_or_else(|| Stop::internal(format!("`{}` is not a UTF-8 path", path.display())))?;
    super::adopt::timezone(args.timezone.as_deref())?;
    if !path.exists() {
        return Err(
            Stop::internal(format!("the dump `{text}` does not exist")).advise("name a file or a directory of pg_dump")
        );
    }
    let source =
        DumpSource { path: text.to_owned(), sha256: args.sha256, signature: None, timezone: args.timezone.clone() };
    let directory = path.parent().unwrap_or(Path::new("/")).to_owned();
    Ok((drill::file::of_dump(source, Options::default()), path, directory))
}

/// As `sha256sum` prints it, too.
fn digest(text: &str) -> Result<Sha256Digest, String> {
    drivers::artifact::digest::expected(text, "")
}

/// Ends what killed runs left, before a new one begins. What cannot be settled is said, and is no reason not to drill.
async fn settle(ports: &Ports, me: &ThisProcess, state_directory: &Path) {
    let alive = |owner: &Owner| owner::is_alive(state_directory, owner);
    let warn = |line: String| {
        // The drill goes on, whoever listens.
        let _ = writeln!(std::io::stderr().lock(), "warning: {}", clean(&line));
    };
    match recover(ports, Arc::new(Silent), &me.owner, alive).await {
        Ok(recovered) => {
            for (run, leftovers) in recovered.settled {
                match leftovers {
                    Leftovers::None => warn(format!("{run} had been cut off: what it left was removed")),
                    Leftovers::Some => warn(format!("{run} still leaves something behind: see `muster report {run}`")),
                }
            }
            for (run, stop) in recovered.troubles {
                warn(format!("{run} could not be settled: {stop}; `muster reap` tries again"));
            }
        }
        Err(stop) => warn(format!("looking for what earlier runs left: {stop}")),
    }
}

/// SIGINT, SIGTERM and SIGHUP end the work; the second one ends the waiting. Neither ends the teardown.
fn forward_signals(cancel: Cancel) -> Result<impl Future<Output = ()>, Stop> {
    let mut interrupt = signal(SignalKind::interrupt()).or_stop(Reason::Internal, "listening for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).or_stop(Reason::Internal, "listening for SIGTERM")?;
    let mut hangup = signal(SignalKind::hangup()).or_stop(Reason::Internal, "listening for SIGHUP")?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
            cancel.signal();
        }
    })
}
