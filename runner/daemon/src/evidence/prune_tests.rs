//! A chain of which parts were deleted on purpose is whole, and one with any other gap is not.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::sync::Arc;

use drill::evidence::{Stretch, Tombstone, tombstone};
use drill::id::Sha256Digest;
use drill::ledger::{Event, RunStarted};
use drill::port::Store;
use drill::stop::Stop;
use drill::verdict::{Leftovers, Reason};
use drivers::store::fake::{Cut, MemoryStore};
use jiff::Timestamp;

use super::prune::{Forgotten, prune};
use super::tests::{Place, seal};
use super::*;

/// Runs of these drills, ended and with evidence, a minute apart.
async fn ended(place: &Place, store: &dyn Store, drills: &[&str]) -> Vec<Written> {
    let mut all = Vec::new();
    for (minute, drill) in (0_i64..).zip(drills) {
        let run = run(place, drill, minute);
        store.claim(&run).await.unwrap();
        let summary = crate::sample::summary(Reason::CheckFailed, "a row is missing");
        store.append(&run.run, &Event::Concluded(summary)).await.unwrap();
        let written = place.write(store, &run).await.unwrap();
        for event in [written.event(), Event::Ended { leftovers: Leftovers::None }] {
            store.append(&run.run, &event).await.unwrap();
        }
        all.push(written);
    }
    all
}

fn run(place: &Place, drill: &str, minute: i64) -> RunStarted {
    let run = place.run(drill);
    RunStarted { at: run.at + jiff::SignedDuration::from_mins(minute), ..run }
}

async fn forget(place: &Place, store: &dyn Store, keep: u32) -> Result<Forgotten, Stop> {
    prune(store, place.directory.path(), Some(&place.key), None, Some(keep)).await
}

async fn forget_before(place: &Place, store: &dyn Store, minute: i64) -> Result<Forgotten, Stop> {
    let before: Timestamp = place.run("a").at + jiff::SignedDuration::from_mins(minute);
    prune(store, place.directory.path(), Some(&place.key), Some(before), None).await
}

#[tokio::test]
async fn what_was_forgotten_is_accounted_for_by_a_signed_tombstone() {
    let (place, store) = (Place::new(), MemoryStore::new());
    let written = ended(&place, &store, &["a", "b", "c", "d", "e"]).await;
    let first = forget_before(&place, &store, 2).await.unwrap();
    assert_eq!((first.runs, first.evidence, first.more), (2, 2, false));
    let line = |written: &Written| place.verify(written).chain.line();
    assert_eq!(line(&written[4]), "3 of 5 present, 2 deleted on purpose, as a signed tombstone says");
    assert!(place.verify(&written[4]).chain.is_whole());
    assert_eq!(place.files().len(), 4, "three and a tombstone: {:?}", place.files());
    // Tombstones do not add up: the next one says what the first said, too.
    assert_eq!(forget(&place, &store, 0).await.unwrap().evidence, 2);
    assert_eq!(line(&written[4]), "1 of 5 present, 4 deleted on purpose, as a signed tombstone says");
    assert_eq!(place.files().len(), 2, "{:?}", place.files());
    assert_eq!(forget(&place, &store, 0).await.unwrap(), Forgotten::default(), "the last link stays");
    let tombstone = place.evidence().join(place.files().into_iter().find(|name| name.starts_with("tomb")).unwrap());
    assert!(verify(&tombstone, &place.trusted()).unwrap_err().message.contains("tombstone"));
}

#[tokio::test]
async fn a_gap_that_no_tombstone_covers_is_no_whole_chain() {
    let (place, store) = (Place::new(), MemoryStore::new());
    let written = ended(&place, &store, &["a", "b", "c", "d", "e", "f"]).await;
    forget_before(&place, &store, 2).await.unwrap();
    // Beside what was deleted on purpose.
    std::fs::remove_file(&written[2].path).unwrap();
    let chain = place.verify(&written[5]).chain;
    assert_eq!((chain.missing.clone(), chain.deleted, chain.present), (vec![3..=3], 2, 3), "{chain:?}");
    std::fs::remove_file(&written[4].path).unwrap();
    let chain = place.verify(&written[5]).chain;
    assert_eq!((chain.missing.clone(), chain.deleted, chain.present), (vec![5..=5, 3..=3], 2, 2), "{chain:?}");
    let tombstone = place.files().into_iter().find(|name| name.starts_with("tomb")).unwrap();
    std::fs::remove_file(place.evidence().join(tombstone)).unwrap();
    let chain = place.verify(&written[5]).chain;
    assert_eq!((chain.missing, chain.deleted), (vec![5..=5, 1..=3], 0));
}

#[tokio::test]
async fn a_tombstone_is_believed_by_its_digests_and_its_signature_alone() {
    let (place, store) = (Place::new(), MemoryStore::new());
    let written = ended(&place, &store, &["a", "b", "c"]).await;
    std::fs::remove_file(&written[1].path).unwrap();
    let path = place.evidence().join("tombstone.dsse.json");
    let id = store.id().await.unwrap();
    let write = |by: &Place, store_id: &str, digest, previous| {
        let said = Tombstone {
            store_id: store_id.to_owned(),
            deleted: vec![Stretch { first: 2, last: 2, digest, previous }],
            made: Timestamp::UNIX_EPOCH,
            muster_version: "0.1.0".to_owned(),
        };
        seal(by, &serde_json::to_vec(&tombstone(said)).unwrap(), &path);
        place.verify(&written[2]).chain
    };
    let (digest, previous) = (written[1].digest, Some(written[0].digest));
    assert!(write(&place, &id, digest, previous).is_whole());
    assert!(!write(&Place::new(), &id, digest, previous).is_whole(), "a stranger signed it");
    assert!(!write(&place, "another", digest, previous).is_whole(), "it is of another store");
    let chain = write(&place, &id, Sha256Digest::of(b"another"), previous);
    assert!(chain.wrong[0].contains("than the one that a tombstone says"), "{chain:?}");
    let chain = write(&place, &id, digest, Some(Sha256Digest::of(b"another")));
    assert!(!chain.is_whole(), "{chain:?}");
}

