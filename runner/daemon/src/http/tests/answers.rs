//! What the API answers is what its description says.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::{StatusCode, header};
use drill::id::{DrillName, Sha256Digest};
use drill::port::{Alert, Outbox as _, Quarantine, Store as _};
use drill::stop::Stop;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{World, bad_file, config, drill_view, running, view};
use crate::http::api;
use crate::sample;

/// For what comes with the next look at the store.
const PATIENCE: Duration = Duration::from_mins(1);

async fn document(world: &World) -> Value {
    world.get("/api/v1/openapi.json").await.json().await.unwrap()
}

#[tokio::test]
async fn every_route_is_described_and_nothing_else_is() {
    let world = World::new(&config());
    let document = document(&world).await;
    assert_eq!(document["openapi"], "3.1.0");
    let mut described = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        described.extend(methods.as_object().unwrap().keys().map(|method| format!("{method} {path}")));
    }
    let routes: BTreeSet<_> = api::routes().iter().map(|route| format!("{} {}", route.method, route.path)).collect();
    assert_eq!(described, routes);
    world.end().await;
}

/// Fails where the answer is not what the description says of this path.
async fn check(world: &World, document: &Value, path: &str, of: &str) -> Value {
    let response = world.get(path).await;
    assert_eq!(response.status(), StatusCode::OK, "{path}");
    let answer: Value = response.json().await.unwrap();
    let pointer = format!("/paths/{}/get/responses/200/content/application~1json/schema", of.replace('/', "~1"));
    let mut schema = document.pointer(&pointer).unwrap_or_else(|| panic!("{pointer}")).clone();
    schema["components"] = document["components"].clone();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<_> = validator.iter_errors(&answer).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{path}: {errors:?}\n{answer:#}");
    answer
}

#[tokio::test]
async fn answers_are_as_described() {
    let world = World::new(&config());
    let (proven, _) = world.proven("stock").await;
    let failed = world.run("orders", sample::hostile()).await;
    let goes_on = world.run("users", Vec::new()).await;
    let mut drills = BTreeMap::<DrillName, _>::new();
    let now = Timestamp::now();
    for name in ["orders", "stock", "users"] {
        let key = name.parse().unwrap();
        let last = world.store.runs(Some(&key), 1).await.unwrap().pop().filter(|run| run.ended.is_some()).map(Arc::new);
        let view = super::DrillView {
            last_success: last.clone().filter(|_| name == "stock"),
            last,
            running: (name == "users").then(|| running(&goes_on)),
            ..drill_view(name, now)
        };
        drills.insert(key, Arc::new(view));
    }
    world.view.send_replace(Arc::new(crate::dispatcher::View {
        files: Arc::new(vec![bad_file(sample::HOSTILE)]),
        ..view(drills)
    }));
    let entry = Quarantine {
        digest: Sha256Digest::of(b"manifest"),
        location: sample::HOSTILE.to_owned(),
        run: failed.clone(),
        why: sample::HOSTILE.to_owned(),
        at: now,
    };
    world.store.quarantine(&entry).await.unwrap();
    let alert = Alert {
        kind: "drill-failed".to_owned(),
        subject: "orders".to_owned(),
        drill: None,
        run: Some(failed.clone()),
        at: now,
        message: sample::HOSTILE.to_owned(),
        advice: None,
        details: json!({}),
    };
    world.store.raise(&alert).await.unwrap();

    let document = document(&world).await;
    let drills = check(&world, &document, "/api/v1/drills", "/api/v1/drills").await;
    assert_eq!(drills["drills"].as_array().unwrap().len(), 3);
    assert_eq!(drills["drills"][0]["state"], "failed");
    assert_eq!(drills["drills"][2]["state"], "running");
    check(&world, &document, "/api/v1/drills/users", "/api/v1/drills/{drill}").await;
    let next = check(&world, &document, "/api/v1/next", "/api/v1/next").await;
    // Three drills, once a day, for so long.
    assert_eq!(next["next"].as_array().unwrap().len(), 200);
    let of_one = check(&world, &document, "/api/v1/next?drill=stock&limit=2", "/api/v1/next").await;
    let of_one = of_one["next"].as_array().unwrap();
    assert!(of_one.len() == 2 && of_one.iter().all(|fire| fire["drill"] == "stock"), "{of_one:?}");
    assert!(of_one[0]["starts"].as_str() < of_one[1]["starts"].as_str(), "{of_one:?}");
    check(&world, &document, "/api/v1/runs", "/api/v1/runs").await;
    for run in [&proven, &failed, &goes_on] {
        check(&world, &document, &format!("/api/v1/runs/{run}"), "/api/v1/runs/{run}").await;
    }
    let quarantine = check(&world, &document, "/api/v1/quarantine", "/api/v1/quarantine").await;
    assert_eq!(quarantine["quarantine"][0]["why"], sample::HOSTILE);
    check(&world, &document, "/api/v1/problems", "/api/v1/problems").await;
    let alerts = check(&world, &document, "/api/v1/alerts", "/api/v1/alerts").await;
    assert_eq!(alerts["alerts"][0]["message"], sample::HOSTILE);
    world.end().await;
}

#[tokio::test]
async fn problems_say_what_to_do() {
    let world = World::new(&config());
    let schema = document(&world).await["components"]["schemas"]["Problem"].clone();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let long = format!("/{}", "a".repeat(3_000));
    for (path, status) in [
        ("/api/v1/nothing", 404),
        ("/api/v1/drills/orders", 404),
        ("/api/v1/drills/..%2f", 404),
        ("/api/v1/runs/orders-20261122t021500z-k7x2", 404),
        ("/api/v1/next?drill=orders", 404),
        ("/api/v1/next?drill=Orders", 400),
        ("/api/v1/runs?limit=x", 400),
        ("/api/v1/runs?limt=3", 400),
        ("/api/v1/runs?before=yesterday", 400),
        ("/api/v1/runs?drill=%1b%5b2J", 400),
        (long.as_str(), 414),
    ] {
        let response = world.get(path).await;
        assert_eq!(response.status().as_u16(), status, "{path}");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json", "{path}");
        let text = response.text().await.unwrap();
        assert!(!text.contains('\u{1b}'), "{text}");
        let problem: Value = serde_json::from_str(&text).unwrap();
        assert!(validator.is_valid(&problem), "{problem}");
        assert_eq!(problem["status"], status);
        assert!(!problem["advice"].as_str().unwrap().is_empty());
    }
    world.end().await;
}

#[tokio::test]
async fn pages_follow_one_another_without_a_gap() {
    let world = World::new(&config());
    let mut drills = BTreeMap::new();
    for number in 0..7 {
        let name = format!("drill-{number}");
        world.run(&name, Vec::new()).await;
        drills.insert(name.parse().unwrap(), Arc::new(drill_view(&name, Timestamp::now())));
    }
    world.show(drills);
    for (list, cursor, what) in [("runs", "before", "run"), ("drills", "after", "name")] {
        let (mut seen, mut from) = (Vec::new(), String::new());
        loop {
            let path = format!("/api/v1/{list}?limit=3{from}");
            let page: Value = world.get(&path).await.json().await.unwrap();
            seen.extend(page[list].as_array().unwrap().iter().map(|entry| entry[what].as_str().unwrap().to_owned()));
            match page["next"].as_str() {
                Some(next) => from = format!("&{cursor}={next}"),
                None => break,
            }
        }
        let distinct: BTreeSet<_> = seen.iter().collect();
        assert_eq!((seen.len(), distinct.len()), (7, 7), "{list}: {seen:?}");
    }
    world.end().await;
}

#[tokio::test]
async fn evidence_is_given_as_it_was_written_or_not_at_all() {
    let world = World::new(&config());
    let (run, path) = world.proven("stock").await;
    let evidence = world.get(&format!("/api/v1/runs/{run}/evidence")).await;
    assert_eq!(evidence.status(), StatusCode::OK);
    assert_eq!(
        evidence.headers()[header::CONTENT_DISPOSITION].to_str().unwrap(),
        format!("attachment; filename=\"{run}.dsse.json\"")
    );
    assert_eq!(evidence.bytes().await.unwrap(), std::fs::read(&path).unwrap());
    std::fs::write(&path, "{}").unwrap();
    assert_eq!(world.get(&format!("/api/v1/runs/{run}/evidence")).await.status(), StatusCode::GONE);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(world.get(&format!("/api/v1/runs/{run}/evidence")).await.status(), StatusCode::GONE);
    let none = world.run("users", Vec::new()).await;
    assert_eq!(world.get(&format!("/api/v1/runs/{none}/evidence")).await.status(), StatusCode::NOT_FOUND);
    world.end().await;
}

#[tokio::test]
async fn health_says_what_is_wrong() {
    let world = World::new(&config());
    assert_eq!(world.get("/healthz").await.status(), StatusCode::OK);
    assert_eq!(world.get("/readyz").await.text().await.unwrap(), "ready\n");
    let metrics = world.get("/metrics").await;
    assert_eq!(metrics.headers()[header::CONTENT_TYPE], "text/plain; version=0.0.4; charset=utf-8");
    world.daemons.fail_at(world.daemons.writes() + 1, Stop::internal("its disk is full"));
    let (full, patience) = ("the store cannot be written: see the daemon's log\n", Instant::now() + PATIENCE);
    while world.get("/readyz").await.text().await.unwrap() != full {
        assert!(Instant::now() < patience, "nobody looked at the store again");
        world.show(BTreeMap::new());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    while world.get("/readyz").await.status() != StatusCode::OK {
        assert!(Instant::now() < patience, "nobody saw that it was mended");
        world.show(BTreeMap::new());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let ticked = |ago| Some(Timestamp::now() - SignedDuration::from_secs(ago));
    world.view.send_replace(Arc::new(crate::dispatcher::View { ticked: ticked(7), ..view(BTreeMap::new()) }));
    assert_eq!(world.get("/healthz").await.status(), StatusCode::OK);
    let ready = world.get("/readyz").await;
    assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(ready.text().await.unwrap(), "the scheduler does not tick\n");
    world.view.send_replace(Arc::new(crate::dispatcher::View { ticked: ticked(60), ..view(BTreeMap::new()) }));
    assert_eq!(world.get("/healthz").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    world.dispatcher.abort();
    world.show(BTreeMap::new());
    while !world.dispatcher.is_finished() {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.get("/healthz").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    world.stop.cancel();
    world.server.await.unwrap().unwrap();
}

#[tokio::test]
async fn every_answer_forbids_what_a_page_does_not_need() {
    let world = World::new(&config());
    for path in ["/", "/api/v1/drills", "/nothing", "/metrics", "/assets/style.css"] {
        let response = world.get(path).await;
        let headers = response.headers();
        let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{path}: {policy}");
        assert!(policy.contains("frame-ancestors 'none'"));
        assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(headers[header::REFERRER_POLICY], "no-referrer");
        let cache = headers[header::CACHE_CONTROL].to_str().unwrap();
        assert_eq!(cache == "no-store", !path.starts_with("/assets/"), "{path}");
    }
    world.end().await;
}
