//! The daemon as a service manager has it, and as the command line finds it.
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use whole_program::{Daemon, Muster, Place, muster, sample};

const DRILLS: &str = "drills: [drills]\n";
const PATIENCE: Duration = Duration::from_mins(2);

fn drill(place: &Place, name: &str, more: &str) {
    sample(place, name);
    let _ = fs::create_dir(place.path("drills"));
    let text = format!(
        "apiVersion: muster.dev/v1\nkind: Drill\nmetadata: {{ name: {name} }}\nspec:\n  \
         source: {{ manifest: {}, trustedKeys: [{{ file: {} }}] }}\n  \
         isolation: {{ local: {{ limits: {{ enforcement: best-effort }} }} }}\n{more}",
        place.path(&format!("backups/{name}/latest/manifest.json")).display(),
        place.path("backup.pub").display(),
    );
    place.write(&format!("drills/{name}.yaml"), &text);
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "{what} did not come");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_service_manager_hears_that_it_is_ready_lives_and_stops_and_hands_over_secrets() {
    let place = Place::new();
    drill(&place, "orders", "");
    let configuration = format!(
        "{DRILLS}alerts: {{ webhooks: [{{ name: a, url: 'http://127.0.0.1:9/', secret: {{ file: '${{CREDENTIALS_DIRECTORY}}/hook' }} }}] }}\n"
    );
    let socket = place.path("notify.sock");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let hear = || {
        let mut bytes = [0; 4_096];
        let read = manager.recv(&mut bytes).expect("the service manager is told something");
        String::from_utf8_lossy(&bytes[..read]).into_owned()
    };
    fs::create_dir(place.path("credentials")).unwrap();
    place.write("credentials/hook", "a secret of the service manager's");
    let daemon = Daemon::start_with(&place, &configuration, |command| {
        command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "600000");
        command.env("CREDENTIALS_DIRECTORY", place.path("credentials"));
    });
    let ready = hear();
    assert!(ready.contains("READY=1") && ready.contains("STATUS=1 drills"), "{ready}");
    for _ in 0..2 {
        assert!(hear().contains("WATCHDOG=1"));
    }
    daemon.signal(Signal::TERM);
    wait_for("the stop", || hear().contains("STOPPING=1").then_some(()));
    assert_eq!(daemon.end().0, Some(0));

    // Elsewhere nobody hands it over, and it says so before it begins.
    let without = muster(&place, &["serve", "--config", "muster.yaml"]).expect(3);
    assert!(without.stderr.contains("there is no CREDENTIALS_DIRECTORY"), "{}", without.stderr);
    place.assert_nothing_left();
}

#[test]
fn a_log_that_was_moved_away_is_opened_anew_and_the_command_line_finds_the_socket() {
    let place = Place::new();
    drill(&place, "orders", "  schedule: { cron: '0 2 * * *' }\n");
    place.write(
        "muster.yaml",
        "apiVersion: muster.dev/v1\nkind: Config\ndrills: [drills]\n\
         http: { listen: '127.0.0.1:0', socket: elsewhere.sock }\nlogs: { file: muster.log }\n",
    );
    let daemon = Muster::start(&place, &["serve", "--config", "muster.yaml"]);
    let log = place.path("muster.log");
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    wait_for("the log", || read(&log).contains("muster serves").then_some(()));

    let by_config = muster(&place, &["next", "--config", "muster.yaml", "--count", "1", "--output", "json"]).expect(0);
    assert!(by_config.stdout.contains("\"drill\":\"orders\""), "{}", by_config.stdout);
    // Without the configuration nobody knows where it listens.
    let lost = muster(&place, &["start", "stock"]).expect(3);
    assert!(lost.stderr.contains("no daemon answers"), "{}", lost.stderr);
    let found = muster(&place, &["start", "stock", "--config", "muster.yaml"]).expect(3);
    assert!(found.stderr.contains("no drill `stock`"), "{}", found.stderr);

    let old = place.path("muster.log.1");
    fs::rename(&log, &old).unwrap();
    daemon.signal(Signal::HUP);
    wait_for("a new log", || log.exists().then_some(()));
    let before = read(&old);
    daemon.signal(Signal::TERM);
    daemon.wait().expect(0);
    assert!(read(&log).contains("no new runs begin"), "{}", read(&log));
    assert_eq!(read(&old), before, "the old one is written to");
    place.assert_nothing_left();
}

