//! The daemon as it ships: by its unit's command line, on real backups, watched by a real Prometheus, killed where it hurts.
use std::fs;
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;
use whole_program::{Daemon, Place, Prometheus, muster, sample};

const DRILLS: &str = "drills: [drills]\n";

/// The schedules that ship, beside a backup and a key where they look for them.
fn shipped_schedules(place: &Place) {
    sample(place, "orders");
    fs::create_dir(place.path("drills")).unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schedules");
    let here = |name: &str| place.path(name).display().to_string();
    for entry in fs::read_dir(shipped).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let text = text.replace("/backups/", &format!("{}/", here("backups")));
        let text = text.replace("/etc/muster/keys/backup.pub", &here("backup.pub"));
        let text = text.replace("file: backup.pub", &format!("file: {}", here("backup.pub")));
        let name = format!("drills/{}", path.file_name().unwrap().to_str().unwrap());
        place.write(&name, &text);
    }
}

/// A drill that is due each second.
fn drill_often(place: &Place, name: &str, more: &str) {
    sample(place, "orders");
    let _ = fs::create_dir(place.path("drills"));
    let text = format!(
        "apiVersion: muster.dev/v1\nkind: Drill\nmetadata: {{ name: {name} }}\nspec:\n  \
         schedule: {{ cron: '* * * * * *' }}\n  \
         source: {{ manifest: {}, trustedKeys: [{{ file: {} }}] }}\n  \
         isolation: {{ local: {{ limits: {{ enforcement: best-effort }} }} }}\n{more}",
        place.path("backups/orders/latest/manifest.json").display(),
        place.path("backup.pub").display(),
    );
    place.write(&format!("drills/{name}.yaml"), &text);
}

fn runs(daemon: &Daemon, drill: &str) -> Vec<Value> {
    daemon.get_json(&format!("/api/v1/runs?drill={drill}"))["runs"].as_array().unwrap().clone()
}

/// Waits until a run of the drill is in `phase`, and names it.
fn in_phase(daemon: &Daemon, place: &Place, drill: &str, phase: &str) -> String {
    daemon.wait_for(&format!("a run of {drill} in {phase}"), |daemon| {
        let run = runs(daemon, drill).into_iter().find(|run| run["ended"].is_null())?;
        let run = run["run"].as_str()?.to_owned();
        let report = muster(place, &["report", &run, "--output", "json"]);
        let begun = format!("\"phase\":\"{phase}\"");
        report.stdout.replace(": ", ":").contains(&begun).then_some(run)
    })
}

#[test]
fn a_due_drill_runs_and_one_that_is_killed_mid_restore_leaves_nothing() {
    let place = Place::new();
    shipped_schedules(&place);
    let daemon = Daemon::start(&place, DRILLS);
    let passed = daemon
        .wait_for("the first run", |daemon| runs(daemon, "try-it").into_iter().find(|run| run["verdict"] == "passed"));
    assert_eq!(passed["trigger"]["kind"], "schedule", "{passed}");
    assert_eq!(daemon.ask("/readyz").0, 200);
    let success = "muster_last_success_timestamp_seconds{drill=\"try-it\"} 1";
    daemon.wait_for("the metric", |daemon| daemon.get("/metrics").contains(success).then_some(()));

    let prometheus = Prometheus::start(daemon.address);
    prometheus.wait_for("muster_last_success_timestamp_seconds{drill=\"try-it\"}");
    // One that never ran has its series, too.
    prometheus.wait_for("muster_next_run_timestamp_seconds{drill=\"orders-nightly\"}");
    drop(prometheus);

    let run = in_phase(&daemon, &place, "try-it", "restore");
    daemon.kill();
    assert!(
        !place.processes().is_empty() || place.state().join("runs").join(&run).exists(),
        "it was killed mid-restore"
    );

    let daemon = Daemon::start(&place, DRILLS);
    let ended = daemon.wait_for("the end of the killed run", |daemon| {
        runs(daemon, "try-it").into_iter().find(|one| one["run"] == run.as_str() && !one["ended"].is_null())
    });
    assert_eq!((&ended["verdict"], &ended["reason"]), (&"inconclusive".into(), &"interrupted".into()), "{ended}");
    assert_eq!(ended["leftovers"], "none", "{ended}");
    assert!(ended["evidence"].is_string(), "{ended}");
    daemon.signal(Signal::TERM);
    let (code, log) = daemon.end();
    assert_eq!(code, Some(0), "{log}");
    place.assert_nothing_left();
}

