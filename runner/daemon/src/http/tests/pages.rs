//! The page in a real browser: readable, usable by keyboard, in the dark and on a narrow screen, whatever a backup says.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use drill::id::{DrillName, RunId, Sha256Digest};
use drill::ledger::{Event, Summary, Trigger};
use drill::port::{Alert, Outbox as _, Quarantine, RunSummary, Store as _};
use drill::verdict::{Leftovers, Reason};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::browser::Browser;
use super::{DrillView, World, bad_file, config, drill_view, running, view};
use crate::dispatcher::{Happening, Listener as _, RunUpdate};
use crate::sample;

const TABS: &str = "a[href], button, input";

/// A run of `drill` that ended so long ago.
async fn ran(world: &World, drill: &str, ago: SignedDuration, took: u64, reason: Reason) -> RunSummary {
    let started = drill::ledger::RunStarted {
        at: Timestamp::now() - ago,
        trigger: Trigger::Schedule { scheduled_for: Timestamp::now() - ago },
        ..sample::started(drill, Path::new("/evidence"))
    };
    let run = RunId::new(&started.drill, started.at, [1, 2, 3, 4]);
    let started = drill::ledger::RunStarted { run: run.clone(), ..started };
    world.store.claim(&started).await.unwrap();
    let summary = Summary { recovery_time_milliseconds: Some(took), ..sample::summary(reason, "as the sample says") };
    world.store.append(&run, &Event::Concluded(summary)).await.unwrap();
    world.store.append(&run, &Event::Ended { leftovers: Leftovers::None }).await.unwrap();
    world.store.runs(Some(&started.drill), 1).await.unwrap().pop().unwrap()
}

/// Every state that a drill can be in, with hostile text wherever somebody else has a say.
async fn furnish(world: &World) -> (RunId, RunId, RunId) {
    let now = Timestamp::now();
    let mut drills = BTreeMap::<DrillName, Arc<DrillView>>::new();
    for (name, days, last) in [
        ("billing", 0, Reason::ObjectiveExceeded),
        ("catalog", 0, Reason::Proven),
        ("ledger-archive", 0, Reason::Interrupted),
        ("sessions", 9, Reason::Proven),
    ] {
        let mut newest = None;
        for day in (0..12_u32).rev() {
            let ago = SignedDuration::from_hours(i64::from((day + days) * 24 + 2));
            let reason = if day == 0 { last } else { Reason::Proven };
            let took = 18_000 + u64::from((day * 7) % 5) * 900 + if reason == Reason::Proven { 0 } else { 14_000 };
            newest = Some(Arc::new(ran(world, name, ago, took, reason).await));
        }
        let success = newest.clone().filter(|_| last == Reason::Proven);
        let view = DrillView { last: newest, last_success: success, ..drill_view(name, now) };
        drills.insert(name.parse().unwrap(), Arc::new(view));
    }
    let failed = world.run("orders", sample::hostile()).await;
    let (proven, _) = world.proven("stock").await;
    let goes_on = world.run("users", sample::passed().into_iter().take(6).collect()).await;
    for name in ["orders", "stock", "users", "warehouse"] {
        let key: DrillName = name.parse().unwrap();
        let last = world.store.runs(Some(&key), 1).await.unwrap().pop().filter(|run| run.ended.is_some());
        let last = last.map(|last| Arc::new(RunSummary { started: now, ..last }));
        let view = DrillView {
            last_success: last.clone().filter(|_| name == "stock"),
            last,
            running: (name == "users").then(|| running(&goes_on)),
            ..drill_view(name, now)
        };
        drills.insert(key, Arc::new(view));
    }
    world.view.send_replace(Arc::new(crate::dispatcher::View {
        files: Arc::new(vec![bad_file(sample::HOSTILE)]),
        stopping: true,
        stalled: true,
        ..view(drills)
    }));
    let entry = Quarantine {
        digest: Sha256Digest::of(b"manifest"),
        location: format!("/backups/orders/{}", sample::HOSTILE),
        run: failed.clone(),
        why: format!("orders.dump: bytes 4194304 to 8388607 are not what was signed {}", sample::HOSTILE),
        at: now,
    };
    world.store.quarantine(&entry).await.unwrap();
    let alert = Alert {
        kind: "drill-failed".to_owned(),
        subject: "orders".to_owned(),
        drill: Some("orders".parse().unwrap()),
        run: Some(failed.clone()),
        at: now,
        message: format!("check rows failed {}", sample::HOSTILE),
        advice: Some("compare the backup with its source".to_owned()),
        details: json!({}),
    };
    world.store.raise(&alert).await.unwrap();
    (failed, proven, goes_on)
}

fn axe() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/axe-core/axe.min.js");
    std::fs::read_to_string(path).unwrap()
}

/// Where pictures of the pages go, for people who look at them.
fn pictures() -> Option<PathBuf> {
    std::env::var_os("MUSTER_TEST_SCREENSHOTS").map(PathBuf::from)
}

