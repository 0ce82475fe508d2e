//! Slots of schedules, what is known of each drill, and what is forgotten.
use drill::id::DrillName;
use drill::ledger::RunStarted;
use drill::port::{DrillHistory, Pruned, RunSummary};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::rows::{self, nanoseconds};
use super::trouble::Failure;
use crate::store::fold;

/// Runs that one call of `prune` forgets: a transaction that others wait for stays short.
const PORTION: u32 = 200;

/// Where the run was triggered by a schedule.
pub(super) fn claim_slot(transaction: &Transaction<'_>, started: &RunStarted) -> Result<(), Failure> {
    let Some((schedule, scheduled_for)) = fold::slot(&started.trigger) else { return Ok(()) };
    let claimed = transaction.execute(
        "INSERT INTO slots (drill, schedule, scheduled_for, run) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
        params![started.drill.as_str(), schedule, nanoseconds(scheduled_for)?, started.run.as_str()],
    )?;
    if claimed == 0 { Err(fold::slot_taken(&started.drill, scheduled_for).into()) } else { Ok(()) }
}

pub(super) fn skip(connection: &Connection, drill: &DrillName, at: Timestamp, why: &str) -> Result<bool, Failure> {
    let sql =
        "INSERT INTO slots (drill, schedule, scheduled_for, skipped) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";
    Ok(connection.execute(sql, params![drill.as_str(), fold::DRILL, nanoseconds(at)?, why])? > 0)
}

pub(super) fn histories(connection: &Connection) -> Result<Vec<DrillHistory>, Failure> {
    // Each name is one step in an index, however many runs there are.
    let names = "WITH RECURSIVE
        of_runs (drill) AS (SELECT min(drill) FROM runs UNION ALL
            SELECT (SELECT min(drill) FROM runs WHERE drill > of_runs.drill) FROM of_runs WHERE drill IS NOT NULL),
        of_slots (drill) AS (SELECT min(drill) FROM slots UNION ALL
            SELECT (SELECT min(drill) FROM slots WHERE drill > of_slots.drill) FROM of_slots WHERE drill IS NOT NULL)
        SELECT drill FROM of_runs WHERE drill IS NOT NULL UNION SELECT drill FROM of_slots WHERE drill IS NOT NULL
        ORDER BY drill";
    let mut statement = connection.prepare(names)?;
    let names: Vec<DrillName> = statement.query_map([], |row| rows::text(row, 0))?.collect::<Result<_, _>>()?;
    names.into_iter().map(|drill| history(connection, drill)).collect()
}

fn history(connection: &Connection, drill: DrillName) -> Result<DrillHistory, Failure> {
    let last_slot = connection
        .prepare_cached("SELECT max(scheduled_for) FROM slots WHERE drill = ?1 AND schedule = ?2")?
        .query_row(params![drill.as_str(), fold::DRILL], |row| rows::optional_time(row, 0))?;
    let newest = |passed: &str| -> Result<Option<RunSummary>, Failure> {
        let sql = format!(
            "{} WHERE drill = ?1 AND is_self_test = 0 {passed} ORDER BY started DESC, run DESC LIMIT 1",
            rows::SUMMARY
        );
        Ok(connection.prepare_cached(&sql)?.query_row([drill.as_str()], rows::summary).optional()?)
    };
    let (last, last_success) = (newest("")?, newest("AND verdict = 'passed'")?);
    Ok(DrillHistory { drill, last_slot, last, last_success })
}

/// Which runs may be forgotten is one statement, so that nothing between look and deletion can begin to owe.
pub(super) fn prune(
    connection: &mut Connection,
    before: Option<Timestamp>,
    keep: Option<u32>,
) -> Result<Pruned, Failure> {
    let transaction = connection.transaction()?;
    let old = "SELECT run FROM (
            SELECT run, started, ended, leftovers,
                row_number() OVER (PARTITION BY drill, is_self_test ORDER BY started DESC, run DESC) AS place,
                row_number() OVER (PARTITION BY drill, is_self_test, verdict ORDER BY started DESC, run DESC) AS of_verdict,
                verdict, is_self_test
            FROM runs)
        WHERE ended IS NOT NULL AND leftovers = 'none'
            AND (ended < ?1 OR place > ?2)
            AND NOT (verdict = 'passed' AND of_verdict = 1 AND is_self_test = 0)
        ORDER BY started LIMIT ?3";
    let before = before.map(nanoseconds).transpose()?.unwrap_or(i64::MIN);
    let keep = keep.map_or(i64::MAX, i64::from);
    let forgotten: Vec<String> = transaction
        .prepare(old)?
        .query_map(params![before, keep, PORTION + 1], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let more = forgotten.len() > PORTION as usize;
    let mut runs = 0;
    for run in forgotten.iter().take(PORTION as usize) {
        transaction.execute("DELETE FROM events WHERE run = ?1", [run])?;
        runs += transaction.execute("DELETE FROM runs WHERE run = ?1", [run])? as u64;
    }
    // A slot guards against a second run of the same time; the newest stays, because it says where a schedule stands.
    transaction.execute(
        "DELETE FROM slots WHERE scheduled_for < ?1 AND scheduled_for <
            (SELECT max(scheduled_for) FROM slots AS newer WHERE newer.drill = slots.drill AND newer.schedule = slots.schedule)",
        [before],
    )?;
    transaction.commit()?;
    Ok(Pruned { runs, more })
}
