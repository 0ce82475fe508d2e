//! The ledger's rules in other words, and any run that they allow.
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use drill::agent::{CheckOutcome, CheckUsage};
use drill::finding::{Finding, Severity};
use drill::id::Sha256Digest;
use drill::ledger::{
    Answer, Artifact, CheckEnded, Damaged, Database, Event, Figure, Owner, PhaseOutcome, Plugin, Resource, RunStarted,
    Stamped, State, Summary,
};
use drill::phase::Phase;
use drill::proof::{IsolationProof, LeaseProof, ReleaseProof};
use drill::spec::{Fidelity, Objectives, Place};
use drill::stop::Stop;
use drill::verdict::{Leftovers, Reason, Verdict};
use proptest::prelude::*;

pub(crate) fn started() -> RunStarted {
    RunStarted {
        run: "orders-20261122t021500z-k7x2".parse().unwrap(),
        drill: "orders".parse().unwrap(),
        drill_digest: digest(),
        drill_file: "/drills/orders.yaml".to_owned(),
        labels: BTreeMap::new(),
        at: jiff::Timestamp::UNIX_EPOCH,
        owner: Owner { pid: 1, start_ticks: 2, boot_id: "b".to_owned() },
        muster_version: "0.1.0".to_owned(),
        fidelity: Fidelity::Production,
        objectives: Objectives::default(),
        evidence_directory: "/evidence".to_owned(),
        trigger: drill::ledger::Trigger::Command,
    }
}

pub(crate) fn digest() -> Sha256Digest {
    Sha256Digest::of(b"")
}

pub(crate) fn stamped(event: Event) -> Stamped {
    Stamped { sequence: 1, at: jiff::Timestamp::UNIX_EPOCH, event }
}

pub(crate) fn all(events: &[Event]) -> Vec<Stamped> {
    std::iter::once(Event::Started(started())).chain(events.iter().cloned()).map(stamped).collect()
}

pub(crate) fn replay(events: &[Event]) -> State {
    State::replay(&all(events)).unwrap()
}

pub(crate) fn released(resource: Resource) -> Event {
    Event::Released { resource, proof: ReleaseProof::of("gone") }
}

pub(crate) fn release_failed(resource: Resource) -> Event {
    Event::ReleaseFailed { resource, stop: Stop::internal("busy") }
}

pub(crate) fn concluded(reason: Reason, verdict: Verdict) -> Event {
    Event::Concluded(Summary {
        verdict,
        reason,
        message: "said".to_owned(),
        advice: None,
        recovery_time_milliseconds: None,
        recovery_point_milliseconds: None,
        boundary_overhead_milliseconds: None,
    })
}

pub(crate) fn any_resource() -> impl Strategy<Value = Resource> {
    prop::sample::select(Resource::ALL.to_vec())
}

/// Any event at all, legal or not. What a run holds is drawn more often than what it only notes.
pub(crate) fn any_event() -> impl Strategy<Value = Event> {
    let phase = || prop::sample::select(Phase::ALL.to_vec());
    let phase_ended = |(phase, stopped)| Event::PhaseEnded {
        phase,
        duration: Duration::from_millis(7),
        outcome: if stopped {
            PhaseOutcome::Stopped(Stop::internal("x").advise("y"))
        } else {
            PhaseOutcome::Done { note: "n".to_owned() }
        },
    };
    let verdict = prop::sample::select(vec![Verdict::Passed, Verdict::Inconclusive, Verdict::Failed]);
    let reason = prop::sample::select(vec![Reason::Proven, Reason::CheckFailed, Reason::Interrupted, Reason::Internal]);
    let leftovers = prop::sample::select(vec![Leftovers::None, Leftovers::Some]);
    prop_oneof![
        8 => any_resource().prop_map(|resource| Event::Intended { resource }),
        8 => (any_resource(), 0..9_u32).prop_map(|(resource, n)| Event::Acquired { resource, handle: n.into() }),
        6 => any_resource().prop_map(released),
        4 => any_resource().prop_map(release_failed),
        4 => phase().prop_map(|phase| Event::PhaseStarted { phase }),
        4 => (phase(), any::<bool>()).prop_map(phase_ended),
        3 => (reason, verdict).prop_map(|(reason, verdict)| concluded(reason, verdict)),
        2 => leftovers.prop_map(|leftovers| Event::Ended { leftovers }),
        2 => Just(Event::EvidenceWritten { path: "e".to_owned(), digest: digest(), sequence: 3 }),
        1 => Just(Event::Started(started())),
        4 => prop::sample::select(notes()),
    ]
}

