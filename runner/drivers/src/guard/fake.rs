//! A record in memory. Clones share it; what it does on purpose is set from outside.
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use drill::guard::Record;
use drill::port::Guard;
use drill::stop::Stop;
use drill::verdict::Reason;
use jiff::Timestamp;

#[derive(Clone, Default)]
pub struct FakeGuard(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    record: Option<Record>,
    writes: u64,
    silent: bool,
}

impl FakeGuard {
    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers nothing but errors from now on, or answers again.
    pub fn silence(&self, silent: bool) {
        self.kept().silent = silent;
    }

    /// Somebody deletes it.
    pub fn forget(&self) {
        self.kept().record = None;
    }

    pub fn record(&self) -> Option<Record> {
        self.kept().record.clone()
    }
}

#[async_trait]
impl Guard for FakeGuard {
    fn name(&self) -> String {
        "a record in memory".to_owned()
    }

    async fn read(&self) -> Result<Option<Record>, Stop> {
        let kept = self.kept();
        if kept.silent { Err(silent()) } else { Ok(kept.record.clone()) }
    }

    async fn write(&self, seen: Option<&Record>, holder: Option<&str>, term: Duration) -> Result<Option<Record>, Stop> {
        let mut kept = self.kept();
        if kept.silent {
            return Err(silent());
        }
        let version = |record: Option<&Record>| record.map(|record| record.version.clone());
        if version(kept.record.as_ref()) != version(seen) {
            return Ok(None);
        }
        kept.writes += 1;
        let since = match seen {
            Some(seen) if seen.holder.as_deref() == holder => seen.since,
            _ => holder.map(|_| Timestamp::now()),
        };
        let record = Record { holder: holder.map(str::to_owned), since, term, version: kept.writes.to_string() };
        kept.record = Some(record.clone());
        Ok(Some(record))
    }
}

fn silent() -> Stop {
    Stop::new(Reason::Internal, "the record in memory does not answer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_fake_keeps_the_contract() {
        crate::guard::contract::all(&FakeGuard::default()).await;
    }
}
