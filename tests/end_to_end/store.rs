//! The memory of muster through the real program: checked, copied, pruned.
use std::fs;
use std::os::unix::fs::PermissionsExt;

use whole_program::{Place, muster, sample};

#[test]
fn a_store_is_checked_copied_and_pruned_and_its_evidence_still_verifies() {
    let place = Place::new();
    let drill = sample(&place, "shop").drill();
    let none = muster(&place, &["store", "check"]).expect(3);
    assert!(none.stderr.contains("there is no store"), "{}", none.stderr);
    for _ in 0..3 {
        muster(&place, &["run", &drill]).expect(0);
    }
    let copy = place.path("copy.db");
    let copy_name = copy.to_str().unwrap();
    muster(&place, &["store", "backup", copy_name]).expect(0);
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    let again = muster(&place, &["store", "backup", copy_name]).expect(3);
    assert!(again.stderr.contains("overwrites nothing"), "{}", again.stderr);

    muster(&place, &["store", "prune"]).expect(3);
    let dry = muster(&place, &["store", "prune", "--keep", "1", "--dry-run"]).expect(0).stdout;
    assert!(dry.contains("2 runs would be forgotten"), "{dry}");
    assert_eq!(muster(&place, &["runs", "--output", "json"]).expect(0).stdout.lines().count(), 3);
    let young = muster(&place, &["store", "prune", "--older-than", "400d"]).expect(0).stdout;
    assert!(young.contains("nothing was to be forgotten"), "{young}");
    let pruned = muster(&place, &["store", "prune", "--older-than", "400d", "--keep", "1"]).expect(0).stdout;
    assert!(pruned.contains("2 runs forgotten, 2 files"), "{pruned}");
    let runs = muster(&place, &["runs", "--output", "json"]).expect(0).stdout;
    assert_eq!(runs.lines().count(), 1);

    let run: serde_json::Value = serde_json::from_str(runs.trim()).unwrap();
    let trusted = place.state().join("evidence.pub");
    let verify = ["evidence", "verify", run["evidence"].as_str().unwrap(), "--trust", trusted.to_str().unwrap()];
    let verified = muster(&place, &verify).expect(0).stdout;
    assert!(verified.contains("1 of 3 present, 2 deleted on purpose"), "{verified}");
    muster(&place, &["store", "check"]).expect(0);
    muster(&place, &["run", &drill]).expect(0);

    // The copy takes the place of a store that is lost.
    for name in ["muster.db", "muster.db-wal", "muster.db-shm"] {
        let _ = fs::remove_file(place.state().join(name));
    }
    fs::copy(&copy, place.state().join("muster.db")).unwrap();
    muster(&place, &["store", "check"]).expect(0);
    assert_eq!(muster(&place, &["runs", "--output", "json"]).expect(0).stdout.lines().count(), 3);
}
