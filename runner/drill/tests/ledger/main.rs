//! The ledger's rules, written down a second time and played against the first; then what teardown plans from them.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod rules;

use std::time::Duration;

use drill::ledger::{
    Answer, Damage, Damaged, Database, Event, Held, PhaseOutcome, Resource, RunStarted, Stamped, State, Trigger,
    plan_teardown,
};
use drill::phase::Phase;
use drill::proof::{LeaseProof, StoredLease};
use drill::stop::Stop;
use drill::verdict::{Leftovers, Reason, Verdict};
use proptest::prelude::*;

use self::rules::{
    Rules, Stage, all, any_database, any_event, any_legal_run, any_resource, concluded, digest, release_failed,
    released, replay, stamped, started,
};

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
