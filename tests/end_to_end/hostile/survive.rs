//! Processes that mean to outlive the drill, and a server that is made to stop answering.
use whole_program::{Place, muster};

use super::{all_held, drill, script, shell, sql, statement};

/// Double fork, a session of its own, every signal ignored, all descriptors closed.
const DAEMON: &str = "perl -MPOSIX -e '$SIG{$_} = \"IGNORE\" for keys %SIG; for (1..2) { fork and POSIX::_exit(0); setsid() } \
    POSIX::close($_) for 0..200; while (1) { sleep 1000 }' ; echo started";

#[test]
fn what_daemonizes_itself_ends_with_the_sandbox() {
    for place in [Place::new(), Place::of_a_plain_user()] {
        let names = ["daemon 1", "daemon 2", "daemon 3", "daemon 4", "daemon 5"];
        let mut attacks: Vec<_> = names.iter().map(|name| shell(name, DAEMON, "started")).collect();
        attacks.push(shell("alive", "sleep 0.5; cat /proc/[0-9]*/comm | grep -c perl", "5"));
        let dump = script(&place, "daemons", &sql("SELECT", &attacks));
        let run = muster(&place, &["run", "--dump", &dump, "--output", "json"]);
        place.assert_nothing_left();
        all_held(&run, &attacks);
        assert_eq!(run.expect(0).result()["leftovers"], "none");
    }
}

/// The server is stopped, and everything that muster asks of it hangs: deadlines end that.
#[test]
fn a_server_that_stops_answering_is_no_verdict_and_is_torn_down() {
    let place = Place::new();
    let stop = "(kill -STOP $(cat /proc/[0-9]*/stat | grep '(postgres)' | cut -d' ' -f1)) >/dev/null 2>&1 </dev/null & echo stopped";
    let deadlines = "  deadlines: { restore: 10s, lease: 10s, validate: 10s, teardown: 60s }\n";
    drill(&place, "stopped", &sql("SELECT", &[shell("stop", stop, "")]), deadlines);
    let run = muster(&place, &["run", "stopped.yaml", "--output", "json"]).expect(2);
    place.assert_nothing_left();
    let result = run.result();
    assert_eq!((&result["verdict"], &result["leftovers"]), (&"inconclusive".into(), &"none".into()), "{result}");
}

/// The server's own files and keys belong to whoever is superuser inside; muster's do not.
#[test]
fn the_relay_and_the_init_are_out_of_reach() {
    let place = Place::new();
    let attacks = [
        shell("stop init", "kill -STOP 2; kill -KILL 2; sleep 0.2; cat /proc/2/comm", "muster"),
        statement(
            "terminate",
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid()",
            "done",
        ),
    ];
    let dump = script(&place, "init", &sql("SELECT", &attacks));
    let run = muster(&place, &["run", "--dump", &dump, "--output", "json"]);
    place.assert_nothing_left();
    let result = run.result();
    assert_ne!(result["verdict"], "failed", "{result}");
    assert_eq!(result["leftovers"], "none");
}
