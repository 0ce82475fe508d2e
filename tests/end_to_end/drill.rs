//! What a drill says of a backup.
use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;
use whole_program::{Place, captured, muster, sample};

#[test]
fn an_intact_backup_passes_and_its_evidence_can_be_checked() {
    passes_in(&Place::new());
}

#[test]
fn a_plain_user_can_drill() {
    passes_in(&Place::of_a_plain_user());
}

fn passes_in(place: &Place) {
    let drill = sample(place, "shop").drill();
    let run = muster(place, &["run", &drill, "--output", "json"]).expect(0);
    let result = run.result();
    assert_eq!(result["verdict"], "passed");
    assert_eq!(result["reason"], "proven");
    assert_eq!(result["leftovers"], "none");
    assert!(result["recoveryTimeMilliseconds"].as_u64().unwrap() > 0);
    place.assert_nothing_left();

    let ended: Vec<_> =
        run.events("phase-ended").iter().map(|event| event["phase"].as_str().unwrap().to_owned()).collect();
    for phase in ["preflight", "verify", "sandbox", "probe", "restore", "lease", "validate", "teardown"] {
        assert!(ended.iter().any(|name| name == phase), "{phase} is not in {ended:?}");
    }
    let evidence = result["evidence"]["path"].as_str().unwrap();
    let state = place.state();
    let key = state.join("evidence.pub");
    muster(place, &["evidence", "verify", evidence, "--trust", key.to_str().unwrap()]).expect(0);

    let mut envelope: serde_json::Value = serde_json::from_slice(&fs::read(evidence).unwrap()).unwrap();
    let payload = envelope["payload"].as_str().unwrap().to_owned();
    envelope["payload"] = json!(payload.replacen('a', "b", 1));
    let forged = place.write("forged.dsse.json", &envelope.to_string());
    let verified = muster(place, &["evidence", "verify", forged.to_str().unwrap(), "--trust", key.to_str().unwrap()]);
    assert_ne!(verified.code, Some(0), "{}", verified.stdout);

    let run = result["run"].as_str().unwrap();
    let report = muster(place, &["report", run]).expect(0);
    assert!(report.stdout.contains("PASSED") && report.stdout.contains(run), "{}", report.stdout);
    assert!(muster(place, &["runs"]).expect(0).stdout.contains(run));
}

/// Invariant 1: no byte of an unverified artifact is restored.
#[test]
fn one_flipped_byte_in_any_file_is_refused_and_quarantined() {
    for suffix in [".dump", "globals.sql", ".jsonl", "manifest.json", "manifest.json.minisig"] {
        let place = Place::new();
        let backup = sample(&place, "shop");
        let drill = backup.drill();
        let file = backup.file(suffix);
        let mut bytes = fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&file, bytes).unwrap();

        let run = muster(&place, &["run", &drill, "--output", "json"]).expect(1);
        assert_eq!(run.result()["reason"], "artifact-refused", "{suffix}");
        let started = run.events("phase-started");
        assert!(!started.iter().any(|event| event["phase"] == "restore"), "{suffix}: a restore began");
        place.assert_nothing_left();
        if suffix.starts_with("manifest") {
            continue;
        }
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(run.result()["message"].as_str().unwrap().contains(name), "{}", run.result());

        let again = muster(&place, &["run", &drill, "--output", "json"]).expect(2);
        assert_eq!(again.result()["reason"], "quarantined");
        let listed = muster(&place, &["quarantine", "list"]).expect(0);
        let digest = listed.stdout.split_whitespace().find(|word| word.starts_with("sha256:")).unwrap().to_owned();
        muster(&place, &["quarantine", "release", &digest]).expect(0);
        let after = muster(&place, &["run", &drill, "--output", "json"]).expect(1);
        assert_eq!(after.result()["reason"], "artifact-refused");
    }
}

#[test]
fn a_damaged_copy_does_not_condemn_the_intact_one() {
    let place = Place::new();
    let intact = sample(&place, "intact").drill();
    let damaged = sample(&place, "damaged");
    let dump = damaged.file(".dump");
    let mut bytes = fs::read(&dump).unwrap();
    bytes.pop();
    fs::write(&dump, bytes).unwrap();
    muster(&place, &["run", &damaged.drill()]).expect(1);
    muster(&place, &["run", &intact]).expect(0);
}

