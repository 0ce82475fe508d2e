//! Between rows and values. A row that cannot be read is a database that somebody changed.
use std::collections::BTreeMap;
use std::str::FromStr;

use drill::id::{DrillName, RunId};
use drill::ledger::{Owner, Stamped};
use drill::port::{ChainLink, Quarantine, RunSummary};
use drill::stop::Stop;
use jiff::Timestamp;
use rusqlite::types::Type;
use rusqlite::{Connection, Error, Row, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::trouble::Failure;

pub(super) fn events(connection: &Connection, run: &RunId) -> Result<Vec<Stamped>, Failure> {
    let mut statement =
        connection.prepare_cached("SELECT sequence, at, json FROM events WHERE run = ?1 ORDER BY sequence")?;
    let rows = statement.query_map([run.as_str()], |row| {
        let json: String = row.get(2)?;
        let event = serde_json::from_str(&json).map_err(|error| bad(2, error))?;
        Ok(Stamped { sequence: unsigned(row, 0)?, at: time(row, 1)?, event })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// What [`summary`] reads.
macro_rules! columns {
    () => {
        "run, drill, started, ended, verdict, reason, leftovers, recovery_time_milliseconds, evidence, trigger"
    };
}

pub(super) const SUMMARY: &str = concat!("SELECT ", columns!(), " FROM runs");

/// For each of many drills one walk along an index, however many runs there are; and one step to each run that is found.
pub(super) const NEWEST_OF_EACH: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM json_each(?1) AS wanted CROSS JOIN runs WHERE run IN (SELECT newest.run FROM runs AS newest
        WHERE newest.drill = wanted.value ORDER BY newest.started DESC, newest.run DESC LIMIT ?2)"
);

/// A row of [`SUMMARY`].
pub(super) fn summary(row: &Row<'_>) -> Result<RunSummary, Error> {
    let trigger: String = row.get(9)?;
    Ok(RunSummary {
        run: text(row, 0)?,
        drill: text(row, 1)?,
        started: time(row, 2)?,
        ended: optional_time(row, 3)?,
        verdict: name(row, 4)?,
        reason: name(row, 5)?,
        leftovers: name(row, 6)?.ok_or_else(|| bad(6, "null"))?,
        recovery_time_milliseconds: row.get::<_, Option<i64>>(7)?.map(|_| unsigned(row, 7)).transpose()?,
        evidence: row.get(8)?,
        trigger: serde_json::from_str(&trigger).map_err(|error| bad(9, error))?,
    })
}

pub(super) fn runs(connection: &Connection, drill: Option<&str>, limit: u32) -> Result<Vec<RunSummary>, Failure> {
    let newest = "ORDER BY started DESC, run DESC LIMIT";
    let found: Result<_, Error> = match drill {
        Some(drill) => connection
            .prepare(&format!("{SUMMARY} WHERE drill = ?1 {newest} ?2"))?
            .query_map(params![drill, limit], summary)?
            .collect(),
        None => connection.prepare(&format!("{SUMMARY} {newest} ?1"))?.query_map([limit], summary)?.collect(),
    };
    Ok(found?)
}

pub(super) fn newest_of_each(
    connection: &Connection,
    drills: &[DrillName],
    limit: u32,
) -> Result<BTreeMap<DrillName, Vec<RunSummary>>, Failure> {
    let mut found: BTreeMap<DrillName, Vec<RunSummary>> = BTreeMap::new();
    let mut statement = connection.prepare_cached(NEWEST_OF_EACH)?;
    for run in statement.query_map(params![json(&drills)?, limit], summary)? {
        let run = run?;
        found.entry(run.drill.clone()).or_default().push(run);
    }
    for runs in found.values_mut() {
        runs.sort_by(|a, b| (b.started, &b.run).cmp(&(a.started, &a.run)));
    }
    Ok(found)
}

pub(super) fn older_runs(
    connection: &Connection,
    drill: Option<&str>,
    (started, run): &(Timestamp, String),
    limit: u32,
) -> Result<Vec<RunSummary>, Failure> {
    let older = "(started, run) < (?1, ?2)";
    let newest = "ORDER BY started DESC, run DESC LIMIT ?3";
    let started = nanoseconds(*started)?;
    let found: Result<_, Error> = match drill {
        Some(drill) => connection
            .prepare(&format!("{SUMMARY} WHERE drill = ?4 AND {older} {newest}"))?
            .query_map(params![started, run, limit, drill], summary)?
            .collect(),
        None => connection
            .prepare(&format!("{SUMMARY} WHERE {older} {newest}"))?
            .query_map(params![started, run, limit], summary)?
            .collect(),
    };
    Ok(found?)
}

pub(super) fn unsettled(connection: &Connection) -> Result<Vec<RunId>, Failure> {
    let sql = "SELECT run FROM runs WHERE ended IS NULL OR leftovers = 'some' ORDER BY started, run";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], |row| text(row, 0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn quarantined(connection: &Connection) -> Result<Vec<Quarantine>, Failure> {
    let sql = "SELECT digest, location, run, why, at FROM quarantine WHERE released_at IS NULL ORDER BY at, rowid";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], |row| {
        let (digest, run) = (text(row, 0)?, text(row, 2)?);
        Ok(Quarantine { digest, location: row.get(1)?, run, why: row.get(3)?, at: time(row, 4)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// `order` is ours, never a caller's.
pub(super) fn chain(connection: &Connection, order: &'static str) -> Result<Vec<ChainLink>, Failure> {
    let sql = format!("SELECT sequence, run, digest, path FROM chain WHERE pruned = 0 ORDER BY sequence {order}");
    let mut statement = connection.prepare(&sql)?;
    let rows = statement.query_map([], link)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Sequence, run, digest and path, in the first four columns.
pub(super) fn link(row: &Row<'_>) -> Result<ChainLink, Error> {
    Ok(ChainLink { sequence: unsigned(row, 0)?, run: text(row, 1)?, digest: text(row, 2)?, path: row.get(3)? })
}

/// Three columns from `first` on.
pub(super) fn owner(row: &Row<'_>, first: usize) -> Result<Owner, Error> {
    Ok(Owner { pid: row.get(first)?, start_ticks: unsigned(row, first + 1)?, boot_id: row.get(first + 2)? })
}

pub(super) fn text<T>(row: &Row<'_>, column: usize) -> Result<T, Error>
where
    T: FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    row.get::<_, String>(column)?.parse().map_err(|error| bad(column, error))
}

/// The name that a unit variant has in JSON.
pub(super) fn name_of<T: Serialize>(value: &T) -> Result<String, Stop> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => Ok(name),
        other => Err(Stop::internal(format!("a value of the ledger has no name: {other:?}"))),
    }
}

pub(super) fn json<T: Serialize>(value: &T) -> Result<String, Stop> {
    serde_json::to_string(value).map_err(|error| Stop::internal(format!("an event cannot be written as JSON: {error}")))
}

pub(super) fn nanoseconds(at: Timestamp) -> Result<i64, Stop> {
    i64::try_from(at.as_nanosecond()).map_err(|_| Stop::internal(format!("time {at} is out of the ledger's range")))
}

pub(super) fn int(number: u64) -> Result<i64, Stop> {
    i64::try_from(number).map_err(|_| Stop::internal(format!("{number} is out of the ledger's range")))
}

pub(super) fn uint(number: i64) -> Result<u64, Stop> {
    u64::try_from(number).map_err(|_| Stop::internal(format!("the ledger holds {number} where a count belongs")))
}

fn name<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> Result<Option<T>, Error> {
    let name: Option<String> = row.get(column)?;
    name.map(|name| serde_json::from_value(name.into()).map_err(|error| bad(column, error))).transpose()
}

pub(super) fn unsigned(row: &Row<'_>, column: usize) -> Result<u64, Error> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|error| bad(column, error))
}

pub(super) fn time(row: &Row<'_>, column: usize) -> Result<Timestamp, Error> {
    let nanoseconds: i64 = row.get(column)?;
    Timestamp::from_nanosecond(nanoseconds.into()).map_err(|error| bad(column, error))
}

pub(super) fn optional_time(row: &Row<'_>, column: usize) -> Result<Option<Timestamp>, Error> {
    row.get::<_, Option<i64>>(column)?.map(|_| time(row, column)).transpose()
}

pub(super) fn bad(column: usize, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::FromSqlConversionFailure(column, Type::Text, error.into())
}
