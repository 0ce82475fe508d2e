//! A plugin that misbehaves makes its check inconclusive, and the run still tears down.
use std::path::{Path, PathBuf};
use std::process::Command;

use whole_program::{Place, muster, sample};

fn component(name: &str) -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/plugins/target/wasm32-wasip2/release")
        .join(format!("{name}.wasm"));
    assert!(built.exists(), "{} is not there: `make plugins` builds it", built.display());
    built
}

fn digest(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap()[..64].to_owned()
}

#[test]
fn a_plugin_that_spins_is_stopped_at_its_limit_and_the_run_tears_down() {
    let place = Place::new();
    let spin = component("spin");
    std::fs::copy(&spin, place.path("spin.wasm")).unwrap();
    let check = format!(
        "  checks:\n    - {{ name: rows, plugin: builtin:row-count }}\n    - {{ name: spin, plugin: spin.wasm@sha256:{}, limits: {{ cpuTime: 300ms }} }}\n",
        digest(&spin)
    );
    let drill = sample(&place, "shop").drill_with(&check);
    let run = muster(&place, &["run", &drill, "--output", "json"]).expect(2);
    let result = run.result();
    assert_eq!(result["reason"], "limit-reached", "{result}");
    assert!(result["message"].as_str().unwrap().contains("cpu"), "{result}");
    assert!(run.events("check-ended").iter().any(|check| check["check"] == "rows"));
    place.assert_nothing_left();
}

#[test]
fn a_plugin_that_is_not_the_pinned_one_is_never_started() {
    let place = Place::new();
    std::fs::copy(component("spin"), place.path("spin.wasm")).unwrap();
    let check = format!("  checks:\n    - {{ name: spin, plugin: spin.wasm@sha256:{} }}\n", "0".repeat(64));
    let drill = sample(&place, "shop").drill_with(&check);
    let run = muster(&place, &["run", &drill]).expect(3);
    assert!(run.stderr.contains("not the plugin that the drill pins"), "{}", run.stderr);
}
