//! Archives: `pg_restore` lists and restores them.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use drill::finding::{Finding, Severity};
use drill::manifest::{DumpFormat, Part};
use drill::port::{ExecOutput, Output, Server as _};
use drill::stop::Stop;

use super::super::classify::Errors;
use super::super::server::PostgresqlServer;
use super::super::text::{identifier, plain};
use super::{MAINTENANCE_DATABASE, Share, dump, judge, make_room, run, trouble, warning};

/// Tablespaces made for one database; it names one.
const TABLESPACES: usize = 1;

/// Writes the schema of the dump, for whoever looks for roles in it.
pub(super) fn schema(server: &PostgresqlServer, part: &Part) -> Result<Vec<String>, Stop> {
    let mut argv = vec![server.install.program("pg_restore")];
    argv.extend(["--create", "--schema-only", "-f", "-"].map(str::to_owned));
    argv.push(dump(part)?);
    Ok(argv)
}

pub(super) async fn count_entries(server: &PostgresqlServer, part: &Part) -> Result<u64, Stop> {
    let counted = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&counted);
    let argv = vec![server.install.program("pg_restore"), "--list".to_owned(), dump(part)?];
    let count = move |output: Output, line: &str| {
        if output == Output::Stdout && line.starts_with(|c: char| c.is_ascii_digit()) {
            seen.fetch_add(1, Ordering::Relaxed);
        }
    };
    let (output, errors) = run(server, argv, Arc::new(count), || ()).await?;
    judge(server, &format!("the list of database {}", part.database), Some(&part.database), &output, errors, &[0])
        .await?;
    Ok(counted.load(Ordering::Relaxed))
}

/// One database, by `pg_restore`.
pub(super) async fn restore(
    server: &PostgresqlServer,
    part: &Part,
    entries: u64,
    progress: &Share<'_>,
) -> Result<Vec<Finding>, Stop> {
    make_room(server, part).await?;
    let mut argv = vec![server.install.program("pg_restore"), "--verbose".to_owned(), "--create".to_owned()];
    argv.extend(["--no-tablespaces", "-d", MAINTENANCE_DATABASE].map(str::to_owned));
    // A tar cannot be read at several places at once.
    if server.jobs > 1 && part.format != DumpFormat::Tar {
        argv.push(format!("--jobs={}", server.jobs));
    }
    argv.push(dump(part)?);
    let mut findings = Vec::new();
    let (output, errors) = loop {
        let (output, errors) = restore_once(server, &argv, entries, progress).await?;
        match missing_tablespace(&errors) {
            Some(name) if findings.len() < TABLESPACES => {
                make_tablespace(server, &name).await?;
                let message = "the database's tablespace was made inside the data directory".to_owned();
                let subject = format!("tablespace {}", plain(&name, 63));
                findings.push(Finding { severity: Severity::Info, ..warning(Some(&part.database), &subject, message) });
            }
            _ => break (output, errors),
        }
    };
    findings.extend(
        judge(server, &format!("database {}", part.database), Some(&part.database), &output, errors, &[0, 1]).await?,
    );
    progress.set(entries);
    Ok(findings)
}

async fn restore_once(
    server: &PostgresqlServer,
    argv: &[String],
    entries: u64,
    progress: &Share<'_>,
) -> Result<(ExecOutput, Errors), Stop> {
    let done = Arc::new(AtomicU64::new(0));
    let counter = EntryCounter { parallel: AtomicBool::new(false), done: Arc::clone(&done) };
    let count = Arc::new(move |_: Output, line: &str| counter.line(line));
    run(server, argv.to_vec(), count, || progress.set(done.load(Ordering::Relaxed).min(entries))).await
}

/// A dump's CREATE DATABASE names its tablespace whatever `--no-tablespaces` says. Then it fails, and nothing was restored.
fn missing_tablespace(errors: &Errors) -> Option<String> {
    let (error, ..) = errors.sandbox.as_ref()?;
    let name = error.message.strip_prefix("tablespace \"")?.strip_suffix("\" does not exist")?;
    Some(name.to_owned())
}

/// In the data directory, because the sandbox has no other place.
async fn make_tablespace(server: &PostgresqlServer, name: &str) -> Result<(), Stop> {
    let make = format!("CREATE TABLESPACE {} LOCATION ''", identifier(name));
    for statement in ["SET allow_in_place_tablespaces = on", &make, "RESET allow_in_place_tablespaces"] {
        if let Err(error) = server.admin(MAINTENANCE_DATABASE, statement).await {
            return Err(trouble(server, format!("making the database's tablespace: {error}")).await);
        }
    }
    Ok(())
}

/// Counts an archive's entries as `--verbose` tells them. Once the parallel part has begun, the workers' own lines tell the
/// same entries again.
struct EntryCounter {
    parallel: AtomicBool,
    done: Arc<AtomicU64>,
}

impl EntryCounter {
    fn line(&self, line: &str) {
        let Some(rest) = line.strip_prefix("pg_restore: ") else { return };
        let parallel = self.parallel.load(Ordering::Relaxed);
        if rest.starts_with("entering main parallel loop") {
            self.parallel.store(true, Ordering::Relaxed);
        } else if rest.starts_with("finished main parallel loop") {
            self.parallel.store(false, Ordering::Relaxed);
        } else if (parallel && rest.starts_with("finished item "))
            || (!parallel && (rest.starts_with("creating ") || rest.starts_with("processing data for table ")))
        {
            self.done.fetch_add(1, Ordering::Relaxed);
        }
    }
}
