//! Limits, each broken by something that tries.
use std::time::Duration;

use drill::port::{ByteStream, Exec, Isolation, SandboxInputs};
use drill::spec::{Enforcement, Limits};
use drill::stop::Stop;
use drill::verdict::Reason;
use futures_util::AsyncReadExt;

use crate::support::{Held, LIMITS, Place, TestFn};
use crate::test;

pub(crate) fn tests() -> Vec<(&'static str, TestFn)> {
    vec![
        test!(a_fork_bomb_is_bounded),
        test!(too_much_memory_is_a_breach),
        test!(too_much_disk_is_a_breach),
        test!(disk_that_is_hidden_is_a_breach),
        test!(a_process_that_nobody_awaits_hides_nothing),
        test!(the_survey_says_what_holds),
        test!(a_flood_of_connections_is_bounded),
    ]
}

async fn with(place: &Place, limits: Limits) -> Held {
    place.sandbox_with(SandboxInputs { port: 5432, ..SandboxInputs::default() }, limits).await
}

async fn breach(held: &Held) -> Stop {
    tokio::time::timeout(Duration::from_secs(20), held.sandbox.breach()).await.expect("it is noticed")
}

async fn a_fork_bomb_is_bounded(place: Place) {
    let held = with(&place, Limits { processes: 30, ..LIMITS }).await;
    // Its children stay, so that they can be counted: a bomb of shells ends by itself as soon as one of them may not fork.
    let many = "i=0; while [ $i -lt 1000 ]; do sleep 3 & i=$((i + 1)); done; wait";
    let mut bomb = Exec::new(["/bin/sh", "-c", many]);
    bomb.deadline = Duration::from_secs(2);
    let watching = async {
        let mut most = 0;
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            most = most.max(tasks_of(&place, &held));
        }
        most
    };
    let meanwhile = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        held.sandbox.exec(Exec::new(["/usr/bin/true"])).await
    };
    let (_, most, meanwhile) = tokio::join!(held.sandbox.exec(bomb), watching, meanwhile);
    assert!(meanwhile.as_ref().map_or_else(|stop| stop.reason == Reason::LimitReached, |_| true), "{meanwhile:?}");
    // 30 and muster's own, which include two threads for each relayed connection.
    assert!((10..=30 + 2 * 64 + 60).contains(&most), "{most} tasks");
    held.release().await;
}

fn tasks_of(place: &Place, held: &Held) -> usize {
    let uid = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(place.data(&held.run)).expect("it exists"));
    let entries = std::fs::read_dir("/proc").expect("read").flatten();
    let status = entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("status")).ok());
    let inside = status.filter(|text| {
        let uids = text.contains(&format!("Uid:\t{uid}\t"));
        let namespaces = text.lines().find_map(|line| line.strip_prefix("NSpid:"));
        uids && namespaces.is_some_and(|numbers| numbers.split_whitespace().count() > 1)
    });
    inside.count()
}

async fn too_much_memory_is_a_breach(place: Place) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT TESTED: a limit on memory: a plain user has none here, and the survey says so");
        return;
    }
    let held = with(&place, Limits { memory: Some(200 << 20), ..LIMITS }).await;
    let hungry = Exec::new(["/bin/sh", "-c", "head -c 500000000 /dev/zero | tail -n 1 | wc -c"]);
    let (_, stop) = tokio::join!(held.sandbox.exec(hungry), breach(&held));
    assert_eq!(stop.reason, Reason::LimitReached, "{stop}");
    assert!(stop.message.contains("memory"), "{stop}");
    held.release().await;
}

async fn too_much_disk_is_a_breach(place: Place) {
    let held = with(&place, Limits { disk: Some(64 << 20), ..LIMITS }).await;
    let script = "cd /data; mkdir a; for i in 1 2 3 4 5; do head -c 40000000 /dev/zero >a/$i; done; sleep 100";
    let (ended, stop) = tokio::join!(held.sandbox.exec(Exec::new(["/bin/sh", "-c", script])), breach(&held));
    assert_eq!(stop.reason, Reason::LimitReached, "{stop}");
    assert!(stop.message.contains("data directory"), "{stop}");
    assert_eq!(ended.expect_err("the sandbox was ended"), stop, "the command says why, too");
    held.release().await;

    let held = with(&place, LIMITS).await;
    let deep = "cd /data; i=0; while [ $i -lt 80 ]; do mkdir d; cd d; i=$((i+1)); done; sleep 100";
    let (_, stop) = tokio::join!(held.sandbox.exec(Exec::new(["/bin/sh", "-c", deep])), breach(&held));
    assert!(stop.message.contains("64 directories deep"), "{stop}");
    held.release().await;
}

