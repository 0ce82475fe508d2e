//! The schema of a database, read inside its snapshot and written an object a line.
use std::io::{BufWriter, Write};
use std::path::Path;

use drill::manifest::FileEntry;
use drill::schema::{Header, VERSION};
use drill::stop::{OrStop, Stop, chain};
use drill::verdict::Reason;
use tokio_postgres::error::SqlState;

use super::session::{failed, is_passing};
use super::snapshot::Snapshot;
use super::{Place, directory};
use crate::engine::postgresql::schema::{LEFT_OUT, ReadError, left_out, read};

/// None where its names have no encoding that JSON could hold. The inner error means "try again", as it does for the dump.
pub(super) async fn write(
    snapshot: &Snapshot,
    place: &Place<'_>,
    warnings: &mut Vec<String>,
) -> Result<Result<Option<FileEntry>, String>, Stop> {
    let name = format!("schema-{}.jsonl", place.number);
    let path = place.work.file(&name)?;
    let session = &snapshot.session;
    session.run("SAVEPOINT before_schema").await?;
    match write_objects(snapshot, &path, place.info.database()).await {
        Ok(()) => {}
        Err(ReadError::Server { source, .. }) if source.code().is_some_and(is_passing) => {
            return Ok(Err(chain(&source)));
        }
        Err(ReadError::Server { source, .. }) if has_no_encoding(&source) => {
            session.run("ROLLBACK TO SAVEPOINT before_schema").await?;
            std::fs::remove_file(&path).or_stop(Reason::SandboxUnfit, format!("removing `{}`", path.display()))?;
            warnings.push(format!(
                "names in database {} are in no encoding that can be told, so its schema is not in the baseline",
                place.info.shown()
            ));
            return Ok(Ok(None));
        }
        Err(ReadError::Server { kind, source }) => return Err(failed(&source, kind)),
        Err(ReadError::Strange(why)) => return Err(Stop::internal(format!("reading the schema: {why}"))),
        Err(ReadError::Sink(error)) => {
            return Err(Stop::new(Reason::SandboxUnfit, format!("writing `{}`: {error}", path.display())));
        }
    }
    session.run("RELEASE SAVEPOINT before_schema").await?;
    warn_of_what_is_left_out(snapshot, warnings).await?;
    Ok(Ok(Some(directory::entry(place.work.path(), &name).await?)))
}

async fn write_objects(snapshot: &Snapshot, path: &Path, database: &str) -> Result<(), ReadError> {
    let mut file = BufWriter::new(std::fs::OpenOptions::new().write(true).open(path)?);
    let header = Header { schema: VERSION, database: database.to_owned(), taken: Vec::new() };
    let mut line = |json: serde_json::Result<Vec<u8>>| {
        file.write_all(&json?)?;
        file.write_all(b"\n")
    };
    line(serde_json::to_vec(&header))?;
    let session = &snapshot.session;
    read(session.client(), session.version_number, |object| line(serde_json::to_vec(object))).await?;
    Ok(file.flush()?)
}

/// A database without an encoding may hold any bytes, and a client that asks for UTF-8 gets an error for those that are not.
fn has_no_encoding(error: &tokio_postgres::Error) -> bool {
    match error.code() {
        Some(state) => *state == SqlState::CHARACTER_NOT_IN_REPERTOIRE || *state == SqlState::UNTRANSLATABLE_CHARACTER,
        None => false,
    }
}

async fn warn_of_what_is_left_out(snapshot: &Snapshot, warnings: &mut Vec<String>) -> Result<(), Stop> {
    const SHOWN: usize = 20;
    let rows = snapshot.session.rows::<2>(&left_out()).await?;
    let told = |[kind, name]: &[Option<String>; 2]| {
        let (kind, name) = (kind.as_deref()?, name.as_deref()?);
        let (_, why) = LEFT_OUT.iter().find(|(known, _)| *known == kind)?;
        Some(format!("{kind} {name} {why}"))
    };
    warnings.extend(rows.iter().filter_map(told).take(SHOWN));
    if let Some(more) = rows.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        warnings.push(format!("{more} more such objects are not in the backup"));
    }
    Ok(())
}
