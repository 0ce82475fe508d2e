#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::path::{Path, PathBuf};
use std::sync::Arc;

use drill::evidence::{Envelope, KeyOrigin, MAX_SIZE};
use drill::id::Sha256Digest;
use drill::ledger::{Event, RunStarted, Stamped};
use drill::port::Store;
use drill::stop::Stop;
use drill::verdict::{Leftovers, Reason};
use drivers::key::{EvidenceKey, PublicKey};
use drivers::store::fake::{Cut, MemoryStore};

use super::write::write_with;
use super::*;
use crate::sample::{conclude, started};

pub(super) struct Place {
    pub(super) directory: tempfile::TempDir,
    pub(super) key: EvidenceKey,
}

impl Place {
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (key, made) = EvidenceKey::load_or_make(&directory.path().join("evidence.key")).unwrap();
        assert!(made);
        Self { directory, key }
    }
    pub(super) fn evidence(&self) -> PathBuf {
        self.directory.path().join("evidence")
    }
    pub(super) fn run(&self, drill: &str) -> RunStarted {
        started(drill, &self.evidence())
    }
    pub(super) fn trusted(&self) -> [PublicKey; 1] {
        [self.key.public()]
    }
    pub(super) async fn write(&self, store: &dyn Store, run: &RunStarted) -> Result<Written, Stop> {
        write_with(store, &run.run, &self.key, KeyOrigin::SelfMade).await
    }
    /// Concludes runs of these drills and writes their evidence.
    pub(super) async fn written(&self, store: &dyn Store, drills: &[&str]) -> Vec<Written> {
        let mut written = Vec::new();
        for drill in drills {
            let run = self.run(drill);
            conclude(store, &run).await;
            written.push(self.write(store, &run).await.unwrap());
        }
        written
    }
    pub(super) fn verify(&self, written: &Written) -> Verified {
        verify(&written.path, &self.trusted()).unwrap()
    }
    /// Names of all files, hidden ones too.
    pub(super) fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.evidence()).into_iter().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

#[tokio::test]
async fn what_is_written_verifies_and_is_for_others_to_read() {
    use std::os::unix::fs::PermissionsExt;
    let (place, store) = (Place::new(), MemoryStore::new());
    let written = place.written(&store, &["a", "b", "c"]).await;
    let verified = place.verify(&written[2]);
    assert_eq!(verified.chain.line(), "3 of 3 present");
    assert!(verified.chain.is_whole());
    assert_eq!(verified.signed_by, place.key.key_id());
    assert_eq!(verified.statement.predicate.chain.previous, Some(written[1].digest));
    assert_eq!(verified.statement.predicate.chain.store_id, store.id().await.unwrap());
    assert_eq!(std::fs::metadata(&written[0].path).unwrap().permissions().mode() & 0o777, 0o644);
    assert_eq!(place.files().len(), 3);
    assert_eq!(place.verify(&written[0]).chain.line(), "1 of 1 present");
}

#[tokio::test]
async fn the_key_is_made_once_and_its_public_half_verifies() {
    let (directory, store) = (tempfile::tempdir().unwrap(), MemoryStore::new());
    let mut made = Vec::new();
    for drill in ["a", "b"] {
        let run = started(drill, &directory.path().join("evidence"));
        conclude(&store, &run).await;
        let written = write(&store, &run.run, directory.path(), None).await.unwrap();
        let trusted = PublicKey::load(&directory.path().join(PUBLIC_KEY_NAME)).unwrap();
        assert_eq!(verify(&written.path, &[trusted]).unwrap().statement.predicate.key, KeyOrigin::SelfMade);
        made.push(written.key_made);
    }
    assert_eq!(made, [true, false]);
}

/// A crash at each step, then recovery twice, alone and after another run took the place in the chain.
#[tokio::test]
async fn a_crash_neither_forks_the_chain_nor_loses_a_link() {
    for overtaken in [false, true] {
        for cut in [Cut::Before, Cut::After] {
            let (place, store) = (Place::new(), MemoryStore::new());
            place.written(&store, &["first"]).await;
            let run = place.run("orders");
            conclude(&store, &run).await;
            store.crash_at(store.writes() + 1, cut);
            tokio::select! {
                written = place.write(&store, &run) => panic!("{written:?}"),
                () = store.crashed() => {}
            }
            let next = store.reopen();
            if overtaken {
                place.written(&next, &["other"]).await;
            }
            let written = place.write(&next, &run).await.unwrap();
            assert_eq!(place.write(&next, &run).await.unwrap(), written);
            let last = place.written(&next, &["last"]).await;
            let verified = place.verify(&last[0]);
            let count = if overtaken { 4 } else { 3 };
            assert_eq!(verified.chain.line(), format!("{count} of {count} present"), "{cut:?}");
            assert_eq!(verified.chain.wrong, [""; 0]);
            assert_eq!(place.files().len(), count, "nothing hidden is left: {:?}", place.files());
            let expected = if cut == Cut::Before && overtaken { 3 } else { 2 };
            assert_eq!(written.sequence, expected);
        }
    }
}

