//! What a daemon makes of the time in which there was none, and how self-tests follow the same rules.
use drill::ledger::Damage;

use super::world::{BEGIN, Wanted, World, book, entry, name, of_spec};
use crate::book::Book;
use crate::dispatcher::StartError;

const HOURLY: &str = "cron: '0 * * * *'";
const HOURLY_ONCE: &str = "cron: '0 * * * *', missed: run-once";

/// A drill without a schedule of its own whose backup is damaged in one way.
fn tested(schedule: &str) -> Book {
    let lines = format!("  selfTest: {{ schedule: {{ {schedule} }}, damages: {{ byte: {{}} }} }}\n");
    book([of_spec("orders", "a", &lines)])
}

#[tokio::test(start_paused = true)]
async fn a_drill_that_was_seen_and_never_ran_misses_what_falls_due_while_nobody_is_there() {
    for (schedule, slots, skipped) in
        [(HOURLY, vec![], vec![("missed", 3)]), (HOURLY_ONCE, vec!["03:00:00"], vec![("missed", 2)])]
    {
        let orders = || book([entry("orders", "a", schedule)]);
        let world = World::new(Wanted::default(), orders()).await;
        world.pass(60).await;
        // Down from 00:01 to 03:21.
        let world = world.again(Wanted::default(), orders(), 12_000).await;
        world.pass(5).await;
        assert_eq!(
            (world.runner.slots("orders"), world.skipped("orders")),
            (slots.iter().map(|slot: &&str| (*slot).to_owned()).collect(), skipped)
        );
        let view = world.dispatcher.view();
        assert_eq!(view.drills[&name("orders")].known_since, BEGIN.parse().unwrap(), "since the first daemon");
        // Once.
        let world = world.again(Wanted::default(), orders(), 5).await;
        world.pass(5).await;
        assert_eq!(world.skipped("orders"), []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_schedule_that_changed_while_nobody_was_there_missed_nothing() {
    let world = World::new(Wanted::default(), book([entry("orders", "a", "cron: '@daily'")])).await;
    world.pass(60).await;
    let hourly = || book([entry("orders", "a", HOURLY_ONCE), entry("stock", "a", HOURLY_ONCE)]);
    let world = world.again(Wanted::default(), hourly(), 12_000).await;
    world.pass(5).await;
    assert_eq!((world.runner.slots("orders"), world.skipped("orders")), (vec![], vec![]));
    assert_eq!((world.runner.slots("stock"), world.skipped("stock")), (vec![], vec![]), "nobody had seen it");
    // From here on it is known.
    let world = world.again(Wanted::default(), hourly(), 3_600).await;
    world.pass(5).await;
    assert_eq!(world.runner.slots("orders"), ["04:00:00"]);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_written_down_at_the_start_is_written_later() {
    let world = World::new(Wanted::default(), Book::default()).await;
    world.pass(5).await;
    let written = world.store.writes();
    world.store.fail_at(written + 1, drill::stop::Stop::internal("the disk is full"));
    let orders = || book([entry("orders", "a", HOURLY)]);
    world.dispatcher.tell(crate::dispatcher::Event::Drills(std::sync::Arc::new(orders()))).await;
    world.pass(10).await;
    assert_eq!(world.alerts(), [""; 0]);
    let world = world.again(Wanted::default(), orders(), 12_000).await;
    world.pass(5).await;
    assert_eq!(world.skipped("orders"), [("missed", 3)]);
}

#[tokio::test(start_paused = true)]
async fn missed_self_tests_are_skipped_or_one_of_them_runs() {
    for (schedule, ran, skipped) in [
        (HOURLY, vec!["byte 01:00"], vec![("missed", 3)]),
        (HOURLY_ONCE, vec!["byte 01:00", "byte 04:00"], vec![("missed", 2)]),
    ] {
        let world = World::new(Wanted::default(), tested(schedule)).await;
        world.pass(3_700).await;
        let mut seen = world.runner.self_tests("orders");
        // Down from 01:01 to 04:21.
        let world = world.again(Wanted::default(), tested(schedule), 12_000).await;
        world.pass(5).await;
        seen.extend(world.runner.self_tests("orders"));
        assert_eq!(
            (seen, world.skipped("orders")),
            (ran.iter().map(|ran: &&str| (*ran).to_owned()).collect(), skipped)
        );
        assert!(world.dispatcher.view().drills[&name("orders")].last.is_none(), "a self-test is no run of the drill");
        let world = world.again(Wanted::default(), tested(schedule), 5).await;
        world.pass(5).await;
        assert_eq!(world.skipped("orders"), []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_self_test_waits_for_the_drills_own_run_and_no_longer_than_its_deadline() {
    let spec = |deadline: &str| {
        let lines = format!(
            "  schedule: {{ cron: '0 1 * * *' }}\n  selfTest: {{ schedule: {{ cron: '0 1 * * *', missed: run-once, \
             startDeadline: {deadline} }}, damages: {{ byte: {{}} }} }}\n"
        );
        book([of_spec("orders", "a", &lines)])
    };
    for (deadline, ran, skipped) in [("1h", vec!["byte 01:00"], vec![]), ("5m", vec![], vec![("start-deadline", 1)])] {
        let world = World::new(Wanted { takes: 600, ..Wanted::default() }, spec(deadline)).await;
        world.pass(3_600 + 590).await;
        assert_eq!(world.runner.self_tests("orders"), [""; 0]);
        world.pass(1_000).await;
        assert_eq!(world.runner.slots("orders"), ["01:00:00"]);
        let ran: Vec<String> = ran.iter().map(|ran: &&str| (*ran).to_owned()).collect();
        assert_eq!((world.runner.self_tests("orders"), world.skipped("orders")), (ran, skipped));
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_touched_loses_no_self_test_that_waits() {
    let spec = |label: &str| {
        let lines = "  schedule: { cron: '0 1 * * *' }\n  selfTest: { schedule: { cron: '0 1 * * *' }, damages: { byte: {} } }\n";
        book([of_spec("orders", label, lines)])
    };
    let world = World::new(Wanted { takes: 600, ..Wanted::default() }, spec("a")).await;
    world.pass(3_700).await;
    world.dispatcher.tell(crate::dispatcher::Event::Drills(std::sync::Arc::new(spec("b")))).await;
    world.pass(2_000).await;
    assert_eq!(world.runner.self_tests("orders"), ["byte 01:00"]);
}

#[tokio::test(start_paused = true)]
async fn a_self_test_is_started_by_hand_where_something_can_notice() {
    let lines = "  checks: [{ name: count, plugin: 'builtin:row-count' }]\n";
    let world = World::new(Wanted::default(), book([of_spec("orders", "a", lines)])).await;
    let start = |damage| world.dispatcher.start(name("orders"), Some(damage), "me".to_owned());
    start(Damage::BaselineRows).await.unwrap();
    let refused = start(Damage::BaselineColumn).await;
    assert_eq!(refused, Err(StartError::CannotNotice { drill: name("orders"), damage: Damage::BaselineColumn }));
    world.pass(5).await;
    assert_eq!(world.runner.self_tests("orders"), ["baseline-rows by hand"]);
}
