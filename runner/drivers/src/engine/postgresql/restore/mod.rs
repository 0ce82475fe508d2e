//! The restore: roles first, then each database, with the engine's own tools inside the sandbox. Everything that comes after
//! it may be the dump's doing: a dump is a program that runs as superuser.
mod archive;
mod script;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use drill::finding::{Finding, Severity};
use drill::manifest::{DumpFormat, FileEntry, Manifest, Part};
use drill::port::{Exec, ExecOutput, ExitStatus, Output, Progress, Restored, Server};
use drill::stop::Stop;
use drill::unit;
use drill::verdict::Reason;

use super::classify::{Class, Errors, MAKE_ROOM, RestoreError, classify};
use super::roles::{MOST, roles_in};
use super::server::{LONGEST, PostgresqlServer};
use super::text::{identifier, literal, plain};
use super::{ADMIN_ROLE, MAINTENANCE_DATABASE, PORT, client};

/// How often progress is told while a tool runs.
const TICK: std::time::Duration = std::time::Duration::from_millis(200);

pub(super) async fn restore(
    server: &PostgresqlServer,
    manifest: &Manifest,
    progress: &dyn Progress,
) -> Result<Restored, Stop> {
    let mut restored = Restored::default();
    match &manifest.globals {
        Some(globals) => restored.findings.extend(apply_globals(server, globals).await?),
        None => restored.findings.extend(stub_roles(server, manifest).await?),
    }
    lock_roles(server).await?;
    let mut entries = Vec::new();
    for part in &manifest.parts {
        entries.push(match part.format.packing() {
            None => archive::count_entries(server, part).await?,
            Some(_) => 0,
        });
    }
    let total: u64 = entries.iter().sum();
    let mut before = 0;
    for (part, entries) in manifest.parts.iter().zip(entries) {
        let progress = Share { progress, before, total };
        let findings = match part.format.packing() {
            None => archive::restore(server, part, entries, &progress).await?,
            Some(packing) => script::restore(server, part, packing).await?,
        };
        restored.findings.extend(findings);
        before += entries;
        restored.databases.push(part.database.clone());
    }
    // A dump may have made roles of its own.
    lock_roles(server).await?;
    for database in &restored.databases {
        answers(server, database).await?;
    }
    let databases = u64::try_from(restored.databases.len()).unwrap_or(u64::MAX);
    let what = if total == 0 { "a script".to_owned() } else { entries_text(total) };
    restored.note = format!("{what}, {}", unit::plural(databases, "database"));
    Ok(restored)
}

fn entries_text(total: u64) -> String {
    if total == 1 { "1 entry".to_owned() } else { format!("{} entries", unit::count(total)) }
}

/// Progress of one part within all of them.
struct Share<'a> {
    progress: &'a dyn Progress,
    before: u64,
    total: u64,
}

impl Share<'_> {
    fn set(&self, done: u64) {
        self.progress.set((self.before + done).min(self.total), Some(self.total), "entries");
    }
}

async fn apply_globals(server: &PostgresqlServer, globals: &FileEntry) -> Result<Vec<Finding>, Stop> {
    let mut argv = vec![server.install.program("psql"), "-X".to_owned(), "-q".to_owned()];
    argv.extend(["-v", "ON_ERROR_STOP=0", "-d", MAINTENANCE_DATABASE, "-o", "/dev/null"].map(str::to_owned));
    argv.extend(["-f".to_owned(), inside(&globals.path)]);
    let (output, errors) = run(server, argv, Arc::new(|_, _| ()), || ()).await?;
    // With ON_ERROR_STOP=0 psql ends with 0 unless it could not begin.
    judge(server, "the backup's roles", None, &output, errors, &[0]).await
}

/// A backup without its roles: each one that the dump names is made, so that the restore can be seen at all.
async fn stub_roles(server: &PostgresqlServer, manifest: &Manifest) -> Result<Vec<Finding>, Stop> {
    let needed: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    for part in &manifest.parts {
        let seen = Arc::clone(&needed);
        let argv = match part.format.packing() {
            None => archive::schema(server, part)?,
            Some(packing) => script::role_lines(part, packing)?,
        };
        let mut exec = Exec::new(argv);
        exec.deadline = LONGEST;
        exec.keep = 4 << 10;
        exec.lines = Some(Arc::new(move |output, line| {
            if let (Output::Stdout, Ok(mut seen)) = (output, seen.lock())
                && seen.len() < MOST
            {
                seen.extend(roles_in(line));
            }
        }));
        // What is wrong with the dump is told by the restore itself.
        server.sandbox.exec(exec).await?;
    }
    let needed = needed.lock().map(|needed| needed.clone()).unwrap_or_default();
    let mut findings =
        vec![warning(None, "roles", "the backup has no roles: after a disaster nobody could log in".to_owned())];
    for role in needed.iter().filter(|role| *role != ADMIN_ROLE && !role.starts_with("pg_")) {
        let made = server.admin(MAINTENANCE_DATABASE, &format!("CREATE ROLE {} NOLOGIN", identifier(role))).await;
        let message = match made {
            Ok(_) => "the dump needs this role and the backup lacks it: an empty one was made".to_owned(),
            Err(error) => format!("the dump needs this role and it could not be made: {error}"),
        };
        findings.push(warning(None, &plain(role, 63), message));
    }
    Ok(findings)
}