#[test]
fn a_lost_row_is_found_in_its_table() {
    let place = Place::new();
    let backup = sample(&place, "shop");
    let baseline = backup.file(".jsonl");
    let text = fs::read_to_string(&baseline).unwrap();
    let one_more: Vec<String> = text
        .lines()
        .map(|line| {
            let mut table: serde_json::Value = serde_json::from_str(line).unwrap();
            if table["name"] == "order_lines" && table["rows"].is_u64() {
                table["rows"] = json!(table["rows"].as_u64().unwrap() + 1);
            }
            table.to_string()
        })
        .collect();
    fs::write(&baseline, one_more.join("\n") + "\n").unwrap();
    backup.sign_again();

    let run = muster(&place, &["run", &backup.drill(), "--output", "json"]).expect(1);
    assert_eq!(run.result()["reason"], "check-failed");
    let failures: Vec<_> =
        run.events("finding").into_iter().filter(|finding| finding["severity"] == "failure").collect();
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert_eq!(failures[0]["subject"], "sales.order_lines");
    place.assert_nothing_left();
}

#[test]
fn another_key_is_not_trusted() {
    let place = Place::new();
    let drill = sample(&place, "shop").drill();
    muster(&place, &["key", "generate", "stranger"]).expect(0);
    fs::copy(place.path("stranger.pub"), place.path("backup.pub")).unwrap();
    let run = muster(&place, &["run", &drill, "--output", "json"]).expect(1);
    assert_eq!(run.result()["reason"], "artifact-refused");
}

#[test]
fn a_backup_without_its_roles_is_restored_with_a_warning_for_each() {
    let place = Place::new();
    let backup = sample(&place, "shop");
    let manifest = backup.file("manifest.json");
    let mut value: serde_json::Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    value["globals"] = serde_json::Value::Null;
    fs::write(&manifest, serde_json::to_vec_pretty(&value).unwrap()).unwrap();
    backup.sign_again();
    let run = muster(&place, &["run", &backup.drill(), "--output", "json"]).expect(0);
    let warnings: Vec<_> =
        run.events("finding").into_iter().filter(|finding| finding["severity"] == "warning").collect();
    for role in ["shop_owner", "shop_app", "shop_readonly"] {
        assert!(warnings.iter().any(|warning| warning.to_string().contains(role)), "{role} is not in {warnings:?}");
    }
}

#[test]
fn an_objective_that_is_missed_fails_the_drill() {
    let place = Place::new();
    let drill = sample(&place, "shop").drill_with("  objectives: { recoveryPoint: 1s }\n");
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    let run = muster(&place, &["run", &drill, "--output", "json"]).expect(1);
    assert_eq!(run.result()["reason"], "objective-exceeded");
    place.assert_nothing_left();
}

#[test]
fn a_deadline_ends_the_run_and_not_the_teardown() {
    let place = Place::new();
    let backup =
        captured(&place, "slow", "CREATE MATERIALIZED VIEW slow AS SELECT pg_catalog.pg_sleep(4)::text AS waited");
    let drill = backup.drill_with("  deadlines: { restore: 1s }\n");
    let run = muster(&place, &["run", &drill, "--output", "json"]).expect(2);
    assert_eq!(run.result()["reason"], "deadline");
    place.assert_nothing_left();

    // The same deadline after the objective had passed is a verdict on the recovery.
    let drill = backup.drill_with("  objectives: { recoveryTime: 1s }\n  deadlines: { restore: 2s }\n");
    let run = muster(&place, &["run", &drill, "--output", "json"]).expect(1);
    assert_eq!(run.result()["reason"], "deadline-after-objective");
    place.assert_nothing_left();
}