/// A crash on both sides of each write, with the files of the portion deleted in part or not, and another run in between.
#[tokio::test]
async fn a_crash_while_forgetting_never_leaves_a_gap() {
    for nth in 1..=2 {
        for cut in [Cut::Before, Cut::After] {
            for lost in 0..=2 {
                let (place, store) = (Place::new(), MemoryStore::new());
                let written = ended(&place, &store, &["a", "b", "c", "d"]).await;
                store.crash_at(store.writes() + nth, cut);
                tokio::select! {
                    forgotten = forget_before(&place, &store, 2) => panic!("{forgotten:?}"),
                    () = store.crashed() => {}
                }
                let next = Arc::new(store.reopen());
                let name = format!("{cut:?} {nth}, {lost} lost");
                assert!(place.verify(&written[3]).chain.is_whole(), "{name}: {:?}", place.files());
                if nth == 2 {
                    // As if it had died between two files: the oldest are deleted last.
                    for restored in written.iter().take(lost) {
                        std::fs::write(&restored.path, b"put back").unwrap();
                        std::fs::remove_file(&restored.path).unwrap();
                    }
                }
                forget_before(&place, next.as_ref(), 2).await.unwrap();
                assert!(next.pruned_links().await.unwrap().is_empty(), "{name}");
                assert_eq!(next.runs(None, 10).await.unwrap().len(), 2, "{name}");
                let chain = place.verify(&written[3]).chain;
                assert_eq!((chain.present, chain.deleted, chain.is_whole()), (2, 2, true), "{name}: {chain:?}");
                assert_eq!(place.files().len(), 3, "{name}: {:?}", place.files());
                let last = ended(&place, next.as_ref(), &["z"]).await;
                assert!(place.verify(&last[0]).chain.is_whole(), "{name}");
            }
        }
    }
}

#[tokio::test]
async fn files_that_are_still_there_after_a_crash_are_deleted_later() {
    let (place, store) = (Place::new(), MemoryStore::new());
    let written = ended(&place, &store, &["a", "b", "c"]).await;
    let kept: Vec<_> = written.iter().map(|written| std::fs::read(&written.path).unwrap()).collect();
    store.crash_at(store.writes() + 2, Cut::Before);
    tokio::select! {
        forgotten = forget(&place, &store, 0) => panic!("{forgotten:?}"),
        () = store.crashed() => {}
    }
    // It died after the tombstone and the newer of two files.
    std::fs::write(&written[0].path, &kept[0]).unwrap();
    assert!(place.verify(&written[2]).chain.is_whole());
    let next = store.reopen();
    assert_eq!(forget(&place, &next, 0).await.unwrap().evidence, 1);
    assert_eq!(place.files().len(), 2);
    assert!(place.verify(&written[2]).chain.is_whole());
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_deletes_nothing() {
    let (place, store) = (Place::new(), MemoryStore::new());
    let written = ended(&place, &store, &["a", "b"]).await;
    // A directory in the place of the tombstone cannot be replaced, whoever tries.
    let id = store.id().await.unwrap();
    std::fs::create_dir(place.evidence().join(format!("tombstone-{id}-1.dsse.json"))).unwrap();
    let stop = forget(&place, &store, 0).await.unwrap_err();
    assert!(stop.message.contains("could not be written") && stop.advice.is_some(), "{stop}");
    assert!(written[0].path.exists());
    std::fs::remove_dir(place.evidence().join(format!("tombstone-{id}-1.dsse.json"))).unwrap();
    assert_eq!(forget(&place, &store, 0).await.unwrap().evidence, 1);
    assert!(place.verify(&written[1]).chain.is_whole());
}

#[tokio::test]
async fn a_file_that_muster_did_not_write_there_stays() {
    let (place, store) = (Place::new(), MemoryStore::new());
    let written = ended(&place, &store, &["a", "b"]).await;
    std::fs::write(&written[0].path, b"somebody's").unwrap();
    let forgotten = forget(&place, &store, 0).await.unwrap();
    assert_eq!((forgotten.evidence, forgotten.strange), (0, vec![written[0].path.clone()]));
    assert_eq!(std::fs::read(&written[0].path).unwrap(), b"somebody's");
}

#[tokio::test]
async fn a_configured_key_signs_tombstones_and_says_so_in_evidence() {
    let (place, store) = (Place::new(), MemoryStore::new());
    let run = place.run("a");
    crate::sample::conclude(&store, &run).await;
    let other = Place::new();
    let written = write(&store, &run.run, place.directory.path(), Some(&other.key)).await.unwrap();
    assert!(!written.key_made);
    let verified = verify(&written.path, &other.trusted()).unwrap();
    assert_eq!(verified.statement.predicate.key, drill::evidence::KeyOrigin::Configured);
}
