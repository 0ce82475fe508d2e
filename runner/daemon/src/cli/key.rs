use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use drill::stop::Stop;
use drivers::key;

/// Make keys that sign backups
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write NAME.key (secret, 0600) and NAME.pub, in minisign format; an existing file is never replaced
    #[command(after_help = "Example:\n  muster key generate backup\n\n\
        The real minisign can use both files. Keep backup.key where only captures run, and give\n\
        backup.pub to whoever drills: with it, a forged backup is told from a real one.")]
    Generate {
        /// Path without an ending, such as `backup`
        name: PathBuf,
        /// Encrypt the secret key with the password on the first line of this file
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
}

#[expect(clippy::unused_async, reason = "every command has the same shape")]
pub async fn run(args: Args) -> Result<ExitCode, Stop> {
    let Command::Generate { name, password_file } = args.command;
    let password = password_file.as_deref().map(key::read_password).transpose()?;
    let made = key::generate(&name, password.as_ref())?;
    let mut out = std::io::stdout().lock();
    // The files are there, whether anybody reads this or not.
    let _ = writeln!(
        out,
        "{}   secret: it signs, keep it where captures run\n{}   public: key {}, trust it where drills run",
        made.secret.display(),
        made.public.display(),
        made.key.key_id()
    );
    Ok(ExitCode::SUCCESS)
}
