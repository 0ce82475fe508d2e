use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use drill::manifest::FILE_NAME;
use drill::spec::TrustedKey;
use drill::stop::{OrStop, Stop};
use drill::unit;
use drill::verdict::{Leftovers, Reason, exit_code};
use drivers::artifact::file::FileBackup;
use drivers::key::Trust;

use super::capture::Bar;
use super::style::clean;

/// Check a backup's signature, digests and dump header; restore nothing
#[derive(clap::Args)]
#[command(after_help = "Example:\n  muster verify backups/orders --trust backup.pub\n\n\
    Exit codes: 0 the backup is what was made, 1 it is not, 2 its place could not be reached, 3 nothing was begun.")]
pub struct Args {
    /// A backup, the directory that holds `latest`, or a manifest.json
    directory: PathBuf,
    /// Public key of whoever signs the backups; may be given several times
    #[arg(long, value_name = "PUB", required = true)]
    trust: Vec<PathBuf>,
    /// Print only if the backup is refused
    #[arg(long)]
    quiet: bool,
}

pub async fn run(args: Args) -> Result<ExitCode, Stop> {
    let keys = args.trust.iter().map(|path| match path.to_str() {
        Some(path) => Ok(TrustedKey::File(path.to_owned())),
        None => Err(Stop::new(Reason::Internal, format!("`{}` is not a UTF-8 path", path.display()))),
    });
    let trust = Trust::load(&keys.collect::<Result<Vec<_>, _>>()?, Path::new(""))?;
    match verify(&args, trust).await {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(stop) => {
            super::report_error(&stop);
            Ok(ExitCode::from(exit_code(stop.reason.verdict(), Leftovers::None)))
        }
    }
}

async fn verify(args: &Args, trust: Trust) -> Result<(), Stop> {
    let began = Instant::now();
    let manifest = manifest_of(&args.directory);
    let backup = tokio::task::spawn_blocking(move || FileBackup::open(&manifest, &trust))
        .await
        .or_stop(Reason::Internal, "opening the backup")??;
    let bar = Bar::new("verifying", args.quiet);
    let verified = backup.verify(&bar).await;
    bar.finish();
    verified?;
    if args.quiet {
        return Ok(());
    }
    let manifest = &backup.manifest;
    let age = |time| {
        std::time::Duration::try_from(jiff::Timestamp::now().duration_since(time))
            .map_or_else(|_| "taken in the future".to_owned(), |age| format!("taken {} ago", unit::duration(age)))
    };
    let note = manifest.snapshot_time_from.note();
    let taken = [manifest.snapshot_time.map(age).unwrap_or_default(), note.to_owned()].join(" ");
    let mut out = std::io::stdout().lock();
    // The verdict is in the exit code, too.
    let _ = writeln!(
        out,
        "verified   {} in {}\n           {}, {}, PostgreSQL {}\n           {}, {}, manifest sha256 {}",
        clean(&backup.location.display().to_string()),
        unit::duration(began.elapsed()),
        unit::plural(manifest.files().count() as u64, "file"),
        unit::size(manifest.total_size()),
        clean(&manifest.source.version),
        taken.trim(),
        clean(&signer(&backup)),
        backup.digest.short(),
    );
    Ok(())
}

fn signer(backup: &FileBackup) -> String {
    backup.signer.as_ref().map_or_else(
        || backup.vouched.to_string(),
        |signer| format!("signed by {} (key {})", signer.name, signer.key_id),
    )
}

/// What people name is the backup, or where backups are.
fn manifest_of(path: &Path) -> PathBuf {
    let direct = path.join(FILE_NAME);
    let latest = path.join("latest");
    if path.is_file() {
        path.to_owned()
    } else if direct.symlink_metadata().is_err() && latest.symlink_metadata().is_ok() {
        latest.join(FILE_NAME)
    } else {
        direct
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_its_parent_and_its_manifest_are_all_understood() {
        let place = tempfile::tempdir().expect("a directory");
        let backup = place.path().join("20261122T021500Z");
        std::fs::create_dir(&backup).expect("a directory");
        std::fs::write(backup.join(FILE_NAME), "{}").expect("a file");
        std::os::unix::fs::symlink("20261122T021500Z", place.path().join("latest")).expect("a link");
        assert_eq!(manifest_of(place.path()), place.path().join("latest").join(FILE_NAME));
        assert_eq!(manifest_of(&backup), backup.join(FILE_NAME));
        assert_eq!(manifest_of(&backup.join(FILE_NAME)), backup.join(FILE_NAME));
        assert_eq!(manifest_of(Path::new("/absent")), Path::new("/absent").join(FILE_NAME));
    }
}
