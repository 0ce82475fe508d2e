//! How many runs there are of each drill is known without counting them.
use drill::ledger::{Damage, Trigger};
use proptest::prelude::*;
use refinery::{Migration, Runner, Target};

use super::*;
use crate::store::contract::summary;
use crate::store::fake::MemoryStore;

/// What happens to a store.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// A run of one of three drills, or a self-test of it, begins; where `ends`, with that verdict.
    Run {
        drill: usize,
        is_self_test: bool,
        ends: Option<Reason>,
    },
    Prune {
        keep: u32,
    },
    Reopen,
}

const DRILLS: [&str; 3] = ["orders", "stock", "users"];

fn any_step() -> impl Strategy<Value = Step> {
    let ends = prop::sample::select(vec![None, Some(Reason::Proven), Some(Reason::CheckFailed)]);
    prop_oneof![
        6 => (0..DRILLS.len(), any::<bool>(), ends).prop_map(|(drill, is_self_test, ends)| Step::Run { drill, is_self_test, ends }),
        2 => (0..4_u32).prop_map(|keep| Step::Prune { keep }),
        1 => Just(Step::Reopen),
    ]
}

/// As `run_counts` has them, or counted.
fn counts(store: &SqliteStore, sql: &str) -> Vec<(String, bool, i64)> {
    let inner = store.inner.lock().unwrap();
    let mut statement = inner.connection.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

fn kept(store: &SqliteStore) -> Vec<(String, bool, i64)> {
    counts(store, "SELECT drill, is_self_test, runs FROM run_counts ORDER BY 1, 2")
}

fn counted(store: &SqliteStore) -> Vec<(String, bool, i64)> {
    counts(store, "SELECT drill, is_self_test, count(*) FROM runs GROUP BY 1, 2 ORDER BY 1, 2")
}

/// The same to both stores, which must agree on what may go.
async fn play(steps: &[Step]) {
    let place = Place::new();
    let (mut real, memory) = (place.open(), MemoryStore::new());
    for (minute, step) in (0..).zip(steps) {
        match *step {
            Step::Run { drill, is_self_test, ends } => {
                let mut run = started(DRILLS[drill], minute, 10);
                if is_self_test {
                    run.trigger = Trigger::SelfTest { damage: Damage::Byte, scheduled_for: None };
                }
                // Where an earlier run of the drill has not ended, both refuse this one.
                let claimed = real.claim(&run).await;
                assert_eq!(claimed.is_ok(), memory.claim(&run).await.is_ok());
                if let (Ok(()), Some(reason)) = (claimed, ends) {
                    for event in [summary(reason), Event::Ended { leftovers: Leftovers::None }] {
                        real.append(&run.run, &event).await.unwrap();
                        memory.append(&run.run, &event).await.unwrap();
                    }
                }
            }
            Step::Prune { keep } => {
                let mut found = real.prunable(None, Some(keep)).await.unwrap();
                found.sort_by(|a, b| (a.started, &a.run).cmp(&(b.started, &b.run)));
                let named = |run: &drill::port::RunSummary| run.run.clone();
                let wanted = memory.prunable(None, Some(keep)).await.unwrap();
                assert_eq!(found.iter().map(named).collect::<Vec<_>>(), wanted.iter().map(named).collect::<Vec<_>>());
                let pruned = real.prune(None, Some(keep)).await.unwrap();
                assert_eq!(pruned, memory.prune(None, Some(keep)).await.unwrap());
            }
            Step::Reopen => {
                drop(real);
                real = place.open();
                // Who comes next owns nothing: what had not ended is taken over and ended.
                let next = crate::store::contract::owner(11);
                for run in real.unsettled().await.unwrap() {
                    let owner = real.owner(&run).await.unwrap().unwrap();
                    for store in [&real as &dyn Store, &memory] {
                        assert!(store.take_over(&run, &owner, &next).await.unwrap());
                        store.append(&run, &summary(Reason::Interrupted)).await.unwrap();
                        store.append(&run, &Event::Ended { leftovers: Leftovers::None }).await.unwrap();
                    }
                }
            }
        }
        assert_eq!(kept(&real), counted(&real), "after {step:?}");
    }
    real.check().await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn counts_are_right_after_whatever_happens(steps in prop::collection::vec(any_step(), 1..40)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(play(&steps));
    }
}

#[tokio::test]
async fn a_store_of_an_older_muster_is_counted_once() {
    let (place, old) = (Place::new(), Place::new());
    let store = place.open();
    for (minute, drill) in [(1, "orders"), (2, "orders"), (3, "stock")] {
        let run = started(drill, minute, 10);
        store.claim(&run).await.unwrap();
        for event in [concluded(), Event::Ended { leftovers: Leftovers::None }] {
            store.append(&run.run, &event).await.unwrap();
        }
    }
    drop(store);
    // The schema before there were counts, with the same runs.
    let migrations = open::MIGRATIONS[..4].iter().map(|(name, sql)| Migration::unapplied(name, sql).unwrap());
    let mut connection = Connection::open(old.path()).unwrap();
    let runner = Runner::new(&migrations.collect::<Vec<_>>()).set_grouped(true).set_target(Target::Version(4));
    runner.run(&mut connection).unwrap();
    connection.execute("ATTACH ?1 AS new", [place.path().to_str().unwrap()]).unwrap();
    connection
        .execute_batch("INSERT INTO runs SELECT * FROM new.runs; INSERT INTO events SELECT * FROM new.events;")
        .unwrap();
    drop(connection);
    std::fs::set_permissions(old.path(), PermissionsExt::from_mode(0o600)).unwrap();

    let stop = old.refused(Mode::ReadOnly);
    assert!(stop.message.contains("its schema is 4 and this muster reads 5"), "{stop}");
    let store = old.open();
    assert_eq!(kept(&store), [("orders".to_owned(), false, 2), ("stock".to_owned(), false, 1)]);
    store.check().await.unwrap();
    assert_eq!(store.prune(None, Some(1)).await.unwrap().runs, 1);
    assert_eq!(kept(&store), counted(&store));
}

#[tokio::test]
async fn a_check_finds_counts_that_are_wrong() {
    let place = Place::new();
    let (store, run) = (place.open(), started("orders", 1, 10));
    store.claim(&run).await.unwrap();
    store.check().await.unwrap();
    let one = "INSERT INTO run_counts VALUES ('orders', 0, 1)";
    for (spoil, mend) in [
        ("UPDATE run_counts SET runs = 2", "UPDATE run_counts SET runs = 1"),
        ("DELETE FROM run_counts", one),
        ("INSERT INTO run_counts VALUES ('orders', 1, 1)", "DELETE FROM run_counts WHERE is_self_test = 1"),
    ] {
        let change = |sql: &str| store.inner.lock().unwrap().connection.execute(sql, []).unwrap();
        change(spoil);
        let stop = store.check().await.unwrap_err();
        assert!(stop.message.contains("drill orders has not as many runs"), "{spoil}: {stop}");
        change(mend);
        store.check().await.unwrap();
    }
}
