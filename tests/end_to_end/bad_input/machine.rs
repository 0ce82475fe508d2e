//! What is wrong with the machine: the state directory, the disk, the clock.
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use whole_program::{Backup, Muster, Place, captured, muster, not_tested, program, sample};

use super::{Answer, expect, said};

#[test]
fn a_state_directory_that_cannot_be_written_is_said_before_anything_begins() {
    let place = Place::of_a_plain_user();
    let drill = sample(&place, "shop").drill();
    let file = place.write("file", "no directory").display().to_string();
    // Root's own, where root tests as a plain user.
    let closed = place.path("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o555)).unwrap();
    let beneath = closed.join("state").display().to_string();
    for (state, says) in [("/proc/state", ""), (&file, ""), (&beneath, "ermission denied")] {
        let refused = Muster::start_with(&place, &["run", &drill], |command| {
            command.env("MUSTER_STATE_DIR", state);
        });
        let refused = refused.wait().expect(3);
        assert!(refused.stderr.contains(state) && refused.stderr.contains(says), "{state}: {}", refused.stderr);
        assert_eq!(refused.stdout, "", "{state}");
    }
    fs::set_permissions(&closed, Permissions::from_mode(0o755)).unwrap();
    place.assert_nothing_left();
}

/// Two musters share a state directory, but not a drill; and neither reaps what the other still does.
#[test]
fn a_state_directory_that_another_muster_uses_is_shared() {
    let place = Place::new();
    let (first, second) = (sample(&place, "first").drill(), sample(&place, "second").drill());
    let mut running = Muster::start(&place, &["run", &first, "--output", "json"]);
    running.read_until("\"phase\":\"restore\"");
    assert!(muster(&place, &["reap"]).expect(0).stdout.contains("nothing to reap"));
    let again = muster(&place, &["run", &first]).expect(2);
    assert!(again.stderr.contains("already"), "{}", again.stderr);
    assert_eq!(muster(&place, &["run", &second, "--output", "json"]).expect(0).result()["reason"], "proven");
    running.wait().expect(0);
    place.assert_nothing_left();
}

/// More rows than the limit allows, and few bytes of dump.
const LARGE: &str = "CREATE TABLE large (filler text); ALTER TABLE large ALTER filler SET STORAGE EXTERNAL;
    INSERT INTO large SELECT repeat('x', 5000) FROM generate_series(1, 40000)";

#[test]
fn a_restore_that_fills_its_disk_is_ended_and_no_verdict_on_the_backup() {
    let place = Place::new();
    let backup = captured(&place, "large", LARGE);
    let drill = backup.drill_with("  isolation: { local: { limits: { disk: 128MiB } } }\n");
    let answer =
        Answer { code: 2, reason: "limit-reached", says: &["data directory reached its limit", "limits.disk"] };
    expect(&place, &drill, "the limit of the drill", answer);
    if rustix::process::geteuid().is_root() {
        a_full_file_system(&place, &backup);
    }
}

/// The state directory on a file system of its own, in a mount namespace that ends with muster.
fn a_full_file_system(place: &Place, backup: &Backup<'_>) {
    let drill = backup.drill();
    for (size, answer) in [
        // Who notices first is chance: the watchdog, or the server that finds no room.
        ("300M", Answer { code: 2, reason: "limit-reached", says: &["make room"] }),
        ("64M", Answer { code: 2, reason: "sandbox-unfit", says: &["of disk", "free some space"] }),
        // Room for the files of two clusters, and none for another database's.
        ("1G,nr_inodes=2300", Answer { code: 2, reason: "limit-reached", says: &["make room"] }),
    ] {
        let script = "mount -t tmpfs -o mode=711,size=$0 tmpfs state && exec \"$@\"";
        let mut command = place.command("/usr/bin/unshare".as_ref());
        command.args(["--mount", "--", "/bin/sh", "-c", script, size]);
        let output = command.arg(program()).args(["run", &drill, "--output", "json"]).output().expect("it starts");
        let last = String::from_utf8_lossy(&output.stdout);
        let last: serde_json::Value = serde_json::from_str(last.lines().last().unwrap_or_default())
            .unwrap_or_else(|_| panic!("{size}: {output:?}"));
        assert_eq!(
            (output.status.code(), &last["reason"]),
            (Some(answer.code), &answer.reason.into()),
            "{size}: {last}"
        );
        assert!(answer.says.iter().all(|words| said(&last).contains(words)), "{size}: {last}");
        place.assert_nothing_left();
    }
    // Full before muster came.
    let script = "mount -t tmpfs -o mode=711,size=1M tmpfs state && head -c 2M /dev/zero >state/full; exec \"$@\"";
    let mut command = place.command("/usr/bin/unshare".as_ref());
    let output = command
        .args(["--mount", "--", "/bin/sh", "-c", script, "sh"])
        .arg(program())
        .args(["run", &drill])
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(said.contains("state") && said.contains("o space left") || said.contains("full"), "{said}");
    place.assert_nothing_left();
}

/// What a sandbox holds open could not be counted there, and half a limit is none.
#[test]
fn a_machine_that_hides_processes_is_no_place_for_a_disk_limit() {
    if !rustix::process::geteuid().is_root() {
        return not_tested("a /proc that hides processes: only root can mount one");
    }
    let place = Place::of_a_plain_user();
    let backup = captured(&place, "hidden", "CREATE TABLE one AS SELECT 1 AS i;");
    let drill = backup.drill_with("  isolation: { local: { limits: { disk: 1GiB } } }\n");
    for hidepid in ["1", "2"] {
        // A /proc of its own, which ends with it; the first process there is somebody else's.
        let script = "mount -t proc -o hidepid=$0 proc /proc && \"$@\"; exit $?";
        let mut command = Command::new("/usr/bin/unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--", "/bin/sh", "-c", script, hidepid]);
        let muster = place.command(program());
        command.arg(muster.get_program()).args(muster.get_args()).args(["run", &drill, "--output", "json"]);
        command.current_dir(place.path(""));
        let output = command.env("MUSTER_STATE_DIR", place.state()).output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("sandbox-unfit") && said.contains("hidepid") && said.contains("gid="), "{said}");
        place.assert_nothing_left();
    }
}

/// The clock of whoever made the backup was ahead, or ours is behind: a snapshot of tomorrow is not taken for a fresh one.
#[test]
fn a_snapshot_from_the_future_is_no_age() {
    let place = Place::new();
    let script = "--\n-- PostgreSQL database dump\n--\n\n-- Dumped from database version 15.18\n\
        -- Dumped by pg_dump version 15.18\n\n-- Started on 2099-01-01 00:00:00 UTC\n\nSET client_encoding = 'UTF8';\n\
        SELECT 1;\n\n-- Completed on 2099-01-01 00:00:01 UTC\n\n--\n-- PostgreSQL database dump complete\n--\n";
    place.write("future.sql", script);
    let run = muster(&place, &["run", "--dump", "future.sql", "--output", "json"]);
    let answer =
        Answer { code: 2, reason: "internal", says: &["2099-01-01", "one of the clocks is wrong", "set the clock"] };
    if let Some(difference) = answer.differs("a snapshot of 2099", &run) {
        panic!("{difference}");
    }
    place.assert_nothing_left();
}
