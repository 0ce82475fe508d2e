//! `muster completions`.
use std::process::ExitCode;

use clap_complete::Shell;
use drill::stop::Stop;

use super::style;

/// Print what makes a shell complete muster's commands
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  source <(muster completions bash)      # in ~/.bashrc, to keep it\n\n\
    zsh:   muster completions zsh > ~/.zfunc/_muster, with ~/.zfunc in $fpath before compinit\n\
    fish:  muster completions fish > ~/.config/fish/completions/muster.fish")]
pub(super) struct Args {
    /// The shell that reads it
    shell: Shell,
}

pub(super) fn run(args: &Args, mut command: clap::Command) -> Result<ExitCode, Stop> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "muster", &mut script);
    style::print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}
