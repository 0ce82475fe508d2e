use std::path::Path;

use drill::ledger::Stamped;
use drill::phase::Phase;
use drill::port::Alert;

use super::Ended;

/// What is said of a run while it goes on.
pub enum Update<'a> {
    /// The ledger has it.
    Event(&'a Stamped),
    Progress {
        phase: Phase,
        done: u64,
        total: Option<u64>,
        unit: &'a str,
    },
    /// A check says where it is.
    Check {
        name: &'a str,
        database: &'a str,
        done: u64,
        total: Option<u64>,
        unit: &'a str,
    },
    /// A login works until then.
    Lease {
        expires_at: jiff::Timestamp,
        renewed: bool,
    },
    Log {
        check: &'a str,
        message: &'a str,
    },
    Alert(&'a Alert),
    /// The run is over, and its ledger or its evidence could not be written.
    NotWritten(&'a Ended),
    /// The key that signs evidence was made just now: whoever checks evidence needs its public half.
    KeyMade {
        directory: &'a Path,
    },
}

/// Told as things happen; must return at once.
pub trait Observer: Send + Sync {
    fn update(&self, update: Update<'_>);
}

pub struct Silent;

impl Observer for Silent {
    fn update(&self, _: Update<'_>) {}
}
