//! Time is tokio's paused one: hours pass in moments, and the same on each machine.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod after_downtime;
mod world;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use drill::stop::Stop;

use self::world::{Wanted, World, book, entry, name};
use super::{CancelError, Event, FileView, StartError};
use crate::book::Book;

const MINUTELY: &str = "cron: '* * * * *'";

#[tokio::test(start_paused = true)]
async fn a_slot_fires_once_over_a_restart() {
    let orders = || book([entry("orders", "a", "cron: '*/10 * * * *'")]);
    let world = World::new(Wanted::default(), orders()).await;
    world.pass(605).await;
    assert_eq!(world.runner.slots("orders"), ["00:10:00"]);
    // Ten seconds later the slot would be punctual still, was it not claimed.
    let world = world.again(Wanted::default(), orders(), 10).await;
    world.pass(300).await;
    assert_eq!(world.runner.slots("orders"), [""; 0]);
    assert_eq!(world.skipped("orders"), []);
    // The next falls due while nobody is there, for less than a minute.
    let world = world.again(Wanted::default(), orders(), 300).await;
    world.pass(5).await;
    assert_eq!(world.runner.slots("orders"), ["00:20:00"]);
    let view = world.dispatcher.view();
    let orders = &view.drills[&name("orders")];
    assert_eq!(orders.next.unwrap().scheduled_for.to_string(), "2026-01-05T00:30:00Z");
    assert!(orders.last_success.is_some() && orders.running.is_none());
}