async fn disk_that_is_hidden_is_a_breach(place: Place) {
    let by_descriptor = "head -c 40000000 /dev/zero >&8; head -c 40000000 /dev/zero >&9; sleep 100";
    let removed = "for (1, 2) { open my $f, q(>), q(x); unlink q(x); print $f q(x) x 40000000; push @f, $f } sleep 100";
    let (held_open, shut) = ("in removed files that are still open", "cannot be read");
    let hidden = [
        (format!("exec 8>a 9>b; rm a b; {by_descriptor}"), held_open, held_open),
        (format!("mkdir shut; exec 8>shut/a 9>shut/b; chmod 0400 shut; {by_descriptor}"), "it holds", shut),
        (format!("exec 8>a 9>b; chmod 0400 .; {by_descriptor}"), "it holds", shut),
        // What may be executed and not be read does not show a plain user what it has open.
        (format!("cp /usr/bin/perl p; chmod 0111 p; exec ./p -e '{removed}'"), held_open, "could not be measured"),
    ];
    for (script, to_root, to_others) in hidden {
        let held = with(&place, Limits { disk: Some(64 << 20), ..LIMITS }).await;
        let exec = Exec::new(["/bin/sh".to_owned(), "-c".to_owned(), format!("cd /data; {script}")]);
        let (_, stop) = tokio::join!(held.sandbox.exec(exec), breach(&held));
        let says = if rustix::process::geteuid().is_root() { to_root } else { to_others };
        assert!(stop.message.contains(says), "{script}: {stop}");
        held.release().await;
    }
}

/// For longer than ten looks take.
async fn a_process_that_nobody_awaits_hides_nothing(place: Place) {
    let held = with(&place, Limits { disk: Some(64 << 20), ..LIMITS }).await;
    assert_eq!(held.say("perl -e 'fork or exit; sleep 8; print q(undisturbed)'").await, "undisturbed");
    held.release().await;
}

async fn the_survey_says_what_holds(place: Place) {
    let survey = place.isolation.survey(&LIMITS).await.expect("best effort is never refused");
    let names: Vec<&str> = survey.limits.iter().map(|limit| limit.what.as_str()).collect();
    assert_eq!(names, ["memory", "processes", "disk", "descriptors"]);
    assert!(survey.free_disk > 0 && survey.free_memory > 0);
    let required = place.isolation.survey(&Limits { enforcement: Enforcement::Required, ..LIMITS }).await;
    if rustix::process::geteuid().is_root() {
        assert!(survey.limits.iter().take(3).all(|limit| limit.total), "{:?}", survey.limits);
        assert!(required.is_ok());
    } else if survey.limits[0].enforced_by == "none" {
        assert_eq!(survey.warnings.len(), 1);
        let stop = required.expect_err("nothing holds the memory");
        assert!(stop.advice.is_some_and(|advice| advice.contains("Delegate=yes")));
    }
    let held = place.sandbox().await;
    assert_eq!(held.say("ulimit -n; ulimit -c").await, "4096\n0");
    held.release().await;
}

async fn a_flood_of_connections_is_bounded(place: Place) {
    let held = with(&place, Limits { processes: 200, ..LIMITS }).await;
    // Nobody listens inside, so each is refused at once; none may hang or end the relay.
    for _ in 0..300 {
        assert_eq!(first_byte(&mut held.sandbox.dial().await.expect("dialled")).await, 0, "an end");
    }
    // Now each is greeted, and held until it ends outside.
    let greeter = "use IO::Socket::INET; $SIG{CHLD} = q(IGNORE); \
        my $s = IO::Socket::INET->new(LocalAddr => q(127.0.0.1:5432), Listen => 200) or die; \
        while (my $c = $s->accept) { fork and next; syswrite $c, q(x); sysread $c, my $x, 1; exit }";
    let greeter = held.sandbox.exec(Exec::new(["/usr/bin/perl", "-e", greeter]));
    let flood = async {
        while first_byte(&mut held.sandbox.dial().await.expect("dialled")).await != 1 {}
        let mut streams = Vec::new();
        for _ in 0..100 {
            streams.push(held.sandbox.dial().await.expect("dialled"));
        }
        let mut waiting = streams.split_off(64);
        for stream in &mut streams {
            assert_eq!(first_byte(stream).await, 1);
        }
        tokio::time::timeout(Duration::from_millis(500), first_byte(&mut waiting[0]))
            .await
            .expect_err("the relay's limit");
        drop(streams);
        for stream in &mut waiting {
            assert_eq!(first_byte(stream).await, 1, "others left");
        }
    };
    tokio::select! {
        ended = greeter => panic!("{ended:?}"),
        () = flood => {}
    }
    assert_eq!(held.say("echo alive").await, "alive");
    held.release().await;
}

/// How many bytes came first: none at an end.
async fn first_byte(stream: &mut Box<dyn ByteStream>) -> usize {
    let mut buffer = [0; 1];
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut buffer)).await.expect("it does not hang");
    read.unwrap_or(0)
}
