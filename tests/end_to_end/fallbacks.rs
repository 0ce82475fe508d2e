//! Other places of the same backup: taken when the first is gone, never when it is refused, and each exercised when asked.
use std::fs;

use serde_json::Value;
use whole_program::{Backup, Finished, Place, muster, sample};

/// A drill of `near` with `far` as its fallback.
fn drill(place: &Place, exercise: &str) -> String {
    let text = format!(
        "apiVersion: muster.dev/v1\nkind: Drill\nmetadata: {{ name: shop }}\nspec:\n  source:\n    manifest: backups/near/latest/manifest.json\n    trustedKeys: [{{ file: backup.pub }}]\n    fallbacks: [{{ manifest: backups/far/latest/manifest.json }}]\n    exercise: {exercise}\n"
    );
    place.write("shop.yaml", &text);
    "shop.yaml".to_owned()
}

fn flip(backup: &Backup<'_>) {
    let dump = backup.file(".dump");
    let mut bytes = fs::read(&dump).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&dump, bytes).unwrap();
}

fn results(finished: &Finished) -> Vec<Value> {
    let lines = finished.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["verdict"].is_string() && line["run"].is_string()).collect()
}

fn fallback_warnings(finished: &Finished) -> Vec<Value> {
    finished.events("finding").into_iter().filter(|finding| finding["subject"] == "fallback").collect()
}

#[test]
fn a_primary_that_is_there_is_taken_and_one_that_is_gone_gives_way() {
    let place = Place::new();
    let (near, _far) = (sample(&place, "near"), sample(&place, "far"));
    let drill = drill(&place, "first");
    let run = muster(&place, &["run", &drill, "--output", "json"]).expect(0);
    assert!(fallback_warnings(&run).is_empty());
    assert!(run.events("artifact")[0]["location"].as_str().unwrap().contains("/near/"));

    fs::remove_dir_all(near.directory()).unwrap();
    let run = muster(&place, &["run", &drill, "--output", "json"]).expect(0);
    assert!(run.events("artifact")[0]["location"].as_str().unwrap().contains("/far/"));
    let warnings = fallback_warnings(&run);
    assert!(
        warnings.iter().any(|warning| warning["message"].as_str().unwrap().contains("primary is gone")),
        "{warnings:?}"
    );
    assert!(warnings.iter().all(|warning| warning["severity"] == "warning"));
    let report = muster(&place, &["report", run.result()["run"].as_str().unwrap()]).expect(0).stdout;
    assert!(report.contains("(fallback 1)"), "{report}");
    place.assert_nothing_left();

    fs::remove_dir_all(place.path("backups/far")).unwrap();
    let run = muster(&place, &["run", &drill, "--output", "json"]).expect(1);
    assert_eq!(run.result()["reason"], "artifact-refused");
    assert!(run.result()["message"].as_str().unwrap().contains("/near/"), "{}", run.result());
}

#[test]
fn a_refused_primary_is_not_covered_up_and_each_source_is_exercised() {
    let place = Place::new();
    let (near, _far) = (sample(&place, "near"), sample(&place, "far"));
    let first = drill(&place, "first");
    let all = muster(&place, &["run", &drill(&place, "all"), "--output", "json"]).expect(0);
    let sources: Vec<Value> = all.events("source").iter().map(|source| source["place"].clone()).collect();
    assert_eq!(sources, [Value::from("primary"), serde_json::json!({ "fallback": 1 })]);
    let times: Vec<bool> = results(&all).iter().map(|result| result["recoveryTimeMilliseconds"].is_u64()).collect();
    assert_eq!(times, [true, true]);
    assert!(fallback_warnings(&all).is_empty(), "it is the same backup");

    flip(&near);
    drill(&place, "first");
    let run = muster(&place, &["run", &first, "--output", "json"]).expect(1);
    assert_eq!(run.result()["reason"], "artifact-refused");
    assert!(run.events("artifact").iter().all(|artifact| artifact["location"].as_str().unwrap().contains("/near/")));

    // The quarantine is of the primary's place: the fallback is drilled all the same, and the worst result is the exit code.
    let all = muster(&place, &["run", &drill(&place, "all"), "--output", "json"]).expect(2);
    let reasons: Vec<Value> = results(&all).iter().map(|result| result["reason"].clone()).collect();
    assert_eq!(reasons, ["quarantined", "proven"]);
    place.assert_nothing_left();
}

#[test]
fn another_backup_at_the_fallback_is_said() {
    let place = Place::new();
    let (_near, far) = (sample(&place, "near"), sample(&place, "far"));
    far.sign_again();
    let manifest = far.file("manifest.json");
    let mut value: Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    value["name"] = "elsewhere".into();
    fs::write(&manifest, value.to_string()).unwrap();
    far.sign_again();
    let all = muster(&place, &["run", &drill(&place, "all"), "--output", "json"]).expect(0);
    let warnings = fallback_warnings(&all);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0]["message"].as_str().unwrap().contains("another backup than the primary"), "{warnings:?}");
}
