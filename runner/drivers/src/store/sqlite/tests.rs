#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod counts;

use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Instant;

use drill::port::Outbox as _;
use drill::verdict::{Leftovers, Reason};

use super::*;
use crate::store::contract::{concluded, started};

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
    fn path(&self) -> PathBuf {
        self.0.path().join(FILE_NAME)
    }
    fn open(&self) -> SqliteStore {
        SqliteStore::open(&self.path(), Mode::ReadWrite).unwrap()
    }
    fn refused(&self, mode: Mode) -> Stop {
        let Err(stop) = SqliteStore::open(&self.path(), mode) else { panic!("it was opened") };
        assert_eq!(stop.reason, Reason::Internal);
        assert!(stop.message.contains("muster.db") && stop.advice.is_some(), "{stop:?}");
        stop
    }
}

#[tokio::test]
async fn the_file_and_its_journal_are_the_owners_alone() {
    let place = Place::new();
    let store = place.open();
    store.claim(&started("orders", 1, 10)).await.unwrap();
    let mut seen = 0;
    for entry in std::fs::read_dir(place.0.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
        seen += 1;
    }
    assert_eq!(seen, 3, "database, log and its index");
    let inner = store.inner.lock().unwrap();
    let pragma = |name: &str| inner.connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!((pragma("synchronous"), pragma("foreign_keys")), (2, 1));
}

