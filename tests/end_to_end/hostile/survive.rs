//! Processes that mean to outlive the drill, and a server that is made to stop answering.
use whole_program::{Place, muster};

use super::{all_held, drill, script, shell, sql, statement};
use crate::bad_input::{Answer, run};

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
    let run = run(&place, "stopped.yaml");
    place.assert_nothing_left();
    // Which phase is the first to wait for it is chance.
    let says = &["did not end within its deadline of 10.0 s", "raise `deadlines: {"];
    let answer = Answer { code: 2, reason: "deadline", says };
    assert_eq!(answer.differs("a server that is stopped", &run), None);
    assert_eq!(run.result()["leftovers"], "none");
}

/// What runs as the server's user may end the sandbox, and every session of the server: it gains nothing by it.
#[test]
fn who_ends_the_sandbox_or_its_sessions_gets_no_verdict() {
    let place = Place::new();
    let terminate = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid()";
    let ended = Answer {
        code: 2,
        reason: "internal",
        says: &["the sandbox's first process ended", "what the backup runs inside"],
    };
    let proven = Answer { code: 0, reason: "proven", says: &[] };
    for (name, attack, answer) in [
        ("init", shell("kill init", "kill -STOP 2; kill -KILL 2; sleep 10; echo survived", ""), ended),
        ("sessions", statement("terminate", terminate, "=done"), proven),
    ] {
        let dump = script(&place, name, &sql("SELECT", std::slice::from_ref(&attack)));
        let run = muster(&place, &["run", "--dump", &dump, "--output", "json"]);
        place.assert_nothing_left();
        assert_eq!(answer.differs(name, &run), None);
        assert_eq!(run.result()["leftovers"], "none");
        if answer.code == 0 {
            all_held(&run, &[attack]);
        }
    }
}
