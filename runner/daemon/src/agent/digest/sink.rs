//! From the bytes of a COPY to rows in their blocks.
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use drill::content::{Matcher, Row, RowReader};

use crate::agent::sql::CopySink;

/// Rows that are handed over at once.
const BATCH: usize = 512;

/// How far a scan has come.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) rows: AtomicU64,
    pub(super) bytes: AtomicU64,
}

/// One COPY.
pub(super) struct Sink<'a> {
    reader: RowReader,
    rows: Vec<Row>,
    bytes: u64,
    matcher: &'a Mutex<Matcher>,
    seen: Arc<Seen>,
}

impl<'a> Sink<'a> {
    pub(super) fn new(reader: RowReader, matcher: &'a Mutex<Matcher>, seen: Arc<Seen>) -> Self {
        Self { reader, rows: Vec::with_capacity(BATCH), bytes: 0, matcher, seen }
    }

    pub(super) fn finish(mut self) -> Result<(), String> {
        self.hand_over();
        self.reader.finish().map_err(|error| error.to_string())
    }

    fn hand_over(&mut self) {
        self.seen.rows.fetch_add(self.rows.len() as u64, Ordering::Relaxed);
        self.seen.bytes.fetch_add(std::mem::take(&mut self.bytes), Ordering::Relaxed);
        let mut matcher = self.matcher.lock().unwrap_or_else(PoisonError::into_inner);
        for row in self.rows.drain(..) {
            matcher.push(&row);
        }
    }
}

impl CopySink for Sink<'_> {
    fn feed(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.bytes += bytes.len() as u64;
        self.reader.feed(bytes).map_err(|error| error.to_string())
    }

    fn end(&mut self) -> Result<(), String> {
        self.rows.extend(self.reader.end().map_err(|error| error.to_string())?);
        if self.rows.len() >= BATCH {
            self.hand_over();
        }
        Ok(())
    }
}
