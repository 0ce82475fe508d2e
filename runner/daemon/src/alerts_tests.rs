#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use drill::port::Alert;
use drivers::alert::fake::{Answer, FakeAlerts};
use drivers::store::sqlite::{Mode, SqliteStore};

use super::*;

fn at(seconds: i64) -> Timestamp {
    "2026-11-22T02:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_secs(seconds)
}

fn alert(subject: &str, seconds: i64) -> Alert {
    Alert {
        kind: "drill-failed".to_owned(),
        subject: subject.to_owned(),
        drill: None,
        run: None,
        at: at(seconds),
        message: "a row is missing".to_owned(),
        advice: None,
        details: serde_json::json!({}),
    }
}

struct World {
    place: tempfile::TempDir,
    pager: FakeAlerts,
}

impl World {
    fn new(batch: u32, repeat: Option<Duration>) -> Self {
        Self { place: tempfile::tempdir().unwrap(), pager: FakeAlerts::new("pager", batch, repeat) }
    }

    fn outbox(&self) -> Arc<dyn Outbox> {
        Arc::new(SqliteStore::open(&self.place.path().join("muster.db"), Mode::ReadWrite).unwrap())
    }

    /// As a new process has it.
    fn line(&self) -> Line {
        Line { patience: Duration::from_millis(50), ..Line::new(self.outbox(), Arc::new(self.pager.clone())) }
    }

    fn heard(&self) -> Vec<String> {
        self.pager.heard().into_iter().map(|of| of.alert.subject).collect()
    }
}

#[test]
fn waits_grow_to_an_hour_and_never_beyond() {
    let waits: Vec<_> = (0..12).map(|failures| wait(failures, 0.0).as_secs()).collect();
    assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600]);
    assert_eq!(wait(u32::MAX, 1.0).as_secs(), 1800);
}

