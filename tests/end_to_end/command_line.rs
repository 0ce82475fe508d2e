//! What people type and read.
use std::process::Command;

use whole_program::{Muster, Place, muster, on_terminal, program, sample};

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
        "completions",
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

#[test]
fn colour_is_for_terminals_that_want_it() {
    let place = Place::new();
    let green = "\u{1b}[32m";
    let mut wanted = Vec::new();
    for environment in [
        &[("TERM", "xterm")][..],
        &[("TERM", "xterm"), ("NO_COLOR", "")],
        &[("TERM", "xterm"), ("NO_COLOR", "1")],
        &[("TERM", "xterm"), ("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")],
        &[("TERM", "dumb")],
    ] {
        let (shown, _) = on_terminal(&place, 80, environment, &["doctor"]);
        assert!(shown.contains("bubblewrap"), "{environment:?}: {shown}");
        wanted.push(shown.contains(green));
    }
    assert_eq!(wanted, [true, true, false, false, false]);
    let piped = |force: &[(&str, &str)]| {
        let doctor = Muster::start_with(&place, &["doctor"], |command| {
            command.envs(force.iter().copied());
        });
        doctor.wait().stdout.contains(green)
    };
    assert_eq!((piped(&[]), piped(&[("CLICOLOR_FORCE", "1")])), (false, true));
}

/// A backup is refused, which takes the least time of all that a run can say much about.
#[test]
fn a_run_is_told_on_every_kind_of_terminal() {
    let place = Place::new();
    let backup = sample(&place, "shop");
    let dump = backup.file(".dump");
    let mut bytes = std::fs::read(&dump).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&dump, bytes).unwrap();
    let drill = backup.drill();

    let (shown, code) = on_terminal(&place, 40, &[("TERM", "dumb")], &["run", &drill]);
    assert_eq!(code, Some(1), "{shown}");
    assert!(!shown.contains('\u{1b}'), "{shown}");
    for words in ["✗ FAILED", "what to do: do not restore from", "muster quarantine release"] {
        assert!(shown.split_whitespace().collect::<Vec<_>>().join(" ").contains(words), "{words:?} is not in\n{shown}");
    }
    for line in shown.lines() {
        let long_word = line.split_whitespace().any(|word| word.chars().count() > 20);
        assert!(long_word || line.chars().count() <= 40, "{line:?} is too wide in\n{shown}");
    }

    muster(&place, &["quarantine", "release", &newest(&place, "shop")]).expect(0);
    let (shown, code) = on_terminal(&place, 40, &[("TERM", "xterm")], &["run", &drill]);
    assert_eq!(code, Some(1), "{shown}");
    assert!(shown.contains("FAILED") && shown.contains("\u{1b}[31m✗"), "{shown}");
}

/// The name of a drill's newest run.
fn newest(place: &Place, drill: &str) -> String {
    let runs = muster(place, &["runs", "--drill", drill, "--output", "json"]).expect(0);
    let run: serde_json::Value = serde_json::from_str(runs.stdout.lines().next().unwrap()).unwrap();
    run["run"].as_str().unwrap().to_owned()
}

#[test]
fn a_report_is_a_page_in_a_file() {
    let place = Place::new();
    let drill = sample(&place, "shop").drill();
    muster(&place, &["run", &drill, "--quiet"]).expect(0);
    let report = muster(&place, &["report", "shop", "--output", "html", "--out", "shop.html"]).expect(0);
    assert_eq!(report.stdout, "");
    let page = std::fs::read_to_string(place.path("shop.html")).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"), "{page}");
    for words in ["PASSED", "shop", "row-count", "could not create a table", "muster evidence verify"] {
        assert!(page.contains(words), "{words:?} is not in\n{page}");
    }
    muster(&place, &["report", "shop", "--out", "absent/shop.txt"]).expect(3);
}

#[test]
fn a_shell_completes_what_can_be_typed() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = muster(&place, &["completions", shell]).expect(0).stdout;
        assert!(script.contains("muster") && script.contains("quarantine"), "{shell}: {script}");
    }
    let typed = "source <(muster completions bash); COMP_WORDS=(muster qu); COMP_CWORD=1; \
                 _muster muster qu muster; echo \"${COMPREPLY[@]}\"";
    let path = format!("{}:/usr/bin:/bin", program().parent().unwrap().display());
    let bash = Command::new("bash").args(["--norc", "-c", typed]).env("PATH", path).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&bash.stdout), "quarantine\n", "{}", String::from_utf8_lossy(&bash.stderr));
}