#[tokio::test]
async fn every_page_is_sound_in_a_browser() {
    let world = World::new(&config());
    let (failed, proven, goes_on) = furnish(&world).await;
    let mut browser = Browser::start().await;
    let axe = axe();
    let pages = [
        ("drills", "/".to_owned()),
        ("filtered", "/?state=failed".to_owned()),
        ("drill", "/drills/billing".to_owned()),
        ("never", "/drills/warehouse".to_owned()),
        ("failed", format!("/runs/{failed}")),
        ("proven", format!("/runs/{proven}")),
        ("goes-on", format!("/runs/{goes_on}")),
        ("quarantine", "/quarantine".to_owned()),
        ("problem", "/drills/nothing".to_owned()),
    ];
    for (name, path) in &pages {
        for (width, scheme) in [(360, "light"), (360, "dark"), (1280, "light"), (1280, "dark")] {
            let what = format!("{name} at {width} px, {scheme}");
            browser.look(width, scheme).await;
            browser.open(&world.url(path)).await;
            if let Some(pictures) = pictures() {
                let picture = browser.screenshot().await;
                std::fs::write(pictures.join(format!("{name}-{width}-{scheme}.png")), picture).unwrap();
            }
            let wide = browser.evaluate("document.documentElement.scrollWidth - window.innerWidth").await;
            assert!(wide.as_i64().unwrap() <= 0, "{what}: {wide} px too wide");
            browser.evaluate(&axe).await;
            let violations = browser
                .evaluate(
                    "axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice'] }).then(found => \
                     JSON.stringify(found.violations.map(one => [one.id, one.nodes.map(node => node.html + node.failureSummary)])))",
                )
                .await;
            assert_eq!(violations, "[]", "{what}");
            // One that was not found is an error in the console, and should be.
            browser.troubles.retain(|trouble| *name != "problem" || !trouble.contains("404"));
            assert!(browser.troubles.is_empty(), "{what}: {:?}", browser.troubles);
        }
        all_is_reached_by_keyboard(&mut browser, name).await;
    }
    browser.end().await;
    world.end().await;
}

async fn all_is_reached_by_keyboard(browser: &mut Browser, what: &str) {
    let all = browser.evaluate(&format!("document.querySelectorAll('{TABS}').length")).await.as_u64().unwrap();
    let mut reached = std::collections::BTreeSet::new();
    for _ in 0..all {
        browser.press_tab().await;
        let at = browser
            .evaluate(&format!("[...document.querySelectorAll('{TABS}')].indexOf(document.activeElement)"))
            .await;
        let style = browser.evaluate("getComputedStyle(document.activeElement).outlineStyle").await;
        assert_ne!(style, "none", "{what}: number {at} has the focus and does not show it");
        reached.insert(at.as_i64().unwrap());
    }
    assert_eq!(reached.into_iter().collect::<Vec<_>>(), (0..all.cast_signed()).collect::<Vec<_>>(), "{what}");
}

#[tokio::test]
async fn a_run_that_goes_on_is_seen_to_go_on() {
    let world = World::new(&config());
    let events = sample::passed();
    let (before, after) = events.split_at(6);
    let run = world.run("users", before.to_vec()).await;
    let view = DrillView { running: Some(running(&run)), ..drill_view("users", Timestamp::now()) };
    world.show([("users".parse().unwrap(), Arc::new(view))].into());
    let mut browser = Browser::start().await;
    browser.open(&world.url(&format!("/runs/{run}"))).await;
    let heard = |update| {
        world.feed.heard(&Happening::Run { drill: "users".parse().unwrap(), run: run.clone(), update });
    };
    let shown = "document.getElementById('live')?.textContent ?? ''";
    let mut text = Value::Null;
    for _ in 0..200 {
        heard(RunUpdate::Progress {
            phase: drill::phase::Phase::Restore,
            done: 812,
            total: Some(1_204),
            unit: "entries".to_owned(),
        });
        text = browser.evaluate(shown).await;
        if text.as_str().is_some_and(|text| text.contains("812 of 1,204 entries")) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(text, "It goes on: restore, 812 of 1,204 entries");
    browser.expect_reload();
    for event in after {
        let stamped = world.store.append(&run, event).await.unwrap();
        heard(RunUpdate::Event(Arc::new(stamped)));
    }
    browser.until_loaded().await;
    let title = browser.evaluate("document.title").await;
    assert_eq!(title, format!("PASSED: {run} - muster"));
    assert!(browser.troubles.is_empty(), "{:?}", browser.troubles);
    browser.end().await;
    world.end().await;
}

#[tokio::test]
async fn ten_thousand_drills_are_shown_a_page_at_a_time() {
    let world = World::new(&config());
    let now = Timestamp::now();
    let like = drill_view("orders", now);
    let drills = (0..10_000).map(|number| (format!("drill-{number:05}").parse().unwrap(), Arc::new(like.clone())));
    world.show(drills.collect());
    let first = world.get("/").await.text().await.unwrap();
    assert!(first.contains("10,000 drills") && first.contains("Page 1 of 50"));
    assert_eq!(first.matches("class=\"drill ").count(), 200);
    let last = world.get("/?page=50").await.text().await.unwrap();
    assert!(last.contains("drill-09999") && !last.contains("rel=\"next\""));
    let found = world.get("/?find=drill-00777").await.text().await.unwrap();
    assert_eq!(found.matches("class=\"drill ").count(), 1);
    world.end().await;
}
