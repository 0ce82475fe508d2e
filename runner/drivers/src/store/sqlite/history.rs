//! Slots of schedules, and what is known of each drill.
use drill::id::DrillName;
use drill::ledger::RunStarted;
use drill::port::{DrillHistory, RunSummary};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::rows::{self, nanoseconds};
use super::trouble::Failure;
use crate::store::fold;

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
    drills(connection)?.into_iter().map(|drill| history(connection, drill)).collect()
}

/// Of runs and of slots, in order.
pub(super) fn drills(connection: &Connection) -> Result<Vec<DrillName>, Failure> {
    // Each name is one step in an index, however many runs there are.
    let names = "WITH RECURSIVE
        of_runs (drill) AS (SELECT min(drill) FROM runs UNION ALL
            SELECT (SELECT min(drill) FROM runs WHERE drill > of_runs.drill) FROM of_runs WHERE drill IS NOT NULL),
        of_slots (drill) AS (SELECT min(drill) FROM slots UNION ALL
            SELECT (SELECT min(drill) FROM slots WHERE drill > of_slots.drill) FROM of_slots WHERE drill IS NOT NULL)
        SELECT drill FROM of_runs WHERE drill IS NOT NULL UNION SELECT drill FROM of_slots WHERE drill IS NOT NULL
        ORDER BY drill";
    let mut statement = connection.prepare(names)?;
    Ok(statement.query_map([], |row| rows::text(row, 0))?.collect::<Result<_, _>>()?)
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
