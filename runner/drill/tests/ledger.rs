//! The ledger's rules, written down a second time and played against the first; then what teardown plans from them.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use drill::agent::{CheckOutcome, CheckUsage};
use drill::finding::{Finding, Severity};
use drill::id::Sha256Digest;
use drill::ledger::{
    Answer, Artifact, CheckEnded, Damage, Damaged, Database, Event, Held, Owner, PhaseOutcome, Plugin, Resource,
    RunStarted, Stamped, State, Summary, Trigger, plan_teardown,
};
use drill::phase::Phase;
use drill::proof::{IsolationProof, LeaseProof, ReleaseProof, StoredLease};
use drill::spec::{Fidelity, Objectives, Place};
use drill::stop::Stop;
use drill::verdict::{Leftovers, Reason, Verdict};
use proptest::prelude::*;

fn started() -> RunStarted {
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

fn digest() -> Sha256Digest {
    Sha256Digest::of(b"")
}

fn stamped(event: Event) -> Stamped {
    Stamped { sequence: 1, at: jiff::Timestamp::UNIX_EPOCH, event }
}

fn all(events: &[Event]) -> Vec<Stamped> {
    std::iter::once(Event::Started(started())).chain(events.iter().cloned()).map(stamped).collect()
}

fn replay(events: &[Event]) -> State {
    State::replay(&all(events)).unwrap()
}

fn released(resource: Resource) -> Event {
    Event::Released { resource, proof: ReleaseProof::of("gone") }
}

fn release_failed(resource: Resource) -> Event {
    Event::ReleaseFailed { resource, stop: Stop::internal("busy") }
}

fn concluded(reason: Reason, verdict: Verdict) -> Event {
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

fn any_resource() -> impl Strategy<Value = Resource> {
    prop::sample::select(Resource::ALL.to_vec())
}

/// Any event at all, legal or not. What a run holds is drawn more often than what it only notes.
fn any_event() -> impl Strategy<Value = Event> {
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
        }),
        Event::Connections { lines: vec!["c".to_owned()] },
        Event::Quarantined { digest: digest() },
    ]
}

/// The rules once more, in other words: what each resource went through, and how far the run is.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is one thing that happened or did not")]
struct Rules {
    resources: BTreeMap<Resource, Stage>,
    running: BTreeSet<Phase>,
    over: BTreeSet<Phase>,
    opened: bool,
    concluded: bool,
    signed: bool,
    ended: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Intended,
    Acquired,
    ReleaseTried,
    Released,
}