#[tokio::test]
async fn a_crash_before_the_rename_or_a_lost_file_gives_the_same_bytes() {
    let (place, store) = (Place::new(), MemoryStore::new());
    let written = place.written(&store, &["a", "b"]).await;
    let bytes = std::fs::read(&written[0].path).unwrap();
    for keep_pending in [true, false] {
        let run = place.run("a");
        let pending = files::pending(&written[0].path, &run.run, &written[0].digest);
        std::fs::rename(&written[0].path, &pending).unwrap();
        if !keep_pending {
            std::fs::remove_file(&pending).unwrap();
        }
        assert_eq!(place.write(&store, &run).await.unwrap(), written[0]);
        assert_eq!(std::fs::read(&written[0].path).unwrap(), bytes);
        assert_eq!(place.files().len(), 2);
    }
}

#[tokio::test]
async fn what_came_after_the_conclusion_does_not_change_evidence() {
    let (place, store) = (Place::new(), MemoryStore::new());
    let run = place.run("a");
    conclude(&store, &run).await;
    let written = place.write(&store, &run).await.unwrap();
    for event in [written.event(), Event::Ended { leftovers: Leftovers::None }] {
        store.append(&run.run, &event).await.unwrap();
    }
    std::fs::remove_file(&written.path).unwrap();
    assert_eq!(place.write(&store, &run).await.unwrap(), written);
    assert_eq!(place.verify(&written).chain.line(), "1 of 1 present");
}

