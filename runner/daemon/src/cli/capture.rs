use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use drill::port::Progress;
use drill::stop::{OrStop, Stop};
use drill::unit;
use drill::verdict::{Leftovers, Reason, exit_code};
use drivers::engine::postgresql::capture::{
    CaptureRequest, Captured, ConnInfo, Digests, Environment, LEAST_ROLE, capture,
};
use drivers::key::{SigningKey, read_password};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::style::clean;

/// Make a signed backup of a running PostgreSQL
#[derive(clap::Args)]
#[command(after_help = "Example:\n  muster key generate backup\n  \
    muster capture --name demo --key backup.key --out backups/demo --database postgres\n\n\
    Without --database, the PG* variables, a service file and ~/.pgpass say where to connect, as for psql.\n\
    Makes OUT/YYYYMMDDTHHMMSSZ/ and swaps the link OUT/latest; a capture that fails or is interrupted leaves\n\
    nothing. Reads only, also from a standby. Exit codes: 0 made, 2 not made, 3 nothing was begun.")]
pub struct Args {
    /// What is backed up, such as `orders`; the same for every backup of it
    #[arg(long, required_unless_present = "print_role")]
    name: Option<String>,
    /// Secret key that signs the backup (`muster key generate`, or minisign's own)
    #[arg(long, value_name = "FILE", required_unless_present = "print_role")]
    key: Option<PathBuf>,
    /// File whose first line is the key's password
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Directory that holds the backups and the link `latest`
    #[arg(long, value_name = "DIR", required_unless_present = "print_role")]
    out: Option<PathBuf>,
    /// Database name or connection string; may be given several times for databases of one server
    #[arg(long, value_name = "CONNINFO")]
    database: Vec<String>,
    /// Tables whose rows are digested, so that a drill can compare them exactly: `all`, `none` or a pattern of schema.table
    /// such as `public.*`. The rows of the others are counted
    #[arg(long, default_value = "all", value_name = "all|none|GLOB")]
    digests: Digests,
    /// Keep eight bytes of each row's digest, so that a drill can say how many rows of a block differ
    #[arg(long)]
    row_digests: bool,
    /// Bytes a second that digesting reads, over all connections, such as `50MiB`; `pg_dump` is not limited, nor are the rows
    /// that are only counted
    #[arg(long, value_name = "BYTES", value_parser = unit::parse_size)]
    max_rate: Option<u64>,
    /// Connections that count and digest rows while `pg_dump` reads
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: u16,
    /// How long to wait for a table that somebody has locked
    #[arg(long, default_value = "10s", value_name = "DURATION", value_parser = unit::parse_duration)]
    lock_timeout: Duration,
    /// Print the least role that a capture needs, as SQL, and stop
    #[arg(long)]
    print_role: bool,
    /// Print only if no backup is made
    #[arg(long)]
    quiet: bool,
}

pub async fn run(args: Args) -> Result<ExitCode, Stop> {
    if args.print_role {
        std::io::stdout().write_all(LEAST_ROLE.as_bytes()).or_stop(Reason::Internal, "printing the role")?;
        return Ok(ExitCode::SUCCESS);
    }
    let (Some(name), Some(key), Some(out)) = (args.name, args.key, args.out) else {
        return Err(Stop::internal("--name, --key and --out are needed"));
    };
    let password = args.password_file.as_deref().map(read_password).transpose()?;
    let environment = Environment::of_this_process();
    let given = if args.database.is_empty() { vec![String::new()] } else { args.database };
    let request = CaptureRequest {
        name,
        databases: given.iter().map(|text| ConnInfo::resolve(text, &environment)).collect::<Result<_, _>>()?,
        key: SigningKey::load(&key, password.as_ref())?,
        out,
        digests: args.digests,
        row_digests: args.row_digests,
        jobs: usize::from(args.jobs),
        max_rate: args.max_rate,
        lock_timeout: args.lock_timeout,
        environment,
    };
    let cancel = CancellationToken::new();
    let signals = tokio::spawn(cancel_on_signal(cancel.clone())?);
    let bar = Bar::new("capturing", args.quiet);
    let captured = capture(&request, &bar, &cancel).await;
    bar.finish();
    signals.abort();
    match captured {
        Ok(captured) => {
            if !args.quiet {
                // The backup is there, whether anybody reads this or not.
                let _ = std::io::stdout().lock().write_all(summary(&captured, &request.out, &key).as_bytes());
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(stop) => {
            super::report_error(&stop);
            Ok(ExitCode::from(exit_code(stop.reason.verdict(), Leftovers::None)))
        }
    }
}

fn cancel_on_signal(cancel: CancellationToken) -> Result<impl Future<Output = ()>, Stop> {
    let interrupted = interrupted()?;
    Ok(async move {
        interrupted.await;
        cancel.cancel();
    })
}

/// Ends with the first SIGINT or SIGTERM, which end nothing else from now on.
pub(super) fn interrupted() -> Result<impl Future<Output = ()>, Stop> {
    let mut interrupt = signal(SignalKind::interrupt()).or_stop(Reason::Internal, "listening for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).or_stop(Reason::Internal, "listening for SIGTERM")?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

fn summary(captured: &Captured, out: &Path, key: &Path) -> String {
    let manifest = &captured.manifest;
    let mut lines = vec![format!("captured   {} in {}", captured.directory.display(), unit::duration(captured.took))];
    let mut more = |line: String| lines.push(format!("           {}", clean(&line)));
    for part in &manifest.parts {
        for file in &part.files {
            more(format!("{}   {} of database {}", file.path, unit::size(file.size), part.database));
        }
    }
    more(format!(
        "{}, {}, snapshot of {}, PostgreSQL {}",
        unit::plural(captured.tables, "table"),
        unit::plural(captured.rows, "row"),
        manifest.snapshot_time.map(|time| time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()).unwrap_or_default(),
        manifest.source.version
    ));
    more(format!("manifest sha256 {}, signed by key {}", captured.digest.short(), captured.signed_by));
    for warning in &captured.warnings {
        lines.push(format!("warning:   {}", clean(warning)));
    }
    let public = key.with_extension("pub");
    lines.push(format!("next:      muster verify {} --trust {}\n", shell(out), shell(&public)));
    lines.join("\n")
}

/// As it can be pasted.
pub(super) fn shell(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+@:".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// A line on a terminal's stderr that says how far the bytes are; nothing elsewhere.
pub(super) struct Bar(ProgressBar);

impl Bar {
    pub(super) fn new(what: &'static str, quiet: bool) -> Self {
        let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::no_length() };
        // The template is a constant, and a wrong one would only cost the looks.
        if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix}  {msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(what);
        bar.enable_steady_tick(Duration::from_millis(100));
        Self(bar)
    }

    pub(super) fn finish(&self) {
        self.0.finish_and_clear();
    }
}

impl Progress for Bar {
    /// The unit is `bytes` and, where there is more to say, what they are.
    fn set(&self, done: u64, total: Option<u64>, unit: &str) {
        let what = unit.trim_start_matches("bytes");
        self.0.set_message(match total {
            Some(total) => format!("{} of {}{what}", unit::size(done), unit::size(total)),
            None => format!("{}{what}", unit::size(done)),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_to_be_pasted_can_be() {
        assert_eq!(shell(Path::new("/backups/orders")), "/backups/orders");
        assert_eq!(shell(Path::new("it's here")), r"'it'\''s here'");
    }
}
