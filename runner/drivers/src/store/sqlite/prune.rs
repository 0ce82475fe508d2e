//! What is forgotten: runs in portions, and links whose evidence was deleted.
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use drill::evidence::{Stretch, block, merge};
use drill::ledger::Trigger;
use drill::port::{Chained, Pruned, RunSummary};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::rows::{self, int, nanoseconds};
use super::trouble::Failure;
use crate::store::fold::{self, PORTION};

/// Ended, owes nothing, and its link may be cut from its successor's.
const FORGETTABLE: &str = "ended IS NOT NULL AND leftovers = 'none'
    AND run IS NOT (SELECT run FROM chain ORDER BY sequence DESC LIMIT 1)";

/// At most one more than a portion. Oldest first by age, then what is beyond `keep` of each drill.
pub(super) fn candidates(
    connection: &Connection,
    before: Option<Timestamp>,
    keep: Option<u32>,
) -> Result<Vec<RunSummary>, Failure> {
    let wanted = PORTION as usize + 1;
    let mut found = BTreeMap::new();
    if let Some(before) = before {
        let sql = format!(
            "{} WHERE started < ?1 AND {FORGETTABLE} AND NOT (verdict IS 'passed' AND is_self_test = 0 AND run IS
                (SELECT newest.run FROM runs AS newest
                 WHERE newest.drill = runs.drill AND newest.is_self_test = 0 AND newest.verdict = 'passed'
                 ORDER BY newest.started DESC, newest.run DESC LIMIT 1))
             ORDER BY started, run LIMIT ?2",
            rows::SUMMARY
        );
        collect(connection, &sql, params![nanoseconds(before)?, PORTION + 1], &mut found)?;
    }
    let Some(keep) = keep else { return Ok(found.into_values().collect()) };
    for (drill, is_self_test) in too_many(connection, keep)? {
        if found.len() >= wanted {
            break;
        }
        // A literal, because an index of some rows is not looked at for a parameter.
        let of = if is_self_test { "is_self_test = 1" } else { "is_self_test = 0" };
        // What is kept is counted in the index alone; only what is beyond it is looked at.
        let sql = format!(
            "{} WHERE run IN (SELECT run FROM runs WHERE drill = ?1 AND {of}
                ORDER BY started DESC, run DESC LIMIT -1 OFFSET ?2)
             AND {FORGETTABLE} AND NOT (is_self_test = 0 AND run IS (SELECT run FROM runs
                WHERE drill = ?1 AND is_self_test = 0 AND verdict = 'passed' ORDER BY started DESC, run DESC LIMIT 1))
             ORDER BY started, run LIMIT ?3",
            rows::SUMMARY
        );
        collect(connection, &sql, params![drill, keep, PORTION + 1], &mut found)?;
    }
    Ok(found.into_values().collect())
}

/// Without the name of the index, SQLite walks along all drills in their order.
pub(super) const TOO_MANY: &str = "SELECT drill, is_self_test FROM run_counts INDEXED BY run_counts_by_number
    WHERE runs > ?1 ORDER BY drill, is_self_test";

