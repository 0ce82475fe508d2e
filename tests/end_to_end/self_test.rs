//! A drill that is shown a damaged copy must refuse it, and the backup itself is never touched.
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use whole_program::{Finished, Place, muster, sample};

const ARTIFACT: [&str; 3] = ["byte", "signature", "truncated"];
const BASELINE: [(&str, &str); 3] =
    [("baseline-rows", "rows"), ("baseline-digest", "content"), ("baseline-column", "schema")];

/// Every file beneath, with its content and when its inode was last changed.
fn everything(directory: &Path) -> BTreeMap<PathBuf, (Vec<u8>, i64, i64)> {
    use std::os::unix::fs::MetadataExt;
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let metadata = path.symlink_metadata().unwrap();
        if metadata.is_dir() {
            all.extend(everything(&path));
        } else {
            let content = fs::read(&path).unwrap();
            all.insert(path, (content, metadata.ctime(), metadata.ctime_nsec()));
        }
    }
    all
}

pub(crate) fn evidence(result: &Value) -> Value {
    use base64::Engine as _;
    let envelope: Value =
        serde_json::from_slice(&fs::read(result["evidence"]["path"].as_str().unwrap()).unwrap()).unwrap();
    let payload = base64::engine::general_purpose::STANDARD.decode(envelope["payload"].as_str().unwrap()).unwrap();
    serde_json::from_slice::<Value>(&payload).unwrap()["predicate"].clone()
}

/// The output of several runs, one after the other.
fn results(finished: &Finished) -> Vec<Value> {
    let lines = finished.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["verdict"].is_string() && line["run"].is_string()).collect()
}

#[test]
fn every_damage_is_noticed_and_the_backup_is_not_touched() {
    let place = Place::new();
    let backup = sample(&place, "shop");
    let drill = backup.drill();
    let before = everything(&backup.directory());
    let run = muster(&place, &["run", &drill, "--self-test", "--output", "json"]).expect(0);
    let results = results(&run);
    assert_eq!(results.len(), 6, "{}", run.stdout);
    assert_eq!(everything(&backup.directory()), before, "the original was written");
    for (result, damage) in results.iter().zip(ARTIFACT.iter().chain(BASELINE.iter().map(|(damage, _)| damage))) {
        assert_eq!((&result["verdict"], &result["reason"]), (&"passed".into(), &"proven".into()), "{damage}: {result}");
        assert!(result["message"].as_str().unwrap().contains("noticed"), "{result}");
        let evidence = evidence(result);
        assert_eq!(evidence["selfTest"]["damage"], **damage);
        assert!(evidence["selfTest"]["damaged"].is_string() && evidence["selfTest"]["expected"].is_string());
        let restored = evidence["phases"].as_array().unwrap().iter().any(|phase| phase["phase"] == "restore");
        assert_eq!(restored, damage.starts_with("baseline"), "{damage}");
        assert_eq!(evidence["quarantined"], Value::Null, "{damage}");
    }
    for (result, (damage, check)) in results[3..].iter().zip(BASELINE) {
        let failures: Vec<Value> = evidence(result)["findings"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|finding| finding["severity"] == "failure")
            .cloned()
            .collect();
        assert_eq!(failures.len(), 1, "{damage}: {failures:?}");
        assert_eq!(failures[0]["source"], check, "{damage}");
    }
    let run = results[0]["run"].as_str().unwrap();
    let report = muster(&place, &["report", run]).expect(0).stdout;
    assert!(report.contains("self-test (byte)"), "{report}");
    place.assert_nothing_left();

    // Nothing was condemned, and the drill itself still passes.
    let listed = muster(&place, &["quarantine", "list"]).expect(0).stdout;
    assert!(!listed.contains("sha256:"), "{listed}");
    muster(&place, &["run", &drill]).expect(0);
}

#[test]
fn damage_is_done_where_the_drill_looks_and_nowhere_else() {
    let place = Place::new();
    let backup = sample(&place, "shop");
    let narrow =
        "  checks: [{ name: rows, plugin: builtin:row-count, options: { tables: [\"sales.order_lines\"] } }]\n";
    let drill = backup.drill_with(narrow);
    let run = muster(&place, &["run", &drill, "--self-test", "baseline-rows", "--output", "json"]).expect(0);
    assert_eq!(run.result()["reason"], "proven");
    let refused = muster(&place, &["run", &drill, "--self-test", "baseline-digest"]).expect(3);
    assert!(refused.stderr.contains("could notice baseline-digest"), "{}", refused.stderr);
}

#[test]
fn a_backup_that_is_damaged_already_tells_nothing_about_the_drill() {
    let place = Place::new();
    let backup = sample(&place, "shop");
    let drill = backup.drill();
    let globals = backup.file("globals.sql");
    let mut bytes = fs::read(&globals).unwrap();
    bytes[0] ^= 1;
    fs::write(&globals, bytes).unwrap();
    let run = muster(&place, &["run", &drill, "--self-test", "byte", "--output", "json"]).expect(2);
    assert_eq!(run.result()["reason"], "self-test-inconclusive", "{}", run.result());
    fs::remove_file(backup.file("manifest.json.minisig")).unwrap();
    let run = muster(&place, &["run", &drill, "--self-test", "signature", "--output", "json"]).expect(2);
    assert_eq!(run.result()["verdict"], "inconclusive", "{}", run.result());
    let listed = muster(&place, &["quarantine", "list"]).expect(0).stdout;
    assert!(!listed.contains("sha256:"), "{listed}");
    place.assert_nothing_left();
}

#[test]
fn a_backup_without_a_baseline_has_none_to_damage() {
    let place = Place::new();
    let backup = sample(&place, "shop");
    let drill = backup.drill();
    let manifest = backup.file("manifest.json");
    let mut value: Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    for key in ["baseline", "schema", "blocks", "rowDigests"] {
        value["parts"][0].as_object_mut().unwrap().remove(key);
    }
    value["parts"][0]["baseline"] = Value::Null;
    fs::write(&manifest, value.to_string()).unwrap();
    backup.sign_again();
    let run = muster(&place, &["run", &drill, "--self-test", "baseline-rows", "--output", "json"]).expect(2);
    assert!(run.result()["message"].as_str().unwrap().contains("no baseline"), "{}", run.result());
    place.assert_nothing_left();
}
