//! `muster serve`.
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use drill::config::Config;
use drill::file::{MAX_SIZE, parse_config, render};
use drill::stop::{OrStop, Stop};
use drill::verdict::{EXIT_NOTHING_BEGUN, Reason};

use super::drill_file::wrapped;
use super::style::{Style, clean};

/// Where the configuration is, unless somebody says otherwise.
pub(super) const CONFIG: &str = "/etc/muster/muster.yaml";

/// Run drills when they are due, until it is stopped
#[derive(clap::Args)]
#[command(after_help = "Example:\n  muster serve --config deploy/muster.yaml\n\n\
    SIGTERM stops it: runs that go on may finish within `shutdown.grace`, then they are cancelled and torn down; a second SIGTERM \
    does not wait.\n\nExit codes: 0 it was stopped, 3 it could not begin or go on.")]
pub(super) struct Args {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    config: PathBuf,
}

pub(super) async fn run(args: Args) -> Result<ExitCode, Stop> {
    match load(&args.config)? {
        Ok(config) => {
            Box::pin(crate::serve::serve(config)).await?;
            Ok(ExitCode::SUCCESS)
        }
        Err(problems) => {
            let style = Style::of_stderr();
            // Nobody listens: the exit code says it too.
            let _ = std::io::stderr().lock().write_all(wrapped(&problems, style).as_bytes());
            Ok(ExitCode::from(EXIT_NOTHING_BEGUN))
        }
    }
}

/// The configuration that a command goes by: what somebody named, else the one at its usual place, where there is one. One that
/// is there and cannot be read is not taken for one that says nothing.
pub(super) fn in_force(named: Option<&Path>) -> Result<Option<Config>, Stop> {
    let usual = Path::new(CONFIG);
    let file = match named {
        Some(file) => file,
        None if usual.exists() => usual,
        None => return Ok(None),
    };
    let advice = "mend it, or name another with --config: it lists what no drill may use";
    let config = load(file)?.map_err(|problems| {
        Stop::internal(format!("{} is no configuration:\n{problems}", file.display())).advise(advice)
    });
    config.map(Some)
}

/// A configuration, or all that is wrong with it, for people.
pub(super) fn load(file: &Path) -> Result<Result<Config, String>, Stop> {
    let path = std::path::absolute(file).or_stop(Reason::Internal, "resolving the configuration's path")?;
    let shown = clean(&file.display().to_string());
    let mut text = String::new();
    let read = std::fs::File::open(&path).and_then(|file| file.take(MAX_SIZE as u64 + 1).read_to_string(&mut text));
    if let Err(error) = read {
        return Err(Stop::internal(format!("the configuration {shown} cannot be read: {error}"))
            .advise("name it with --config; deploy/muster.yaml is one to begin with"));
    }
    let base = path.parent().unwrap_or(Path::new("/"));
    let colour = Style::of_stderr().has_colour();
    Ok(parse_config(&text, base).map_err(|problems| render(&problems, &shown, &text, colour)))
}
