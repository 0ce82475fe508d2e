//! Asks the database. An exchange with the server costs more than counting a small table, so small ones are counted many at a
//! time.
use std::collections::BTreeMap;

use muster_check::sql::{self, Row};
use muster_check::{Failure, report};

use crate::{Kind, Name, label};

/// Tables that one statement counts. Each is locked and planned before the first one is read.
const TOGETHER: usize = 100;
/// Rows of a table that is counted beside others: larger ones are waited for by themselves, so that progress can be seen.
const SMALL: u64 = 10_000;

pub(crate) enum Count {
    Rows(u64),
    /// There is nothing to count, and that is a finding.
    None(String),
}

pub(crate) struct Wanted<'a> {
    pub(crate) name: &'a Name,
    /// How many it should have, where that is known.
    pub(crate) rows: Option<u64>,
}

/// Counts all in their order and tells progress; what is counted comes with its place among them.
pub(crate) fn each(
    wanted: &[Wanted<'_>],
    restored: &BTreeMap<Name, Kind>,
    mut counted: impl FnMut(usize, Count),
) -> Result<(), Failure> {
    let total = wanted.len() as u64;
    let mut done = 0;
    for group in groups(wanted, restored) {
        report::set_progress(done as u64, Some(total), "tables");
        for count in count_group(group, restored)? {
            counted(done, count);
            done += 1;
        }
    }
    report::set_progress(total, Some(total), "tables");
    Ok(())
}

/// A group of several has small tables alone, and each of them can be asked for.
fn groups<'a, 'b>(wanted: &'a [Wanted<'b>], restored: &BTreeMap<Name, Kind>) -> impl Iterator<Item = &'a [Wanted<'b>]> {
    let is_small = |table: &Wanted<'_>| table.rows.is_some_and(|rows| rows <= SMALL);
    let beside_others = move |table: &Wanted<'_>| is_small(table) && why_not(table.name, restored).is_none();
    wanted.chunk_by(move |one, next| beside_others(one) && beside_others(next)).flat_map(|run| run.chunks(TOGETHER))
}

fn count_group(group: &[Wanted<'_>], restored: &BTreeMap<Name, Kind>) -> Result<Vec<Count>, Failure> {
    let names: Vec<&Name> = group.iter().map(|table| table.name).collect();
    if names.len() > 1
        && let Some(counts) = count_together(&names)
    {
        return Ok(counts);
    }
    names.into_iter().map(|name| count_one(name, restored)).collect()
}

/// None where one of them could not be counted: each by itself says which, and why.
fn count_together(names: &[&Name]) -> Option<Vec<Count>> {
    let statement = statement(names);
    let mut counts: Vec<Option<u64>> = vec![None; names.len()];
    for row in sql::query(&statement, &[]).ok()? {
        let (index, rows) = read(&row.ok()?).ok()?;
        *counts.get_mut(index)? = Some(rows);
    }
    counts.into_iter().map(|rows| rows.map(Count::Rows)).collect()
}

fn statement(names: &[&Name]) -> String {
    let count = |(index, name): (usize, &&Name)| format!("SELECT {index}, {}", count_of(name));
    names.iter().enumerate().map(count).collect::<Vec<_>>().join(" UNION ALL ")
}

fn count_of(name: &Name) -> String {
    format!("pg_catalog.count(*) FROM ONLY {}", sql::quote(&name.0, &name.1))
}

fn read(row: &Row) -> Result<(usize, u64), sql::Error> {
    let (index, rows) = (row.get::<i64>(0)?, row.get::<i64>(1)?);
    Ok((usize::try_from(index).unwrap_or(usize::MAX), u64::try_from(rows).unwrap_or_default()))
}

/// Counting a foreign table would ask another server, and a partitioned one has no rows of its own.
fn why_not(name: &Name, restored: &BTreeMap<Name, Kind>) -> Option<String> {
    match restored.get(name).map(String::as_str) {
        None => Some("the table is missing".to_owned()),
        Some(kind @ ("foreign" | "partitioned")) => Some(format!("a table of kind `{kind}` is in its place")),
        Some(_) => None,
    }
}

fn count_one(name: &Name, restored: &BTreeMap<Name, Kind>) -> Result<Count, Failure> {
    if let Some(why) = why_not(name, restored) {
        return Ok(Count::None(why));
    }
    match sql::one::<i64>(&format!("SELECT {}", count_of(name)), &[]) {
        Ok(rows) => Ok(Count::Rows(u64::try_from(rows).unwrap_or_default())),
        // 55000: a matview that was restored without data. Class XX: the server found damage.
        Err(error) if error.code.as_deref().is_some_and(|code| code == "55000" || code.starts_with("XX")) => {
            Ok(Count::None(format!("it cannot be read: {}", sql::describe(&error))))
        }
        Err(error) => Err(Failure::Other(format!("counting {} failed: {}", label(name), sql::describe(&error)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_tables_that_follow_each_other_are_counted_together() {
        let (name, missing) = ((String::new(), String::new()), ("gone".to_owned(), String::new()));
        let restored = BTreeMap::from([(name.clone(), "table".to_owned())]);
        let of = |rows: &[Option<u64>]| {
            let wanted: Vec<_> = rows.iter().map(|rows| Wanted { name: &name, rows: *rows }).collect();
            groups(&wanted, &restored).map(<[_]>::len).collect::<Vec<_>>()
        };
        assert_eq!(of(&[]), [0; 0]);
        assert_eq!(of(&[Some(1), Some(SMALL), Some(SMALL + 1), Some(2), None, Some(3), Some(4)]), [2, 1, 1, 1, 2]);
        assert_eq!(of(&[Some(1); 2 * TOGETHER + 1]), [TOGETHER, TOGETHER, 1]);
        let wanted = [&name, &name, &missing, &name, &name].map(|name| Wanted { name, rows: Some(1) });
        assert_eq!(groups(&wanted, &restored).map(<[_]>::len).collect::<Vec<_>>(), [2, 1, 2]);
    }

    #[test]
    fn each_count_carries_the_place_of_its_table() {
        let (one, two) = (("public".to_owned(), "a\"b".to_owned()), ("s".to_owned(), "t".to_owned()));
        assert_eq!(
            statement(&[&one, &two]),
            "SELECT 0, pg_catalog.count(*) FROM ONLY \"public\".\"a\"\"b\" UNION ALL \
             SELECT 1, pg_catalog.count(*) FROM ONLY \"s\".\"t\""
        );
    }
}
