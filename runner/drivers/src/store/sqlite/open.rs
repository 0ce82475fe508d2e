//! Opens the database file, or says why not.
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use drill::stop::{Stop, chain};
use refinery::{Migration, Runner};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior};

use super::rows;
use super::trouble::{Failure, stop};
use crate::store::fold::{DAMAGED_ADVICE, Folded};

pub(super) const MIGRATIONS: [(&str, &str); 5] = [
    ("V1__initial", include_str!("migrations/V1__initial.sql")),
    ("V2__slots", include_str!("migrations/V2__slots.sql")),
    ("V3__outbox", include_str!("migrations/V3__outbox.sql")),
    ("V4__seen", include_str!("migrations/V4__seen.sql")),
    ("V5__run_counts", include_str!("migrations/V5__run_counts.sql")),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Makes the database where there is none, and brings an older one up to date.
    ReadWrite,
    /// For looking, while another process may be writing.
    ReadOnly,
}

pub(super) fn open(path: &Path, mode: Mode, busy: Duration) -> Result<Connection, Stop> {
    let path = real(path)?;
    match mode {
        Mode::ReadWrite => make(&path)?,
        Mode::ReadOnly => {}
    }
    check_file(&path)?;
    let access = match mode {
        Mode::ReadWrite => OpenFlags::SQLITE_OPEN_READ_WRITE,
        Mode::ReadOnly => OpenFlags::SQLITE_OPEN_READ_ONLY,
    };
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let prepared = Connection::open_with_flags(&path, flags).map_err(Failure::from).and_then(|mut connection| {
        connection.busy_timeout(busy)?;
        prepare(&mut connection, mode)?;
        Ok(connection)
    });
    prepared.map_err(|failure| match failure {
        Failure::Stop(stop) => Stop { message: format!("{}: {}", path.display(), stop.message), ..stop },
        Failure::Sqlite(_) => stop(&path, "opened", failure),
    })
}

fn prepare(connection: &mut Connection, mode: Mode) -> Result<(), Failure> {
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    let found = version(connection)?;
    let latest = u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX);
    if found > latest {
        return Err(Failure::Stop(
            Stop::internal(format!("it was written by a newer muster: its schema is {found}, this one knows {latest}"))
                .advise("use the newer muster, or another MUSTER_STATE_DIR"),
        ));
    }
    match mode {
        Mode::ReadOnly if found < latest => Err(Failure::Stop(
            Stop::internal(format!("its schema is {found} and this muster reads {latest}"))
                .advise("`muster reap` brings it up to date"),
        )),
        Mode::ReadOnly => Ok(()),
        Mode::ReadWrite => {
            connection.pragma_update(None, "synchronous", "FULL")?;
            // Writers queue at the beginning of a transaction, where waiting is possible, and not in its middle, where it is not.
            connection.set_transaction_behavior(TransactionBehavior::Immediate);
            use_wal(connection)?;
            migrate(connection, latest)
        }
    }
}

/// 0 where the database is new.
fn version(connection: &Connection) -> Result<u32, rusqlite::Error> {
    let table = "SELECT 1 FROM sqlite_schema WHERE name = 'refinery_schema_history'";
    if connection.query_row(table, [], |_| Ok(())).optional()?.is_none() {
        return Ok(0);
    }
    connection.query_row("SELECT coalesce(max(version), 0) FROM refinery_schema_history", [], |row| row.get(0))
}

/// Two processes that start together both try to change the journal mode, and SQLite's busy handler is not asked here.
fn use_wal(connection: &Connection) -> Result<(), rusqlite::Error> {
    let mut tries = 0;
    loop {
        let changed = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0));
        match changed {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && tries < 50 => {
                tries += 1;
                std::thread::sleep(Duration::from_millis(20));
            }
            changed => return changed.map(|_| ()),
        }
    }
}

/// The loser of a race to migrate finds the work done.
fn migrate(connection: &mut Connection, latest: u32) -> Result<(), Failure> {
    let mut migrations = Vec::with_capacity(MIGRATIONS.len());
    for (name, sql) in MIGRATIONS {
        let migration = Migration::unapplied(name, sql);
        migrations.push(migration.map_err(|error| Stop::internal(format!("migration {name}: {}", chain(&error))))?);
    }
    let runner = Runner::new(&migrations).set_grouped(true).set_abort_missing(false);
    let mut tries = 0;
    while version(connection)? < latest {
        if let Err(error) = runner.run(connection) {
            tries += 1;
            if tries == 3 {
                return Err(Failure::Stop(Stop::internal(format!("it cannot be migrated: {}", chain(&error)))));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|error| Stop::internal(format!("no random bytes for its id: {error}")))?;
    connection.execute("INSERT OR IGNORE INTO meta (key, value) VALUES ('store-id', ?1)", [hex::encode(id)])?;
    Ok(())
}

/// SQLite refuses a symlink anywhere in the path; muster refuses one only in the place of the file itself.
fn real(path: &Path) -> Result<PathBuf, Stop> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Stop::internal(format!("{} is no path of a database", path.display())));
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let parent = parent.canonicalize().map_err(|error| {
        Stop::internal(format!("state directory {} cannot be opened: {error}", parent.display()))
            .advise("make it, or name another with MUSTER_STATE_DIR")
    })?;
    Ok(parent.join(name))
}