#[tokio::test]
async fn evidence_that_was_changed_after_it_was_chained_is_not_replaced_in_silence() {
    let (place, store) = (Place::new(), MemoryStore::new());
    let written = place.written(&store, &["a"]).await;
    std::fs::write(&written[0].path, b"{}").unwrap();
    let stop = place.write(&store, &place.run("a")).await.unwrap_err();
    assert!(stop.message.contains("is there already"), "{stop}");
    assert_eq!(std::fs::read(&written[0].path).unwrap(), b"{}");
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_stops_before_the_chain_grows() {
    let (place, store) = (Place::new(), MemoryStore::new());
    std::fs::write(place.evidence(), b"a file where a directory belongs").unwrap();
    let run = place.run("a");
    conclude(&store, &run).await;
    let stop = place.write(&store, &run).await.unwrap_err();
    assert!(stop.message.contains("could not be prepared") && stop.advice.is_some(), "{stop:?}");
    assert_eq!(store.chain_head().await.unwrap(), None);
    std::fs::remove_file(place.evidence()).unwrap();
    place.write(&store, &run).await.unwrap();
}

#[tokio::test]
async fn a_store_that_refuses_the_link_leaves_no_evidence() {
    let (place, store) = (Place::new(), MemoryStore::new());
    let run = place.run("a");
    conclude(&store, &run).await;
    store.fail_at(store.writes() + 1, Stop::internal("its file system is full"));
    assert!(place.write(&store, &run).await.unwrap_err().message.contains("full"));
    assert!(place.files().iter().all(|name| name.starts_with('.')), "{:?}", place.files());
    place.write(&store, &run).await.unwrap();
    assert_eq!(place.files().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_runs_that_end_together_make_one_chain() {
    let place = Arc::new(Place::new());
    let path = place.directory.path().join("muster.db");
    let open = || drivers::store::sqlite::SqliteStore::open(&path, drivers::store::sqlite::Mode::ReadWrite).unwrap();
    let tasks: Vec<_> = (0..8)
        .map(|n| {
            let (place, store) = (Arc::clone(&place), open());
            tokio::spawn(async move {
                let run = place.run(&format!("drill-{n}"));
                conclude(&store, &run).await;
                place.write(&store, &run).await.unwrap()
            })
        })
        .collect();
    let mut last = None;
    for task in tasks {
        let written = task.await.unwrap();
        if written.sequence == 8 {
            last = Some(written);
        }
    }
    assert_eq!(place.verify(&last.unwrap()).chain.line(), "8 of 8 present");
    assert_eq!(place.files().len(), 8);
}

#[tokio::test]
async fn a_changed_byte_and_a_strange_key_are_refused() {
    let (place, store) = (Place::new(), MemoryStore::new());
    let written = place.written(&store, &["a"]).await;
    let stranger = Place::new();
    let stop = verify(&written[0].path, &stranger.trusted()).unwrap_err();
    assert_eq!(stop.reason, Reason::ArtifactRefused);
    assert!(stop.message.contains(&place.key.key_id()), "{stop}");
    let bytes = std::fs::read(&written[0].path).unwrap();
    for position in (0..bytes.len() - 1).step_by(37) {
        let mut changed = bytes.clone();
        changed[position] ^= 1;
        std::fs::write(&written[0].path, &changed).unwrap();
        // The hint of the key is in nobody's signature; all else is.
        if let Ok(verified) = verify(&written[0].path, &place.trusted()) {
            let read = Envelope::parse(&changed).unwrap();
            assert_ne!(read.signatures[0].keyid, place.key.key_id(), "byte {position}");
            assert_ne!(verified.digest, written[0].digest);
        }
    }
}

#[tokio::test]
async fn gaps_are_counted_and_tampering_is_named() {
    let (place, store) = (Place::new(), MemoryStore::new());
    let written = place.written(&store, &["a", "b", "c", "d", "e", "f", "g"]).await;
    for gone in [1, 2, 4] {
        std::fs::remove_file(&written[gone].path).unwrap();
    }
    let chain = place.verify(&written[6]).chain;
    assert_eq!(chain.line(), "4 of 7 present, missing 5, 2 to 3");
    assert_eq!(chain.wrong, [""; 0]);
    let mut bytes = std::fs::read(&written[3].path).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&written[3].path, &bytes).unwrap();
    let chain = place.verify(&written[6]).chain;
    assert_eq!(chain.line(), "3 of 7 present, missing 2 to 5");
    let [wrong] = chain.wrong.try_into().unwrap();
    assert!(wrong.contains(written[3].path.to_str().unwrap()) && wrong.contains("does not count"), "{wrong}");
}

/// What somebody with the key could do, and no more.
#[tokio::test]
async fn a_fork_is_named() {
    let (place, store) = (Place::new(), MemoryStore::new());
    let written = place.written(&store, &["a", "b", "c"]).await;
    let mut statement = place.verify(&written[1]).statement;
    statement.predicate.result.message = "something else".to_owned();
    seal(&place, &serde_json::to_vec(&statement).unwrap(), &place.evidence().join("forged.dsse.json"));
    let chain = place.verify(&written[2]).chain;
    assert_eq!(chain.line(), "3 of 3 present");
    let [wrong] = chain.wrong.try_into().unwrap();
    assert!(wrong.contains("forked") && wrong.contains("forged.dsse.json"), "{wrong}");
    std::fs::remove_file(&written[1].path).unwrap();
    let chain = place.verify(&written[2]).chain;
    assert_eq!(chain.line(), "2 of 3 present, missing 2");
    assert!(chain.wrong[0].contains("forged.dsse.json is not the evidence 2 that"), "{:?}", chain.wrong);
}

#[tokio::test]
async fn evidence_of_another_store_beside_it_is_no_trouble() {
    let (place, store) = (Place::new(), MemoryStore::new());
    let written = place.written(&store, &["a", "b"]).await;
    let stranger = Place::new();
    let strange = stranger.written(&MemoryStore::new(), &["z"]).await;
    std::fs::copy(&strange[0].path, place.evidence().join("z.dsse.json")).unwrap();
    std::fs::copy(&written[0].path, place.evidence().join("copy.dsse.json")).unwrap();
    assert!(place.verify(&written[1]).chain.is_whole());
}

#[test]
fn what_is_no_evidence_is_refused_without_waiting() {
    let place = Place::new();
    let path = place.directory.path().join("x.dsse.json");
    let refused = |path: &Path| verify(path, &place.trusted()).unwrap_err().message;
    assert!(refused(&path).contains("cannot be read"));
    for (bytes, said) in [(&b"{}"[..], "DSSE"), (b"", "DSSE"), (&[0xff; 100], "DSSE")] {
        std::fs::write(&path, bytes).unwrap();
        assert!(refused(&path).contains(said), "{}", refused(&path));
    }
    seal(&place, b"{\"_type\":\"x\",\"predicateType\":\"y\"}", &path);
    assert!(refused(&path).contains("instead of evidence"));
    std::fs::File::create(&path).unwrap().set_len(MAX_SIZE + 1).unwrap();
    assert!(refused(&path).contains("larger"));
    std::fs::remove_file(&path).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR).unwrap();
    assert!(refused(&path).contains("regular"));
}

#[test]
fn the_sample_is_a_legal_ledger() {
    let run = started("orders", Path::new("/evidence"));
    for events in [crate::sample::failed(), crate::sample::passed()] {
        let stamped: Vec<Stamped> = crate::sample::stamp(&run, events);
        drill::ledger::State::replay(&stamped).unwrap();
    }
    assert_eq!(Sha256Digest::of(b"").hex().len(), 64);
}

pub(super) fn seal(place: &Place, payload: &[u8], path: &Path) {
    let envelope = Envelope::seal(payload, &place.key.key_id(), |message| place.key.sign_raw(message));
    std::fs::write(path, envelope.to_bytes()).unwrap();
}