#[tokio::test]
async fn what_was_refused_or_not_answered_is_sent_until_it_is_heard() {
    let world = World::new(1, None);
    let (outbox, mut line) = (world.outbox(), world.line());
    outbox.raise(&alert("orders", 0)).await.unwrap();
    world.pager.answer([Answer::Refuse, Answer::Refuse, Answer::Hang, Answer::Lose]);
    let (mut now, mut tries) = (0, 0);
    while line.failures > 0 || tries == 0 {
        let failures = line.failures;
        assert_eq!(line.round(at(now)).await.unwrap(), if tries == 4 { Next::More } else { Next::Wait });
        tries += 1;
        if tries <= 4 {
            assert_eq!(line.failures, failures + 1);
            // The next try is no sooner than half of the wait, and no later than all of it.
            let whole = wait(failures, 0.0).as_secs();
            assert_eq!(line.round(at(now + whole / 2 - 1)).await.unwrap(), Next::Wait);
            assert_eq!(line.failures, failures + 1, "it did not wait");
            now += whole;
        }
    }
    assert_eq!(tries, 5);
    // Once more than needed, because an answer was lost: at least once.
    assert_eq!(world.heard(), ["orders", "orders"]);
    assert_eq!(line.round(at(now + 100_000)).await.unwrap(), Next::Wait);
    assert_eq!(line.counters.failed.load(Ordering::Relaxed), 4);
    assert_eq!(line.counters.delivered.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_process_that_died_between_sending_and_noting_sends_again() {
    let world = World::new(1, None);
    world.outbox().raise(&alert("orders", 0)).await.unwrap();
    // Sent by a process that never came to write it down.
    let due = world.outbox().due("pager", None, at(1), 9).await.unwrap();
    world.pager.send(&due).await.unwrap();
    world.line().round(at(2)).await.unwrap();
    let keys: Vec<_> = world.pager.heard().iter().map(Delivery::key).collect();
    assert_eq!(keys.len(), 2);
    assert_eq!(keys[0], keys[1], "whoever hears it twice must know it by its key");
    world.line().round(at(3)).await.unwrap();
    assert_eq!(world.heard().len(), 2);
}

#[tokio::test]
async fn one_that_is_refused_for_good_does_not_hold_up_the_others() {
    let world = World::new(1, None);
    let (outbox, mut line) = (world.outbox(), world.line());
    for (seconds, subject) in ["poison", "orders", "users"].into_iter().enumerate() {
        outbox.raise(&alert(subject, i64::try_from(seconds).unwrap())).await.unwrap();
    }
    world.pager.answer([Answer::Refuse]);
    line.round(at(10)).await.unwrap();
    let mut poison = outbox.due("pager", None, at(20), 9).await.unwrap();
    poison.retain(|delivery| delivery.alert.subject == "poison");
    line.outbox.undelivered(&poison, "pager", at(20), Some(at(900)), "400").await.unwrap();
    line.round(at(20)).await.unwrap();
    assert_eq!(world.heard(), ["orders", "users"]);
    line.round(at(900)).await.unwrap();
    assert_eq!(world.heard(), ["orders", "users", "poison"]);
}

#[tokio::test]
async fn what_is_new_is_tried_soon_though_the_destination_is_down_and_all_that_waits_once_it_hears() {
    let world = World::new(1, None);
    let (outbox, mut line) = (world.outbox(), world.line());
    outbox.raise(&alert("orders", 0)).await.unwrap();
    world.pager.answer([Answer::Refuse; 12]);
    let mut now = 0;
    while line.failures < 12 {
        line.round(at(now)).await.unwrap();
        now += 3_600;
    }
    let now = now - 3_600;
    // The old one waits for half an hour or more by now.
    line.round(at(now + 60)).await.unwrap();
    assert_eq!(line.failures, 12);
    outbox.raise(&alert("users", now + 60)).await.unwrap();
    assert_eq!(line.round(at(now + 61)).await.unwrap(), Next::More);
    assert_eq!(world.heard(), ["users"]);
    line.round(at(now + 61)).await.unwrap();
    assert_eq!(world.heard(), ["users", "orders"]);
}

#[tokio::test]
async fn it_is_given_up_after_three_days_and_counted() {
    let world = World::new(1, None);
    let (outbox, mut line) = (world.outbox(), world.line());
    outbox.raise(&alert("orders", 0)).await.unwrap();
    world.pager.answer([Answer::Refuse; 200]);
    let mut hour = 0;
    while line.counters.given_up.load(Ordering::Relaxed) == 0 {
        line.round(at(hour * 3_600)).await.unwrap();
        hour += 1;
        assert!(hour < 80, "it is tried for ever");
    }
    assert!(hour > 72);
    assert_eq!(world.heard(), [""; 0]);
    assert_eq!(outbox.due("pager", None, at(hour * 3_600 + 7_200), 9).await.unwrap(), []);
}

#[tokio::test]
async fn what_must_be_repeated_is_and_in_batches() {
    let world = World::new(40, Some(Duration::from_mins(1)));
    let (outbox, mut line) = (world.outbox(), world.line());
    for number in 0..100 {
        outbox.raise(&alert(&format!("{number:03}"), number)).await.unwrap();
    }
    for minute in 1..=3 {
        while line.round(at(200 + minute * 60)).await.unwrap() == Next::More {}
    }
    let heard = world.heard();
    assert_eq!(heard.len(), 300);
    assert!(heard[..100].is_sorted());
}

#[tokio::test]
async fn a_destination_that_hangs_keeps_nobody_from_being_told() {
    let world = World::new(1, None);
    let deaf = FakeAlerts::new("deaf", 1, None);
    deaf.answer([Answer::Hang]);
    let (wake, woken) = watch::channel(());
    let outbox = world.outbox();
    let sender = Sender::new(Arc::clone(&outbox), vec![Arc::new(deaf.clone()), Arc::new(world.pager.clone())], woken);
    let raised = async {
        outbox.raise(&Alert { at: Timestamp::now(), ..alert("orders", 0) }).await.unwrap();
        wake.send_replace(());
        while world.heard().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        ended = sender.run() => panic!("it ended: {ended:?}"),
        told = tokio::time::timeout(Duration::from_mins(1), raised) => told.unwrap(),
    }
    assert_eq!(deaf.heard(), []);
}