/// Nobody but muster logs in, whatever roles the backup brought.
async fn lock_roles(server: &PostgresqlServer) -> Result<(), Stop> {
    let statement = format!(
        "UPDATE pg_catalog.pg_authid SET rolcanlogin = false, rolpassword = NULL WHERE rolname <> {} \
         AND (rolcanlogin OR rolpassword IS NOT NULL)",
        literal(ADMIN_ROLE)
    );
    match server.admin(MAINTENANCE_DATABASE, &statement).await {
        Ok(_) => Ok(()),
        Err(error) => Err(trouble(server, format!("locking the backup's roles: {error}")).await),
    }
}

/// muster's own trouble with the server, or why the server is gone.
async fn trouble(server: &PostgresqlServer, message: String) -> Stop {
    server.death().await.unwrap_or_else(|| Stop::new(Reason::SandboxUnfit, message))
}

/// `postgres` is in every cluster, and a dump makes its own database.
async fn make_room(server: &PostgresqlServer, part: &Part) -> Result<(), Stop> {
    if part.database != "postgres" {
        return Ok(());
    }
    match server.admin(MAINTENANCE_DATABASE, "DROP DATABASE IF EXISTS postgres WITH (FORCE)").await {
        Ok(_) => Ok(()),
        Err(error) => Err(trouble(server, format!("making room for database postgres: {error}")).await),
    }
}

type Watch = Arc<dyn Fn(Output, &str) + Send + Sync>;

/// Runs a tool inside as the administrator, reading its errors as they come.
async fn run(
    server: &PostgresqlServer,
    argv: Vec<String>,
    watch: Watch,
    tick: impl Fn(),
) -> Result<(ExecOutput, Errors), Stop> {
    let errors: Arc<Mutex<Errors>> = Arc::default();
    let sink = Arc::clone(&errors);
    let mut exec = Exec::new(argv);
    exec.env = environment(server.install.major);
    exec.deadline = LONGEST;
    exec.keep = 8 << 10;
    exec.lines = Some(Arc::new(move |output, line| {
        if let (Output::Stderr, Ok(mut errors)) = (output, sink.lock()) {
            errors.line(line);
        }
        watch(output, line);
    }));
    let mut running = std::pin::pin!(server.sandbox.exec(exec));
    let output = loop {
        match tokio::time::timeout(TICK, running.as_mut()).await {
            Ok(output) => break output?,
            Err(_) => tick(),
        }
    };
    let mut errors = errors.lock().map(|mut errors| std::mem::take(&mut *errors)).unwrap_or_default();
    errors.finish();
    Ok((output, errors))
}

fn environment(major: u32) -> Vec<(String, String)> {
    let port = PORT.to_string();
    let options = client::tool_options(major);
    let pairs = [
        ("PGHOST", "/tmp"),
        ("PGPORT", &port),
        ("PGUSER", ADMIN_ROLE),
        ("PGOPTIONS", &options),
        ("LC_ALL", "C"),
        ("PGAPPNAME", "muster"),
    ];
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
}

/// What the sandbox lacks comes before what the dump does, because it may be the cause of it.
async fn judge(
    server: &PostgresqlServer,
    what: &str,
    database: Option<&str>,
    output: &ExecOutput,
    errors: Errors,
    fine: &[i32],
) -> Result<Vec<Finding>, Stop> {
    if let Some((error, reason, advice)) = &errors.sandbox {
        let died = if advice.contains("last words") { server.death().await } else { None };
        return Err(died.unwrap_or_else(|| sandbox_stop(server, what, error, *reason, advice)));
    }
    if errors.dump.total > 0 {
        return Err(server.death().await.unwrap_or_else(|| restore_failed(what, &errors)));
    }
    match output.status {
        ExitStatus::Code(code) if fine.contains(&code) && (code == 0 || !errors.is_empty()) => {}
        ExitStatus::Code(code) => {
            let tail = plain(&String::from_utf8_lossy(&output.stderr), 300);
            let message = format!("restoring {what} ended with exit code {code}: {tail}");
            return Err(trouble(server, message).await);
        }
        ExitStatus::Signal(signal) => {
            let message = format!("restoring {what} was ended by signal {signal}");
            return Err(Stop::new(Reason::LimitReached, message).advise("raise the sandbox's memory limit"));
        }
        ExitStatus::DeadlineExceeded => {
            return Err(Stop::new(Reason::Deadline, format!("restoring {what} took too long")));
        }
    }
    Ok(findings(database, &errors))
}