impl Rules {
    fn allow(&self, event: &Event) -> bool {
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

    fn take(&mut self, event: &Event) {
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
fn any_legal_run() -> impl Strategy<Value = Vec<Event>> {
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

fn any_database() -> impl Strategy<Value = Database> {
    prop::sample::select(vec![Database::Serving, Database::Gone])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_fold_allows_what_the_rules_allow_and_a_refused_event_changes_nothing(
        events in prop::collection::vec(any_event(), 0..80)
    ) {
        let mut rules = Rules::default();
        let mut state = State::new(started());
        let mut legal = Vec::new();
        for event in events {
            let before = state.clone();
            let allowed = rules.allow(&event);
            prop_assert_eq!(state.apply(&stamped(event.clone())).is_ok(), allowed, "{:?} after {:?}", event, legal);
            if allowed {
                rules.take(&event);
                legal.push(event);
            } else {
                prop_assert_eq!(&state, &before, "{:?} was refused", event);
            }
        }
        prop_assert_eq!(&State::replay(&all(&legal)).unwrap(), &state);
        let owed: Vec<Resource> = rules.resources.iter().filter(|(_, s)| **s != Stage::Released).map(|(r, _)| *r).collect();
        prop_assert_eq!(state.owes(), !owed.is_empty());

        // The ledger outlives the process as JSON.
        let json = serde_json::to_string(&all(&legal)).unwrap();
        let read: Vec<Stamped> = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(State::replay(&read).unwrap(), state);
    }

    #[test]
    fn a_plan_names_each_thing_that_is_owed_once_and_nothing_else(events in any_legal_run(), database in any_database()) {
        let state = replay(&events);
        let plan = plan_teardown(&state, database);
        let mut named = plan.clone();
        named.sort_unstable();
        let owed: Vec<Resource> = state.held.iter().filter(|(_, held)| held.is_owed()).map(|(resource, _)| *resource).collect();
        prop_assert_eq!(named, owed);
        for (resource, held) in &state.held {
            prop_assert_eq!(plan.contains(resource), !matches!(held, Held::Released { .. }));
        }
    }

    #[test]
    fn a_plan_keeps_its_order(events in any_legal_run(), database in any_database()) {
        let plan = plan_teardown(&replay(&events), database);
        let at = |resource| plan.iter().position(|planned| *planned == resource);
        let before = |first, second| at(first).zip(at(second)).is_none_or(|(first, second)| first < second);
        for later in [Resource::Lease, Resource::Sandbox, Resource::Storage] {
            prop_assert!(before(Resource::Agent, later), "checks stop first: {:?}", plan);
        }
        match database {
            Database::Serving => prop_assert!(before(Resource::Lease, Resource::Sandbox), "revoked while it serves: {:?}", plan),
            Database::Gone => prop_assert!(before(Resource::Sandbox, Resource::Lease), "gone with its sandbox: {:?}", plan),
        }
        for earlier in [Resource::Agent, Resource::Lease, Resource::Sandbox] {
            prop_assert!(before(earlier, Resource::Storage), "nothing still writes to it: {:?}", plan);
        }
    }

    /// Some releases fail the first time; what is left is planned again, in the same order, and then nothing is owed.
    #[test]
    fn performing_the_plan_ends_with_nothing_owed(
        events in any_legal_run(), database in any_database(), fails in prop::collection::vec(any::<bool>(), 4)
    ) {
        let mut state = replay(&events);
        let plan = plan_teardown(&state, database);
        let mut left = Vec::new();
        for (resource, fails) in plan.iter().zip(fails) {
            let event = if fails { release_failed(*resource) } else { released(*resource) };
            state.apply(&stamped(event)).unwrap();
            if fails {
                left.push(*resource);
            }
        }
        prop_assert_eq!(state.owes(), !left.is_empty());
        prop_assert_eq!(plan_teardown(&state, database), left.clone());
        if state.ended.is_none() {
            // Every release was tried, so the run can be concluded; and what it says of leftovers must be true.
            if state.summary.is_none() {
                state.apply(&stamped(concluded(Reason::Interrupted, Verdict::Inconclusive))).unwrap();
            }
            let (truth, lie) =
                if left.is_empty() { (Leftovers::None, Leftovers::Some) } else { (Leftovers::Some, Leftovers::None) };
            let lied = state.clone().apply(&stamped(Event::Ended { leftovers: lie }));
            prop_assert!(lied.is_err(), "{:?} was believed", lie);
            state.apply(&stamped(Event::Ended { leftovers: truth })).unwrap();
        }
        // What was left may still go after the end.
        for resource in left {
            state.apply(&stamped(released(resource))).unwrap();
        }
        prop_assert!(!state.owes());
        prop_assert_eq!(plan_teardown(&state, database), vec![]);
    }

    /// A crash at any event, then a recovery that crashes at any release, then one that does not: each plans the rest of what
    /// the one before it planned.
    #[test]
    fn recovery_after_any_crash_is_idempotent(
        events in any_legal_run(),
        database in any_database(),
        cut in any::<prop::sample::Index>(),
        second_cut in any::<prop::sample::Index>(),
    ) {
        let mut ledger = events[..cut.index(events.len() + 1)].to_vec();
        let plan = plan_teardown(&replay(&ledger), database);
        prop_assert_eq!(&plan_teardown(&replay(&ledger), database), &plan);

        let done = second_cut.index(plan.len() + 1);
        ledger.extend(plan[..done].iter().copied().map(released));
        let rest = plan_teardown(&replay(&ledger), database);
        prop_assert_eq!(&rest[..], &plan[done..]);

        ledger.extend(rest.into_iter().map(released));
        prop_assert!(!replay(&ledger).owes());
        prop_assert_eq!(plan_teardown(&replay(&ledger), database), vec![]);
    }

    /// A driver is given what it said when it made the thing, a failed release in between or not.
    #[test]
    fn a_handle_is_kept_until_the_thing_is_gone(resource in any_resource(), handle in any::<u32>(), failures in 0..3_usize) {
        let mut events = vec![Event::Intended { resource }, Event::Acquired { resource, handle: handle.into() }];
        events.extend(std::iter::repeat_n(release_failed(resource), failures));
        let state = replay(&events);
        prop_assert_eq!(state.held[&resource].handle(), Some(&handle.into()));
        events.push(released(resource));
        let state = replay(&events);
        prop_assert_eq!(state.held[&resource].handle(), None);
    }
}

/// By the names that a secret store knows, so that somebody can look there.
#[test]
fn what_is_owed_is_told_with_why() {
    let lent = |id: &str| StoredLease {
        id: id.to_owned(),
        role: "muster-orders".to_owned(),
        issued_at: jiff::Timestamp::UNIX_EPOCH,
        ttl: Duration::from_mins(15),
    };
    let proof = LeaseProof {
        role: "muster-orders".to_owned(),
        ttl: Duration::from_mins(15),
        attempts: Vec::new(),
        untried: Vec::new(),
        leases: vec![lent("database/creds/muster-orders/VfLq"), lent("database/creds/muster-orders/a9Zk")],
    };
    let mut events = vec![
        Event::Intended { resource: Resource::Storage },
        Event::Intended { resource: Resource::Lease },
        Event::Lease(proof),
        Event::ReleaseFailed { resource: Resource::Lease, stop: Stop::internal("Vault: it is sealed") },
    ];
    let ids = "database/creds/muster-orders/VfLq, database/creds/muster-orders/a9Zk";
    let told = format!("storage: not tried yet; lease ({ids}): Vault: it is sealed");
    assert_eq!(replay(&events).what_is_owed(), Some(told));
    events.extend([released(Resource::Lease), released(Resource::Storage)]);
    assert_eq!(replay(&events).what_is_owed(), None);
}

/// Each kind of refusal, and the words for it.
#[test]
fn what_cannot_have_happened_is_refused() {
    use Resource::{Agent, Lease, Sandbox, Storage};
    let intended = |resource| Event::Intended { resource };
    let acquired = |resource| Event::Acquired { resource, handle: serde_json::Value::Null };
    let phase_started = |phase| Event::PhaseStarted { phase };
    let phase_ended = |phase| Event::PhaseEnded {
        phase,
        duration: Duration::ZERO,
        outcome: PhaseOutcome::Done { note: String::new() },
    };
    let passed = || concluded(Reason::Proven, Verdict::Passed);
    let ended = |leftovers| Event::Ended { leftovers };
    let evidence = || Event::EvidenceWritten { path: String::new(), digest: digest(), sequence: 1 };

    for (events, why) in [
        (vec![Event::Started(started())], "the run has started already"),
        // Invariant 3: nothing is acquired that the ledger did not intend.
        (vec![acquired(Sandbox)], "sandbox acquired and never intended"),
        (vec![intended(Agent), acquired(Sandbox)], "sandbox acquired and never intended"),
        (vec![intended(Sandbox), intended(Sandbox)], "sandbox intended twice"),
        (vec![intended(Sandbox), released(Sandbox), intended(Sandbox)], "sandbox intended twice"),
        (vec![intended(Sandbox), released(Sandbox), acquired(Sandbox)], "sandbox acquired after its release"),
        (vec![intended(Sandbox), release_failed(Sandbox), acquired(Sandbox)], "sandbox acquired after its release"),
        (vec![released(Lease)], "lease released and never intended"),
        (vec![release_failed(Lease)], "lease released and never intended"),
        (vec![intended(Lease), released(Lease), released(Lease)], "lease released twice"),
        (vec![intended(Lease), released(Lease), release_failed(Lease)], "lease released twice"),
        (vec![phase_started(Phase::Restore), phase_started(Phase::Restore)], "phase restore started twice"),
        (
            vec![phase_started(Phase::Restore), phase_ended(Phase::Restore), phase_started(Phase::Restore)],
            "phase restore started twice",
        ),
        (vec![phase_ended(Phase::Restore)], "phase restore ended and was not running"),
        (
            vec![phase_started(Phase::Teardown), phase_ended(Phase::Teardown), phase_ended(Phase::Teardown)],
            "phase teardown ended and was not running",
        ),
        // Invariant 4: evidence never precedes teardown.
        (vec![intended(Storage), passed()], "concluded before the release of storage was tried"),
        (vec![intended(Storage), acquired(Storage), passed()], "concluded before the release of storage was tried"),
        (
            vec![intended(Storage), released(Storage), intended(Agent), passed()],
            "concluded before the release of agent was tried",
        ),
        (vec![evidence()], "evidence written before the run was concluded"),
        (vec![passed(), intended(Storage)], "storage intended after the run was concluded"),
        // Invariant 8: muster's own trouble is never a verdict on the backup.
        (vec![concluded(Reason::Internal, Verdict::Failed)], "verdict failed does not follow from Internal"),
        (vec![concluded(Reason::Interrupted, Verdict::Passed)], "verdict passed does not follow from Interrupted"),
        (vec![ended(Leftovers::None)], "ended before it was concluded"),
        (vec![passed(), ended(Leftovers::Some)], "ended with other leftovers than the ledger owes"),
        (
            vec![intended(Lease), release_failed(Lease), passed(), ended(Leftovers::None)],
            "ended with other leftovers than the ledger owes",
        ),
        (vec![passed(), ended(Leftovers::None), evidence()], "the run has ended"),
        (vec![passed(), ended(Leftovers::None), phase_started(Phase::Teardown)], "the run has ended"),
    ] {
        let (last, before) = events.split_last().unwrap();
        let mut state = replay(before);
        let error = state.apply(&stamped(last.clone())).expect_err(why);
        assert_eq!(error.to_string(), format!("illegal event in the ledger: {why}"));
        assert_eq!(State::replay(&all(&events)), Err(error));
    }
}

#[test]
fn a_ledger_begins_with_its_start() {
    assert_eq!(State::replay(&[]).unwrap_err().to_string(), "illegal event in the ledger: the run has none");
    let first = stamped(Event::Quarantined { digest: digest() });
    assert_eq!(
        State::replay(&[first]).unwrap_err().to_string(),
        "illegal event in the ledger: the first is not `started`"
    );
}

#[test]
fn a_self_test_damages_once_and_nothing_else_damages() {
    let damaged = || {
        let answer = Answer::Refused { file: "shop.dump".to_owned() };
        stamped(Event::Damaged(Damaged { what: "a byte".to_owned(), answer }))
    };
    let plain = State::new(started()).apply(&damaged()).unwrap_err().to_string();
    assert!(plain.ends_with("a copy was damaged, and the run is no self-test"), "{plain}");
    let trigger = Trigger::SelfTest { damage: Damage::Byte, scheduled_for: None };
    let mut state = State::new(RunStarted { trigger, ..started() });
    state.apply(&damaged()).unwrap();
    let twice = state.apply(&damaged()).unwrap_err().to_string();
    assert!(twice.ends_with("a copy was damaged twice"), "{twice}");
}

/// Recovery tears down again where a crash cut teardown off.
#[test]
fn teardown_may_start_again_and_counts_once() {
    let phase = Phase::Teardown;
    let ended =
        Event::PhaseEnded { phase, duration: Duration::ZERO, outcome: PhaseOutcome::Done { note: String::new() } };
    let state = replay(&[Event::PhaseStarted { phase }, Event::PhaseStarted { phase }, ended]);
    assert_eq!(state.phases.len(), 1);
    assert!(state.phase(phase).unwrap().ended.is_some());
}