/// The events that hold nothing and conclude nothing.
fn notes() -> Vec<Event> {
    vec![
        Event::Artifact(Artifact {
            digest: digest(),
            name: "orders".to_owned(),
            location: "/backups".to_owned(),
            vouched: drill::ledger::Vouched::Signature { key: "backup.pub".to_owned() },
            size: 1,
            snapshot_time: Some(jiff::Timestamp::UNIX_EPOCH),
            snapshot_time_from: drill::manifest::SnapshotTimeFrom::Capture,
            source_version: "15.8".to_owned(),
            databases: vec!["orders".to_owned()],
        }),
        Event::Source { place: Place::Fallback(1) },
        Event::Damaged(Damaged { what: "a byte".to_owned(), answer: Answer::Refused { file: "shop.dump".to_owned() } }),
        Event::Template { isolation: "local".to_owned(), digest: digest() },
        Event::Limits { limits: Vec::new() },
        Event::Isolation(IsolationProof::default()),
        Event::Lease(LeaseProof {
            role: "r".to_owned(),
            ttl: Duration::from_secs(9),
            attempts: Vec::new(),
            untried: Vec::new(),
            leases: Vec::new(),
        }),
        Event::Plugin(Plugin {
            check: "rows".to_owned(),
            from: "builtin:row-count".to_owned(),
            digest: digest(),
            grants: Vec::new(),
        }),
        Event::Finding(Finding {
            source: "rows".to_owned(),
            database: None,
            severity: Severity::Info,
            subject: "public.orders".to_owned(),
            message: "seen".to_owned(),
            details: Vec::new(),
        }),
        Event::CheckEnded(CheckEnded {
            check: "rows".to_owned(),
            database: "orders".to_owned(),
            outcome: CheckOutcome::Cancelled,
            usage: CheckUsage::default(),
            figures: vec![Figure { name: "tables".to_owned(), labels: Vec::new(), value: 38.5 }],
        }),
        Event::Connections { lines: vec!["c".to_owned()] },
        Event::Quarantined { digest: digest() },
    ]
}

/// The rules once more, in other words: what each resource went through, and how far the run is.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is one thing that happened or did not")]
pub(crate) struct Rules {
    pub(crate) resources: BTreeMap<Resource, Stage>,
    running: BTreeSet<Phase>,
    over: BTreeSet<Phase>,
    opened: bool,
    concluded: bool,
    signed: bool,
    ended: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Intended,
    Acquired,
    ReleaseTried,
    Released,
}

impl Rules {
    pub(crate) fn allow(&self, event: &Event) -> bool {
        let stage = |resource: &Resource| self.resources.get(resource).copied();
        let owed = |resource: &Resource| stage(resource).is_some_and(|stage| stage != Stage::Released);
        if self.ended {
            return matches!(event, Event::Released { resource, .. } | Event::ReleaseFailed { resource, .. } if owed(resource));
        }
        match event {
            // The run of these tests is no self-test.
            Event::Started(_) | Event::Damaged(_) => false,
            Event::PhaseStarted { phase } => {
                *phase == Phase::Teardown || !self.running.contains(phase) && !self.over.contains(phase)
            }
            Event::PhaseEnded { phase, .. } => self.running.contains(phase),
            Event::Intended { resource } => stage(resource).is_none() && !self.concluded,
            Event::Acquired { resource, .. } => {
                matches!(stage(resource), Some(Stage::Intended | Stage::Acquired))
            }
            Event::Released { resource, .. } | Event::ReleaseFailed { resource, .. } => owed(resource),
            Event::Concluded(summary) => {
                let tried = |stage: &Stage| matches!(stage, Stage::ReleaseTried | Stage::Released);
                !self.concluded && self.resources.values().all(tried) && summary.verdict == summary.reason.verdict()
            }
            Event::Source { .. } => !self.opened,
            Event::EvidenceWritten { .. } => self.concluded && !self.signed,
            Event::Ended { leftovers } => {
                let none = self.resources.values().all(|stage| *stage == Stage::Released);
                self.concluded && (*leftovers == Leftovers::None) == none
            }
            _ => true,
        }
    }

    pub(crate) fn take(&mut self, event: &Event) {
        let mut stage = |resource: &Resource, stage| {
            self.resources.insert(*resource, stage);
        };
        match event {
            Event::Intended { resource } => stage(resource, Stage::Intended),
            Event::Acquired { resource, .. } => stage(resource, Stage::Acquired),
            Event::Released { resource, .. } => stage(resource, Stage::Released),
            Event::ReleaseFailed { resource, .. } => stage(resource, Stage::ReleaseTried),
            Event::PhaseStarted { phase } => {
                self.over.remove(phase);
                self.running.insert(*phase);
            }
            Event::PhaseEnded { phase, .. } => {
                self.running.remove(phase);
                self.over.insert(*phase);
            }
            Event::Artifact(_) => self.opened = true,
            Event::Concluded(_) => self.concluded = true,
            Event::EvidenceWritten { .. } => self.signed = true,
            Event::Ended { .. } => self.ended = true,
            _ => {}
        }
    }
}

/// Of any events, those that the rules allow, one after the other.
pub(crate) fn any_legal_run() -> impl Strategy<Value = Vec<Event>> {
    prop::collection::vec(any_event(), 0..80).prop_map(|events| {
        let mut rules = Rules::default();
        let mut legal = Vec::new();
        for event in events {
            if rules.allow(&event) {
                rules.take(&event);
                legal.push(event);
            }
        }
        legal
    })
}

pub(crate) fn any_database() -> impl Strategy<Value = Database> {
    prop::sample::select(vec![Database::Serving, Database::Gone])
}
