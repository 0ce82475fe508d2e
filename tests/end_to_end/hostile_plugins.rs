//! A plugin that misbehaves makes its check inconclusive, and the run still tears down.
use std::path::{Path, PathBuf};
use std::process::Command;

use whole_program::{Place, muster, sample};

pub(crate) fn component(name: &str) -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/plugins/target/wasm32-wasip2/release")
        .join(format!("{name}.wasm"));
    assert!(built.exists(), "{} is not there: `make plugins` builds it", built.display());
    built
}

pub(crate) fn digest(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap()[..64].to_owned()
}

#[test]
fn plugins_that_misbehave_are_stopped_at_a_named_limit_and_the_run_tears_down() {
    let place = Place::new();
    let hostile = component("hostile");
    std::fs::copy(&hostile, place.path("hostile.wasm")).unwrap();
    let mut checks = "  checks:\n    - { name: rows, plugin: builtin:row-count }\n".to_owned();
    let acts = [
        ("spin", "cpuTime"),
        ("allocate", "memory"),
        ("recurse", "stack"),
        ("flood-findings", "findings"),
        ("leak-rows", "handles"),
    ];
    for act in acts.map(|(act, _)| act).into_iter().chain(["trap"]) {
        let plugin = format!("hostile.wasm@sha256:{}", digest(&hostile));
        let limits = "grants: { sql: {} }, limits: { cpuTime: 1s, findings: 20 }";
        checks.push_str("    - { name: ");
        checks.push_str(&[act, ", plugin: ", &plugin, ", ", limits, ", options: { act: ", act, " } }\n"].concat());
    }
    let drill = sample(&place, "shop").drill_with(&checks);
    let run = muster(&place, &["run", &drill, "--output", "json"]).expect(2);
    let ended = run.events("check-ended");
    let outcome = |name: &str| ended.iter().find(|check| check["check"] == name).unwrap()["outcome"].clone();
    for (act, limit) in acts {
        assert_eq!(outcome(act)["limit-reached"]["limit"], limit, "{act}: {}", outcome(act));
    }
    assert!(outcome("trap")["trapped"].is_object(), "{}", outcome("trap"));
    assert!(outcome("rows")["completed"].is_object(), "{}", outcome("rows"));
    assert!(run.events("finding").iter().filter(|finding| finding["subject"] == "hostile").count() >= acts.len());
    place.assert_nothing_left();
}

#[test]
fn a_plugin_that_is_not_the_pinned_one_is_never_started() {
    let place = Place::new();
    std::fs::copy(component("hostile"), place.path("hostile.wasm")).unwrap();
    let check = format!("  checks:\n    - {{ name: x, plugin: hostile.wasm@sha256:{} }}\n", "0".repeat(64));
    let drill = sample(&place, "shop").drill_with(&check);
    let run = muster(&place, &["run", &drill]).expect(3);
    assert!(run.stderr.contains("not the plugin that the drill pins"), "{}", run.stderr);
}

/// Invariant 7.
#[test]
fn what_is_not_granted_is_refused_before_anything_begins() {
    let place = Place::new();
    let hostile = component("hostile");
    std::fs::copy(&hostile, place.path("hostile.wasm")).unwrap();
    let check = format!("  checks:\n    - {{ name: x, plugin: hostile.wasm@sha256:{} }}\n", digest(&hostile));
    let drill = sample(&place, "shop").drill_with(&check);
    let run = muster(&place, &["run", &drill]).expect(3);
    assert!(run.stderr.contains("grants: { sql: {} }"), "{}", run.stderr);
}
