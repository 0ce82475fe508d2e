//! What every outbox must do.
use std::time::Duration;

use drill::port::{Alert, Delivery, Outbox};
use jiff::{SignedDuration, Timestamp};

use super::{Memory, MemoryStore, Sqlite, World};

contract!(
    one_alert_is_open_for_each_kind_and_subject,
    an_alert_is_due_until_it_was_told_and_again_when_resolved,
    other_words_wait_and_other_numbers_are_no_news,
    what_is_open_comes_again_where_that_is_asked_for,
    a_try_in_vain_waits_and_is_counted,
    what_was_given_up_comes_back_when_it_changes,
    what_changed_while_it_was_told_is_told_again,
    an_alert_that_comes_and_goes_is_one,
    resolved_and_told_is_forgotten,
    each_destination_is_told_for_itself,
    what_waits_is_due_once_its_destination_hears_again,
    what_was_never_tried_comes_before_what_was,
    a_clock_that_was_set_back_keeps_nothing_back,
);

const START: &str = "2026-11-22T02:00:00Z";

fn at(seconds: i64) -> Timestamp {
    START.parse::<Timestamp>().unwrap() + SignedDuration::from_secs(seconds)
}

fn alert(kind: &str, subject: &str, seconds: i64, message: &str) -> Alert {
    Alert {
        kind: kind.to_owned(),
        subject: subject.to_owned(),
        drill: Some("orders".parse().unwrap()),
        run: None,
        at: at(seconds),
        message: message.to_owned(),
        advice: None,
        details: serde_json::json!({ "digest": "sha256:00" }),
    }
}

async fn due(outbox: &dyn Outbox, seconds: i64) -> Vec<Delivery> {
    outbox.due("pager", None, at(seconds), 100).await.unwrap()
}

async fn tell(outbox: &dyn Outbox, seconds: i64) -> Vec<Delivery> {
    let deliveries = due(outbox, seconds).await;
    outbox.delivered(&deliveries, "pager", at(seconds)).await.unwrap();
    deliveries
}

async fn one_alert_is_open_for_each_kind_and_subject(world: &dyn World) {
    let store = world.open();
    store.raise(&alert("drill-failed", "orders", 0, "a row is missing")).await.unwrap();
    store.raise(&alert("drill-failed", "users", 1, "a row is missing")).await.unwrap();
    store.raise(&alert("leftovers", "orders", 2, "a sandbox")).await.unwrap();
    store.raise(&alert("drill-failed", "orders", 3, "two are missing")).await.unwrap();
    let open = world.open().open_alerts().await.unwrap();
    // The newest words, and since when it is open.
    let orders = alert("drill-failed", "orders", 0, "two are missing");
    assert_eq!(open[0], orders);
    assert_eq!(open.len(), 3);
    assert!(store.resolve("drill-failed", "orders", at(4)).await.unwrap());
    assert!(!store.resolve("drill-failed", "orders", at(5)).await.unwrap());
    assert!(!store.resolve("drill-failed", "nobody", at(5)).await.unwrap());
    assert_eq!(world.open().open_alerts().await.unwrap().len(), 2);
}

async fn an_alert_is_due_until_it_was_told_and_again_when_resolved(world: &dyn World) {
    let store = world.open();
    store.raise(&alert("drill-failed", "orders", 0, "a row is missing")).await.unwrap();
    let first = due(&*store, 1).await;
    assert_eq!(first.len(), 1);
    // A process that died after it sent, and before it wrote that down, sends again.
    assert_eq!(due(&*world.open(), 2).await, first);
    tell(&*store, 2).await;
    assert_eq!(due(&*world.open(), 3).await, []);
    store.resolve("drill-failed", "orders", at(4)).await.unwrap();
    let resolved = due(&*world.open(), 5).await;
    assert_eq!(resolved[0].resolved, Some(at(4)));
    assert_ne!(resolved[0].key(), first[0].key());
    tell(&*store, 5).await;
    assert_eq!(due(&*store, 100_000).await, []);
}

