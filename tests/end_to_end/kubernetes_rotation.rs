//! Certificates in the real cluster that end, and are followed by others, while queries run.
use std::fs;

use serde_json::Value;

use crate::hostile_plugins::{component, digest};
use crate::kubernetes_drill::World;

/// Of the certificate that the session came with.
const SERIAL: &str = "SELECT client_serial::text FROM pg_catalog.pg_stat_ssl WHERE pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()";

/// A lease of a minute is renewed after forty seconds. A query that was begun before that ends after the minute, and what is begun
/// after it comes with another certificate.
#[test]
fn a_lease_is_renewed_under_a_query_that_outlives_it_and_what_follows_has_another_certificate() {
    let Some(world) = World::new() else { return };
    let asks = component("asks");
    fs::copy(&asks, world.place.path("asks.wasm")).unwrap();
    let check = |name: &str, statements: &[&str]| {
        let plugin = format!("asks.wasm@sha256:{}", digest(&asks));
        let statements = serde_json::to_string(statements).unwrap();
        format!(
            "    - {{ name: {name}, plugin: '{plugin}', grants: {{ sql: {{}} }}, options: {{ statements: {statements} }} }}\n"
        )
    };
    let drill = world.drill_text()
        + "  credentials: { embedded: { ttl: 1m } }\n  checks:\n"
        + &check("during", &[SERIAL, "SELECT pg_catalog.pg_sleep(65)::text", SERIAL])
        + &check("after", &[SERIAL]);
    let run = world.run_text(&drill).expect(0);
    assert_eq!(run.result()["reason"], "proven", "{}", run.result());
    let renewed: Vec<Value> = run.json().into_iter().filter(|line| line["renewed"] == true).collect();
    assert_eq!(renewed.len(), 1, "{renewed:?}");
    let ended = run.events("check-ended");
    let said = |name: &str| -> Vec<String> {
        let ended = ended.iter().find(|ended| ended["check"] == name).unwrap();
        let summary = ended["outcome"]["completed"]["summary"].as_str();
        summary.unwrap_or_else(|| panic!("{ended}")).split_whitespace().map(str::to_owned).collect()
    };
    let (during, after) = (said("during"), said("after"));
    assert_eq!((during.len(), after.len()), (2, 1), "{during:?} {after:?}");
    assert_eq!(during[0], during[1], "a session goes on with the certificate that it came with");
    assert_ne!(during[0], after[0], "what begins after the renewal has the new one");
    world.assert_nothing_left();
}
