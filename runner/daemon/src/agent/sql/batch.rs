//! Rows into typed columns, at most 1 MiB at a time.
use plugin_host::backend::{Batch, Cells, Column, ColumnData, Error};

use super::fault::host;
use super::shape::{Field, Kind, Shape};
use super::time;
use super::wire::{MAX_CELLS, cells};

/// What a rendered timestamp can need, should its column turn into text.
const TIMESTAMP: usize = 40;

pub(super) struct BatchBuilder<'a> {
    shape: &'a Shape,
    rows: u32,
    bytes: usize,
    nulls: Vec<Vec<u8>>,
    data: Vec<ColumnData>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    Taken,
    /// The batch has no room for this row.
    Full,
}

impl<'a> BatchBuilder<'a> {
    pub(super) fn new(shape: &'a Shape) -> Self {
        let columns = shape.fields.len();
        let data = shape.fields.iter().map(|field| empty(field.kind)).collect();
        Self { shape, rows: 0, bytes: 0, nulls: vec![Vec::new(); columns], data }
    }

    pub(super) fn rows(&self) -> u32 {
        self.rows
    }

    /// An error where the row alone is larger than a batch may be, or is not what its columns promise.
    pub(super) fn push(&mut self, body: &[u8]) -> Result<Pushed, Error> {
        let fields = &self.shape.fields;
        let row = cells(body, fields.len()).collect::<Result<Vec<_>, _>>().map_err(|error| host(error.to_string()))?;
        let size: usize = row.iter().zip(fields).map(|(cell, field)| cost(field.kind, *cell)).sum();
        if size > MAX_CELLS {
            let largest = row.iter().enumerate().max_by_key(|(_, cell)| cell.map_or(0, <[u8]>::len));
            let (index, bytes) = largest.map_or((0, 0), |(index, cell)| (index, cell.map_or(0, <[u8]>::len)));
            return Err(too_large(self.shape, index, bytes as u64));
        }
        if self.bytes + size > MAX_CELLS {
            return Ok(Pushed::Full);
        }
        // Looked at as a whole first: a row is taken whole or not at all.
        for (cell, field) in row.iter().zip(fields) {
            validate(field, *cell)?;
        }
        for (index, cell) in row.into_iter().enumerate() {
            let bit = self.rows % 8;
            if bit == 0 {
                self.nulls[index].push(0);
            }
            if cell.is_none()
                && let Some(last) = self.nulls[index].last_mut()
            {
                *last |= 1 << bit;
            }
            append(&mut self.data[index], cell);
        }
        self.bytes += size;
        self.rows += 1;
        Ok(Pushed::Taken)
    }

    pub(super) fn finish(self) -> Batch {
        let fields = &self.shape.fields;
        let columns = self.data.into_iter().zip(self.nulls).zip(fields);
        let columns = columns
            .map(|((data, nulls), field)| {
                let data = match (data, field.kind) {
                    (ColumnData::Timestamps(raw), Kind::Timestamp { zoned }) => timestamps(&raw, &nulls, zoned),
                    (data, _) => data,
                };
                Column { nulls, data }
            })
            .collect();
        Batch { rows: self.rows, columns }
    }
}

pub(super) fn too_large(shape: &Shape, column: usize, bytes: u64) -> Error {
    let name = shape.fields.get(column).map_or("?", |field| field.name.as_str());
    host(format!(
        "a row is larger than the {} that one batch may hold; its largest column is `{name}` with {}",
        drill::unit::size(MAX_CELLS as u64),
        drill::unit::size(bytes)
    ))
}

fn empty(kind: Kind) -> ColumnData {
    match kind {
        Kind::Boolean => ColumnData::Booleans(Vec::new()),
        Kind::Integer(_) => ColumnData::Integers(Vec::new()),
        Kind::Float(_) => ColumnData::Floats(Vec::new()),
        Kind::Binary => ColumnData::Binaries(Cells::default()),
        Kind::Timestamp { .. } => ColumnData::Timestamps(Vec::new()),
        Kind::Text => ColumnData::Texts(Cells::default()),
    }
}

/// Bytes of a cell in the batch, its share of the NULL bits included.
fn cost(kind: Kind, cell: Option<&[u8]>) -> usize {
    1 + match kind {
        Kind::Boolean => 1,
        Kind::Integer(_) | Kind::Float(_) => 8,
        Kind::Timestamp { .. } => TIMESTAMP,
        Kind::Binary | Kind::Text => 4 + cell.map_or(0, <[u8]>::len),
    }
}

fn validate(field: &Field, cell: Option<&[u8]>) -> Result<(), Error> {
    let Some(bytes) = cell else { return Ok(()) };
    let fits = match field.kind {
        Kind::Boolean => matches!(bytes, [0 | 1]),
        Kind::Integer(size) | Kind::Float(size) => bytes.len() == usize::from(size),
        Kind::Timestamp { .. } => bytes.len() == 8,
        Kind::Binary => true,
        Kind::Text if std::str::from_utf8(bytes).is_ok() => true,
        Kind::Text => return Err(host(format!("column `{}` holds a text that is not UTF-8", field.name))),
    };
    let wrong = || host(format!("the server sent a value of column `{}` that its type does not have", field.name));
    if fits { Ok(()) } else { Err(wrong()) }
}

/// Adds a cell that [`validate`] has seen; NULL takes a slot that nobody reads.
fn append(data: &mut ColumnData, cell: Option<&[u8]>) {
    let bytes = cell.unwrap_or_default();
    match data {
        ColumnData::Booleans(values) => values.push(bytes == [1]),
        ColumnData::Integers(values) | ColumnData::Timestamps(values) => values.push(integer(bytes)),
        ColumnData::Floats(values) => values.push(match bytes.len() {
            4 => f64::from(f32::from_be_bytes(bytes.try_into().unwrap_or_default())),
            _ => f64::from_be_bytes(bytes.try_into().unwrap_or_default()),
        }),
        ColumnData::Binaries(cells) | ColumnData::Texts(cells) => put(cells, bytes),
    }
}

fn integer(bytes: &[u8]) -> i64 {
    match bytes.len() {
        2 => i16::from_be_bytes(bytes.try_into().unwrap_or_default()).into(),
        4 => i32::from_be_bytes(bytes.try_into().unwrap_or_default()).into(),
        _ => i64::from_be_bytes(bytes.try_into().unwrap_or_default()),
    }
}

fn put(cells: &mut Cells, bytes: &[u8]) {
    cells.data.extend_from_slice(bytes);
    // A batch holds 1 MiB at most.
    cells.ends.push(u32::try_from(cells.data.len()).unwrap_or(u32::MAX));
}

/// Microseconds where every value of the batch has them; else all as the texts of [`time::text`], NULL as the empty text.
fn timestamps(raw: &[i64], nulls: &[u8], zoned: bool) -> ColumnData {
    let is_null = |index: usize| nulls[index / 8] >> (index % 8) & 1 == 1;
    let micros =
        raw.iter().enumerate().map(|(index, value)| if is_null(index) { Some(0) } else { time::unix_micros(*value) });
    if let Some(micros) = micros.collect::<Option<Vec<_>>>() {
        return ColumnData::Timestamps(micros);
    }
    let mut cells = Cells::default();
    for (index, value) in raw.iter().enumerate() {
        let text = if is_null(index) { String::new() } else { time::text(*value, zoned) };
        put(&mut cells, text.as_bytes());
    }
    ColumnData::Texts(cells)
}
