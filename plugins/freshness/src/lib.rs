//! Asks for the newest row of named columns, and whether it is as new as the backup should be.
//!
//! [`options`] is what may be asked for, [`judge`] decides what a time means, [`words`] tells it; this file asks the database.
mod judge;
mod options;
mod words;

use std::collections::BTreeMap;
use std::time::Duration;

use judge::{Kind, Rows, Times, judge};
use muster_check::report::{self, Finding, Severity};
use muster_check::sql::{self, Error, Timestamp, Value};
use muster_check::text::{count, plural};
use muster_check::{Check, Conclusion, Failure, context};
use options::{Asked, Options, Place};

struct Freshness;

impl Check for Freshness {
    const NAME: &str = "freshness";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &str = "The newest row of named columns is as new as it should be.";
    type Options = Options;

    fn run(options: Options) -> Result<Conclusion, Failure> {
        let place = Place {
            database: context::database(),
            databases: context::databases(),
            objective: context::recovery_point_objective().map(Duration::from_micros),
        };
        let asked = options.asked(&place).map_err(Failure::Options)?;
        let started = context::started_at();
        let times = Times { started, snapshot: context::snapshot_time().unwrap_or(started) };
        let columns = find(asked)?;
        let total = columns.len() as u64;
        let mut tally = Tally { columns: total, ..Tally::default() };
        for (done, (asked, found)) in (0..).zip(&columns) {
            report::set_progress(done, Some(total), "columns");
            match found {
                Ok(column) => tally.look(asked, column, &times)?,
                Err(why) => tally.tell(asked, Severity::Failure, why.clone()),
            }
        }
        report::set_progress(total, Some(total), "columns");
        Ok(tally.conclude())
    }
}

muster_check::check!(Freshness);

/// A column that can be asked for its newest time.
struct Column {
    schema: String,
    table: String,
    kind: Kind,
}

/// Or what is wrong with the restored database.
type Found = Result<Column, String>;

/// A column of a type without times is the options' fault, and is known before anything is asked.
fn find(asked: Vec<Asked>) -> Result<Vec<(Asked, Found)>, Failure> {
    let tables: BTreeMap<String, context::Table> =
        context::tables().map(|table| (format!("{}.{}", table.schema, table.name), table)).collect();
    let found = |asked: Asked| {
        let Some(table) = tables.get(&asked.table) else { return Ok((asked, Err("the table is missing".to_owned()))) };
        // Asking it would ask another server.
        if table.kind == "foreign" {
            return Ok((asked, Err("a table of kind `foreign` is in its place".to_owned())));
        }
        let columns = context::columns(&table.schema, &table.name).unwrap_or_default();
        let Some(column) = columns.into_iter().find(|column| column.name == asked.column) else {
            return Ok((asked, Err("the column is missing".to_owned())));
        };
        let Some(kind) = Kind::of(&column.type_name) else {
            return Err(Failure::Options(format!(
                "`{}` is of type `{}`: only `timestamptz`, `timestamp` and `date` tell how new a row is",
                asked.label(),
                column.type_name
            )));
        };
        Ok((asked, Ok(Column { schema: table.schema.clone(), table: table.name.clone(), kind })))
    };
    asked.into_iter().map(found).collect()
}

#[derive(Default)]
struct Tally {
    columns: u64,
    oldest: Option<Duration>,
    /// Columns that are a failure.
    failed: u64,
    /// The first column that may not be read, and why.
    unread: Option<String>,
}

impl Tally {
    fn look(&mut self, asked: &Asked, column: &Column, times: &Times) -> Result<(), Failure> {
        let rows = match newest(asked, column, times) {
            Ok(rows) => rows,
            Err(error) => return self.refused(asked, &error),
        };
        let verdict = judge(column.kind, asked.within, &rows, times);
        if let Some(age) = verdict.age {
            let labels = [("table".to_owned(), asked.table.clone()), ("column".to_owned(), asked.column.clone())];
            let _ = report::set_metric("freshness_seconds", &labels, age.as_secs_f64());
            self.oldest = self.oldest.max(Some(age));
        }
        for (severity, message) in verdict.findings {
            self.tell(asked, severity, message);
        }
        Ok(())
    }

    fn refused(&mut self, asked: &Asked, error: &Error) -> Result<(), Failure> {
        let (label, what) = (asked.label(), sql::describe(error));
        match error.code.as_deref() {
            // 55000: a matview that was restored without data. Class XX: the server found damage.
            Some(code) if code == "55000" || code.starts_with("XX") => {
                self.tell(asked, Severity::Failure, format!("the table cannot be read: {what}"));
            }
            Some("42501") => drop(self.unread.get_or_insert(format!("{label} may not be read: {what}"))),
            _ => return Err(Failure::Other(format!("asking for the newest {label} failed: {what}"))),
        }
        Ok(())
    }

    fn tell(&mut self, asked: &Asked, severity: Severity, message: String) {
        self.failed += u64::from(severity == Severity::Failure);
        report::add_finding(&Finding { severity, subject: asked.label(), message, details: Vec::new() });
    }

    fn conclude(self) -> Conclusion {
        let mut summary = plural(self.columns, "column");
        if let Some(oldest) = self.oldest {
            summary = format!("{summary}, oldest newest row {} before the run", words::duration(oldest));
        }
        if self.failed > 0 {
            summary = format!("{summary}, {} too old or missing", count(self.failed));
        }
        match self.unread {
            Some(why) => Conclusion::Inconclusive(format!("{why}; {summary}")),
            None => Conclusion::Completed(summary),
        }
    }
}

/// Reads the heap: the session of a check does not use indexes.
fn newest(asked: &Asked, column: &Column, times: &Times) -> Result<Rows, Error> {
    let latest = Value::Timestamp(column.kind.latest(times.snapshot));
    let row = sql::row(&statement(column, &asked.column), &[latest])?;
    let newest = row.get::<Option<Timestamp>>(0)?.map(|time| time.0);
    let count = |position| row.get::<i64>(position).map(|rows| u64::try_from(rows).unwrap_or_default());
    Ok(Rows { newest, ahead: count(1)?, all: count(2)? })
}

/// `$1` takes the type of the column. Infinity is no time at which a row was written.
fn statement(column: &Column, name: &str) -> String {
    let (name, table) = (sql::quote_identifier(name), sql::quote(&column.schema, &column.table));
    let finite =
        |operator| format!("FILTER (WHERE pg_catalog.isfinite({name}) AND {name} OPERATOR(pg_catalog.{operator}) $1)");
    let newest = format!("pg_catalog.max({name}) {}", finite("<="));
    let newest = match column.kind {
        Kind::Timestamp | Kind::Timestamptz => newest,
        Kind::Date => format!("pg_catalog.\"timestamp\"({newest})"),
    };
    format!("SELECT {newest}, pg_catalog.count(*) {}, pg_catalog.count(*) FROM {table}", finite(">"))
}
