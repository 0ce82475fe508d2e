//! Parts of a drill that die while they are used: never a verdict on the backup, and nothing is left.
use rustix::process::{Pid, Signal, kill_process};
use whole_program::{Backup, Muster, Place, captured};

use super::{Answer, said};

/// Long enough to be met while it is restored, and while it is read.
const LARGE: &str = "CREATE TABLE large (id int, filler text); INSERT INTO large SELECT g, md5(g::text) FROM
    generate_series(1, 400000) g; CREATE INDEX ON large (filler)";

/// The first process of the place whose command line holds all of these words.
fn find(place: &Place, words: &[&str]) -> Option<Pid> {
    let processes = place.processes();
    let process = processes.iter().find(|process| words.iter().all(|word| process.contains(word)))?;
    let (pid, _) = process.split_once(':').expect("it begins with its number");
    Pid::from_raw(pid.parse().expect("a number"))
}

/// Kills as soon as the phase has begun and the process is there; what the run says of it.
fn killed_in(place: &Place, drill: &str, phase: &str, words: &[&str], signal: Signal) -> serde_json::Value {
    let mut running = Muster::start(place, &["run", drill, "--output", "json"]);
    loop {
        let event = running.next_event().unwrap_or_else(|| panic!("it ended before {phase}"));
        if event["event"] == "phase-started" && event["data"]["phase"] == phase {
            break;
        }
    }
    let mut looks = 0;
    let victim = loop {
        if let Some(victim) = find(place, words) {
            break victim;
        }
        looks += 1;
        assert!(looks < 1_000, "no process {words:?} in {phase}: {:#?}", place.processes());
        std::thread::sleep(std::time::Duration::from_millis(10));
    };
    kill_process(victim, signal).expect("it is there");
    let finished = running.wait();
    place.assert_nothing_left();
    let mut result = finished.result();
    result["code"] = finished.code.into();
    result
}

fn table(place: &Place, backup: &Backup<'_>, cases: &[(&str, &str, &[&str], &[Answer])]) {
    let drill = backup.drill();
    let mut wrong = Vec::new();
    for (case, phase, words, answers) in cases {
        let result = killed_in(place, &drill, phase, words, Signal::KILL);
        let is = |answer: &Answer| {
            result["code"] == answer.code
                && result["reason"] == answer.reason
                && answer.says.iter().all(|words| said(&result).contains(words))
        };
        let inconclusive = result["verdict"] == "inconclusive" && result["leftovers"] == "none";
        if !inconclusive || !answers.iter().any(is) {
            wrong.push(format!("{case}: expected {answers:?}\n  {result}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const fn stopped(reason: &'static str, says: &'static [&'static str]) -> Answer {
    Answer { code: 2, reason, says }
}

#[test]
fn what_dies_in_a_drill_makes_it_inconclusive() {
    let place = Place::new();
    let backup = captured(&place, "large", LARGE);
    // Nobody but the kernel that wants memory kills with signal 9 in a sandbox.
    let server = stopped("limit-reached", &["PostgreSQL ended in the sandbox with signal 9", "memory limit"]);
    let sandbox = stopped("internal", &["the sandbox"]);
    // A check that talks to the database at that moment is the first to notice.
    let noticed = stopped("check-inconclusive", &["cannot tell"]);
    table(
        &place,
        &backup,
        &[
            ("PostgreSQL in the restore", "restore", &["bin/postgres", "-D"], &[server]),
            (
                "a session of PostgreSQL in the restore",
                "restore",
                &["postgres: ", " COPY"],
                // The server's log tells of the signal, unless it was read too early.
                &[
                    stopped("limit-reached", &["server closed the connection", "memory limit"]),
                    stopped("sandbox-unfit", &["server closed the connection", "the server's last words"]),
                ],
            ),
            ("PostgreSQL during the checks", "validate", &["bin/postgres", "-D"], &[server, noticed]),
            (
                "the agent",
                "validate",
                &["/muster agent"],
                &[stopped("check-inconclusive", &["the agent ended before its work was done"])],
            ),
            ("the relay in the restore", "restore", &["/muster sandbox-init"], &[sandbox]),
            ("the relay during the checks", "validate", &["/muster sandbox-init"], &[sandbox, noticed]),
        ],
    );
}