async fn other_words_wait_and_other_numbers_are_no_news(world: &dyn World) {
    let store = world.open();
    store.raise(&alert("drill-failed", "orders", 0, "31 s, 1 s over")).await.unwrap();
    tell(&*store, 0).await;
    store.raise(&alert("drill-failed", "orders", 60, "32 s, 2 s over")).await.unwrap();
    assert_eq!(due(&*store, 100_000).await, []);
    store.raise(&alert("drill-failed", "orders", 120, "a row is missing")).await.unwrap();
    assert_eq!(due(&*store, 3_599).await, []);
    assert_eq!(tell(&*store, 3_600).await[0].alert.message, "a row is missing");
    assert_eq!(due(&*store, 100_000).await, []);
}

async fn what_waits_is_due_once_its_destination_hears_again(world: &dyn World) {
    let store = world.open();
    store.raise(&alert("drill-failed", "orders", 0, "a row is missing")).await.unwrap();
    let tried = due(&*store, 1).await;
    store.undelivered(&tried, "pager", at(1), Some(at(3_600)), "down").await.unwrap();
    store.hurry("chat").await.unwrap();
    assert_eq!(due(&*store, 2).await, [], "another destination hears");
    store.hurry("pager").await.unwrap();
    let again = due(&*world.open(), 2).await;
    assert_eq!((again.len(), again[0].attempts, again[0].failing_since), (1, 1, Some(at(1))));
}

async fn what_was_never_tried_comes_before_what_was(world: &dyn World) {
    let store = world.open();
    store.raise(&alert("drill-failed", "orders", 0, "a row is missing")).await.unwrap();
    store.undelivered(&due(&*store, 1).await, "pager", at(1), Some(at(2)), "down").await.unwrap();
    store.raise(&alert("drill-failed", "users", 5, "a row is missing")).await.unwrap();
    let subjects: Vec<_> = due(&*store, 10).await.into_iter().map(|of| of.alert.subject).collect();
    assert_eq!(subjects, ["users", "orders"]);
}

async fn what_is_open_comes_again_where_that_is_asked_for(world: &dyn World) {
    let store = world.open();
    let minute = Some(Duration::from_mins(1));
    store.raise(&alert("drill-failed", "orders", 0, "a row is missing")).await.unwrap();
    tell(&*store, 0).await;
    assert_eq!(store.due("pager", minute, at(59), 9).await.unwrap(), []);
    let again = store.due("pager", minute, at(60), 9).await.unwrap();
    assert_eq!(again.len(), 1);
    store.delivered(&again, "pager", at(60)).await.unwrap();
    assert_eq!(store.due("pager", minute, at(119), 9).await.unwrap(), []);
    store.resolve("drill-failed", "orders", at(119)).await.unwrap();
    tell(&*store, 119).await;
    assert_eq!(store.due("pager", minute, at(100_000), 9).await.unwrap(), []);
}

async fn a_try_in_vain_waits_and_is_counted(world: &dyn World) {
    let store = world.open();
    store.raise(&alert("drill-failed", "orders", 0, "a row is missing")).await.unwrap();
    for (attempt, begun) in [(0, 0), (1, 10), (2, 20)] {
        let tried = due(&*store, begun).await;
        assert_eq!(tried[0].attempts, attempt);
        assert_eq!(tried[0].failing_since, (attempt > 0).then(|| at(0)));
        store.undelivered(&tried, "pager", at(begun), Some(at(begun + 10)), "500").await.unwrap();
        assert_eq!(due(&*world.open(), begun + 9).await, []);
    }
    tell(&*store, 30).await;
    store.resolve("drill-failed", "orders", at(31)).await.unwrap();
    let fresh = due(&*store, 32).await;
    assert_eq!((fresh[0].attempts, fresh[0].failing_since), (0, None));
}

async fn what_was_given_up_comes_back_when_it_changes(world: &dyn World) {
    let store = world.open();
    store.raise(&alert("drill-failed", "orders", 0, "a row is missing")).await.unwrap();
    let tried = due(&*store, 0).await;
    store.undelivered(&tried, "pager", at(0), Some(at(1)), "500").await.unwrap();
    store.undelivered(&due(&*store, 2).await, "pager", at(2), None, "500").await.unwrap();
    assert_eq!(due(&*store, 100_000).await, []);
    store.resolve("drill-failed", "orders", at(3)).await.unwrap();
    assert_eq!(due(&*store, 4).await.len(), 1);
}

