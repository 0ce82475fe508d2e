//! The timed stretches of a run.
use std::fmt;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    Preflight,
    Verify,
    Sandbox,
    Probe,
    Restore,
    Lease,
    Validate,
    Teardown,
    Evidence,
}

impl Phase {
    pub const ALL: [Self; 9] = [
        Self::Preflight,
        Self::Verify,
        Self::Sandbox,
        Self::Probe,
        Self::Restore,
        Self::Lease,
        Self::Validate,
        Self::Teardown,
        Self::Evidence,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Preflight => "preflight",
            Self::Verify => "verify",
            Self::Sandbox => "sandbox",
            Self::Probe => "probe",
            Self::Restore => "restore",
            Self::Lease => "lease",
            Self::Validate => "validate",
            Self::Teardown => "teardown",
            Self::Evidence => "evidence",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
