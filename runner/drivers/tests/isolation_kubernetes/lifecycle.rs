//! A sandbox from its making to its end.
use std::io::{Read, Write};
use std::process::ExitCode;
use std::time::Duration;

use drill::id::Sha256Digest;
use drill::ledger::Resource;
use drill::port::{Exec, ExitStatus, Isolation};
use drivers::isolation::contract;
use futures_util::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Held, Place, TestFn};
use crate::test;

pub(crate) fn tests() -> Vec<(&'static str, TestFn)> {
    vec![
        test!(the_contract_is_kept),
        test!(commands_answer_with_all_that_they_said),
        test!(what_was_staged_arrives_whole_and_read_only),
        test!(the_agent_speaks_and_ends_with_its_input),
        test!(what_a_killed_muster_left_is_found_and_removed),
    ]
}

/// What the agent's pod runs in these tests: it sends back what it is sent.
pub(crate) fn agent() -> ExitCode {
    let mut bytes = [0; 64];
    while let Ok(read @ 1..) = std::io::stdin().read(&mut bytes) {
        let mut out = std::io::stdout().lock();
        if out.write_all(&bytes[..read]).and_then(|()| out.flush()).is_err() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

async fn the_contract_is_kept(place: Place) {
    contract::all(place.isolation.as_ref()).await;
}

async fn commands_answer_with_all_that_they_said(place: Place) {
    let held = place.sandbox().await;
    assert_eq!(held.run(&["/bin/id", "-un"]).await.stdout, b"postgres\n");
    assert_eq!(held.run(&["/bin/env", "false"]).await.status, ExitStatus::Code(1));

    let mut large = Exec::new(["/bin/head", "-c", "20000000", "/dev/zero"]);
    large.keep = 32 << 20;
    assert_eq!(held.sandbox.exec(large).await.expect("it ran").stdout.len(), 20_000_000);

    let mut digest = Exec::new(["/bin/sha256sum"]);
    digest.stdin = vec![7; 5_000_000];
    let output = held.sandbox.exec(digest.clone()).await.expect("it ran");
    assert!(output.stdout.starts_with(Sha256Digest::of(&digest.stdin).hex().as_bytes()));

    let absent = held.sandbox.exec(Exec::new(["/nowhere"])).await.expect_err("it cannot be started");
    assert!(absent.message.contains("/nowhere"), "{absent:?}");
    a_command_ends_at_its_deadline_and_when_nobody_waits(&held).await;
    held.release().await;
}

async fn a_command_ends_at_its_deadline_and_when_nobody_waits(held: &Held) {
    let mut late = Exec::new(["/bin/sleep", "1001"]);
    late.deadline = Duration::from_secs(1);
    assert_eq!(held.sandbox.exec(late).await.expect("answered").status, ExitStatus::DeadlineExceeded);
    let dropped = held.sandbox.exec(Exec::new(["/bin/sleep", "1002"]));
    let _ = tokio::time::timeout(Duration::from_secs(1), dropped).await;
    let script = "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline 2>/dev/null | grep '^/bin/sleep 100'; done; true";
    for _ in 0..50 {
        if held.run(&["/bin/sh", "-c", script]).await.stdout.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("a command outlived whoever asked for it");
}

async fn what_was_staged_arrives_whole_and_read_only(place: Place) {
    let held = place.sandbox().await;
    let bytes: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    std::fs::create_dir(held.storage.staging.join("orders")).expect("made");
    std::fs::write(held.storage.staging.join("orders/large"), &bytes).expect("written");
    std::fs::write(held.storage.staging.join("empty"), "").expect("written");
    held.sandbox.deliver().await.expect("delivered");
    let output = held.run(&["/bin/sha256sum", "/backup/orders/large", "/backup/empty"]).await;
    let text = String::from_utf8(output.stdout).expect("text");
    for digest in [Sha256Digest::of(&bytes), Sha256Digest::of(b"")] {
        assert!(text.contains(&digest.hex()), "{text}");
    }
    for attempt in ["echo x >/backup/empty", "rm -f /backup/empty", "echo x >/backup/new", "echo x >/conf/new"] {
        assert_ne!(held.run(&["/bin/sh", "-c", attempt]).await.status, ExitStatus::Code(0), "{attempt}");
    }
    held.release().await;
}

async fn the_agent_speaks_and_ends_with_its_input(place: Place) {
    let held = place.sandbox().await;
    let mut agent = held.sandbox.run_agent().await.expect("an agent");
    agent.stdin.write_all(b"hello").await.expect("written");
    agent.stdin.flush().await.expect("written");
    let mut answer = [0; 5];
    agent.stdout.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(&answer, b"hello");
    agent.stdin.close().await.expect("closed");
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(10), agent.stdout.read_to_end(&mut rest));
    ended.await.expect("it ends").expect("read");
    held.release().await;
}

/// Another process of the same state directory knows nothing but names.
async fn what_a_killed_muster_left_is_found_and_removed(place: Place) {
    let Held { run, sandbox, .. } = place.sandbox().await;
    drop(sandbox);
    let later = drivers::isolation::kubernetes::KubernetesState::open(&place.root()).expect("a state").of_the_past();
    let left = later.leftovers().await.expect("looked");
    assert_eq!(left.iter().map(|one| one.resource).collect::<Vec<_>>(), [Resource::Storage, Resource::Sandbox]);
    let proof = later.release(&run, Resource::Sandbox, None).await.expect("released");
    assert!(proof.observed.iter().any(|seen| seen == &format!("namespace dr-sandbox-{run} gone")), "{proof:?}");
    later.release(&run, Resource::Storage, None).await.expect("released");
}
