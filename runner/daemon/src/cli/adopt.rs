use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use drill::stop::{OrStop, Stop};
use drill::unit;
use drill::verdict::{Leftovers, Reason, exit_code};
use drivers::artifact::digest::{expected, read_expected};
use drivers::artifact::file::{AdoptRequest, Adopted, adopt};
use drivers::key::{SigningKey, read_password};
use jiff::tz::TimeZone;

use super::capture::{interrupted, shell};

/// Make a signed backup of a dump that another tool made
#[derive(clap::Args)]
#[command(after_help = "Example:\n  muster adopt orders.dump --key backup.key --sha256 orders.dump.sha256\n\n\
    Takes what pg_dump writes: custom, directory, tar, plain, and plain with gzip or zstd. The backup has no baseline,\n\
    because nobody counted the source: its checks compare with the drill file's expectations. The snapshot's time is\n\
    the one in the dump. Archives name no time zone with it: it is read as UTC unless --timezone says otherwise. Plain\n\
    dumps hold a time only with `pg_dump --verbose`; without one the recovery point is unknown.\n\n\
    An adoption that fails or is interrupted leaves nothing.\n\n\
    Exit codes: 0 adopted, 1 the dump is not what it should be, 2 not adopted, 3 nothing was begun.")]
pub struct Args {
    /// The dump: a file, or a directory in directory format
    dump: PathBuf,
    /// Secret key that signs the backup (`muster key generate`, or minisign's own)
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// File whose first line is the key's password
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// What sha256sum printed when the dump was made, as a file or as the digest; must match
    #[arg(long, value_name = "FILE")]
    sha256: Option<PathBuf>,
    /// Directory that holds the backups and the link `latest` [default: the backup's name]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// What is backed up, such as `orders` [default: the dump's name up to its first dot]
    #[arg(long)]
    name: Option<String>,
    /// Roles, as `pg_dumpall --globals-only` writes them
    #[arg(long, value_name = "FILE")]
    globals: Option<PathBuf>,
    /// Time zone of the machine that made the dump, such as `Europe/Berlin` [default: UTC]
    #[arg(long, value_name = "ZONE")]
    timezone: Option<String>,
    /// Print only if nothing is adopted
    #[arg(long)]
    quiet: bool,
}

pub async fn run(args: Args) -> Result<ExitCode, Stop> {
    let file = args.dump.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let name = args.name.unwrap_or_else(|| drill::file::name_of_dump(&file).to_string());
    let password = args.password_file.as_deref().map(read_password).transpose()?;
    let out = args.out.unwrap_or_else(|| PathBuf::from(&name));
    let request = AdoptRequest {
        dump: args.dump,
        name,
        out: out.clone(),
        key: SigningKey::load(&args.key, password.as_ref())?,
        sha256: args.sha256.as_deref().map(|given| digest(given, &file)).transpose()?,
        globals: args.globals,
        timezone: timezone(args.timezone.as_deref())?,
    };
    let interrupted = interrupted()?;
    // What is dropped leaves nothing.
    let adopted = tokio::select! {
        adopted = adopt(request) => adopted,
        () = interrupted => Err(Stop::new(Reason::Interrupted, "the adoption was interrupted, and nothing is left of it")),
    };
    match adopted {
        Ok(adopted) => {
            if !args.quiet {
                // The backup is there, whether anybody reads this or not.
                let _ = std::io::stdout().lock().write_all(summary(&adopted, &out, &args.key).as_bytes());
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(stop) => {
            super::report_error(&stop);
            Ok(ExitCode::from(exit_code(stop.reason.verdict(), Leftovers::None)))
        }
    }
}

/// A file of `sha256sum`, or the digest itself.
fn digest(given: &Path, name: &str) -> Result<drill::id::Sha256Digest, Stop> {
    let text = given.to_string_lossy();
    let direct = expected(&text, name).ok().filter(|_| !given.exists());
    match direct {
        Some(digest) => Ok(digest),
        None => read_expected(given, name).map_err(|why| Stop::internal(format!("--sha256: {why}"))),
    }
}

pub(super) fn timezone(given: Option<&str>) -> Result<Option<TimeZone>, Stop> {
    let zone = given.map(TimeZone::get).transpose();
    zone.or_stop(Reason::Internal, format!("--timezone {}", given.unwrap_or_default()))
        .map_err(|stop| stop.advise("name one of the IANA database, such as `Europe/Berlin`, or `UTC`"))
}

fn summary(adopted: &Adopted, out: &Path, key: &Path) -> String {
    let manifest = &adopted.manifest;
    let mut lines = vec![format!("adopted    {}", adopted.directory.display())];
    let mut more = |line: String| lines.push(format!("           {line}"));
    for part in &manifest.parts {
        let size = unit::size(part.files.iter().map(|file| file.size).sum());
        more(format!(
            "{} dump of database {}, {size}, sha256 {}",
            part.format.as_str(),
            part.database,
            adopted.dump.short()
        ));
    }
    let note = manifest.snapshot_time_from.note();
    more(match manifest.snapshot_time {
        Some(time) => format!("taken {} {note}", time.strftime("%Y-%m-%d %H:%M:%S UTC")),
        None => format!("{note}: the recovery point of its drills will be unknown"),
    });
    more(format!("PostgreSQL {}, {}", manifest.source.version, manifest.source.tool));
    more("no baseline: checks compare with what the drill file expects".to_owned());
    more(format!("manifest sha256 {}, signed by key {}", adopted.digest.short(), adopted.signed_by));
    if manifest.globals.is_none() {
        lines.push("warning:   it has no roles: add what `pg_dumpall --globals-only` writes by --globals".to_owned());
    }
    let public = key.with_extension("pub");
    lines.push(format!("next:      muster verify {} --trust {}\n", shell(out), shell(&public)));
    lines.join("\n")
}
