//! Every way in which a run can end leaves nothing behind (invariant 5).
use std::os::unix::process::CommandExt;
use std::time::Duration;

use rustix::process::Signal;
use whole_program::{Finished, Muster, Place, muster, sample};

const PHASES: [&str; 7] = ["preflight", "verify", "sandbox", "probe", "restore", "lease", "validate"];

fn begin(place: &Place, drill: &str, phase: &str) -> Muster {
    let mut muster = Muster::start(place, &["run", drill, "--output", "json"]);
    muster.read_until(&format!("\"phase\":\"{phase}\""));
    muster
}

fn interrupted(finished: &Finished) {
    let result = finished.result();
    assert_eq!((&result["verdict"], &result["reason"]), (&"inconclusive".into(), &"interrupted".into()), "{result}");
    assert!(result["evidence"]["path"].is_string(), "{result}");
}

#[test]
fn a_signal_ends_the_work_and_not_the_teardown() {
    for phase in PHASES {
        let place = Place::new();
        let drill = sample(&place, "shop").drill();
        let muster = begin(&place, &drill, phase);
        muster.signal(Signal::INT);
        let finished = muster.wait().expect(2);
        interrupted(&finished);
        place.assert_nothing_left();
    }
}

/// While the backup is staged and the sandbox's parts are made beside it: what has begun by then may go on without the run.
#[test]
fn a_signal_in_the_first_moments_leaves_nothing_to_a_later_reconciliation() {
    let place = Place::new();
    let drill = sample(&place, "shop").drill();
    muster(&place, &["run", &drill]).expect(0);
    for milliseconds in (0..400).step_by(20) {
        let muster = begin(&place, &drill, "sandbox");
        std::thread::sleep(Duration::from_millis(milliseconds));
        muster.signal(Signal::INT);
        let finished = muster.wait();
        let result = finished.result();
        assert_eq!(result["leftovers"], "none", "after {milliseconds} ms: {result}\n{}", finished.stderr);
        place.assert_nothing_left();
    }
}

/// What a terminal does on Ctrl-C: everybody in the foreground process group is told, and the sandbox must not be.
#[test]
fn a_terminal_interrupts_muster_and_not_its_sandbox() {
    for phase in ["restore", "lease"] {
        let place = Place::new();
        let drill = sample(&place, "shop").drill();
        let mut muster = Muster::start_with(&place, &["run", &drill, "--output", "json"], |command| {
            command.process_group(0);
        });
        muster.read_until(&format!("\"phase\":\"{phase}\""));
        muster.signal_group(Signal::INT);
        let finished = muster.wait().expect(2);
        interrupted(&finished);
        let released = finished.events("released");
        assert!(released.iter().any(|released| released["resource"] == "sandbox"), "{released:?}");
        place.assert_nothing_left();
    }
}

#[test]
fn a_run_whose_evidence_cannot_be_written_is_not_begun() {
    let place = Place::new();
    let drill = sample(&place, "shop").drill();
    place.write("evidence", "a file");
    let run = muster(&place, &["run", &drill, "--evidence-dir", "evidence"]).expect(3);
    assert!(run.stderr.contains("evidence cannot be written"), "{}", run.stderr);
    place.assert_nothing_left();
}

#[test]
fn a_second_signal_does_not_skip_the_teardown_either() {
    let place = Place::new();
    let drill = sample(&place, "shop").drill();
    let muster = begin(&place, &drill, "restore");
    muster.signal(Signal::TERM);
    muster.signal(Signal::INT);
    interrupted(&muster.wait().expect(2));
    place.assert_nothing_left();
}

#[test]
fn what_a_killed_muster_left_is_reaped_and_the_run_gets_its_evidence() {
    for phase in PHASES {
        let place = Place::new();
        let drill = sample(&place, "shop").drill();
        let killed = begin(&place, &drill, phase);
        killed.signal(Signal::KILL);
        killed.wait();

        muster(&place, &["reap"]).expect(0);
        place.assert_nothing_left();
        let runs = muster(&place, &["runs", "--output", "json"]).expect(0).stdout;
        assert!(runs.contains("interrupted") && runs.contains(".dsse.json"), "{phase}: {runs}");
        assert!(muster(&place, &["reap"]).expect(0).stdout.contains("nothing to reap"), "{phase}");
    }
}

#[test]
fn the_next_run_reaps_what_a_killed_one_left() {
    let place = Place::new();
    let drill = sample(&place, "shop").drill();
    let killed = begin(&place, &drill, "restore");
    killed.signal(Signal::KILL);
    killed.wait();
    muster(&place, &["run", &drill]).expect(0);
    place.assert_nothing_left();
}

#[test]
fn a_drill_that_runs_already_is_not_begun_twice() {
    let place = Place::new();
    let drill = sample(&place, "shop").drill();
    let first = begin(&place, &drill, "restore");
    let second = muster(&place, &["run", &drill]).expect(2);
    assert!(second.stderr.contains("already"), "{}", second.stderr);
    first.wait().expect(0);
}

#[test]
fn a_run_of_another_state_directory_is_never_touched() {
    let (ours, theirs) = (Place::new(), Place::new());
    let drill = sample(&theirs, "shop").drill();
    let running = begin(&theirs, &drill, "restore");
    muster(&ours, &["reap"]).expect(0);
    running.wait().expect(0);
}
