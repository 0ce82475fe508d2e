//! What a run concludes. A verdict always follows from a [`Reason`], so that muster's own trouble cannot be written down as
//! a verdict on the backup.
use std::fmt;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Passed,
    Inconclusive,
    Failed,
}

impl Verdict {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Inconclusive => "inconclusive",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a run ended as it did. Stable names: they stand in JSON, metrics and evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Everything asked for was seen.
    Proven,
    /// Artifact, manifest or signature is absent, unreadable, wrong or not the newest.
    ArtifactRefused,
    /// A restore error that the dump causes.
    RestoreFailed,
    CheckFailed,
    /// Recovery time or recovery point beyond the objective, at `fidelity: production`.
    ObjectiveExceeded,
    /// A deadline hit after the objective had passed.
    DeadlineAfterObjective,
    /// A self-test damaged a copy of the backup, and the drill did not notice.
    DamageUnnoticed,
    /// The sandbox lacks version, extension, locale or space.
    SandboxUnfit,
    TemplateDrift,
    IsolationUnproven,
    /// What had been proven was changed, or opened, while the run went on.
    IsolationBreached,
    /// A limit of the sandbox or of a plugin was reached.
    LimitReached,
    Credentials,
    /// A deadline hit before the objective had passed.
    Deadline,
    Interrupted,
    /// The artifact was refused by an earlier run and nobody has released it.
    Quarantined,
    /// The network, as opposed to the object being absent.
    SourceUnreachable,
    /// Somebody wrote to the backup between its verification and the end of its restore.
    ArtifactChanged,
    /// A plugin trapped, or could not tell.
    CheckInconclusive,
    /// A self-test could not tell whether the drill notices damage.
    SelfTestInconclusive,
    AlreadyRunning,
    /// muster's own trouble: never a verdict on the backup.
    Internal,
}

impl Reason {
    pub const ALL: [Self; 22] = [
        Self::Proven,
        Self::ArtifactRefused,
        Self::RestoreFailed,
        Self::CheckFailed,
        Self::ObjectiveExceeded,
        Self::DeadlineAfterObjective,
        Self::DamageUnnoticed,
        Self::SandboxUnfit,
        Self::TemplateDrift,
        Self::IsolationUnproven,
        Self::IsolationBreached,
        Self::LimitReached,
        Self::Credentials,
        Self::Deadline,
        Self::Interrupted,
        Self::Quarantined,
        Self::SourceUnreachable,
        Self::ArtifactChanged,
        Self::CheckInconclusive,
        Self::SelfTestInconclusive,
        Self::AlreadyRunning,
        Self::Internal,
    ];

    /// As it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Proven => "proven",
            Self::ArtifactRefused => "artifact-refused",
            Self::RestoreFailed => "restore-failed",
            Self::CheckFailed => "check-failed",
            Self::ObjectiveExceeded => "objective-exceeded",
            Self::DeadlineAfterObjective => "deadline-after-objective",
            Self::DamageUnnoticed => "damage-unnoticed",
            Self::SandboxUnfit => "sandbox-unfit",
            Self::TemplateDrift => "template-drift",
            Self::IsolationUnproven => "isolation-unproven",
            Self::IsolationBreached => "isolation-breached",
            Self::LimitReached => "limit-reached",
            Self::Credentials => "credentials",
            Self::Deadline => "deadline",
            Self::Interrupted => "interrupted",
            Self::Quarantined => "quarantined",
            Self::SourceUnreachable => "source-unreachable",
            Self::ArtifactChanged => "artifact-changed",
            Self::CheckInconclusive => "check-inconclusive",
            Self::SelfTestInconclusive => "self-test-inconclusive",
            Self::AlreadyRunning => "already-running",
            Self::Internal => "internal",
        }
    }

    pub fn verdict(self) -> Verdict {
        match self {
            Self::Proven => Verdict::Passed,
            Self::ArtifactRefused
            | Self::RestoreFailed
            | Self::CheckFailed
            | Self::ObjectiveExceeded
            | Self::DeadlineAfterObjective
            | Self::DamageUnnoticed => Verdict::Failed,
            Self::SandboxUnfit
            | Self::TemplateDrift
            | Self::IsolationUnproven
            | Self::IsolationBreached
            | Self::LimitReached
            | Self::Credentials
            | Self::Deadline
            | Self::Interrupted
            | Self::Quarantined
            | Self::SourceUnreachable
            | Self::ArtifactChanged
            | Self::CheckInconclusive
            | Self::SelfTestInconclusive
            | Self::AlreadyRunning
            | Self::Internal => Verdict::Inconclusive,
        }
    }
}

/// Whether teardown left anything that muster still owes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Leftovers {
    None,
    Some,
}

/// The process exit code of a run, by precedence: failed, leftovers, inconclusive, passed.
pub fn exit_code(verdict: Verdict, leftovers: Leftovers) -> u8 {
    match (verdict, leftovers) {
        (Verdict::Failed, _) => 1,
        (Verdict::Inconclusive | Verdict::Passed, Leftovers::Some) => 4,
        (Verdict::Inconclusive, Leftovers::None) => 2,
        (Verdict::Passed, Leftovers::None) => 0,
    }
}

/// The exit code where nothing was begun: bad file, bad usage.
pub const EXIT_NOTHING_BEGUN: u8 = 3;
