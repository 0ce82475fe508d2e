//! Scans in the order of the tables, several at once.
use std::collections::VecDeque;
use std::thread::sleep;
use std::time::Duration;

use muster_check::baseline::Table;
use muster_check::digest::{self, Outcome, Scan};
use muster_check::report;
use muster_check::sql::Error;

/// Between two looks at a scan that takes long.
const TICK: Duration = Duration::from_millis(100);
/// Looks that saw nothing new, until the end is simply waited for: the table has fewer rows than it should, or its scan waits
/// for its turn.
const PATIENCE: u32 = 10;
/// A smaller table is over before anybody could read its progress.
const LARGE: u64 = 100_000;

struct Running<'a> {
    table: &'a Table,
    scan: Result<Scan, Error>,
}

impl Running<'_> {
    /// A table that is read more than once does not count twice.
    fn rows(&self) -> u64 {
        self.scan.as_ref().map_or(0, |scan| scan.poll().rows).min(self.table.rows)
    }
}

/// Hands over each table with what became of its scan. An error of `ended` cancels the scans that still run.
pub(crate) fn scan_all<E>(
    tables: &[&Table],
    concurrency: usize,
    mut ended: impl FnMut(&Table, Result<Outcome, Error>) -> Result<(), E>,
) -> Result<(), E> {
    let total: u64 = tables.iter().map(|table| table.rows).sum();
    let mut waiting = tables.iter();
    let mut running = VecDeque::new();
    let mut done = 0;
    loop {
        let room = concurrency - running.len();
        running.extend(
            waiting.by_ref().take(room).map(|table| Running { table, scan: digest::start(&table.schema, &table.name) }),
        );
        watch(&running, done, total);
        let Some(Running { table, scan }) = running.pop_front() else { return Ok(()) };
        ended(table, scan.and_then(|scan| scan.finish()))?;
        done += table.rows;
    }
}

/// Returns when the first scan has ended, as far as its progress tells.
fn watch(running: &VecDeque<Running<'_>>, done: u64, total: u64) {
    let (mut before, mut patience) = (0, PATIENCE);
    loop {
        let rows: u64 = running.iter().map(Running::rows).sum();
        report::set_progress(done + rows, Some(total), "rows");
        let Some(first) = running.front().filter(|first| first.scan.is_ok() && first.table.rows >= LARGE) else {
            return;
        };
        let seen = first.rows();
        patience = if seen > before { PATIENCE } else { patience - 1 };
        if seen == first.table.rows || patience == 0 {
            return;
        }
        before = seen;
        sleep(TICK);
    }
}