/// 0600 from its first moment; the journal beside it gets the same mode from SQLite.
fn make(path: &Path) -> Result<(), Stop> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(Stop::internal(format!("{} cannot be made: {error}", path.display()))
            .advise("check the directory's owner, mode and free space, or name another with MUSTER_STATE_DIR")),
    }
}

fn check_file(path: &Path) -> Result<(), Stop> {
    let refuse = |what: String, advice: String| Err(Stop::internal(what).advise(advice));
    let shown = path.display();
    let found = match path.symlink_metadata() {
        Ok(found) => found,
        Err(error) => return refuse(format!("{shown} cannot be opened: {error}"), "check MUSTER_STATE_DIR".into()),
    };
    if !found.is_file() {
        return refuse(
            format!("{shown} is not a regular file"),
            "move it away: muster does not follow a link to its own memory".into(),
        );
    }
    let me = rustix::process::geteuid().as_raw();
    if found.uid() != me && me != 0 {
        return refuse(
            format!("{shown} belongs to user {}, and this is user {me}", found.uid()),
            "run muster as that user, or name another state directory with MUSTER_STATE_DIR".into(),
        );
    }
    if found.mode() & 0o022 != 0 {
        return refuse(
            format!("{shown} may be written by others (mode {:o})", found.mode() & 0o777),
            format!("make sure that nobody changed it, then `chmod 600 {shown}`"),
        );
    }
    Ok(())
}

/// Reads every page, every reference between tables, and what is kept beside what it follows from.
pub(super) fn check(connection: &Connection) -> Result<(), Failure> {
    let damage: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if damage != "ok" {
        return Err(Failure::Stop(Stop::internal(format!("the database is damaged: {damage}")).advise(DAMAGED_ADVICE)));
    }
    let lost: Option<String> = connection
        .query_row("SELECT \"table\" FROM pragma_foreign_key_check LIMIT 1", [], |row| row.get(0))
        .optional()?;
    if let Some(table) = lost {
        return Err(Failure::Stop(
            Stop::internal(format!("a row of {table} belongs to a run that is not there")).advise(DAMAGED_ADVICE),
        ));
    }
    counts(connection)?;
    ledgers(connection)
}

/// By them it is found which drills have runs to forget.
fn counts(connection: &Connection) -> Result<(), Failure> {
    let sql = "WITH counted AS (SELECT drill, is_self_test, count(*) AS runs FROM runs GROUP BY drill, is_self_test)
        SELECT drill FROM counted FULL JOIN run_counts USING (drill, is_self_test)
        WHERE counted.runs IS NOT run_counts.runs LIMIT 1";
    let wrong: Option<String> = connection.query_row(sql, [], |row| row.get(0)).optional()?;
    match wrong {
        None => Ok(()),
        Some(drill) => {
            let problem = format!("drill {drill} has not as many runs as are counted of it");
            Err(Failure::Stop(Stop::internal(problem).advise(DAMAGED_ADVICE)))
        }
    }
}

/// Each run by itself, as recovery reads it, and what `runs` shows of it.
fn ledgers(connection: &Connection) -> Result<(), Failure> {
    let mut statement = connection.prepare(rows::SUMMARY)?;
    let mut shown = statement.query([])?;
    while let Some(row) = shown.next()? {
        let shown = rows::summary(row)?;
        let folded = Folded::replay(&shown.run, &rows::events(connection, &shown.run)?)?;
        if folded.summary() != shown {
            let problem = format!("what is listed of run {} is not what its ledger says", shown.run);
            return Err(Failure::Stop(Stop::internal(problem).advise(DAMAGED_ADVICE)));
        }
    }
    Ok(())
}

/// One consistent copy, without the write-ahead log, readable by its owner alone and synced.
pub(super) fn back_up(connection: &Connection, to: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        let advice = match error.kind() {
            ErrorKind::AlreadyExists => "name a file that does not exist: a backup overwrites nothing",
            _ => "name a file in a directory that this user may write to",
        };
        Failure::Stop(Stop::internal(format!("{} could not be made: {error}", to.display())).advise(advice))
    };
    let Some(name) = to.to_str() else {
        return Err(failed(std::io::Error::new(ErrorKind::InvalidInput, "its name is not UTF-8")));
    };
    // Made here, so that neither its mode nor what it replaces is up to SQLite; VACUUM INTO takes an empty file.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(failed)?;
    let copied = connection.execute("VACUUM INTO ?1", [name]).map_err(Failure::from);
    let directory = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let synced = || file.sync_all().and_then(|()| File::open(directory)?.sync_all());
    let copied = copied.and_then(|_| synced().map_err(failed));
    if copied.is_err() {
        // An incomplete backup must not pass for one.
        let _ = std::fs::remove_file(to);
    }
    copied
}