#[test]
fn a_stop_lets_a_run_finish_and_a_second_one_does_not_wait() {
    let place = Place::new();
    drill_often(&place, "orders", "");
    let daemon = Daemon::start(&place, DRILLS);
    let run = in_phase(&daemon, &place, "orders", "sandbox");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.end().0, Some(0));
    let report = muster(&place, &["runs", "--output", "json", "--limit", "100"]).expect(0);
    let of = |run: &str| {
        let lines = report.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.into_iter().find(|line| line["run"] == run).unwrap()
    };
    assert_eq!(of(&run)["verdict"], "passed");
    place.assert_nothing_left();

    let daemon = Daemon::start(&place, DRILLS);
    let run = in_phase(&daemon, &place, "orders", "restore");
    daemon.signal(Signal::TERM);
    // Two signals at once would be one.
    daemon.wait_for("the first stop", |daemon| daemon.log().contains("no new runs begin").then_some(()));
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.end().0, Some(0));
    let shown = muster(&place, &["report", &run, "--output", "json"]);
    assert!(shown.stdout.contains("interrupted"), "{}", shown.stdout);
    place.assert_nothing_left();
}

#[test]
fn what_checks_reported_is_there_after_a_restart_from_the_first_scrape_on() {
    let place = Place::new();
    drill_often(&place, "orders", "");
    let reported = |daemon: &Daemon| {
        let text = daemon.get("/metrics");
        let lines = text.lines().filter(|line| line.starts_with("muster_check_metric{drill=\"orders\""));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let daemon = Daemon::start(&place, DRILLS);
    let before =
        daemon.wait_for("what checks report", |daemon| Some(reported(daemon)).filter(|found| !found.is_empty()));
    assert!(before.iter().any(|line| line.contains("metric=\"tables\"")), "{before:?}");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.end().0, Some(0));

    let daemon = Daemon::start(&place, DRILLS);
    assert_eq!(reported(&daemon), before);
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.end().0, Some(0));
    place.assert_nothing_left();
}

#[test]
fn the_command_line_starts_waits_cancels_and_looks() {
    let place = Place::new();
    drill_often(&place, "orders", "");
    let text = fs::read_to_string(place.path("drills/orders.yaml")).unwrap();
    place.write("drills/orders.yaml", &text.replace("  schedule: { cron: '* * * * * *' }\n", ""));
    let daemon = Daemon::start(&place, DRILLS);
    let waited = muster(&place, &["start", "orders", "--wait"]).expect(0);
    assert!(waited.stdout.contains("restore") && waited.stdout.contains("PASSED"), "{}", waited.stdout);
    assert!(muster(&place, &["start", "stock"]).expect(3).stderr.contains("no drill `stock`"));

    // On a busy machine a run of this size may be over before the next command has begun.
    let met = (0..10).find_map(|_| {
        muster(&place, &["start", "orders"]);
        let refused = muster(&place, &["start", "orders"]).stderr.contains("running already");
        let going = runs(&daemon, "orders").into_iter().find(|run| run["ended"].is_null())?;
        let run = going["run"].as_str()?.to_owned();
        while !muster(&place, &["report", &run, "--output", "json"])
            .stdout
            .replace(": ", ":")
            .contains("\"phase\":\"restore\"")
        {
            runs(&daemon, "orders").into_iter().find(|run| run["ended"].is_null())?;
        }
        (muster(&place, &["cancel", &run]).code == Some(0) && refused).then_some(run)
    });
    let run = met.expect("a run is met while it goes on");
    daemon.wait_for("its end", |daemon| {
        runs(daemon, "orders").into_iter().find(|one| one["run"] == run.as_str() && one["reason"] == "interrupted")
    });
    let listed = muster(&place, &["runs", "--output", "json"]).expect(0).stdout;
    assert!(listed.lines().count() >= 2, "{listed}");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.end().0, Some(0));
    place.assert_nothing_left();
}

