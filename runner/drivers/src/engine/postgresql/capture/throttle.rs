//! How much the scan reads in a second, over all of its connections; and how much it has read. Rows that the server counts are
//! not read, so that nothing holds it up.
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

#[derive(Debug)]
pub(super) struct ScanMeter {
    rows: AtomicU64,
    bytes: AtomicU64,
    pace: Option<Pace>,
}

#[derive(Debug)]
struct Pace {
    bytes_a_second: u64,
    /// When everything that was read should have been.
    due: Mutex<Instant>,
}

impl ScanMeter {
    pub(super) fn new(bytes_a_second: Option<u64>) -> Self {
        let pace = |rate: u64| Pace { bytes_a_second: rate.max(1), due: Mutex::new(Instant::now()) };
        Self { rows: AtomicU64::new(0), bytes: AtomicU64::new(0), pace: bytes_a_second.map(pace) }
    }

    /// Rows and bytes.
    pub(super) fn read(&self) -> (u64, u64) {
        (self.rows.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    /// Returns when more may be read.
    pub(super) async fn add(&self, rows: u64, bytes: u64) {
        self.rows.fetch_add(rows, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if let Some(pace) = &self.pace {
            tokio::time::sleep_until(pace.due_after(bytes, Instant::now())).await;
        }
    }
}

impl Pace {
    /// Time in which nothing was read is not made up for.
    fn due_after(&self, bytes: u64, now: Instant) -> Instant {
        let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_a_second);
        let takes = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        let mut due = self.due.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // A row may be so large that its time cannot be added.
        *due = now.max(*due).checked_add(takes).unwrap_or(now);
        *due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_together_reads_no_faster_than_the_rate() {
        let meter = ScanMeter::new(Some(1000));
        let pace = meter.pace.as_ref().expect("a pace");
        let now = *pace.due.lock().expect("not poisoned");
        let after = |milliseconds| now + Duration::from_millis(milliseconds);
        assert_eq!(pace.due_after(500, now), after(500));
        assert_eq!(pace.due_after(1000, now), after(1500), "another connection waits behind the first");
        assert_eq!(pace.due_after(100, after(9000)), after(9100), "an idle time is not made up for");
    }
}
