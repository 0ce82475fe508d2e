//! Between the words of [`crate::backend`] and those that wasmtime made of the contract.
use std::time::Duration;

use crate::backend as ours;
use crate::bindings::muster::check::{baseline, catalog, context, digest, values};
use crate::outcome::shown;

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

pub(super) fn table(table: &ours::TableInfo) -> context::Table {
    context::Table {
        schema: table.schema.clone(),
        name: table.name.clone(),
        kind: table.kind.clone(),
        parent: table.parent.clone(),
        // A restored table that nobody analysed has no estimate, which the server gives as nothing.
        estimated_rows: (table.estimated_rows > 0).then_some(table.estimated_rows),
        details: Vec::new(),
    }
}

pub(super) fn column_info(column: &ours::ColumnInfo) -> values::ColumnInfo {
    values::ColumnInfo { name: column.name.clone(), type_name: column.type_name.clone(), details: Vec::new() }
}

pub(super) fn baseline_table(table: &ours::BaselineTable) -> baseline::Table {
    baseline::Table {
        schema: table.schema.clone(),
        name: table.name.clone(),
        rows: table.rows,
        root: table.root.clone(),
        details: table.details.clone(),
    }
}

pub(super) fn value(value: values::Value) -> ours::Value {
    match value {
        values::Value::Null => ours::Value::Null,
        values::Value::Boolean(value) => ours::Value::Boolean(value),
        values::Value::Integer(value) => ours::Value::Integer(value),
        values::Value::Float(value) => ours::Value::Float(value),
        values::Value::Text(value) => ours::Value::Text(value),
        values::Value::Binary(value) => ours::Value::Binary(value),
        values::Value::Timestamp(value) => ours::Value::Timestamp(value),
    }
}

pub(super) fn error(error: ours::Error) -> values::Error {
    let blame = match error.blame {
        ours::Blame::Plugin => values::Blame::Plugin,
        ours::Blame::Host => values::Blame::Host,
    };
    values::Error { blame, code: error.code, message: shown(&error.message, super::MAX_MESSAGE), details: Vec::new() }
}

pub(super) fn object(object: ours::Object) -> catalog::Object {
    catalog::Object { kind: object.kind, identity: object.identity, content: object.content }
}

pub(super) fn mismatch(mismatch: &ours::Mismatch) -> digest::Mismatch {
    digest::Mismatch {
        keys: mismatch.keys.clone(),
        rows_expected: mismatch.rows_expected,
        rows_found: mismatch.rows_found,
        rows_different: mismatch.rows_different,
        details: Vec::new(),
    }
}

pub(super) fn finished_twice() -> values::Error {
    let message = "the outcome of this scan was taken already".to_owned();
    values::Error { blame: values::Blame::Plugin, code: None, message, details: Vec::new() }
}

pub(super) fn too_large() -> values::Error {
    let message = "a batch is larger than 1 MiB: ask for fewer rows at a time, or for less of the large columns";
    values::Error { blame: values::Blame::Host, code: None, message: message.to_owned(), details: Vec::new() }
}

pub(super) fn batch(batch: ours::Batch) -> values::Batch {
    values::Batch { rows: batch.rows, columns: batch.columns.into_iter().map(column).collect() }
}

fn column(column: ours::Column) -> values::Column {
    let data = match column.data {
        ours::ColumnData::Booleans(values) => values::ColumnData::Booleans(values),
        ours::ColumnData::Integers(values) => values::ColumnData::Integers(values),
        ours::ColumnData::Floats(values) => values::ColumnData::Floats(values),
        ours::ColumnData::Timestamps(values) => values::ColumnData::Timestamps(values),
        ours::ColumnData::Texts(cells) => values::ColumnData::Texts(self::cells(cells)),
        ours::ColumnData::Binaries(cells) => values::ColumnData::Binaries(self::cells(cells)),
    };
    values::Column { nulls: column.nulls, data }
}

fn cells(cells: ours::Cells) -> values::Cells {
    values::Cells { ends: cells.ends, data: cells.data }
}

/// What a batch takes in the guest.
pub(super) fn batch_bytes(batch: &ours::Batch) -> usize {
    let data = |data: &ours::ColumnData| match data {
        ours::ColumnData::Booleans(values) => values.len(),
        ours::ColumnData::Integers(values) | ours::ColumnData::Timestamps(values) => values.len() * 8,
        ours::ColumnData::Floats(values) => values.len() * 8,
        ours::ColumnData::Texts(cells) | ours::ColumnData::Binaries(cells) => cells.ends.len() * 4 + cells.data.len(),
    };
    batch.columns.iter().map(|column| column.nulls.len() + data(&column.data)).sum()
}