async fn what_changed_while_it_was_told_is_told_again(world: &dyn World) {
    let store = world.open();
    store.raise(&alert("drill-failed", "orders", 0, "a row is missing")).await.unwrap();
    let under_way = due(&*store, 1).await;
    store.resolve("drill-failed", "orders", at(2)).await.unwrap();
    store.delivered(&under_way, "pager", at(3)).await.unwrap();
    assert_eq!(due(&*store, 3).await[0].resolved, Some(at(2)));
}

async fn an_alert_that_comes_and_goes_is_one(world: &dyn World) {
    let store = world.open();
    for round in 0..50 {
        store.raise(&alert("drill-failed", "orders", round * 2, "a row is missing")).await.unwrap();
        store.resolve("drill-failed", "orders", at(round * 2 + 1)).await.unwrap();
    }
    store.raise(&alert("drill-failed", "orders", 100, "a row is missing")).await.unwrap();
    let due = tell(&*store, 200).await;
    assert_eq!(due.len(), 1);
    assert_eq!((due[0].resolved, due[0].alert.at), (None, at(100)));
}

async fn resolved_and_told_is_forgotten(world: &dyn World) {
    let store = world.open();
    let names = ["pager".to_owned(), "chat".to_owned()];
    for subject in ["open", "told", "half", "old"] {
        store.raise(&alert("drill-failed", subject, 0, "a row is missing")).await.unwrap();
    }
    for (subject, seconds) in [("told", 50), ("half", 50), ("old", 10)] {
        store.resolve("drill-failed", subject, at(seconds)).await.unwrap();
    }
    let all = tell(&*store, 60).await;
    assert_eq!(all.len(), 4);
    assert_eq!(store.tidy(&names, at(0)).await.unwrap(), 0);
    let told: Vec<_> = all.into_iter().filter(|of| ["open", "told"].contains(&of.alert.subject.as_str())).collect();
    store.delivered(&told, "chat", at(60)).await.unwrap();
    // `told` because both know, `old` because nobody needs to any more.
    assert_eq!(store.tidy(&names, at(20)).await.unwrap(), 2);
    assert_eq!(store.tidy(&names[..1], at(20)).await.unwrap(), 1);
    assert_eq!(store.open_alerts().await.unwrap().len(), 1);
    // Who is not asked about any more knows nothing any more.
    assert_eq!(store.due("chat", None, at(60), 9).await.unwrap().len(), 1);
    assert_eq!(store.tidy(&[], at(0)).await.unwrap(), 0);
    store.resolve("drill-failed", "open", at(70)).await.unwrap();
    assert_eq!(store.tidy(&[], at(0)).await.unwrap(), 1);
}

async fn each_destination_is_told_for_itself(world: &dyn World) {
    let store = world.open();
    for subject in 0..5 {
        store.raise(&alert("leftovers", &subject.to_string(), subject, "a sandbox")).await.unwrap();
    }
    let first = store.due("chat", None, at(60), 2).await.unwrap();
    assert_eq!(first.iter().map(|of| of.alert.subject.as_str()).collect::<Vec<_>>(), ["0", "1"]);
    store.delivered(&first, "chat", at(60)).await.unwrap();
    let next = store.due("chat", None, at(60), 2).await.unwrap();
    assert_eq!(next.iter().map(|of| of.alert.subject.as_str()).collect::<Vec<_>>(), ["2", "3"]);
    assert_eq!(due(&*store, 60).await.len(), 5);
}

async fn a_clock_that_was_set_back_keeps_nothing_back(world: &dyn World) {
    let store = world.open();
    store.raise(&alert("leftovers", "a", 0, "a sandbox")).await.unwrap();
    store.raise(&alert("leftovers", "b", 0, "a sandbox")).await.unwrap();
    let both = due(&*store, 1_000_000).await;
    store.delivered(&both[..1], "pager", at(1_000_000)).await.unwrap();
    store.undelivered(&both[1..], "pager", at(1_000_000), Some(at(1_000_060)), "500").await.unwrap();
    assert_eq!(due(&*store, 10).await.len(), 1);
    store.raise(&alert("leftovers", "a", 10, "a directory")).await.unwrap();
    assert_eq!(due(&*store, 10).await.len(), 2);
}
