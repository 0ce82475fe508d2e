//! Streams of events.
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use drill::id::RunId;
use drill::ledger::Stamped;
use drill::phase::Phase;
use drill::port::Store as _;
use drill::stop::Stop;
use drill::verdict::{Leftovers, Verdict};
use expect_test::expect;
use futures_util::{Stream, StreamExt as _};

use super::{World, config, drill_view, running};
use crate::cli::start::wait;
use crate::cli::style::Style;
use crate::client::{Client, Told};
use crate::dispatcher::{Happening, Listener as _, RunUpdate};
use crate::sample;

type Events = Pin<Box<dyn Stream<Item = Result<Told, Stop>>>>;

async fn follow(world: &World, path: &str, seen: u64) -> Option<Events> {
    let daemon = Client::at(&world.socket()).unwrap().unwrap();
    Some(Box::pin(daemon.follow(path, seen).await.unwrap()?))
}

async fn next(events: &mut Events) -> Option<Told> {
    tokio::time::timeout(Duration::from_secs(20), events.next()).await.unwrap().map(Result::unwrap)
}

fn sequence(told: &Told) -> u64 {
    assert_eq!(told.kind, "ledger");
    serde_json::from_str::<Stamped>(&told.data).unwrap().sequence
}

fn path(run: &RunId) -> String {
    format!("/api/v1/runs/{run}/events")
}

fn heard(world: &World, run: &RunId, update: RunUpdate) {
    let drill = "orders".parse().unwrap();
    world.feed.heard(&Happening::Run { drill, run: run.clone(), update });
}

#[tokio::test]
async fn a_run_that_ended_is_told_whole_and_taken_up_where_it_was_left() {
    let world = World::new(&config());
    let run = world.run("orders", sample::hostile()).await;
    let all = world.store.events(&run).await.unwrap();
    for seen in [0, 5] {
        let mut events = follow(&world, &path(&run), seen).await.unwrap();
        for stamped in all.iter().filter(|stamped| stamped.sequence > seen) {
            assert_eq!(sequence(&next(&mut events).await.unwrap()), stamped.sequence);
        }
        assert_eq!(next(&mut events).await, None);
    }
    assert!(follow(&world, &path(&run), all.len() as u64).await.is_none());
    world.end().await;
}

#[tokio::test]
async fn what_happens_is_told_once_and_in_order_until_the_run_ends() {
    let world = World::new(&config());
    let events = sample::passed();
    let (before, after) = events.split_at(6);
    let run = world.run("orders", before.to_vec()).await;
    let view = super::DrillView { running: Some(running(&run)), ..drill_view("orders", jiff::Timestamp::now()) };
    world.show([("orders".parse().unwrap(), Arc::new(view))].into());
    let mut stream = follow(&world, &path(&run), 0).await.unwrap();
    for expected in 1..=7 {
        assert_eq!(sequence(&next(&mut stream).await.unwrap()), expected);
    }
    // What it heard while the ledger was read is not told again.
    for stamped in world.store.events(&run).await.unwrap() {
        heard(&world, &run, RunUpdate::Event(Arc::new(stamped)));
    }
    heard(&world, &"other-20261122t021500z-j8y2".parse().unwrap(), progress(9));
    heard(&world, &run, progress(812));
    let told = next(&mut stream).await.unwrap();
    assert_eq!(told.kind, "progress");
    assert!(told.data.contains("\"done\":812"), "{}", told.data);
    for event in after {
        let stamped = world.store.append(&run, event).await.unwrap();
        heard(&world, &run, RunUpdate::Event(Arc::new(stamped.clone())));
        assert_eq!(sequence(&next(&mut stream).await.unwrap()), stamped.sequence);
    }
    assert_eq!(next(&mut stream).await, None);
    world.end().await;
}

fn progress(done: u64) -> RunUpdate {
    RunUpdate::Progress { phase: Phase::Restore, done, total: Some(1_204), unit: "entries".to_owned() }
}

#[tokio::test]
async fn streams_end_with_muster_and_their_number_is_bounded() {
    let world = World::new(&config());
    let mut streams = Vec::new();
    for _ in 0..super::super::STREAMS {
        // Several connections share what the socket may have.
        streams.push(world.get("/api/v1/events").await);
    }
    assert!(streams.iter().all(|stream| stream.status() == StatusCode::OK));
    assert_eq!(world.get("/api/v1/events").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    let last = streams.pop().unwrap();
    drop(streams);
    world.stop.cancel();
    let text = tokio::time::timeout(Duration::from_secs(20), last.text()).await.unwrap().unwrap();
    assert!(text.contains("event: stopping"), "{text}");
    world.end().await;
}

#[tokio::test]
async fn who_is_too_slow_is_told_and_sent_away() {
    let world = World::new(&config());
    let stream = world.get("/api/v1/events").await;
    let run: RunId = "orders-20261122t021500z-j8y2".parse().unwrap();
    // Nobody reads meanwhile: what is not in a buffer on the way is missed.
    let unit = "x".repeat(4_096);
    for done in 0..20_000 {
        let update = RunUpdate::Progress { phase: Phase::Restore, done, total: None, unit: unit.clone() };
        heard(&world, &run, update);
    }
    let text = tokio::time::timeout(Duration::from_secs(30), stream.text()).await.unwrap().unwrap();
    assert!(text.contains("event: lagged"), "{} bytes", text.len());
    world.end().await;
}

#[tokio::test]
async fn whoever_waits_hears_the_phases_and_the_result() {
    let world = World::new(&config());
    let run = world.run("orders", sample::failed()).await;
    let daemon = Client::at(&world.socket()).unwrap().unwrap();
    let mut said = String::new();
    let say = |text: &str| {
        said.push_str(text);
        Ok(())
    };
    let result = wait(&daemon, &run, Style::plain(), say).await.unwrap();
    assert_eq!(result, (Verdict::Failed, Leftovers::Some));
    expect![[r#"
          ✓ preflight     0.1 s   PostgreSQL 15.18, 3 extensions, 2 roles
          ✓ verify        0.9 s   1.2 GiB, signed by backup.pub
          ✓ sandbox       0.4 s   sandbox up
          ✓ probe         0.1 s   isolated: 1 probe closed, 1 control open
          ✓ restore      20.1 s   1,204 entries, 1 database
          ✓ lease         0.2 s   read-only role for 15 m
          ✓ validate      0.6 s   1 check
          ? teardown      0.3 s   directory runs/orders is busy

          FAILED   check rows failed: public.orders has 12 rows and should have 13
    "#]]
    .assert_eq(&said.replace("\n  ", "\n")[2..]);
    // One that another process runs, or that was cut off, does not come to its end here.
    let cut_off = world.run("stock", Vec::new()).await;
    let stop = wait(&daemon, &cut_off, Style::plain(), |_| Ok(())).await.unwrap_err();
    assert!(stop.message.contains("before its end"), "{stop}");
    world.end().await;
}
