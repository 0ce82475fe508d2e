//! Slots of schedules, and what a schedule goes on from after a restart.
use drill::port::{ScheduleHistory, SeenSchedule};

use super::*;

pub(super) fn scheduled(drill: &str, minute: u8, slot: &str) -> RunStarted {
    RunStarted { trigger: Trigger::Schedule { scheduled_for: slot.parse().unwrap() }, ..started(drill, minute, 10) }
}

pub(super) const SLOT: &str = "2026-11-22T02:15:00Z";

pub(super) async fn pass(store: &dyn Store, run: &RunStarted) {
    for event in [concluded(), evidence_written(run), Event::Ended { leftovers: Leftovers::None }] {
        store.append(&run.run, &event).await.unwrap();
    }
}

pub(super) fn evidence_written(run: &RunStarted) -> Event {
    Event::EvidenceWritten { path: format!("/evidence/{}", run.run), digest: Sha256Digest::of(b"e"), sequence: 1 }
}

pub(super) async fn a_slot_is_run_or_skipped_once(world: &dyn World) {
    let (store, at) = (world.open(), SLOT.parse().unwrap());
    let first = scheduled("orders", 1, SLOT);
    store.claim(&first).await.unwrap();
    pass(store.as_ref(), &first).await;
    let again = world.open();
    let stop = again.claim(&scheduled("orders", 2, SLOT)).await.unwrap_err();
    assert_eq!(stop.reason, Reason::AlreadyRunning);
    assert!(stop.message.contains("02:15:00"), "{stop}");
    assert_eq!(again.runs(None, 10).await.unwrap().len(), 1, "a refused claim leaves no run");
    assert!(!again.skip(&first.drill, None, at, "missed").await.unwrap());
    // Another drill's slot, and another schedule of the same drill, are others.
    assert!(again.skip(&"stock".parse().unwrap(), None, at, "missed").await.unwrap());
    assert!(again.skip(&first.drill, Some(Damage::Signature), at, "missed").await.unwrap());
    assert!(!again.skip(&first.drill, Some(Damage::Signature), at, "missed").await.unwrap());
    assert!(again.claim(&scheduled("stock", 3, SLOT)).await.is_err());
    let damage = Trigger::SelfTest { damage: Damage::Byte, scheduled_for: Some(at) };
    again.claim(&RunStarted { trigger: damage, ..started("orders", 4, 10) }).await.unwrap();
}

pub(super) async fn a_history_is_what_a_schedule_goes_on_from(world: &dyn World) {
    let store = world.open();
    let passed = scheduled("orders", 1, SLOT);
    store.claim(&passed).await.unwrap();
    pass(store.as_ref(), &passed).await;
    let later = started("orders", 2, 10);
    store.claim(&later).await.unwrap();
    store.append(&later.run, &Event::Ended { leftovers: Leftovers::None }).await.unwrap_err();
    store.skip(&"stock".parse().unwrap(), None, SLOT.parse().unwrap(), "blackout").await.unwrap();
    let test = Trigger::SelfTest { damage: Damage::Byte, scheduled_for: None };
    store.claim(&RunStarted { trigger: test, ..started("tested", 3, 10) }).await.unwrap();

    let histories = world.open().histories().await.unwrap();
    let names: Vec<_> = histories.iter().map(|history| history.drill.as_str()).collect();
    assert_eq!(names, ["orders", "stock", "tested"]);
    let [orders, stock, tested] = &histories[..] else { panic!("three drills") };
    assert_eq!(orders.schedules[&None].last_slot, Some(SLOT.parse().unwrap()));
    assert_eq!(orders.last.as_ref().unwrap().run, later.run);
    let success = orders.last_success.as_ref().unwrap();
    assert_eq!((&success.run, &success.trigger), (&passed.run, &passed.trigger));
    assert_eq!((stock.schedules[&None].last_slot, &stock.last), (Some(SLOT.parse().unwrap()), &None));
    assert_eq!((stock.first_seen, &stock.schedules[&None].seen), (None, &None));
    assert_eq!((&tested.last, &tested.last_success), (&None, &None), "a self-test is no drill");
}

pub(super) async fn a_schedule_is_known_since_its_words_and_a_drill_since_it_was_first_seen(world: &dyn World) {
    let (first, then, slot) = ("2026-11-20T00:00:00Z", "2026-11-21T00:00:00Z", SLOT.parse().unwrap());
    let seen = |self_test, words: &str, at: &str| SeenSchedule {
        drill: "orders".parse().unwrap(),
        self_test,
        words: words.to_owned(),
        at: at.parse().unwrap(),
    };
    let store = world.open();
    store.seen(&[seen(None, "", first), seen(Some(Damage::Byte), "@daily UTC", first)]).await.unwrap();
    store.seen(&[seen(None, "@hourly UTC", then)]).await.unwrap();
    store.skip(&"orders".parse().unwrap(), Some(Damage::Byte), slot, "missed").await.unwrap();

    let histories = world.open().histories().await.unwrap();
    let [orders] = &histories[..] else { panic!("one drill: {histories:?}") };
    assert_eq!(orders.first_seen, Some(first.parse().unwrap()));
    let of = |last_slot, words: &str, since: &str| ScheduleHistory {
        last_slot,
        seen: Some((words.to_owned(), since.parse().unwrap())),
    };
    let expected = [(None, of(None, "@hourly UTC", then)), (Some(Damage::Byte), of(Some(slot), "@daily UTC", first))];
    assert_eq!(orders.schedules, expected.into());
}
