//! Read-only SQL on the restored database. The grant `sql`.
//!
//! Statements run with whatever search path the server has: write `pg_catalog.count(*)` and [`quote`]d names with their
//! schema, or a restored function may answer in place of the one you meant.
use std::rc::Rc;

use crate::Failure;
pub use crate::bindings::muster::check::sql::{Batch, ColumnInfo, Error, Value};
use crate::bindings::muster::check::sql::{Rows as Cursor, query as start};
use crate::bindings::muster::check::values::{Cells, Column, ColumnData};

/// Rows asked for at a time; the host may give fewer.
const BATCH: u32 = 1_000;

/// `"schema"."name"`, safe to put into a statement.
pub fn quote(schema: &str, name: &str) -> String {
    format!("{}.{}", quote_identifier(schema), quote_identifier(name))
}

/// `"name"`, safe to put into a statement.
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Runs a statement; its rows are fetched as they are read.
pub fn query(statement: &str, arguments: &[Value]) -> Result<Rows, Error> {
    let cursor = start(statement, arguments)?;
    Ok(Rows { cursor, batch: None, row: 0, ended: false })
}

/// The one value of the one row that the statement gives.
pub fn one<T: FromCell>(statement: &str, arguments: &[Value]) -> Result<T, Error> {
    row(statement, arguments)?.get(0)
}

/// The one row that the statement gives.
pub fn row(statement: &str, arguments: &[Value]) -> Result<Row, Error> {
    query(statement, arguments)?.next().unwrap_or_else(|| Err(error("the statement gave no row")))
}

/// The rows of a statement. Dropping it cancels the statement.
pub struct Rows {
    cursor: Cursor,
    batch: Option<Rc<Batch>>,
    row: u32,
    ended: bool,
}

impl Rows {
    pub fn columns(&self) -> Vec<ColumnInfo> {
        self.cursor.columns()
    }
}

impl Iterator for Rows {
    type Item = Result<Row, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            if let Some(batch) = self.batch.as_ref().filter(|batch| self.row < batch.rows) {
                let row = Row { batch: Rc::clone(batch), index: self.row as usize };
                self.row += 1;
                return Some(Ok(row));
            }
            match self.cursor.next(BATCH) {
                Ok(Some(batch)) => (self.batch, self.row) = (Some(Rc::new(batch)), 0),
                Ok(None) => self.ended = true,
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

/// One row; cells are read by position.
pub struct Row {
    batch: Rc<Batch>,
    index: usize,
}

impl Row {
    /// Fails where the cell is NULL and `T` is not an option, or is of another type.
    pub fn get<T: FromCell>(&self, position: usize) -> Result<T, Error> {
        let column =
            self.batch.columns.get(position).ok_or_else(|| error(&format!("there is no column {position}")))?;
        let null = column.nulls.get(self.index / 8).is_some_and(|byte| byte >> (self.index % 8) & 1 == 1);
        T::from_cell((!null).then_some(Cell { column, index: self.index }))
            .ok_or_else(|| error(&format!("column {position} is not {}", T::WANTED)))
    }
}

/// A cell that is not NULL.
#[derive(Clone, Copy)]
pub struct Cell<'a> {
    column: &'a Column,
    index: usize,
}

/// What a cell can be read as.
pub trait FromCell: Sized {
    /// Ends the sentence "column 1 is not …".
    const WANTED: &str;

    /// None where the cell is of another type; the argument is None for NULL.
    fn from_cell(cell: Option<Cell<'_>>) -> Option<Self>;
}

/// Microseconds since 1970-01-01 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub i64);

impl<T: FromCell> FromCell for Option<T> {
    const WANTED: &str = T::WANTED;

    fn from_cell(cell: Option<Cell<'_>>) -> Option<Self> {
        match cell {
            None => Some(None),
            some => T::from_cell(some).map(Some),
        }
    }
}

macro_rules! plain {
    ($type:ty, $case:ident, $wanted:literal, $make:expr) => {
        impl FromCell for $type {
            const WANTED: &str = $wanted;

            fn from_cell(cell: Option<Cell<'_>>) -> Option<Self> {
                let cell = cell?;
                match &cell.column.data {
                    ColumnData::$case(values) => values.get(cell.index).copied().map($make),
                    _ => None,
                }
            }
        }
    };
}

plain!(bool, Booleans, "a boolean", |value| value);
plain!(i64, Integers, "an integer", |value| value);
plain!(f64, Floats, "a float", |value| value);
plain!(Timestamp, Timestamps, "a timestamp that 64 bits of microseconds hold", Timestamp);

impl FromCell for String {
    const WANTED: &str = "text";

    fn from_cell(cell: Option<Cell<'_>>) -> Option<Self> {
        let cell = cell?;
        match &cell.column.data {
            ColumnData::Texts(cells) => String::from_utf8(slice(cells, cell.index)?.to_vec()).ok(),
            _ => None,
        }
    }
}

impl FromCell for Vec<u8> {
    const WANTED: &str = "binary";

    fn from_cell(cell: Option<Cell<'_>>) -> Option<Self> {
        let cell = cell?;
        match &cell.column.data {
            ColumnData::Binaries(cells) => slice(cells, cell.index).map(<[u8]>::to_vec),
            _ => None,
        }
    }
}

fn slice(cells: &Cells, index: usize) -> Option<&[u8]> {
    let start = if index == 0 { 0 } else { *cells.ends.get(index - 1)? };
    cells.data.get(start as usize..*cells.ends.get(index)? as usize)
}

fn error(message: &str) -> Error {
    Error {
        blame: crate::bindings::muster::check::values::Blame::Plugin,
        code: None,
        message: message.to_owned(),
        details: Vec::new(),
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(describe(&error))
    }
}

/// The message, with the SQLSTATE where there is one.
pub fn describe(error: &Error) -> String {
    match &error.code {
        Some(code) => format!("{} (SQLSTATE {code})", error.message),
        None => error.message.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted() {
        assert_eq!(quote("public", "or\"ders"), r#""public"."or""ders""#);
    }

    #[test]
    fn cells_are_read_by_type() {
        let texts = ColumnData::Texts(Cells { ends: vec![2, 2, 5], data: b"abcde".to_vec() });
        let batch = Batch {
            rows: 3,
            columns: vec![
                Column { nulls: vec![0b010], data: texts },
                Column { nulls: vec![], data: ColumnData::Integers(vec![1, 2, 3]) },
            ],
        };
        let batch = Rc::new(batch);
        let row = |index| Row { batch: Rc::clone(&batch), index };
        assert_eq!(row(0).get::<String>(0).ok(), Some("ab".to_owned()));
        assert_eq!(row(1).get::<Option<String>>(0).ok(), Some(None));
        assert_eq!(row(2).get::<String>(0).ok(), Some("cde".to_owned()));
        assert_eq!(row(2).get::<i64>(1).ok(), Some(3));
        let wrong = |result: Result<(), Error>| result.err().map(|error| error.message);
        assert_eq!(wrong(row(1).get::<String>(0).map(drop)), Some("column 0 is not text".to_owned()));
        assert_eq!(wrong(row(0).get::<bool>(1).map(drop)), Some("column 1 is not a boolean".to_owned()));
        assert_eq!(wrong(row(0).get::<bool>(2).map(drop)), Some("there is no column 2".to_owned()));
    }
}