#[tokio::test]
async fn others_look_while_one_writes() {
    let place = Place::new();
    let writer = place.open();
    writer.claim(&started("orders", 1, 10)).await.unwrap();
    let looker = SqliteStore::open(&place.path(), Mode::ReadOnly).unwrap();
    writer.inner.lock().unwrap().connection.execute_batch("BEGIN IMMEDIATE; UPDATE runs SET owner_pid = 11;").unwrap();
    let begun = Instant::now();
    assert_eq!(looker.runs(None, 10).await.unwrap().len(), 1);
    assert!(begun.elapsed() < BUSY / 2, "a reader waits for no writer");
    writer.inner.lock().unwrap().connection.execute_batch("COMMIT").unwrap();
    let stop = looker.claim(&started("stock", 1, 10)).await.unwrap_err();
    assert!(stop.message.contains("may only be read"), "{stop}");
    drop(writer);
    assert_eq!(SqliteStore::open(&place.path(), Mode::ReadOnly).unwrap().runs(None, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_lock_that_stays_is_an_answer_after_a_bounded_wait() {
    let place = Place::new();
    let holder = place.open();
    let store = SqliteStore::open_waiting(&place.path(), Mode::ReadWrite, Duration::from_millis(50)).unwrap();
    holder.inner.lock().unwrap().connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    let stop = store.claim(&started("orders", 1, 10)).await.unwrap_err();
    assert!(stop.message.contains("locked"), "{stop}");
    holder.inner.lock().unwrap().connection.execute_batch("ROLLBACK").unwrap();
    store.claim(&started("orders", 1, 10)).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_is_said_and_nothing_of_the_event_stays() {
    let place = Place::new();
    let (store, run) = (place.open(), started("orders", 1, 10));
    store.claim(&run).await.unwrap();
    store.inner.lock().unwrap().connection.pragma_update(None, "max_page_count", 1).unwrap();
    let big = Event::Connections { lines: vec!["x".repeat(1 << 20)] };
    let stop = store.append(&run.run, &big).await.unwrap_err();
    assert!(stop.message.contains("full") && stop.advice.unwrap().contains("space"), "{}", stop.message);
    store.inner.lock().unwrap().connection.pragma_update(None, "max_page_count", 1_000_000).unwrap();
    assert_eq!(store.append(&run.run, &concluded()).await.unwrap().sequence, 2);
}

#[tokio::test]
async fn a_full_disk_is_seen_by_who_asks_whether_it_takes_anything() {
    let place = Place::new();
    let store = place.open();
    let limit = |pages: i64| {
        store.inner.lock().unwrap().connection.pragma_update(None, "max_page_count", pages).unwrap();
    };
    limit(1);
    let stop = store.try_write().await.unwrap_err();
    assert!(stop.message.contains("full") && stop.advice.unwrap().contains("space"), "{}", stop.message);
    assert!(!store.resolve("no-such", "alert", Timestamp::now()).await.unwrap(), "the right to write says nothing");
    limit(1_000_000);
    store.try_write().await.unwrap();
    store.try_write().await.unwrap();
}

#[tokio::test]
async fn nothing_is_kept_of_a_run_that_is_over() {
    let place = Place::new();
    let store = place.open();
    let run = started("orders", 1, 10);
    store.claim(&run).await.unwrap();
    store.append(&run.run, &concluded()).await.unwrap();
    assert_eq!(store.inner.lock().unwrap().owned.len(), 1);
    store.append(&run.run, &Event::Ended { leftovers: Leftovers::None }).await.unwrap();
    let inner = store.inner.lock().unwrap();
    assert!(inner.owned.is_empty() && inner.folded.is_empty(), "a daemon would keep every run of its life");
}

#[test]
fn a_damaged_file_is_refused_and_kept() {
    let place = Place::new();
    drop(place.open());
    let mut bytes = std::fs::read(place.path()).unwrap();
    bytes[..100].fill(b'x');
    std::fs::write(place.path(), &bytes).unwrap();
    for mode in [Mode::ReadWrite, Mode::ReadOnly] {
        assert!(place.refused(mode).message.contains("damaged"));
    }
    assert_eq!(std::fs::read(place.path()).unwrap(), bytes);
}

#[tokio::test]
async fn damage_behind_the_first_page_is_named_where_it_is_met() {
    let place = Place::new();
    let (store, run) = (place.open(), started("orders", 1, 10));
    store.claim(&run).await.unwrap();
    for _ in 0..50 {
        let event = Event::Connections { lines: vec!["x".repeat(1 << 12)] };
        store.append(&run.run, &event).await.unwrap();
    }
    drop(store);
    let mut bytes = std::fs::read(place.path()).unwrap();
    bytes[4096 * 2..].fill(0xff);
    std::fs::write(place.path(), &bytes).unwrap();
    let opened = SqliteStore::open(&place.path(), Mode::ReadOnly);
    let stop = match opened {
        Err(stop) => stop,
        Ok(store) => store.events(&run.run).await.unwrap_err(),
    };
    assert!(stop.message.contains("damaged") && stop.advice.is_some(), "{stop:?}");
}

#[test]
fn a_newer_schema_is_left_alone() {
    let place = Place::new();
    let store = place.open();
    let newer = "INSERT INTO refinery_schema_history VALUES (99, 'later', '2030-01-01T00:00:00Z', '1')";
    store.inner.lock().unwrap().connection.execute(newer, []).unwrap();
    drop(store);
    for mode in [Mode::ReadWrite, Mode::ReadOnly] {
        let stop = place.refused(mode);
        assert!(stop.message.contains("newer muster: its schema is 99, this one knows 5"), "{stop}");
    }
}

#[test]
fn a_link_or_a_file_that_others_write_is_refused() {
    let place = Place::new();
    let elsewhere = place.0.path().join("elsewhere");
    std::fs::write(&elsewhere, "").unwrap();
    symlink(&elsewhere, place.path()).unwrap();
    assert!(place.refused(Mode::ReadWrite).message.contains("not a regular file"));
    std::fs::remove_file(place.path()).unwrap();
    std::fs::write(place.path(), "").unwrap();
    std::fs::set_permissions(place.path(), PermissionsExt::from_mode(0o666)).unwrap();
    assert!(place.refused(Mode::ReadWrite).message.contains("written by others"));
}

#[test]
fn a_directory_behind_a_link_is_fine() {
    let place = Place::new();
    let (real, link) = (place.0.path().join("real"), place.0.path().join("link"));
    std::fs::create_dir(&real).unwrap();
    symlink(&real, &link).unwrap();
    SqliteStore::open(&link.join(FILE_NAME), Mode::ReadWrite).unwrap();
}

#[test]
fn what_is_not_there_is_not_made_by_looking() {
    let place = Place::new();
    assert!(place.refused(Mode::ReadOnly).message.contains("cannot be opened"));
    assert!(!place.path().exists());
    let Err(stop) = SqliteStore::open(&place.0.path().join("no/muster.db"), Mode::ReadWrite) else { panic!("opened") };
    assert!(stop.message.contains("state directory"), "{stop}");
}

#[test]
fn many_that_open_a_new_store_together_agree() {
    let place = Place::new();
    std::thread::scope(|scope| {
        let opened: Vec<_> = (0..8).map(|_| scope.spawn(|| place.open())).collect();
        let ids: Vec<String> = opened
            .into_iter()
            .map(|thread| {
                let store = thread.join().unwrap();
                let inner = store.inner.lock().unwrap();
                let sql = "SELECT value FROM meta WHERE key = 'store-id'";
                inner.connection.query_row(sql, [], |row| row.get(0)).unwrap()
            })
            .collect();
        assert!(ids.windows(2).all(|pair| pair[0] == pair[1]), "{ids:?}");
    });
}

#[tokio::test]
async fn a_torn_ledger_is_no_state() {
    let place = Place::new();
    let (store, run) = (place.open(), started("orders", 1, 10));
    store.claim(&run).await.unwrap();
    store.append(&run.run, &Event::Connections { lines: vec![] }).await.unwrap();
    store.append(&run.run, &Event::Connections { lines: vec![] }).await.unwrap();
    store.inner.lock().unwrap().connection.execute("DELETE FROM events WHERE sequence = 2", []).unwrap();
    let next = place.open();
    assert!(next.take_over(&run.run, &run.owner, &crate::store::contract::owner(11)).await.unwrap());
    let stop = next.append(&run.run, &concluded()).await.unwrap_err();
    assert!(stop.message.contains("gap"), "{stop}");
}

#[tokio::test]
async fn a_backup_is_a_whole_store_and_overwrites_nothing() {
    let place = Place::new();
    let (store, run) = (place.open(), started("orders", 1, 10));
    store.claim(&run).await.unwrap();
    store.check().await.unwrap();
    let copy = place.0.path().join("copy.db");
    store.back_up(&copy).await.unwrap();
    assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(SqliteStore::open(&copy, Mode::ReadWrite).unwrap().runs(None, 10).await.unwrap().len(), 1);
    let stop = store.back_up(&copy).await.unwrap_err();
    assert!(stop.message.contains("could not be made") && stop.advice.is_some(), "{stop}");
}

#[tokio::test]
async fn a_check_finds_a_damaged_page() {
    let place = Place::new();
    let (store, run) = (place.open(), started("orders", 1, 10));
    store.claim(&run).await.unwrap();
    store.inner.lock().unwrap().connection.pragma_update(None, "foreign_keys", false).unwrap();
    store.inner.lock().unwrap().connection.execute("DELETE FROM runs", []).unwrap();
    let stop = store.check().await.unwrap_err();
    assert!(stop.message.contains("events") && stop.advice.is_some(), "{stop}");
}

#[tokio::test]
async fn a_check_reads_the_ledger_of_each_run() {
    let place = Place::new();
    let (store, run) = (place.open(), started("orders", 1, 10));
    store.claim(&run).await.unwrap();
    store.append(&run.run, &Event::Connections { lines: vec![] }).await.unwrap();
    let looker = SqliteStore::open(&place.path(), Mode::ReadOnly).unwrap();
    looker.check().await.unwrap();
    let change = |sql: &str| store.inner.lock().unwrap().connection.execute(sql, []).unwrap();
    change("UPDATE runs SET verdict = 'passed'");
    let stop = looker.check().await.unwrap_err();
    assert!(stop.message.contains("is not what its ledger says") && stop.advice.is_some(), "{stop}");
    change("UPDATE runs SET verdict = NULL");
    change("UPDATE events SET sequence = 3 WHERE sequence = 2");
    let stop = looker.check().await.unwrap_err();
    assert!(stop.message.contains("gap"), "{stop}");
}

/// A daemon starts with a million runs behind it.
#[test]
fn what_is_known_of_a_drill_is_found_by_index() {
    let place = Place::new();
    let store = place.open();
    let inner = store.inner.lock().unwrap();
    let newest = "ORDER BY started DESC, run DESC LIMIT 1";
    for (query, index) in [
        (format!("SELECT run FROM runs WHERE drill = 'a' AND is_self_test = 0 {newest}"), "runs_that_count"),
        (
            format!("SELECT run FROM runs WHERE drill = 'a' AND is_self_test = 0 AND verdict = 'passed' {newest}"),
            "runs_that_passed",
        ),
        ("SELECT min(drill) FROM slots WHERE drill > 'a'".to_owned(), "PRIMARY KEY"),
        ("SELECT run FROM runs WHERE drill = 'a' AND is_self_test = 1 ORDER BY started DESC, run DESC LIMIT -1 OFFSET 3".to_owned(), "runs_that_test"),
        ("SELECT run FROM chain WHERE pruned = 1 ORDER BY sequence LIMIT 3".to_owned(), "chain_pruned"),
        ("SELECT run FROM runs WHERE started < 3 ORDER BY started, run LIMIT 3".to_owned(), "runs_newest_first"),
        (prune::TOO_MANY.replace("?1", "3"), "run_counts_by_number"),
        ("SELECT max(scheduled_for) FROM slots WHERE drill = 'a' AND schedule = 'drill'".to_owned(), "PRIMARY KEY"),
    ] {
        let plan: String =
            inner.connection.query_row(&format!("EXPLAIN QUERY PLAN {query}"), [], |row| row.get(3)).unwrap();
        assert!(plan.contains(index), "{query}: {plan} (wanted {index})");
    }
}

/// A page shows hundreds of drills, each with its newest runs.
#[test]
fn the_newest_runs_of_many_drills_are_found_by_index() {
    let place = Place::new();
    let store = place.open();
    let inner = store.inner.lock().unwrap();
    let mut statement = inner.connection.prepare(&format!("EXPLAIN QUERY PLAN {}", rows::NEWEST_OF_EACH)).unwrap();
    let plan = statement.query_map(params!["[\"a\"]", 3], |row| row.get::<_, String>(3)).unwrap();
    let plan: Vec<String> = plan.collect::<Result<_, _>>().unwrap();
    let of_runs: Vec<&String> = plan.iter().filter(|step| !step.contains("wanted")).collect();
    assert!(of_runs.iter().any(|step| step.contains("SEARCH newest USING COVERING INDEX runs_of_a_drill")), "{plan:?}");
    assert!(of_runs.iter().any(|step| step.contains("SEARCH runs USING PRIMARY KEY (run=?)")), "{plan:?}");
    assert!(of_runs.iter().all(|step| !step.contains("SCAN")), "{plan:?}");
}
