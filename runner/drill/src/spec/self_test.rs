//! What a drill damages to see whether it would notice.
use std::collections::BTreeMap;

use super::{Drill, Plugin, Schedule, Source};
use crate::ledger::Damage;

/// Each damage and when it is done; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelfTest {
    pub damages: BTreeMap<Damage, Schedule>,
}

/// The built-in check that must notice; None where the artifact is refused before any check.
pub fn noticed_by(damage: Damage) -> Option<&'static str> {
    match damage {
        Damage::Byte | Damage::Signature | Damage::Truncated => None,
        Damage::BaselineRows => Some("row-count"),
        Damage::BaselineDigest => Some("checksum"),
        Damage::BaselineColumn => Some("schema"),
    }
}

impl Drill {
    /// What the daemon runs on schedules, each damage on its own: one run a damage and slot, claimed by damage and time.
    pub fn self_tests(&self) -> Vec<(Damage, Schedule)> {
        let damages = self.self_test.iter().flat_map(|test| &test.damages);
        damages.map(|(damage, schedule)| (*damage, schedule.clone())).collect()
    }

    /// The damages that this drill has something to notice with: those that its file names, else all that its checks can see.
    /// Empty for a dump without a manifest, as there is nothing in it to damage that only muster would notice, and for a backup on a
    /// volume, of which muster makes no copy.
    pub fn damages(&self) -> Vec<Damage> {
        match &self.self_test {
            Some(test) => test.damages.keys().copied().collect(),
            None => Damage::ALL.into_iter().filter(|damage| self.can_notice(*damage)).collect(),
        }
    }

    pub fn can_notice(&self, damage: Damage) -> bool {
        let has = |wanted: &str| {
            self.checks.iter().any(|check| matches!(&check.plugin, Plugin::Builtin(name) if name == wanted))
        };
        let has_a_copy = matches!(self.source, Source::Manifest { .. }) && self.isolation.volume().is_none();
        has_a_copy && noticed_by(damage).is_none_or(has)
    }
}