/// The restore runs the dump's code as superuser: it finds nothing to harm.
#[test]
fn a_hostile_dump_changes_nothing_outside() {
    let place = Place::new();
    // The same function runs where the backup is made: there it finds no sandbox and does nothing.
    let attack = "[ -e /conf/pg_hba.conf ] || exit 0; \
        for f in /proc/[0-9]*/fd/*; do (echo overwritten > $f) 2>/dev/null; done; \
        for f in /backup/* /conf/*; do (echo overwritten > $f) 2>/dev/null; done; ls /proc | grep '^[0-9]'";
    let sql = format!(
        "CREATE TABLE seen (line text); \
         CREATE FUNCTION attack() RETURNS bigint LANGUAGE plpgsql AS $f$ BEGIN \
             COPY public.seen FROM PROGRAM $p$ {attack} $p$; RETURN 1; END $f$; \
         CREATE MATERIALIZED VIEW evil AS SELECT public.attack() AS lines"
    );
    let backup = captured(&place, "evil", &sql);
    let files: Vec<_> = fs::read_dir(backup.directory()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let before: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    let run = muster(&place, &["run", &backup.drill(), "--output", "json"]);
    let after: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    assert!(before == after, "the backup changed");
    assert!(run.result()["verdict"].is_string(), "{}", run.stdout);
    place.assert_nothing_left();
}

/// Invariant 4: evidence never precedes teardown; invariant 2: no backup byte before isolation was proven.
#[test]
fn the_ledger_shows_the_order_that_matters() {
    let place = Place::new();
    let drill = sample(&place, "shop").drill();
    let run = muster(&place, &["run", &drill, "--output", "json"]).expect(0);
    let names: Vec<String> = run
        .json()
        .iter()
        .filter(|line| line["type"] == "event")
        .map(|line| {
            let event = &line["event"];
            format!("{} {}", event["event"].as_str().unwrap(), event["data"]["phase"].as_str().unwrap_or_default())
        })
        .collect();
    let at = |name: &str| names.iter().position(|other| other == name).unwrap_or_else(|| panic!("{name} in {names:?}"));
    assert!(at("isolation ") < at("phase-started restore"));
    assert!(at("phase-ended verify") < at("phase-started restore"));
    assert!(at("phase-ended teardown") < at("concluded "));
    assert!(at("concluded ") < at("evidence-written "));
    assert_eq!(names.last().map(String::as_str), Some("ended "));
}

#[test]
fn builtin_checks_are_compiled_once_and_what_somebody_changed_is_compiled_anew() {
    let place = Place::new();
    let checks =
        "  checks:\n    - { name: rows, plugin: builtin:row-count }\n    - { name: objects, plugin: builtin:schema }\n";
    let drill = sample(&place, "shop").drill_with(checks);
    let cache = place.state().join("plugins");
    // What the run logs, each with its check.
    let logged = || -> Vec<(String, String)> {
        let lines = muster(&place, &["run", &drill, "--output", "json"]).expect(0).json();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let logs = lines.iter().filter(|line| line["type"] == "log");
        logs.map(|line| (text(&line["check"]), text(&line["message"]))).collect()
    };
    let says = |said: &[(String, String)], check: &str, wanted: &str| {
        said.iter().any(|(of, what)| of == check && what.contains(wanted))
    };
    let run = |what: &[&str]| {
        let said = logged();
        for (check, wanted) in ["rows", "objects"].iter().zip(what) {
            assert!(says(&said, check, wanted), "{check}, {wanted}: {said:?}");
        }
        assert!(!said.iter().any(|(_, what)| what.contains("compiled by the agent")), "{said:?}");
    };
    run(&["compiled ahead in", "compiled ahead in"]);
    run(&["taken from the cache", "taken from the cache"]);

    let entries = || fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path());
    for path in entries().filter(|path| path.extension().is_some_and(|extension| extension == "compiled")) {
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    run(&["compiled ahead in", "compiled ahead in"]);
    run(&["taken from the cache", "taken from the cache"]);

    // What others may write to is of no use, and no reason to stop either.
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o777)).unwrap();
    let said = logged();
    for wanted in ["not compiled ahead", "delete the directory", "compiled by the agent"] {
        assert!(says(&said, "rows", wanted), "{wanted}: {said:?}");
    }
    place.assert_nothing_left();
}
