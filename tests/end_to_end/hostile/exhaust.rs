//! Attempts to use up what the machine has: each is bounded, and says nothing of the backup.
use whole_program::{Finished, Place, muster, not_tested};

use super::{all_held, drill, seen, shell, sql, statement};
use crate::bad_input::Answer;

fn attack(place: &Place, name: &'static str, command: &str, may_see: &'static str, limits: &str) -> Finished {
    let limits = format!("  isolation: {{ local: {{ limits: {{ {limits} }} }} }}\n");
    let drill = drill(place, name, &sql("SELECT", &[shell(name, command, may_see)]), &limits);
    let run = muster(place, &["run", &drill, "--output", "json"]);
    place.assert_nothing_left();
    run
}

#[track_caller]
fn answers(run: &Finished, answer: Answer) {
    if let Some(difference) = answer.differs("an attack", run) {
        panic!("{difference}");
    }
}

/// Which of muster's logins and commands is the first to find no room is chance, and so are the server's words.
#[track_caller]
fn no_verdict(run: &Finished) {
    let result = run.result();
    let is = (run.code, result["verdict"].as_str(), result["leftovers"].as_str());
    assert_eq!(is, (Some(2), Some("inconclusive"), Some("none")), "{result}");
    assert!(
        ["credentials", "sandbox-unfit", "limit-reached"].iter().any(|reason| result["reason"] == *reason),
        "{result}"
    );
}

const PROVEN: Answer = Answer { code: 0, reason: "proven", says: &[] };

/// Children that stay, until one more is refused or there are 5,000.
const FORKS: &str = "perl -e '$SIG{CHLD} = \"IGNORE\"; my $n = 0; while ($n < 5000) { my $p = fork; last if !defined $p; \
    if (!$p) { sleep 100; exit } push @p, $p; $n++ } print $n < 400 ? \"bounded\" : $n; kill 9, @p'";

#[test]
fn forks_without_end_are_bounded() {
    let place = Place::new();
    let run = attack(&place, "forks", FORKS, "bounded", "processes: 64");
    answers(&run, PROVEN);
    assert!(seen(&run).contains("forks: held"), "{:?}", seen(&run));

    // They stay: whatever of the drill comes later finds no room, and that is no verdict on the backup.
    let bomb = FORKS.replace("; kill 9, @p", "; sleep 100");
    let run = attack(&place, "bomb", &format!("({bomb}) >/dev/null 2>&1 & sleep 2"), "", "processes: 64");
    no_verdict(&run);
}

#[test]
fn memory_without_end_is_bounded_where_a_cgroup_can() {
    let place = Place::new();
    if !rustix::process::geteuid().is_root() {
        not_tested("memory without end in a whole drill: a plain user may have no cgroup for it");
        return;
    }
    let command = "perl -e '$x = \"x\" x 1000000000; print length $x'";
    let run = attack(&place, "memory", command, "", "memory: 400MiB");
    answers(&run, Answer { code: 2, reason: "limit-reached", says: &["memory limit", "limits.memory"] });
}

#[test]
fn disk_and_inodes_without_end_are_bounded() {
    let place = Place::new();
    let full = Answer { code: 2, reason: "limit-reached", says: &["data directory reached its limit", "limits.disk"] };
    let bytes = "i=0; while head -c 20000000 /dev/zero >/data/fill-$i; do i=$((i+1)); sleep 0.05; done";
    answers(&attack(&place, "disk", bytes, "", "disk: 256MiB"), full);

    // Without names, they are found by who holds them.
    let removed = "perl -e 'for (1..40) { open my $f, \">\", \"/data/x\"; unlink \"/data/x\"; print $f \"x\" x 20000000; push @f, $f } sleep 100'";
    let says = &["data directory reached its limit", "removed files that are still open"];
    answers(&attack(&place, "removed", removed, "", "disk: 256MiB"), Answer { says, ..full });

    // Empty files take an inode of the host each, and no byte. They stay, because the next look at a slow disk may be many seconds away.
    let files = "perl -e 'mkdir \"/data/f\"; for (1..80000) { open my $f, \">\", \"/data/f/$_\" } sleep 100'";
    answers(&attack(&place, "inodes", files, "", "disk: 256MiB"), full);
}

#[test]
fn what_has_a_size_of_its_own_says_so_and_the_drill_goes_on() {
    let place = Place::new();
    let attacks = [
        shell("tmp", "head -c 4000000000 /dev/zero >/tmp/x; rm /tmp/x", "No space left"),
        shell("shm", "head -c 4000000000 /dev/zero >/dev/shm/x; rm /dev/shm/x", "No space left"),
        shell(
            "descriptors",
            "perl -e 'my @f; while (open my $f, \"<\", \"/dev/null\") { push @f, $f } print $!'",
            "Too many open files",
        ),
        shell("log", "head -c 50000000 /dev/zero | tr '\\0' x >/proc/$PPID/fd/2; echo written", ""),
        statement(
            "warnings",
            "DO $$ BEGIN FOR i IN 1..20000 LOOP RAISE WARNING '%', repeat('x', 1000); END LOOP; END $$",
            "done",
        ),
    ];
    let limits = "  isolation: { local: { limits: { memory: 1GiB } } }\n";
    let drill = drill(&place, "sizes", &sql("SELECT", &attacks), limits);
    let run = muster(&place, &["run", &drill, "--output", "json"]);
    place.assert_nothing_left();
    answers(&run, PROVEN);
    all_held(&run, &attacks);
    assert!(run.stdout.len() < 1 << 20, "{} bytes were printed", run.stdout.len());
}

/// 3,000 connections to the server from inside, and how many of them it kept a second later.
const CONNECTIONS: &str = "perl -MSocket -e '$SIG{ALRM} = sub { \
    $kept = grep { !defined recv($_, my $b, 1, MSG_DONTWAIT) && $!{EAGAIN} } @s; print $kept < 500 ? \"bounded\" : \"$kept of \".@s; exit }; \
    for (1..3000) { alarm 2; socket(my $s, AF_INET, SOCK_STREAM, 0) or last; \
    connect($s, pack_sockaddr_in(5432, inet_aton(\"127.0.0.1\"))) or last; push @s, $s } sleep 1; $SIG{ALRM}->()'";

#[test]
fn connections_without_end_are_bounded() {
    let place = Place::new();
    let run = attack(&place, "connections", CONNECTIONS, "=bounded", "processes: 200");
    answers(&run, PROVEN);
    assert!(seen(&run).contains("connections: held"), "{:?}", seen(&run));

    // Held for ever: muster's own find no room, and that is no verdict on the backup.
    let held = CONNECTIONS.replace("exit }", "sleep 1000 }");
    let flood = format!("({held} >/dev/null 2>&1 </dev/null &) ; sleep 2; echo flooded");
    let run = attack(&place, "flood", &flood, "flooded", "processes: 200");
    no_verdict(&run);
}
