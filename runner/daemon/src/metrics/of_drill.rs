//! What is kept of one drill: counts since this daemon began, and what its last run was like. Small, because there may be
//! thousands.
use std::time::Duration;

use drill::finding::Severity;
use drill::id::{RunId, Sha256Digest};
use drill::ledger::{CheckEnded, Damage, Event, FIGURES, Resource, RunStarted, Stamped, Summary, Trigger};
use drill::phase::Phase;
use drill::verdict::Reason;
use jiff::Timestamp;

use super::of_check::Series;
use crate::dispatcher::Skip;

/// Checks of one run that have series of their own; a drill file may name more than anybody would look at.
pub(super) const CHECKS: usize = 50;

#[derive(Default)]
pub(super) struct OfDrill {
    /// Few reasons are ever seen of one drill.
    pub(super) runs: Vec<(Reason, u64)>,
    pub(super) skipped: [u64; Skip::ALL.len()],
    pub(super) not_begun: u64,
    pub(super) last: Option<Box<Seen>>,
    pub(super) self_tests: Vec<(Damage, SelfTest, u64)>,
    /// Damage that the last self-test of its kind did not see.
    pub(super) undetected: Vec<Damage>,
    /// Of the last run; it stays while the next one goes on.
    pub(super) last_reason: Option<Reason>,
    /// When the next success is due, for this drill file and after this moment.
    pub(super) due: Option<(Sha256Digest, Timestamp, Option<Timestamp>)>,
}

/// What came of a self-test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SelfTest {
    /// The damage was refused, as it must be.
    Refused,
    /// The damage went unseen.
    Passed,
    /// It stopped for another reason, which shows nothing.
    Other,
}

impl SelfTest {
    pub(super) const ALL: [Self; 3] = [Self::Refused, Self::Passed, Self::Other];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Passed => "passed",
            Self::Other => "other",
        }
    }

    /// A self-test's verdict is about the drill: it is proven when the drill refused the damage.
    fn of(summary: &Summary) -> Self {
        match summary.reason {
            Reason::Proven => Self::Refused,
            Reason::DamageUnnoticed => Self::Passed,
            _ => Self::Other,
        }
    }
}

impl OfDrill {
    pub(super) fn concluded(&mut self, self_test: Option<Damage>, summary: &Summary) {
        let Some(damage) = self_test else {
            self.last_reason = Some(summary.reason);
            if let Some((_, count)) = self.runs.iter_mut().find(|(reason, _)| *reason == summary.reason) {
                *count += 1;
            } else {
                self.runs.reserve_exact(1);
                self.runs.push((summary.reason, 1));
            }
            return;
        };
        let outcome = SelfTest::of(summary);
        self.undetected.retain(|undetected| *undetected != damage || outcome == SelfTest::Other);
        if outcome == SelfTest::Passed {
            self.undetected.push(damage);
        }
        if let Some((_, _, count)) = self.self_tests.iter_mut().find(|(of, so, _)| (*of, *so) == (damage, outcome)) {
            *count += 1;
        } else {
            let zeros = SelfTest::ALL.map(|other| (damage, other, u64::from(other == outcome)));
            self.self_tests.extend(zeros);
        }
    }
}

/// The numbers of one run.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Seen {
    pub(super) phases: [Option<Duration>; Phase::ALL.len()],
    pub(super) recovery_time: Option<Duration>,
    pub(super) recovery_point: Option<Duration>,
    pub(super) boundary_overhead: Option<Duration>,
    /// By severity: info, warning, failure.
    pub(super) findings: [u32; 3],
    /// Few: a map would take several times the room.
    pub(super) checks: Vec<(Box<str>, Usage)>,
    /// What checks reported.
    pub(super) reported: Vec<(Series, f64)>,
}

/// What one check took of one run, over all databases.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) wall_time: Duration,
    pub(super) cpu_time: Duration,
    /// The most that it had at one time.
    pub(super) memory: u64,
}