#[tokio::test(start_paused = true)]
async fn what_was_missed_is_skipped_or_runs_once() {
    let both = || {
        book([
            entry("skips", "a", "cron: '*/10 * * * *'"),
            entry("once", "a", "cron: '*/10 * * * *', missed: run-once"),
        ])
    };
    let world = World::new(Wanted::default(), both()).await;
    world.pass(605).await;
    // Down from 00:10 to 01:05.
    let world = world.again(Wanted::default(), both(), 3_300).await;
    world.pass(5).await;
    assert_eq!(world.runner.slots("once"), ["01:00:00"]);
    assert_eq!(world.skipped("once"), [("missed", 4)]);
    assert_eq!(world.runner.slots("skips"), [""; 0]);
    assert_eq!(world.skipped("skips"), [("missed", 5)]);
    // They are missed once.
    let world = world.again(Wanted::default(), both(), 5).await;
    world.pass(5).await;
    assert_eq!((world.skipped("once"), world.skipped("skips")), (vec![], vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_drill_never_overlaps_itself() {
    let world = World::new(Wanted { takes: 150, ..Wanted::default() }, book([entry("orders", "a", MINUTELY)])).await;
    world.pass(400).await;
    assert_eq!(world.runner.slots("orders"), ["00:01:00", "00:04:00"]);
    assert_eq!(world.skipped("orders"), [("overlap", 1); 4]);
}

#[tokio::test(start_paused = true)]
async fn limits_hold_and_the_oldest_slot_goes_first() {
    let drills = ["a1", "a2", "a3", "b1", "b2", "b3"].map(|name| entry(name, "a", "cron: '0 1 * * *'"));
    let wanted = Wanted { concurrency: (3, 2), takes: 100, ..Wanted::default() };
    let world = World::new(wanted, book(drills)).await;
    world.pass(3_600 + 500).await;
    assert_eq!(*world.runner.most.lock().unwrap(), (3, 2));
    let ran = world.runner.ran.lock().unwrap();
    assert_eq!(ran.len(), 6, "all had their turn: {ran:?}");
    assert!(world.ears.0.lock().unwrap().is_empty());
    // Two rounds of three: the second begins as the first ends.
    assert!(ran.iter().all(|ran| ran.at < "2026-01-05T01:02:00Z".parse().unwrap()), "{ran:?}");
}

#[tokio::test(start_paused = true)]
async fn a_slot_waits_until_its_start_deadline() {
    let wanted = Wanted { concurrency: (1, 1), takes: 1_000, ..Wanted::default() };
    let drills = [
        entry("first", "a", "cron: '0 0 1 * * *'"),
        entry("second", "a", "cron: '1 0 1 * * *', missed: run-once, startDeadline: 10m"),
        entry("third", "a", "cron: '2 0 1 * * *', missed: run-once, startDeadline: 20m"),
    ];
    let world = World::new(wanted, book(drills)).await;
    world.pass(3_600 + 100).await;
    assert!(world.dispatcher.view().drills[&name("second")].waiting.is_some());
    world.pass(2_500).await;
    assert_eq!(world.skipped("second"), [("start-deadline", 1)]);
    assert_eq!(world.runner.slots("third"), ["01:00:02"]);
    assert_eq!(world.skipped("third"), []);
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_waits_into_a_blackout_does_not_run() {
    let wanted = Wanted { concurrency: (1, 1), takes: 1_000, ..Wanted::default() };
    let drills = [
        entry("first", "a", "cron: '0 0 1 * * *'"),
        entry("second", "a", "cron: '1 0 1 * * *', blackout: [{ cron: '10 1 * * *', duration: 2h }]"),
    ];
    let world = World::new(wanted, book(drills)).await;
    world.pass(6_000).await;
    assert_eq!((world.runner.slots("second"), world.skipped("second")), (vec![], vec![("blackout", 1)]));
}

#[tokio::test(start_paused = true)]
async fn a_stop_lets_runs_finish_within_its_grace() {
    let mut world = World::new(Wanted { takes: 30, ..Wanted::default() }, book([entry("orders", "a", MINUTELY)])).await;
    world.pass(65).await;
    world.dispatcher.tell(Event::Stop).await;
    world.pass(1).await;
    assert!(world.dispatcher.view().stopping);
    let refused = world.dispatcher.start(name("orders"), None, "me".to_owned()).await;
    assert_eq!(refused, Err(StartError::Stopping));
    world.ended().await;
    assert_eq!(world.runner.ran.lock().unwrap()[..].iter().map(|ran| ran.cancelled).collect::<Vec<_>>(), [false]);
    assert!(world.clock.now().to_string().starts_with("2026-01-05T00:01:3"));
}

#[tokio::test(start_paused = true)]
async fn grace_ends_and_a_second_stop_does_not_wait_for_it() {
    for (second, ends) in [(false, "2026-01-05T00:02:0"), (true, "2026-01-05T00:01:0")] {
        let orders = || book([entry("orders", "a", "cron: '* * * * *', missed: run-once")]);
        let mut world = World::new(Wanted { takes: 600, ..Wanted::default() }, orders()).await;
        world.pass(65).await;
        world.dispatcher.tell(Event::Stop).await;
        if second {
            world.dispatcher.tell(Event::Stop).await;
        }
        world.ended().await;
        assert!(world.runner.ran.lock().unwrap()[0].cancelled);
        assert!(world.clock.now().to_string().starts_with(ends), "{}", world.clock.now());
        // What fell due meanwhile was left to the next daemon.
        assert_eq!(world.skipped("orders"), []);
        let world = world.again(Wanted::default(), orders(), 130).await;
        world.pass(5).await;
        assert_eq!(world.runner.slots("orders").len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_changes_never_touches_a_run() {
    let world = World::new(Wanted { takes: 90, ..Wanted::default() }, book([entry("orders", "a", MINUTELY)])).await;
    world.pass(65).await;
    let mut moved = entry("orders", "b", MINUTELY);
    moved.file = "/elsewhere/orders.yaml".into();
    world.dispatcher.tell(Event::Drills(Arc::new(book([moved])))).await;
    world.pass(300).await;
    let ran: Vec<_> = world.runner.ran.lock().unwrap().clone();
    assert_eq!((ran[0].labels["version"].as_str(), ran[1].labels["version"].as_str()), ("a", "b"));
    assert!(ran[0].file.starts_with("/drills") && ran[1].file.starts_with("/elsewhere"));
}

#[tokio::test(start_paused = true)]
async fn a_drill_that_goes_during_its_run_and_comes_back_is_due_again() {
    let orders = || book([entry("orders", "a", MINUTELY)]);
    let world = World::new(Wanted { takes: 30, ..Wanted::default() }, orders()).await;
    world.pass(65).await;
    world.dispatcher.tell(Event::Drills(Arc::new(Book::default()))).await;
    world.pass(5).await;
    assert!(world.dispatcher.view().drills[&name("orders")].running.is_some(), "it is there while it runs");
    world.dispatcher.tell(Event::Drills(Arc::new(orders()))).await;
    world.pass(60).await;
    assert_eq!(world.runner.ran.lock().unwrap().len(), 1);
    assert!(world.dispatcher.view().drills[&name("orders")].running.is_some(), "the next run");

    world.dispatcher.tell(Event::Drills(Arc::new(Book::default()))).await;
    world.pass(60).await;
    assert!(world.dispatcher.view().drills.is_empty());
    world.dispatcher.tell(Event::Drills(Arc::new(orders()))).await;
    world.pass(1).await;
    assert!(world.dispatcher.view().drills[&name("orders")].last_success.is_some(), "it is remembered");
}

#[tokio::test(start_paused = true)]
async fn a_bell_that_falls_silent_is_told_and_replaced() {
    let mut world = World::new(Wanted::default(), book([entry("orders", "a", MINUTELY)])).await;
    world.pass(30).await;
    assert_eq!(world.alerts(), [""; 0]);
    world.silence();
    world.pass(200).await;
    assert_eq!(world.alerts(), ["schedule-stalled"]);
    assert!(world.dispatcher.view().stalled);
    assert_eq!(world.runner.slots("orders"), ["00:01:00", "00:02:00", "00:03:00"]);
    world.ring();
    world.pass(10).await;
    assert_eq!(world.alerts(), [""; 0]);
    assert!(!world.dispatcher.view().stalled);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_refuses_stops_claims_until_it_takes_something() {
    let wanted = Wanted { concurrency: (2, 2), ..Wanted::default() };
    let world = World::new(wanted, book(["o1", "o2", "o3"].map(|name| entry(name, "a", "cron: '0 1 * * *'")))).await;
    world.pass(3_595).await;
    let written = world.store.writes();
    for write in 1..=12 {
        world.store.fail_at(written + write, Stop::internal("the disk is full"));
    }
    world.outbox.full.store(true, Ordering::Relaxed);
    world.pass(600).await;
    let not_begun = world.ears.0.lock().unwrap().len();
    assert_eq!(not_begun, 2, "those that had begun when it was seen; no other is tried");
    assert_eq!(world.store.writes(), written + 2);
    // It takes alerts, and no claims yet: each try is spaced.
    world.outbox.full.store(false, Ordering::Relaxed);
    world.pass(60).await;
    assert!(world.alerts().contains(&"store-unwritable".to_owned()));
    assert_eq!(world.runner.ran.lock().unwrap().len(), 0);
    // Once the twelve are used up it takes all.
    world.pass(5_000).await;
    world.pass(100).await;
    let mut ran: Vec<_> = world.runner.ran.lock().unwrap().iter().map(|ran| ran.drill.clone()).collect();
    ran.sort();
    assert_eq!(ran, ["o1", "o2", "o3"]);
    assert_eq!(world.alerts(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_skipped_slot_is_told_once_it_is_written() {
    let world = World::new(Wanted { takes: 90, ..Wanted::default() }, book([entry("orders", "a", MINUTELY)])).await;
    world.pass(115).await;
    let written = world.store.writes();
    for write in 1..=4 {
        world.store.fail_at(written + write, Stop::internal("the disk is full"));
    }
    world.outbox.full.store(true, Ordering::Relaxed);
    world.pass(7).await;
    assert_eq!(world.skipped("orders"), []);
    world.outbox.full.store(false, Ordering::Relaxed);
    world.pass(10).await;
    assert_eq!(world.skipped("orders"), [("overlap", 1)]);
    assert_eq!(world.alerts(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_cannot_begin_is_tried_again_until_its_deadline() {
    let world = World::new(Wanted::default(), book([entry("orders", "a", "cron: '0 1 * * *'")])).await;
    *world.runner.refuses.lock().unwrap() = Some(Stop::internal("no plugin"));
    world.pass(3_600 + 65).await;
    // At 0, 10, 30 and 70 seconds, and so on.
    assert_eq!(world.skipped("orders"), [("not begun", 1); 3]);
    assert_eq!(world.alerts(), ["run-not-begun"]);
    *world.runner.refuses.lock().unwrap() = None;
    world.pass(60).await;
    assert_eq!(world.runner.slots("orders"), ["01:00:00"]);
    assert_eq!(world.alerts(), [""; 0]);
    *world.runner.refuses.lock().unwrap() = Some(Stop::internal("no plugin"));
    world.pass(2 * 86_400).await;
    let skipped = world.skipped("orders");
    assert!(skipped.contains(&("start-deadline", 1)), "{skipped:?}");
    assert!(skipped.len() < 400, "{}", skipped.len());
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_runs_nothing_twice_and_no_more_than_once() {
    let world = World::new(Wanted::default(), book([entry("orders", "a", MINUTELY)])).await;
    world.pass(185).await;
    assert_eq!(world.runner.slots("orders"), ["00:01:00", "00:02:00", "00:03:00"]);
    world.clock.set_by(-120);
    world.pass(125).await;
    assert_eq!(world.runner.slots("orders").len(), 3, "claimed before");
    assert_eq!(world.skipped("orders"), []);
    world.pass(60).await;
    assert_eq!(world.runner.slots("orders")[3..], ["00:04:00"]);
    // Ten years.
    world.clock.set_by(10 * 365 * 86_400);
    world.pass(5).await;
    assert_eq!(world.runner.slots("orders").len(), 5);
    assert_eq!(world.skipped("orders"), [("missed", 1_000)]);
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_is_answered() {
    let wanted = Wanted { concurrency: (1, 1), takes: 100, ..Wanted::default() };
    let never = "cron: '0 0 1 1 *'";
    let world = World::new(wanted, book([entry("orders", "a", never), entry("stock", "a", never)])).await;
    let start = |drill: &str| world.dispatcher.start(name(drill), None, "me".to_owned());
    assert_eq!(start("sales").await, Err(StartError::NoSuchDrill(name("sales"))));
    let run = start("orders").await.unwrap();
    let running = StartError::Running { drill: name("orders"), run: Some(run.clone()) };
    assert_eq!(start("orders").await, Err(running));
    assert_eq!(start("stock").await, Err(StartError::NoSlot));
    world.dispatcher.cancel(run.clone(), "me".to_owned()).await.unwrap();
    world.pass(1).await;
    let gone = world.dispatcher.cancel(run.clone(), "me".to_owned()).await;
    assert_eq!(gone, Err(CancelError::NotRunning(run)));
    assert!(world.runner.ran.lock().unwrap()[0].cancelled);
    *world.runner.refuses.lock().unwrap() = Some(Stop::internal("no plugin"));
    assert_eq!(start("stock").await, Err(StartError::Refused(Stop::internal("no plugin"))));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_ends_at_once_is_answered_with_its_name() {
    let world = World::new(Wanted { takes: 0, ..Wanted::default() }, book([entry("orders", "a", MINUTELY)])).await;
    for _ in 0..50 {
        world.dispatcher.start(name("orders"), None, "me".to_owned()).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn files_that_are_bad_or_mended_are_told_from_the_start() {
    let path = |name: &str| std::path::PathBuf::from(format!("/drills/{name}.yaml"));
    let bad = |name: &str| FileView {
        path: path(name),
        keeps: None,
        problem: "no drill".to_owned(),
        since: jiff::Timestamp::UNIX_EPOCH,
    };
    let with =
        |problems: &[&str]| Book { problems: problems.iter().map(|name| bad(name)).collect(), ..Book::default() };
    let world = World::new(Wanted::default(), with(&["a", "b"])).await;
    world.pass(1).await;
    assert_eq!(world.subjects(), ["/drills/a.yaml", "/drills/b.yaml"]);
    let world = world.again(Wanted::default(), with(&["b", "c"]), 5).await;
    world.pass(1).await;
    assert_eq!(world.subjects(), ["/drills/b.yaml", "/drills/c.yaml"]);
    world.dispatcher.tell(Event::Drills(Arc::new(with(&["c"])))).await;
    world.pass(1).await;
    assert_eq!(world.subjects(), ["/drills/c.yaml"]);
}