#[test]
fn a_bad_drill_file_is_loud_and_keeps_the_last_good_one() {
    let place = Place::new();
    drill_often(&place, "orders", "");
    let daemon = Daemon::start(&place, DRILLS);
    daemon.wait_for("a run", |daemon| runs(daemon, "orders").into_iter().find(|run| !run["ended"].is_null()));
    place.write("drills/orders.yaml", "kind: Drill\nspec: { shedule: {} }\n");
    daemon.wait_for("the metric", |daemon| daemon.get("/metrics").contains("muster_drill_files_bad 1").then_some(()));
    let before = runs(&daemon, "orders").len();
    daemon.wait_for("another run", |daemon| (runs(daemon, "orders").len() > before).then_some(()));
    assert!(daemon.get("/").contains("orders.yaml"), "the page names the file");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.end().0, Some(0));
    place.assert_nothing_left();
}

#[test]
fn one_state_directory_has_one_daemon() {
    let place = Place::new();
    drill_often(&place, "orders", "");
    let daemon = Daemon::start(&place, DRILLS);
    let second = muster(&place, &["serve", "--config", "muster.yaml"]).expect(3);
    assert!(second.stderr.contains("another muster serves"), "{}", second.stderr);
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.end().0, Some(0));
}

#[test]
fn a_secret_is_nowhere_but_where_it_belongs() {
    const CANARY: &str = "canary-9f2b7c51e0";
    let place = Place::new();
    drill_often(&place, "orders", "");
    place.write("webhook.secret", CANARY);
    let token = "dd8e9fa9df37a35be5e6f8d85ee3e0a5e1b95f8f2d0a5ab09d2ff5ef0ae73f6c";
    let more = format!(
        "{DRILLS}alerts:\n  webhooks:\n    - {{ name: a, url: 'http://127.0.0.1:9/{CANARY}-path', secret: {{ file: webhook.secret }} }}\n    \
         - {{ name: b, url: 'http://127.0.0.1:9/', secret: {{ env: WEBHOOK }} }}\n"
    );
    let daemon = Daemon::start_with(&place, &more, |command| {
        command.env("WEBHOOK", CANARY);
    });
    in_phase(&daemon, &place, "orders", "lease");
    // An alert that has to be sent, to where nobody listens.
    place.write("drills/bad.yaml", token);
    daemon.wait_for("the metric", |daemon| daemon.get("/metrics").contains("muster_drill_files_bad 1").then_some(()));
    let mut seen = vec![("log", daemon.log())];
    for path in ["/", "/metrics", "/api/v1/drills", "/api/v1/runs", "/api/v1/alerts", "/api/v1/openapi.json"] {
        seen.push((path, daemon.ask(path).1));
    }
    let own = daemon.pid().to_string();
    let pid = |process: &str| process.split(':').next().map(str::to_owned).unwrap();
    // The run that was seen may have ended by now; the next one begins within a second. The daemon's own environment holds what
    // its service manager gave it; nobody else's may.
    let (arguments, environments) = daemon.wait_for("a process of a run and its environment", |_| {
        let processes = place.processes();
        let others = processes.iter().map(|process| pid(process)).filter(|process| *process != own);
        let environments: Vec<_> =
            others.filter_map(|process| fs::read(format!("/proc/{process}/environ")).ok()).collect();
        (!environments.is_empty()).then_some((processes, environments))
    });
    seen.extend(arguments.into_iter().map(|process| ("arguments", process)));
    let environments = environments.iter().map(|it| String::from_utf8_lossy(it).into_owned());
    seen.extend(environments.map(|environment| ("environment", environment)));
    let ended = |daemon: &Daemon| runs(daemon, "orders").into_iter().find(|run| !run["ended"].is_null());
    let run = daemon.wait_for("a run", ended)["run"].as_str().unwrap().to_owned();
    // The words of the evidence are base64 in its file, and plain here.
    seen.push(("report", muster(&place, &["report", &run, "--output", "json"]).expect(0).stdout));
    for entry in fs::read_dir(place.state().join("evidence")).unwrap() {
        seen.push(("evidence", fs::read_to_string(entry.unwrap().path()).unwrap_or_default()));
    }
    daemon.signal(Signal::TERM);
    seen.push(("log", daemon.end().1));
    assert!(seen.iter().any(|(what, _)| *what == "evidence"));
    for (what, text) in seen {
        assert!(!text.contains(CANARY), "{what}: {text}");
    }
    place.assert_nothing_left();
}