impl Seen {
    pub(super) fn event(&mut self, event: &Event) {
        match event {
            Event::PhaseEnded { phase, duration, .. } => self.phases[place(*phase)] = Some(*duration),
            Event::Finding(finding) => {
                let count = &mut self.findings[severity(finding.severity)];
                *count = count.saturating_add(1);
            }
            Event::CheckEnded(check) => self.check(check),
            Event::Concluded(summary) => {
                self.recovery_time = summary.recovery_time_milliseconds.map(Duration::from_millis);
                self.recovery_point = summary.recovery_point_milliseconds.map(Duration::from_millis);
                self.boundary_overhead = summary.boundary_overhead_milliseconds.map(Duration::from_millis);
            }
            _ => {}
        }
    }

    fn check(&mut self, check: &CheckEnded) {
        for figure in &check.figures {
            let Some(series) = Series::new(check, figure) else { continue };
            if let Some((_, value)) = self.reported.iter_mut().find(|(known, _)| *known == series) {
                *value = figure.value;
            } else if self.reported.len() < FIGURES {
                self.reported.push((series, figure.value));
            }
        }
        let name = check.check.as_str();
        let place = match self.checks.iter().position(|(known, _)| **known == *name) {
            Some(place) => place,
            None if self.checks.len() >= CHECKS => return,
            None => {
                self.checks.push((name.into(), Usage::default()));
                self.checks.len() - 1
            }
        };
        let usage = &mut self.checks[place].1;
        usage.wall_time += check.usage.wall_time;
        usage.cpu_time += check.usage.cpu_time;
        usage.memory = usage.memory.max(check.usage.memory);
    }

    /// Nothing more comes.
    pub(super) fn kept(mut self) -> Box<Self> {
        self.checks.shrink_to_fit();
        self.reported.shrink_to_fit();
        Box::new(self)
    }
}

/// Of a self-test.
pub(super) fn damage_of(trigger: &Trigger) -> Option<Damage> {
    match trigger {
        Trigger::SelfTest { damage, .. } => Some(*damage),
        Trigger::Command | Trigger::Schedule { .. } | Trigger::Operator { .. } => None,
    }
}

fn place(phase: Phase) -> usize {
    // The order of the enumeration is that of `ALL`.
    phase as usize
}

pub(super) fn severity(severity: Severity) -> usize {
    match severity {
        Severity::Info => 0,
        Severity::Warning => 1,
        Severity::Failure => 2,
    }
}

/// A run that goes on.
pub(super) struct Going {
    pub(super) run: RunId,
    pub(super) self_test: Option<Damage>,
    pub(super) seen: Seen,
    pub(super) sandbox: bool,
    pub(super) lease: bool,
    /// Of a lease that works.
    pub(super) lease_expires: Option<Timestamp>,
    pub(super) unproven: bool,
    /// When its previous event was written.
    pub(super) before: Timestamp,
}

impl Going {
    pub(super) fn new(started: &RunStarted, at: Timestamp) -> Self {
        Self {
            run: started.run.clone(),
            self_test: damage_of(&started.trigger),
            seen: Seen::default(),
            sandbox: false,
            lease: false,
            lease_expires: None,
            unproven: false,
            before: at,
        }
    }

    /// Keeps what is held; what failed to go is somebody else's to count.
    pub(super) fn event(&mut self, stamped: &Stamped) {
        self.seen.event(&stamped.event);
        match &stamped.event {
            Event::Intended { resource } => self.hold(*resource, true),
            Event::Released { resource, .. } | Event::ReleaseFailed { resource, .. } => self.hold(*resource, false),
            _ => {}
        }
    }

    fn hold(&mut self, resource: Resource, held: bool) {
        match resource {
            Resource::Sandbox => self.sandbox = held,
            Resource::Lease => {
                self.lease = held;
                self.lease_expires = None;
            }
            Resource::Storage | Resource::Agent => {}
        }
    }
}
