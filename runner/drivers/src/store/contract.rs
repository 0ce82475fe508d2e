//! What every store must do, run against each. A world is one durable store that several processes open.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::collections::BTreeMap;
use std::sync::Arc;

use drill::evidence::Stretch;
use drill::id::{DrillName, RunId, Sha256Digest};
use drill::ledger::{Damage, Event, Owner, PhaseOutcome, Resource, RunStarted, State, Summary, Trigger};
use drill::phase::Phase;
use drill::port::{Alert, ChainLink, Quarantine, Store};
use drill::proof::ReleaseProof;
use drill::spec::{Fidelity, Objectives};
use drill::stop::Stop;
use drill::verdict::{Leftovers, Reason, Verdict};

use super::fake::MemoryStore;
use super::sqlite::{Mode, SqliteStore};

trait World {
    /// As a new process does it.
    fn open(&self) -> Arc<dyn Store>;
}

struct Memory(MemoryStore);
impl World for Memory {
    fn open(&self) -> Arc<dyn Store> {
        Arc::new(self.0.reopen())
    }
}

struct Sqlite(tempfile::TempDir);
impl World for Sqlite {
    fn open(&self) -> Arc<dyn Store> {
        Arc::new(SqliteStore::open(&self.0.path().join("muster.db"), Mode::ReadWrite).unwrap())
    }
}

