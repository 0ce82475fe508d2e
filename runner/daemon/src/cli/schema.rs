//! `muster schema`.
use std::io::{self, Write};
use std::process::ExitCode;

use drill::verdict::EXIT_NOTHING_BEGUN;

/// Print the JSON Schema of drill files, or of compact manifests
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  muster schema > drill.schema.json\n\nAn editor that speaks YAML completes and checks drill \
                        files that begin with\n  # yaml-language-server: $schema=drill.schema.json"
)]
pub struct Args {
    /// Of compact manifests
    #[arg(long)]
    compact: bool,
}

pub fn run(args: &Args) -> ExitCode {
    let schema = if args.compact { drill::file::compact_schema() } else { drill::file::json_schema() };
    let mut text = format!("{schema:#}");
    text.push('\n');
    match io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read it has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr().lock(), "error: failed to write the schema: {error}");
            ExitCode::from(EXIT_NOTHING_BEGUN)
        }
    }
}
