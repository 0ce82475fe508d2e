//! Triggers that fire at login, which PostgreSQL has from 17 on. Where no such major is installed, this says so.
use std::path::{Path, PathBuf};
use std::process::Command;

use whole_program::{Place, Server, captured_from, not_tested, programs};

use super::lie::{CHECKS, FAILED, HONEST, PROVEN, failing, replace_dump_from};
use crate::bad_input::run;

const FIRST: u32 = 17;

/// Of the newest package, or of the directory that the variable names; muster has to find it, too.
fn with_login_triggers() -> Option<PathBuf> {
    let other = std::env::var_os("MUSTER_TEST_OTHER_POSTGRESQL").map(PathBuf::from);
    other.into_iter().chain([programs()]).find(|programs| major(programs) >= FIRST)
}

fn major(programs: &Path) -> u32 {
    let output = Command::new(programs.join("postgres")).arg("--version").output().expect("it is a PostgreSQL");
    let text = String::from_utf8(output.stdout).expect("a version is text");
    let version = text.split_whitespace().nth(2).expect("postgres (PostgreSQL) 17.1");
    version.split('.').next().and_then(|major| major.parse().ok()).expect("a version begins with its major")
}

/// Fires even where `session_replication_role` is `replica`, as the administrator has it.
fn trigger(body: &str) -> String {
    format!(
        "{HONEST} CREATE FUNCTION public.at_login() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$;
         CREATE EVENT TRIGGER at_login ON login EXECUTE FUNCTION public.at_login();
         ALTER EVENT TRIGGER at_login ENABLE ALWAYS;"
    )
}

#[test]
fn a_trigger_at_login_keeps_nobody_out_and_writes_nothing() {
    let Some(programs) = with_login_triggers() else {
        not_tested(&format!("a trigger at login: PostgreSQL {FIRST} or newer is not installed"));
        return;
    };
    let place = Place::new();
    let refuses = trigger("IF session_user <> 'postgres' THEN RAISE EXCEPTION 'only postgres logs in'; END IF;");
    let backup = captured_from(&Server::start_from(programs.clone()), &place, "login", &refuses);
    let honest = run(&place, &backup.drill_with(CHECKS));
    if let Some(difference) = PROVEN.differs("an honest backup with a trigger at login", &honest) {
        panic!("{difference}");
    }

    // The setting of a database beats the server's own.
    let awake = "DO $$ BEGIN EXECUTE pg_catalog.format('ALTER DATABASE %I SET event_triggers = on',
        pg_catalog.current_database()); END $$;";
    let mut wrong = Vec::new();
    for (case, body) in [
        ("one that refuses", "RAISE EXCEPTION 'nobody logs in';"),
        ("one that never ends", "PERFORM pg_catalog.pg_sleep(1e9);"),
        (
            "one that writes",
            "INSERT INTO public.orders SELECT max(id) + 1, session_user FROM public.orders;
             DELETE FROM public.orders WHERE id = 7;",
        ),
    ] {
        let sql = format!("{} {awake}", trigger(body));
        replace_dump_from(&programs, &backup, &sql, "-c event_triggers=off");
        let run = run(&place, &backup.drill_with(&format!("  deadlines: {{ restore: 2m }}\n{CHECKS}")));
        wrong.extend(FAILED.differs(case, &run));
        // The function and the database's setting are others; every row is as it was.
        let failing = failing(&run);
        let only_schema = failing.iter().all(|failure| failure.starts_with("schema "));
        if failing.is_empty() || !only_schema {
            wrong.push(format!("{case}: {failing:?}"));
        }
        place.assert_nothing_left();
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