macro_rules! contract {
    ($($name:ident),* $(,)?) => {
        mod memory {
            use super::*;
            $(#[tokio::test] async fn $name() { super::$name(&Memory(MemoryStore::new())).await; })*
        }
        mod sqlite {
            use super::*;
            $(#[tokio::test] async fn $name() { super::$name(&Sqlite(tempfile::tempdir().unwrap())).await; })*
        }
    };
}
mod outbox;
mod slots;

use self::slots::*;

contract!(
    an_id_is_made_once,
    what_was_appended_is_read_back,
    an_illegal_event_is_refused_and_leaves_no_trace,
    a_drill_does_not_overlap_itself,
    a_run_is_written_by_its_owner_alone,
    of_two_that_take_over_one_wins,
    a_run_that_owes_something_stays_unsettled,
    runs_are_listed_newest_first,
    a_quarantined_copy_stays_until_released,
    the_chain_has_no_gaps_and_no_forks,
    alerts_wait_in_order,
    a_slot_is_run_or_skipped_once,
    a_history_is_what_a_schedule_goes_on_from,
    a_schedule_is_known_since_its_words_and_a_drill_since_it_was_first_seen,
    what_owes_something_and_the_last_success_are_not_forgotten,
    the_bounds_of_age_and_number_hold_each_on_its_own,
    evidence_that_was_deleted_stays_a_stretch_of_the_chain,
    an_event_of_absurd_size_is_refused,
);

pub(super) fn owner(pid: u32) -> Owner {
    Owner { pid, start_ticks: u64::from(pid) * 100, boot_id: "b0".to_owned() }
}

/// `at` is a minute of one hour, and part of the run's name.
pub(super) fn started(drill: &str, minute: u8, pid: u32) -> RunStarted {
    let drill: DrillName = drill.parse().unwrap();
    let at = format!("2026-11-22T02:{minute:02}:00.123456789Z").parse().unwrap();
    RunStarted {
        run: RunId::new(&drill, at, [1, 2, 3, 4]),
        drill,
        drill_digest: Sha256Digest::of(b"drill"),
        drill_file: "/etc/muster/drills/orders.yaml".to_owned(),
        labels: BTreeMap::from([("team".to_owned(), "payments".to_owned())]),
        at,
        owner: owner(pid),
        muster_version: "0.1.0".to_owned(),
        fidelity: Fidelity::Production,
        objectives: Objectives::default(),
        evidence_directory: "/var/lib/muster/evidence".to_owned(),
        trigger: drill::ledger::Trigger::Command,
    }
}

pub(super) fn concluded() -> Event {
    summary(Reason::Proven)
}

pub(super) fn summary(reason: Reason) -> Event {
    Event::Concluded(Summary {
        verdict: reason.verdict(),
        reason,
        message: "everything asked for was seen".to_owned(),
        advice: None,
        recovery_time_milliseconds: Some(21_400),
        recovery_point_milliseconds: None,
        boundary_overhead_milliseconds: None,
    })
}

fn phase_done() -> [Event; 2] {
    [
        Event::PhaseStarted { phase: Phase::Preflight },
        Event::PhaseEnded {
            phase: Phase::Preflight,
            duration: std::time::Duration::from_millis(120),
            outcome: PhaseOutcome::Done { note: "3 extensions".to_owned() },
        },
    ]
}

async fn an_id_is_made_once(world: &dyn World) {
    let id = world.open().id().await.unwrap();
    assert_eq!(id.len(), 32, "{id}");
    assert_eq!(world.open().id().await.unwrap(), id);
}

async fn what_was_appended_is_read_back(world: &dyn World) {
    let (store, run) = (world.open(), started("orders", 1, 10));
    store.claim(&run).await.unwrap();
    let mut kept = Vec::new();
    for event in phase_done().into_iter().chain([concluded(), Event::Ended { leftovers: Leftovers::None }]) {
        kept.push(store.append(&run.run, &event).await.unwrap());
    }
    for store in [store, world.open()] {
        let read = store.events(&run.run).await.unwrap();
        assert_eq!(read[0].event, Event::Started(run.clone()));
        assert_eq!(read[1..], kept);
        assert_eq!(read.iter().map(|stamped| stamped.sequence).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        assert_eq!(State::replay(&read).unwrap().ended, Some(Leftovers::None));
        let [summary] = store.runs(None, 10).await.unwrap().try_into().unwrap();
        assert_eq!((summary.verdict, summary.reason), (Some(Verdict::Passed), Some(Reason::Proven)));
        assert_eq!((summary.started, summary.ended), (run.at, Some(kept[3].at)));
        assert_eq!(summary.recovery_time_milliseconds, Some(21_400));
        assert!(store.unsettled().await.unwrap().is_empty());
    }
    assert!(world.open().events(&started("other", 1, 1).run).await.unwrap().is_empty());
}

async fn an_illegal_event_is_refused_and_leaves_no_trace(world: &dyn World) {
    let (store, run) = (world.open(), started("orders", 1, 10));
    store.claim(&run).await.unwrap();
    let intended = Event::Intended { resource: Resource::Sandbox };
    store.append(&run.run, &intended).await.unwrap();
    for illegal in [intended, concluded(), Event::Started(run.clone()), Event::Ended { leftovers: Leftovers::None }] {
        let stop = store.append(&run.run, &illegal).await.unwrap_err();
        assert_eq!(stop.reason, Reason::Internal);
        assert!(stop.message.contains("illegal event"), "{stop}");
        assert_eq!(store.events(&run.run).await.unwrap().len(), 2);
    }
    let released = Event::Released { resource: Resource::Sandbox, proof: ReleaseProof::of("gone") };
    assert_eq!(store.append(&run.run, &released).await.unwrap().sequence, 3);
    let missing = store.append(&started("other", 1, 10).run, &concluded()).await.unwrap_err();
    assert!(missing.message.contains("has no run"), "{missing}");
}

async fn a_drill_does_not_overlap_itself(world: &dyn World) {
    let (store, run) = (world.open(), started("orders", 1, 4711));
    store.claim(&run).await.unwrap();
    store.claim(&started("stock", 1, 4711)).await.unwrap();
    for store in [&store, &world.open()] {
        let stop = store.claim(&started("orders", 2, 4712)).await.unwrap_err();
        assert_eq!(stop.reason, Reason::AlreadyRunning);
        assert!(stop.message.contains(run.run.as_str()) && stop.message.contains("4711"), "{stop}");
    }
    store.append(&run.run, &concluded()).await.unwrap();
    store.append(&run.run, &Event::Ended { leftovers: Leftovers::None }).await.unwrap();
    let stop = store.claim(&run).await.unwrap_err();
    assert!(stop.message.contains("already"), "{stop}");
    store.claim(&started("orders", 2, 4712)).await.unwrap();
}

async fn a_run_is_written_by_its_owner_alone(world: &dyn World) {
    let (first, run) = (world.open(), started("orders", 1, 10));
    first.claim(&run).await.unwrap();
    let second = world.open();
    let [begin, end] = phase_done();
    let stop = second.append(&run.run, &begin).await.unwrap_err();
    assert!(stop.message.contains("neither claimed nor taken over"), "{stop}");
    first.append(&run.run, &begin).await.unwrap();
    assert!(second.take_over(&run.run, &owner(10), &owner(20)).await.unwrap());
    let stop = first.append(&run.run, &end).await.unwrap_err();
    assert!(stop.message.contains("taken over by process 20"), "{stop}");
    assert_eq!(second.append(&run.run, &end).await.unwrap().sequence, 3);
    // Back again: what the first remembers of the run is out of date by now.
    assert!(first.take_over(&run.run, &owner(20), &owner(10)).await.unwrap());
    assert_eq!(first.append(&run.run, &concluded()).await.unwrap().sequence, 4);
}

async fn of_two_that_take_over_one_wins(world: &dyn World) {
    let run = started("orders", 1, 10);
    world.open().claim(&run).await.unwrap();
    let mut wins = 0;
    let tries: Vec<_> = (20..24)
        .map(|pid| {
            let (store, run) = (world.open(), run.run.clone());
            tokio::spawn(async move { store.take_over(&run, &owner(10), &owner(pid)).await.unwrap() })
        })
        .collect();
    for tried in tries {
        wins += u32::from(tried.await.unwrap());
    }
    assert_eq!(wins, 1);
    let missing = world.open().take_over(&started("other", 1, 1).run, &owner(1), &owner(2)).await;
    assert!(missing.unwrap_err().message.contains("has no run"));
}

async fn a_run_that_owes_something_stays_unsettled(world: &dyn World) {
    let (store, run) = (world.open(), started("orders", 1, 10));
    store.claim(&run).await.unwrap();
    assert_eq!(store.unsettled().await.unwrap(), std::slice::from_ref(&run.run));
    let resource = Resource::Storage;
    let owed = Event::ReleaseFailed { resource, stop: Stop::internal("busy") };
    for event in [Event::Intended { resource }, owed, concluded(), Event::Ended { leftovers: Leftovers::Some }] {
        store.append(&run.run, &event).await.unwrap();
    }
    assert_eq!(store.unsettled().await.unwrap(), std::slice::from_ref(&run.run));
    assert_eq!(store.runs(None, 1).await.unwrap()[0].leftovers, Leftovers::Some);
    let next = world.open();
    assert!(next.take_over(&run.run, &owner(10), &owner(11)).await.unwrap());
    next.append(&run.run, &Event::Released { resource, proof: ReleaseProof::of("gone") }).await.unwrap();
    assert!(next.unsettled().await.unwrap().is_empty());
    assert_eq!(next.runs(None, 1).await.unwrap()[0].leftovers, Leftovers::None);
    assert!(next.append(&run.run, &concluded()).await.is_err());
}

async fn runs_are_listed_newest_first(world: &dyn World) {
    let store = world.open();
    for (drill, minute) in [("orders", 2), ("stock", 1), ("users", 3)] {
        store.claim(&started(drill, minute, 10)).await.unwrap();
    }
    let run = started("orders", 2, 10).run;
    store.append(&run, &concluded()).await.unwrap();
    store.append(&run, &Event::Ended { leftovers: Leftovers::None }).await.unwrap();
    store.claim(&started("orders", 9, 10)).await.unwrap();
    let drills = |runs: Vec<drill::port::RunSummary>| -> Vec<String> {
        runs.into_iter().map(|run| format!("{} {}", run.drill, run.started.strftime("%M"))).collect()
    };
    assert_eq!(drills(store.runs(None, 3).await.unwrap()), ["orders 09", "users 03", "orders 02"]);
    let orders: DrillName = "orders".parse().unwrap();
    assert_eq!(drills(store.runs(Some(&orders), 10).await.unwrap()), ["orders 09", "orders 02"]);
    assert!(store.runs(Some(&"none".parse().unwrap()), 10).await.unwrap().is_empty());
    let asked: [DrillName; 3] = ["orders", "stock", "none"].map(|drill| drill.parse().unwrap());
    let each = store.newest_of_each(&asked, 1).await.unwrap();
    assert_eq!(each.into_values().map(drills).collect::<Vec<_>>(), [["orders 09"], ["stock 01"]]);
    let each = store.newest_of_each(&asked[..1], 10).await.unwrap();
    assert_eq!(each, BTreeMap::from([(orders.clone(), store.runs(Some(&orders), 10).await.unwrap())]));
    assert!(store.newest_of_each(&[], 10).await.unwrap().is_empty());
    let than = started("users", 3, 10);
    let older = |drill: Option<drill::id::DrillName>, limit| {
        let (store, than) = (&store, &than);
        async move { drills(store.older_runs(drill.as_ref(), (than.at, &than.run), limit).await.unwrap()) }
    };
    assert_eq!(older(None, 10).await, ["orders 02", "stock 01"]);
    assert_eq!(older(None, 1).await, ["orders 02"]);
    assert_eq!(older(Some(orders), 10).await, ["orders 02"]);
}

async fn a_quarantined_copy_stays_until_released(world: &dyn World) {
    let store = world.open();
    let entry = |digest: &[u8], location: &str| Quarantine {
        digest: Sha256Digest::of(digest),
        location: location.to_owned(),
        run: started("orders", 1, 1).run,
        why: "orders.dump: byte 17 differs".to_owned(),
        at: started("orders", 1, 1).at,
    };
    let (here, there, other) = (entry(b"a", "/here"), entry(b"a", "/there"), entry(b"b", "/here"));
    for one in [&here, &there, &other, &here] {
        store.quarantine(one).await.unwrap();
    }
    assert_eq!(world.open().quarantined().await.unwrap(), [here.clone(), there, other.clone()]);
    assert_eq!(store.release_quarantine(here.digest, "operator").await.unwrap(), 2);
    assert_eq!(store.release_quarantine(here.digest, "operator").await.unwrap(), 0);
    assert_eq!(world.open().quarantined().await.unwrap(), std::slice::from_ref(&other));
    store.quarantine(&here).await.unwrap();
    assert_eq!(store.quarantined().await.unwrap(), [other, here]);
}

async fn the_chain_has_no_gaps_and_no_forks(world: &dyn World) {
    let store = world.open();
    let link = |sequence: u64, drill: &str| ChainLink {
        sequence,
        run: started(drill, 1, 1).run,
        digest: Sha256Digest::of(drill.as_bytes()),
        path: format!("/evidence/{drill}.dsse.json"),
    };
    assert_eq!(store.chain_head().await.unwrap(), None);
    assert!(store.extend_chain(&link(2, "a")).await.is_err());
    store.extend_chain(&link(1, "a")).await.unwrap();
    let fork = world.open().extend_chain(&link(1, "b")).await.unwrap_err();
    assert!(fork.message.contains("its next link is 2 and not 1"), "{fork}");
    let twice = store.extend_chain(&link(2, "a")).await.unwrap_err();
    assert!(twice.message.contains("already"), "{twice}");
    store.extend_chain(&link(2, "b")).await.unwrap();
    assert_eq!(world.open().chain_head().await.unwrap(), Some(link(2, "b")));
    assert_eq!(store.chain().await.unwrap(), [link(1, "a"), link(2, "b")]);
}

async fn alerts_wait_in_order(world: &dyn World) {
    let store = world.open();
    let alert = |kind: &str| Alert {
        kind: kind.to_owned(),
        subject: "orders".to_owned(),
        drill: Some("orders".parse().unwrap()),
        run: Some(started("orders", 1, 1).run),
        at: started("orders", 1, 1).at,
        message: "refused".to_owned(),
        advice: Some("look".to_owned()),
        details: serde_json::Value::Null,
    };
    store.raise(&alert("artifact-refused")).await.unwrap();
    store.raise(&alert("again")).await.unwrap();
    assert_eq!(world.open().open_alerts().await.unwrap(), [alert("artifact-refused"), alert("again")]);
}

async fn an_event_of_absurd_size_is_refused(world: &dyn World) {
    let (store, run) = (world.open(), started("orders", 1, 10));
    store.claim(&run).await.unwrap();
    let lines = vec!["x".repeat(super::fold::MAX_EVENT)];
    let stop = store.append(&run.run, &Event::Connections { lines }).await.unwrap_err();
    assert!(stop.message.contains("bytes"), "{stop}");
    store.append(&run.run, &Event::Connections { lines: vec!["x".to_owned()] }).await.unwrap();
    assert_eq!(store.events(&run.run).await.unwrap().len(), 2);
}

async fn what_owes_something_and_the_last_success_are_not_forgotten(world: &dyn World) {
    let store = world.open();
    let runs: Vec<_> = (1..=4).map(|minute| started("orders", minute, 10)).collect();
    let owing = &runs[0];
    store.claim(owing).await.unwrap();
    store.append(&owing.run, &Event::Intended { resource: Resource::Storage }).await.unwrap();
    for event in [
        Event::ReleaseFailed { resource: Resource::Storage, stop: Stop::internal("busy") },
        concluded(),
        evidence_written(owing),
        Event::Ended { leftovers: Leftovers::Some },
    ] {
        store.append(&owing.run, &event).await.unwrap();
    }
    for run in &runs[1..3] {
        store.claim(run).await.unwrap();
        pass(store.as_ref(), run).await;
    }
    store.claim(&runs[3]).await.unwrap();
    let pruned = store.prune(Some("2100-01-01T00:00:00Z".parse().unwrap()), Some(0)).await.unwrap();
    assert_eq!((pruned.runs, pruned.more), (1, false));
    let left: Vec<_> = world.open().runs(None, 10).await.unwrap().into_iter().map(|run| run.run).collect();
    assert_eq!(left, [runs[3].run.clone(), runs[2].run.clone(), runs[0].run.clone()]);
    assert!(store.events(&runs[1].run).await.unwrap().is_empty());
    assert_eq!(store.prune(None, None).await.unwrap().runs, 0, "without a bound nothing is forgotten");
}

async fn the_bounds_of_age_and_number_hold_each_on_its_own(world: &dyn World) {
    let store = world.open();
    let runs: Vec<_> = (1..=6).map(|minute| started("orders", minute, 10)).collect();
    for run in &runs {
        store.claim(run).await.unwrap();
        pass(store.as_ref(), run).await;
    }
    let test = Trigger::SelfTest { damage: Damage::Byte, scheduled_for: None };
    let test = RunStarted { trigger: test, ..started("orders", 7, 10) };
    store.claim(&test).await.unwrap();
    pass(store.as_ref(), &test).await;
    let left = async || -> Vec<_> {
        store.runs(None, 10).await.unwrap().into_iter().map(|run| run.started.strftime("%M").to_string()).collect()
    };
    let found: Vec<_> = store.prunable(Some(runs[2].at), None).await.unwrap().into_iter().map(|run| run.run).collect();
    assert_eq!(found, [runs[0].run.clone(), runs[1].run.clone()]);
    assert_eq!(store.prune(Some(runs[2].at), None).await.unwrap().runs, 2);
    assert_eq!(left().await, ["07", "06", "05", "04", "03"]);
    assert_eq!(store.prune(None, Some(2)).await.unwrap().runs, 2);
    assert_eq!(left().await, ["07", "06", "05"], "self-tests are counted on their own");
    assert_eq!(store.prune(None, Some(0)).await.unwrap().runs, 2);
    assert_eq!(left().await, ["06"]);
}

async fn evidence_that_was_deleted_stays_a_stretch_of_the_chain(world: &dyn World) {
    let store = world.open();
    let runs: Vec<_> = (1..=5).map(|minute| started("orders", minute, 10)).collect();
    let digest = |sequence: u64| Sha256Digest::of(&sequence.to_be_bytes());
    for (run, sequence) in runs.iter().zip(1..) {
        store.claim(run).await.unwrap();
        let path = format!("/evidence/{}", run.run);
        store
            .extend_chain(&ChainLink { sequence, run: run.run.clone(), digest: digest(sequence), path })
            .await
            .unwrap();
        let verdict = match concluded() {
            Event::Concluded(summary) => Summary { verdict: Verdict::Failed, reason: Reason::CheckFailed, ..summary },
            other => panic!("{other:?}"),
        };
        let written = Event::EvidenceWritten { path: "/evidence".to_owned(), digest: digest(sequence), sequence };
        for event in [Event::Concluded(verdict), written, Event::Ended { leftovers: Leftovers::None }] {
            store.append(&run.run, &event).await.unwrap();
        }
    }
    let third = store.chained(&runs[2].run).await.unwrap().unwrap();
    assert_eq!((third.link.sequence, third.previous), (3, Some(digest(2))));
    // The head stays, although it is beyond both bounds.
    assert_eq!(store.prune(Some(runs[2].at), None).await.unwrap().runs, 2);
    let links = world.open().pruned_links().await.unwrap();
    let places: Vec<_> = links.iter().map(|link| (link.link.sequence, link.previous)).collect();
    assert_eq!(places, [(1, None), (2, Some(digest(1)))]);
    assert_eq!(store.chain().await.unwrap().len(), 3, "what is pruned is no link any more");
    store.evidence_deleted(&links).await.unwrap();
    store.evidence_deleted(&links).await.unwrap();
    let stretch = |first, last| Stretch { first, last, digest: digest(last), previous: None };
    assert_eq!(world.open().deleted_evidence(1..=100).await.unwrap(), [stretch(1, 2)]);
    assert_eq!(world.open().deleted_evidence(2..=100).await.unwrap(), []);
    assert!(store.pruned_links().await.unwrap().is_empty());
    let third = store.chained(&runs[2].run).await.unwrap().unwrap();
    assert_eq!(third.previous, Some(digest(2)), "the end of the stretch takes the place of the link");
    assert_eq!(store.chained(&runs[0].run).await.unwrap(), None);
    assert_eq!(store.prune(None, Some(0)).await.unwrap().runs, 2);
    let links = store.pruned_links().await.unwrap();
    store.evidence_deleted(&links).await.unwrap();
    assert_eq!(store.deleted_evidence(1..=100).await.unwrap(), [stretch(1, 4)]);
    assert_eq!(store.chain_head().await.unwrap().unwrap().sequence, 5);
    let next = ChainLink { sequence: 6, run: started("other", 1, 1).run, digest: digest(6), path: "/e".to_owned() };
    store.extend_chain(&next).await.unwrap();
}
