//! Hostile backups against the real sandbox: what the attacker saw, that the host is as before, that limits held, and what the
//! verdict said.
mod escape;
mod exhaust;
mod lie;
mod login;
mod needs;
mod survive;

use std::collections::BTreeSet;

use whole_program::{Finished, Place};

const KIT: &str = include_str!("../../fixtures/hostile/kit.sql");

/// An attack by its name, what it runs, and what of its answer must be there, or all of it after a `=`: anything else, and it got
/// further.
#[derive(Debug, Clone)]
struct Attack {
    name: &'static str,
    act: Act,
    may_see: &'static str,
}

#[derive(Debug, Clone)]
enum Act {
    /// As the server's own user.
    Shell(String),
    /// As superuser.
    Statement(String),
}

fn shell(name: &'static str, command: &str, may_see: &'static str) -> Attack {
    Attack { name, act: Act::Shell(command.to_owned()), may_see }
}

fn statement(name: &'static str, command: &str, may_see: &'static str) -> Attack {
    Attack { name, act: Act::Statement(command.to_owned()), may_see }
}

/// The attacks as SQL, each after `verb`: SELECT in a script, PERFORM in a function.
fn sql(verb: &str, attacks: &[Attack]) -> String {
    let call = |attack: &Attack| {
        assert!(attack.name.len() <= 17, "{}: a verdict would show less of it", attack.name);
        let (function, command) = match &attack.act {
            Act::Shell(command) => ("shell", command),
            Act::Statement(command) => ("statement", command),
        };
        format!("{verb} public.{function}('{}', $attack${command}$attack$, '{}');\n", attack.name, attack.may_see)
    };
    attacks.iter().map(call).collect()
}

/// A plain dump, as `pg_dump` would begin and end it, of the kit and what follows it.
fn script(place: &Place, name: &str, sql: &str) -> String {
    let file = format!("{name}.sql");
    place.write(
        &file,
        &format!(
            "--\n-- PostgreSQL database dump\n--\n\n-- Dumped from database version 15.18\n\
             -- Dumped by pg_dump version 15.18\n\nSET client_encoding = 'UTF8';\n{KIT}\n{sql}\n\n\
             --\n-- PostgreSQL database dump complete\n--\n"
        ),
    );
    file
}

/// A drill of a script with more keys under `spec`, by its digest: nobody need sign what only one machine drills.
fn drill(place: &Place, name: &str, sql: &str, more: &str) -> String {
    let dump = script(place, name, sql);
    let digest = place.command("/usr/bin/sha256sum".as_ref()).arg(&dump).output().expect("it runs").stdout;
    let digest = String::from_utf8(digest).expect("text")[..64].to_owned();
    let drill = format!(
        "apiVersion: muster.dev/v1\nkind: Drill\nmetadata: {{ name: {name} }}\nspec:\n  source: {{ dump: {dump}, sha256: \"sha256:{digest}\" }}\n{more}"
    );
    place.write(&format!("{name}.yaml"), &drill);
    format!("{name}.yaml")
}

/// What attacks left for the verdict to show.
fn seen(run: &Finished) -> BTreeSet<String> {
    let findings = run.events("finding");
    let counts = findings.iter().find(|finding| finding["subject"] == "counts");
    let counts = counts.unwrap_or_else(|| panic!("no counts: {}\n{}", run.stdout, run.stderr));
    let tables = counts["details"].as_array().expect("a table of names and numbers").iter();
    let names = tables.filter_map(|row| row[0].as_str()?.strip_prefix("seen."));
    names.map(|name| name.trim_matches('"').to_owned()).collect()
}

/// Every attack saw what it may see, and nothing else.
#[track_caller]
fn all_held(run: &Finished, attacks: &[Attack]) {
    let expected: BTreeSet<String> = attacks.iter().map(|attack| format!("{}: held", attack.name)).collect();
    let seen = seen(run);
    assert!(
        seen == expected,
        "not held: {:?}\ninstead: {:?}",
        expected.difference(&seen).collect::<Vec<_>>(),
        seen.difference(&expected).collect::<Vec<_>>()
    );
}
