//! What people type and read.
use whole_program::{Place, muster, sample};

#[test]
fn a_mistake_in_a_drill_file_is_shown_where_it_is() {
    let place = Place::new();
    place.write(
        "wrong.yaml",
        "apiVersion: muster.dev/v1\nkind: Drill\nmetadata: { name: orders }\nspec:\n  objectives: { recoverTime: 30m }\n  source:\n    manifest: backups/manifest.json\n    trustedKeys: []\n",
    );
    let run = muster(&place, &["run", "wrong.yaml"]).expect(3);
    for words in ["2 problems in", "recoverTime", "did you mean `recoveryTime`?", "`trustedKeys` is empty"] {
        assert!(run.stderr.contains(words), "{words:?} is not in\n{}", run.stderr);
    }
    assert_eq!(run.stdout, "");
}

#[test]
fn wrong_usage_exits_with_3_and_help_with_0() {
    let place = Place::new();
    muster(&place, &["run"]).expect(3);
    muster(&place, &["walk"]).expect(3);
    muster(&place, &["run", "absent.yaml"]).expect(3);
    let commands = [
        "key",
        "capture",
        "verify",
        "run",
        "runs",
        "report",
        "evidence",
        "quarantine",
        "manifest",
        "doctor",
        "schema",
        "reap",
    ];
    for command in commands {
        let help = muster(&place, &[command, "--help"]).expect(0);
        assert!(help.stdout.contains("Usage:"), "{command}: {}", help.stdout);
    }
}

#[test]
fn quiet_says_nothing_of_a_drill_that_passes() {
    let place = Place::new();
    let drill = sample(&place, "shop").drill();
    let run = muster(&place, &["run", &drill, "--quiet"]).expect(0);
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("", ""));
}

#[test]
fn a_passing_run_is_no_more_than_one_screen() {
    let place = Place::new();
    let drill = sample(&place, "shop").drill();
    let run = muster(&place, &["run", &drill]).expect(0);
    assert!(run.stdout.lines().count() <= 24, "{}", run.stdout);
    assert!(!run.stdout.contains('\u{1b}'), "colour on a pipe");
}

#[test]
fn the_gate_alone_accepts_and_refuses() {
    let place = Place::new();
    let backup = sample(&place, "shop");
    let directory = backup.directory();
    muster(&place, &["verify", directory.to_str().unwrap(), "--trust", "backup.pub"]).expect(0);
    let dump = backup.file(".dump");
    let mut bytes = std::fs::read(&dump).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&dump, bytes).unwrap();
    muster(&place, &["verify", directory.to_str().unwrap(), "--trust", "backup.pub"]).expect(1);
}

#[test]
fn the_doctor_and_the_schema_answer() {
    let place = Place::new();
    let doctor = muster(&place, &["doctor"]);
    assert!(doctor.stdout.contains("bubblewrap") && doctor.stdout.contains("PostgreSQL"), "{}", doctor.stdout);
    let schema = muster(&place, &["schema"]).expect(0);
    let schema: serde_json::Value = serde_json::from_str(&schema.stdout).unwrap();
    assert!(schema["properties"]["spec"].is_object());
}
