//! SIGKILL after every event of the ledger of a real run (invariant 5): what is left is reaped, and the run gets its evidence.
use std::collections::{BTreeMap, BTreeSet};

use rustix::process::Signal;
use serde_json::Value;
use whole_program::{Muster, Place, muster, sample};

/// In continuous integration: the first event of each kind.
#[test]
fn a_sigkill_after_each_kind_of_event_leaves_nothing() {
    let (place, drill, events) = whole_run();
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for (nth, event) in events.iter().enumerate() {
        kinds.entry(text(event, "event")).or_insert(nth);
    }
    assert!(kinds.len() > 12, "a whole run has all kinds of events: {kinds:?}");
    for nth in kinds.into_values() {
        kill_after(&place, &drill, nth);
    }
}

#[test]
#[ignore = "takes minutes: every event of a run"]
fn a_sigkill_after_every_event_leaves_nothing() {
    let (place, drill, events) = whole_run();
    for nth in 0..events.len() {
        kill_after(&place, &drill, nth);
    }
}

/// A run that nobody kills, and its events.
fn whole_run() -> (Place, String, Vec<Value>) {
    let place = Place::new();
    let drill = sample(&place, "shop").drill();
    let mut running = Muster::start(&place, &["run", &drill, "--output", "json"]);
    let events: Vec<Value> = std::iter::from_fn(|| running.next_event()).collect();
    running.wait().expect(0);
    assert!(events.len() > 30, "{}", events.len());
    (place, drill, events)
}

/// Events of a run may come in another order the next time: two phases overlap. What counts is that each was met.
fn kill_after(place: &Place, drill: &str, nth: usize) {
    let mut running = Muster::start(place, &["run", drill, "--output", "json"]);
    let mut seen = Vec::new();
    while seen.len() <= nth {
        let Some(event) = running.next_event() else { break };
        seen.push(text(&event, "event"));
    }
    running.signal(Signal::KILL);
    running.wait();
    let place_of_death = format!("event {nth}, {:?}", seen.last());

    let reaped = muster(place, &["reap"]).expect(0);
    place.assert_nothing_left();
    let runs = muster(place, &["runs", "--output", "json"]).expect(0).stdout;
    let run: Value = serde_json::from_str(runs.lines().next().unwrap()).unwrap();
    let seen: BTreeSet<&str> = seen.iter().map(String::as_str).collect();
    let result = (text(&run, "verdict"), text(&run, "reason"));
    let interrupted = ("inconclusive".to_owned(), "interrupted".to_owned());
    if seen.contains("concluded") {
        assert_eq!(result.0, "passed", "{place_of_death}: a run that was concluded keeps its verdict: {run}");
    } else if result.0 != "passed" {
        assert_eq!(result, interrupted, "{place_of_death}: {run}\n{}", reaped.stdout);
    }
    assert!(run["ended"].is_string(), "{place_of_death}: {run}");
    assert_eq!(run["leftovers"], "none", "{place_of_death}: {run}");
    let trusted = place.state().join("evidence.pub");
    let evidence = text(&run, "evidence");
    let verified =
        muster(place, &["evidence", "verify", &evidence, "--trust", trusted.to_str().unwrap(), "--output", "json"]);
    let verified: Value = serde_json::from_str(verified.expect(0).stdout.lines().last().unwrap()).unwrap();
    let chain = &verified["chain"];
    assert_eq!(chain["present"], chain["total"], "{place_of_death}: {chain}");
    assert_eq!(text(&verified["statement"]["predicate"]["result"], "verdict"), result.0, "{place_of_death}");
    let second = muster(place, &["reap"]).expect(0).stdout;
    assert!(second.contains("nothing to reap"), "{place_of_death}: {second}");
    muster(place, &["store", "check"]).expect(0);
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}")).to_owned()
}