#[test]
fn what_is_next_is_what_the_daemon_has_and_a_self_test_is_started_by_hand() {
    let place = Place::new();
    drill(&place, "orders", "  schedule: { cron: '0 2 * * *' }\n");
    let daemon = Daemon::start(&place, DRILLS);
    let next = |more: &[&str]| muster(&place, &[&["next", "--count", "3", "--output", "json"], more].concat());
    let fires = next(&[]).expect(0).stdout;
    assert_eq!((fires.lines().count(), fires.matches("\"drill\":\"orders\"").count()), (3, 3), "{fires}");
    assert!(next(&["--drill", "stock"]).expect(3).stderr.contains("stock"));
    // The last good version goes on, and whoever asks is told that it is the last one.
    place.write("drills/orders.yaml", "kind: Drill\n");
    daemon.wait_for("the bad file", |daemon| daemon.get("/metrics").contains("muster_drill_files_bad 1").then_some(()));
    let kept = next(&[]).expect(3);
    assert_eq!(kept.stdout, fires);
    assert!(kept.stderr.contains("orders.yaml"), "{}", kept.stderr);

    let noticed = muster(&place, &["start", "orders", "--self-test", "byte", "--wait"]).expect(0);
    assert!(noticed.stdout.contains("PASSED") && noticed.stdout.contains("noticed"), "{}", noticed.stdout);
    let unknown = muster(&place, &["start", "orders", "--self-test", "bytes"]).expect(3);
    assert!(unknown.stderr.contains("baseline-rows"), "{}", unknown.stderr);
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.end().0, Some(0));
    place.assert_nothing_left();
}

#[test]
fn a_refused_backup_is_an_alert_that_says_what_where_why_and_how_to_release_it() {
    let place = Place::new();
    drill(&place, "orders", "");
    let dump = fs::read_dir(place.path("backups/orders/latest")).unwrap().map(|entry| entry.unwrap().path());
    let dump = dump.into_iter().find(|path| path.extension().is_some_and(|end| end == "dump")).unwrap();
    let mut bytes = fs::read(&dump).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&dump, bytes).unwrap();
    let daemon = Daemon::start(&place, DRILLS);
    muster(&place, &["start", "orders", "--wait"]).expect(1);
    let alert = daemon.wait_for("the alert", |daemon| {
        let alerts = daemon.get_json("/api/v1/alerts")["alerts"].as_array().unwrap().clone();
        alerts.into_iter().find(|alert| alert["kind"] == "artifact-refused")
    });
    let quarantined = daemon.get_json("/api/v1/quarantine")["quarantine"][0].clone();
    let details = &alert["details"];
    assert_eq!((&details["digest"], &details["source"]), (&quarantined["digest"], &quarantined["location"]), "{alert}");
    assert_eq!((&details["reason"], &alert["drill"]), (&"artifact-refused".into(), &"orders".into()), "{alert}");
    assert!(alert["message"].as_str().unwrap().contains("is not the file that was backed up"), "{alert}");
    let release: Vec<&str> = details["release"].as_str().unwrap().split(' ').collect();
    assert_eq!(release[0], "muster", "{alert}");
    assert!(muster(&place, &release[1..]).expect(0).stdout.contains("released"));
    assert_eq!(daemon.get_json("/api/v1/quarantine")["quarantine"], serde_json::json!([]));
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.end().0, Some(0));
    place.assert_nothing_left();
}