/// Drills with more runs than are kept, or more self-tests.
fn too_many(connection: &Connection, keep: u32) -> Result<Vec<(String, bool)>, Failure> {
    let mut statement = connection.prepare_cached(TOO_MANY)?;
    let found = statement.query_map([keep], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(found.collect::<Result<_, _>>()?)
}

fn collect(
    connection: &Connection,
    sql: &str,
    params: &[&dyn rusqlite::ToSql],
    found: &mut BTreeMap<String, RunSummary>,
) -> Result<(), Failure> {
    let mut statement = connection.prepare_cached(sql)?;
    for run in statement.query_map(params, rows::summary)? {
        let run = run?;
        found.insert(run.run.to_string(), run);
    }
    Ok(())
}

/// A run that owes nothing never owes again, and a newer success only adds to what may go: between the look and the deletion
/// nothing can become worth keeping.
pub(super) fn prune(
    connection: &mut Connection,
    before: Option<Timestamp>,
    keep: Option<u32>,
) -> Result<Pruned, Failure> {
    let found = candidates(connection, before, keep)?;
    let more = found.len() > PORTION as usize;
    let transaction = connection.transaction()?;
    let mut runs = 0;
    for run in found.iter().take(PORTION as usize) {
        let name = run.run.as_str();
        transaction.execute("DELETE FROM events WHERE run = ?1", [name])?;
        runs += transaction.execute("DELETE FROM runs WHERE run = ?1", [name])? as u64;
        transaction.execute("UPDATE chain SET pruned = 1 WHERE run = ?1", [name])?;
        forget_slots(&transaction, run)?;
    }
    transaction.commit()?;
    Ok(Pruned { runs, more })
}

/// A slot guards against a second run of the same time, and nothing asks for one that is older than the newest.
fn forget_slots(transaction: &Transaction<'_>, run: &RunSummary) -> Result<(), Failure> {
    let (schedule, upto) = match fold::slot(&run.trigger) {
        Some(slot) => slot,
        None if matches!(run.trigger, Trigger::SelfTest { .. }) => return Ok(()),
        // What was skipped before an operator's run is as old as the run.
        None => (fold::DRILL.to_owned(), run.started),
    };
    let sql = "DELETE FROM slots WHERE drill = ?1 AND schedule = ?2 AND scheduled_for <= ?3
        AND scheduled_for < (SELECT max(scheduled_for) FROM slots WHERE drill = ?1 AND schedule = ?2)";
    transaction.prepare_cached(sql)?.execute(params![run.drill.as_str(), schedule, nanoseconds(upto)?])?;
    Ok(())
}

/// A link with the digest before it, which stands in its neighbour or at the end of a stretch.
const CHAINED: &str = "SELECT chain.sequence, chain.run, chain.digest, chain.path,
    coalesce((SELECT digest FROM chain AS before WHERE before.sequence = chain.sequence - 1),
        (SELECT digest FROM deleted_evidence WHERE last = chain.sequence - 1)) FROM chain";

pub(super) fn chained(connection: &Connection, run: &str) -> Result<Option<Chained>, Failure> {
    let sql = format!("{CHAINED} WHERE chain.run = ?1");
    Ok(connection.prepare_cached(&sql)?.query_row([run], read_chained).optional()?)
}

pub(super) fn pruned_links(connection: &Connection) -> Result<Vec<Chained>, Failure> {
    let sql = format!("{CHAINED} WHERE chain.pruned = 1 ORDER BY chain.sequence LIMIT ?1");
    Ok(connection.prepare_cached(&sql)?.query_map([PORTION], read_chained)?.collect::<Result<_, _>>()?)
}

fn read_chained(row: &Row<'_>) -> Result<Chained, rusqlite::Error> {
    let previous: Option<String> = row.get(4)?;
    Ok(Chained { link: rows::link(row)?, previous: previous.map(|_| rows::text(row, 4)).transpose()? })
}

pub(super) fn evidence_deleted(connection: &mut Connection, links: &[Chained]) -> Result<(), Failure> {
    let transaction = connection.transaction()?;
    let mut parts: BTreeMap<u64, Vec<Stretch>> = BTreeMap::new();
    for link in links {
        let gone = transaction
            .prepare_cached("DELETE FROM chain WHERE sequence = ?1 AND pruned = 1")?
            .execute([int(link.link.sequence)?])?;
        if gone > 0 {
            parts.entry(*block(link.link.sequence).start()).or_default().push(link.stretch());
        }
    }
    for (first, mut stretches) in parts {
        let part = block(first);
        stretches.extend(deleted_evidence(&transaction, &part)?);
        transaction.execute(
            "DELETE FROM deleted_evidence WHERE first BETWEEN ?1 AND ?2",
            params![int(*part.start())?, int(*part.end())?],
        )?;
        let mut insert = transaction
            .prepare_cached("INSERT INTO deleted_evidence (first, last, digest, previous) VALUES (?1, ?2, ?3, ?4)")?;
        for stretch in merge(stretches) {
            let previous = stretch.previous.map(|digest| digest.to_string());
            insert.execute(params![int(stretch.first)?, int(stretch.last)?, stretch.digest.to_string(), previous])?;
        }
    }
    Ok(transaction.commit()?)
}

pub(super) fn deleted_evidence(connection: &Connection, part: &RangeInclusive<u64>) -> Result<Vec<Stretch>, Failure> {
    let sql = "SELECT first, last, digest, previous FROM deleted_evidence WHERE first BETWEEN ?1 AND ?2 ORDER BY first";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![int(*part.start())?, int(*part.end())?], |row| {
        let previous: Option<String> = row.get(3)?;
        Ok(Stretch {
            first: rows::unsigned(row, 0)?,
            last: rows::unsigned(row, 1)?,
            digest: rows::text(row, 2)?,
            previous: previous.map(|_| rows::text(row, 3)).transpose()?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