fn sandbox_stop(server: &PostgresqlServer, what: &str, error: &RestoreError, reason: Reason, advice: &str) -> Stop {
    let message = format!("restoring {what}: {}: {}", error.subject(), error.message);
    // The kernel ends one process, and the server goes on.
    if server.log_says("terminated by signal 9") {
        return Stop::new(Reason::LimitReached, message).advise("raise the sandbox's memory limit");
    }
    if server.log_says("No space left on device") {
        return Stop::new(Reason::LimitReached, message).advise(MAKE_ROOM);
    }
    Stop::new(reason, message).advise(advice)
}

fn restore_failed(what: &str, errors: &Errors) -> Stop {
    const SHOWN: usize = 3;
    let shown: Vec<String> =
        errors.dump.errors.iter().take(SHOWN).map(|error| format!("{}: {}", error.subject(), error.message)).collect();
    let rest = errors.dump.total.saturating_sub(u64::try_from(shown.len()).unwrap_or(0));
    let more = if rest > 0 { format!("; and {} more", unit::count(rest)) } else { String::new() };
    let count = unit::plural(errors.dump.total, "error");
    let stop = Stop::new(Reason::RestoreFailed, format!("restoring {what} gave {count}: {}{more}", shown.join("; ")));
    match &errors.advice {
        Some(advice) => stop.advise(advice.clone()),
        None => stop.advise(
            "the backup cannot be restored as it is: look at the first error, mend the source and capture again",
        ),
    }
}

fn findings(database: Option<&str>, errors: &Errors) -> Vec<Finding> {
    let finding = |error: &RestoreError, severity, note: &str| Finding {
        source: "restore".to_owned(),
        database: database.map(str::to_owned),
        severity,
        subject: error.subject(),
        message: format!("{note}: {}", error.message),
        details: error.command.iter().map(|command| ("statement".to_owned(), command.clone())).collect(),
    };
    let harmless = |error: &RestoreError| match classify(error) {
        Class::Benign(why) => format!("known to do no harm ({why})"),
        _ => "known to do no harm".to_owned(),
    };
    let benign = errors.benign.errors.iter().map(|error| finding(error, Severity::Info, &harmless(error)));
    let blocked = errors.blocked.errors.iter().map(|error| finding(error, Severity::Warning, "blocked by isolation"));
    let mut findings: Vec<Finding> = blocked.chain(benign).collect();
    let kept = u64::try_from(findings.len()).unwrap_or(u64::MAX);
    let unkept = (errors.benign.total + errors.blocked.total).saturating_sub(kept);
    if unkept > 0 {
        findings.push(warning(database, "restore", format!("{} more such errors are not listed", unit::count(unkept))));
    }
    findings
}

fn warning(database: Option<&str>, subject: &str, message: String) -> Finding {
    Finding {
        source: "restore".to_owned(),
        database: database.map(str::to_owned),
        severity: Severity::Warning,
        subject: subject.to_owned(),
        message,
        details: Vec::new(),
    }
}

async fn answers(server: &PostgresqlServer, database: &str) -> Result<(), Stop> {
    match server.admin(database, "SELECT 1").await {
        Ok(_) => Ok(()),
        // The server tells it: the dump did not make what the manifest promises.
        Err(error) if error.sqlstate.as_deref() == Some("3D000") => Err(Stop::new(
            Reason::RestoreFailed,
            format!("the dump of database {database} made no database of that name"),
        )
        .advise("capture again: the manifest and the dump do not belong together")),
        Err(error) => {
            Err(trouble(server, format!("database {database} does not answer after its restore: {error}")).await)
        }
    }
}

fn inside(path: &str) -> String {
    format!("/backup/{path}")
}

/// The dump as the tools want it named: a file, or the directory of its files.
fn dump(part: &Part) -> Result<String, Stop> {
    let one = |path: &str| Ok(inside(path));
    match (part.format, part.files.as_slice()) {
        (DumpFormat::Directory, [file, ..]) => match file.path.rsplit_once('/') {
            Some((directory, _)) => one(directory),
            None => Err(Stop::internal("a directory dump lies in no directory")),
        },
        (_, [file]) => one(&file.path),
        (_, files) => Err(Stop::new(
            Reason::ArtifactRefused,
            format!("database {} has {} files where a dump is one", part.database, files.len()),
        )),
    }
}
