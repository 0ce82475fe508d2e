//! Slots of schedules, and what is known of each drill.
use std::collections::BTreeMap;

use drill::id::DrillName;
use drill::ledger::{Damage, RunStarted};
use drill::port::{DrillHistory, RunSummary, ScheduleHistory, SeenSchedule};
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

pub(super) fn skip(
    connection: &Connection,
    drill: &DrillName,
    schedule: &str,
    at: Timestamp,
    why: &str,
) -> Result<bool, Failure> {
    let sql =
        "INSERT INTO slots (drill, schedule, scheduled_for, skipped) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";
    Ok(connection.execute(sql, params![drill.as_str(), schedule, nanoseconds(at)?, why])? > 0)
}

pub(super) fn seen(connection: &mut Connection, schedules: &[SeenSchedule]) -> Result<(), Failure> {
    let transaction = connection.transaction()?;
    {
        let mut statement = transaction.prepare_cached(
            "INSERT INTO seen (drill, schedule, words, since, first) VALUES (?1, ?2, ?3, ?4, ?4)
             ON CONFLICT (drill, schedule) DO UPDATE SET words = excluded.words, since = excluded.since",
        )?;
        for seen in schedules {
            let schedule = fold::schedule(seen.self_test);
            statement.execute(params![seen.drill.as_str(), schedule, seen.words, nanoseconds(seen.at)?])?;
        }
    }
    Ok(transaction.commit()?)
}

pub(super) fn histories(connection: &Connection) -> Result<Vec<DrillHistory>, Failure> {
    drills(connection)?.into_iter().map(|drill| history(connection, drill)).collect()
}

/// Of runs, of slots, and those that were seen, in order.
fn drills(connection: &Connection) -> Result<Vec<DrillName>, Failure> {
    // Each name is one step in an index, however many slots there are.
    let names = "WITH RECURSIVE
        of_slots (drill) AS (SELECT min(drill) FROM slots UNION ALL
            SELECT (SELECT min(drill) FROM slots WHERE drill > of_slots.drill) FROM of_slots WHERE drill IS NOT NULL)
        SELECT drill FROM run_counts UNION SELECT drill FROM of_slots WHERE drill IS NOT NULL
        UNION SELECT drill FROM seen ORDER BY drill";
    let mut statement = connection.prepare(names)?;
    Ok(statement.query_map([], |row| rows::text(row, 0))?.collect::<Result<_, _>>()?)
}

fn history(connection: &Connection, drill: DrillName) -> Result<DrillHistory, Failure> {
    let (first_seen, schedules) = schedules(connection, &drill)?;
    let newest = |passed: &str| -> Result<Option<RunSummary>, Failure> {
        let sql = format!(
            "{} WHERE drill = ?1 AND is_self_test = 0 {passed} ORDER BY started DESC, run DESC LIMIT 1",
            rows::SUMMARY
        );
        Ok(connection.prepare_cached(&sql)?.query_row([drill.as_str()], rows::summary).optional()?)
    };
    let (last, last_success) = (newest("")?, newest("AND verdict = 'passed'")?);
    Ok(DrillHistory { drill, first_seen, schedules, last, last_success })
}

type Schedules = BTreeMap<Option<Damage>, ScheduleHistory>;

/// When the drill was first seen, and how far each of its schedules is.
fn schedules(connection: &Connection, drill: &DrillName) -> Result<(Option<Timestamp>, Schedules), Failure> {
    let (mut first_seen, mut schedules) = (None, Schedules::new());
    let mut statement = connection.prepare_cached("SELECT schedule, words, since, first FROM seen WHERE drill = ?1")?;
    let mut found = statement.query([drill.as_str()])?;
    while let Some(row) = found.next()? {
        let name: String = row.get(0)?;
        let schedule = fold::schedule_named(&name).map_err(|why| rows::bad(0, why))?;
        if schedule.is_none() {
            first_seen = Some(rows::time(row, 3)?);
        }
        let seen = Some((row.get(1)?, rows::time(row, 2)?));
        schedules.insert(schedule, ScheduleHistory { last_slot: None, seen });
    }
    // A store that an older muster wrote has slots of drills that were not seen yet.
    schedules.entry(None).or_default();
    for (schedule, history) in &mut schedules {
        history.last_slot = connection
            .prepare_cached("SELECT max(scheduled_for) FROM slots WHERE drill = ?1 AND schedule = ?2")?
            .query_row(params![drill.as_str(), fold::schedule(*schedule)], |row| rows::optional_time(row, 0))?;
    }
    Ok((first_seen, schedules))
}
