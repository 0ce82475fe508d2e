//! Making and removing: nothing is left, whoever ended and whatever was planted.
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use drill::id::RunId;
use drill::ledger::Resource;
use drill::port::{Exec, Isolation, SandboxInputs, SandboxSpec};
use drivers::isolation::contract;
use drivers::isolation::local::{LocalConfig, LocalIsolation, doctor};
use futures_util::FutureExt;

use crate::support::{self, LIMITS, Place, TestFn, initdb, until};
use crate::test;

pub(crate) fn tests() -> Vec<(&'static str, TestFn)> {
    vec![
        test!(the_contract_is_kept),
        test!(killing_the_runner_leaves_no_process),
        test!(what_was_planted_in_data_goes_and_misleads_nobody),
        test!(two_state_directories_do_not_know_each_other),
        test!(a_provision_that_nobody_awaits_leaves_nothing),
        test!(a_release_waits_for_a_sandbox_that_is_on_its_way),
        test!(a_directory_that_nobody_awaits_is_not_left),
        test!(the_runs_user_is_no_one_elses),
        test!(whoever_wakes_in_a_sandbox_waits_for_its_turn),
        test!(no_child_is_left_unreaped),
        test!(a_broken_bubblewrap_is_named),
        test!(a_state_directory_out_of_reach_is_named),
        test!(a_program_out_of_reach_is_copied),
        test!(the_doctor_finds_this_machine_fit),
    ]
}

async fn the_contract_is_kept(place: Place) {
    contract::all(&*place.isolation).await;
}

/// `provision-and-wait ROOT RUN`: what the next test kills.
pub(crate) fn provision_and_wait(arguments: &[OsString]) -> ExitCode {
    let [_, root, run] = arguments else { return ExitCode::FAILURE };
    let run: RunId = run.to_string_lossy().parse().expect("a run");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let isolation = support::isolation(Path::new(root));
        isolation.prepare(&run).await.expect("prepared");
        let inputs = SandboxInputs { port: 5432, ..SandboxInputs::default() };
        let sandbox = isolation.provision(SandboxSpec { run, limits: LIMITS, inputs }).await.expect("provisioned");
        let _agent = sandbox.run_agent().await.expect("an agent");
        let daemons = "trap '' TERM INT HUP; for i in 1 2 3; do setsid sh -c 'trap \"\" TERM; sleep 1000' & done";
        sandbox.exec(Exec::new(["/bin/sh", "-c", daemons])).await.expect("they started");
        writeln!(std::io::stdout(), "ready").expect("written");
        tokio::time::sleep(Duration::from_secs(100)).await;
    });
    ExitCode::SUCCESS
}

async fn killing_the_runner_leaves_no_process(place: Place) {
    let run = support::run_id();
    let mut runner = Command::new(std::env::current_exe().expect("our own path"))
        .args([OsString::from("provision-and-wait"), place.root.clone().into(), run.as_str().into()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut line = String::new();
    BufReader::new(runner.stdout.take().expect("a pipe")).read_line(&mut line).expect("read");
    assert_eq!(line, "ready\n");
    let uid = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(place.data(&run)).expect("it exists"));
    assert!(processes(&run) >= 2);
    runner.kill().expect("killed");
    runner.wait().expect("reaped");
    until("its sandboxes end", || processes(&run) == 0).await;
    if rustix::process::geteuid().is_root() {
        until("all of the run's user end", || processes_of(uid) == 0).await;
    }
    let left = place.isolation.leftovers().await.expect("looked");
    assert!(left.iter().any(|left| left.run == run && left.resource == Resource::Storage), "{left:?}");
    for resource in [Resource::Agent, Resource::Sandbox, Resource::Storage] {
        place.isolation.release(&run, resource, None).await.expect("released");
    }
}

fn processes(run: &RunId) -> usize {
    let named = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).contains(&format!(":{run}:"));
    each_process("cmdline").filter(|bytes| named(bytes.clone())).count()
}

fn processes_of(uid: u32) -> usize {
    let owned = |bytes: &Vec<u8>| {
        let text = String::from_utf8_lossy(bytes);
        text.contains(&format!("Uid:\t{uid}\t")) && !text.contains("State:\tZ")
    };
    each_process("status").filter(owned).count()
}

fn each_process(file: &'static str) -> impl Iterator<Item = Vec<u8>> {
    let entries = std::fs::read_dir("/proc").expect("read").flatten();
    let processes = entries.filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok());
    processes.filter_map(move |entry| std::fs::read(entry.path().join(file)).ok())
}

async fn what_was_planted_in_data_goes_and_misleads_nobody(place: Place) {
    let outside = tempfile::tempdir().expect("a directory");
    support::open_to_all(outside.path());
    std::fs::write(outside.path().join("kept"), "kept").expect("written");
    let held = place.sandbox().await;
    let target = outside.path().display();
    let plant = format!(
        "cd /data && ! mkfifo fifo 2>&1 && cp /bin/true set && chmod 6755 set && ln -s {target} link && ln -s {target}/kept file \
         && ln -s / root && ln -s ../conf conf && mkdir 'odd\nname' && touch -- '-rf' && mkdir closed && touch closed/x \
         && i=0 && while [ $i -lt 60 ]; do mkdir d && cd d && i=$((i+1)); done; chmod 000 /data/closed; echo planted"
    );
    // The watchdog may end it at once for the directory that cannot be read.
    let planted = held.sandbox.exec(Exec::new(["/bin/sh", "-c", &plant])).await;
    assert!(planted.is_ok() || planted.is_err_and(|stop| stop.message.contains("cannot be read")));
    assert!(place.data(&held.run).join("closed").exists());
    let directory = place.root.join("runs").join(held.run.as_str());
    held.release().await;
    assert!(!directory.exists());
    assert_eq!(std::fs::read_to_string(outside.path().join("kept")).expect("it is still there"), "kept");
    assert!(Path::new("/usr/bin/env").exists());
}

async fn two_state_directories_do_not_know_each_other(place: Place) {
    let other = Place::new();
    let held = place.sandbox().await;
    assert_eq!(other.isolation.leftovers().await.expect("looked"), []);
    // Not even by the same name.
    other.isolation.release(&held.run, Resource::Sandbox, None).await.expect("nothing is found");
    assert_eq!(held.say("echo alive").await, "alive");
    held.release().await;
    other.must_be_empty().await;
}

async fn a_provision_that_nobody_awaits_leaves_nothing(place: Place) {
    let first = [1, 5, 20, 60, 150, 700];
    // From then on the template is there, and is being copied in these moments.
    let later = (0..30).map(|round| round * 3);
    for patience in first.into_iter().chain(later) {
        let run = support::run_id();
        place.isolation.prepare(&run).await.expect("prepared");
        let inputs = SandboxInputs { template: Some(initdb()), port: 5432, ..SandboxInputs::default() };
        let spec = SandboxSpec { run: run.clone(), limits: LIMITS, inputs };
        let provisioned = tokio::time::timeout(Duration::from_millis(patience), place.isolation.provision(spec)).await;
        drop(provisioned);
        // What was on its way when it was dropped ends by itself; release finds the rest.
        for resource in [Resource::Sandbox, Resource::Storage] {
            place.isolation.release(&run, resource, None).await.expect("released");
        }
        assert_eq!(processes(&run), 0, "after {patience} ms");
        assert_eq!(place.isolation.leftovers().await.expect("looked"), [], "after {patience} ms");
    }
}

/// Bubblewrap that begins late, when its provision was given up: a look before that would miss it.
async fn a_release_waits_for_a_sandbox_that_is_on_its_way(place: Place) {
    let late = tempfile::tempdir().expect("a directory");
    let mode = |path: &Path, mode| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(path, mode).expect("its mode is set");
    };
    mode(late.path(), 0o777);
    let (bwrap, asked, gate) = (late.path().join("bwrap"), late.path().join("asked"), late.path().join("gate"));
    let script = format!(
        "#!/bin/sh\n: > {}\nuntil [ -e {} ]; do /bin/sleep 0.01; done\nexec /usr/bin/bwrap \"$@\"\n",
        asked.display(),
        gate.display()
    );
    std::fs::write(&bwrap, script).expect("written");
    mode(&bwrap, 0o755);
    let mut config = LocalConfig::new(&place.root, std::env::current_exe().expect("our own path"));
    config.bwrap = bwrap;
    let isolation = LocalIsolation::new(config).expect("it is not tried yet");
    let run = support::run_id();
    isolation.prepare(&run).await.expect("prepared");
    let inputs = SandboxInputs { port: 5432, ..SandboxInputs::default() };
    let spec = SandboxSpec { run: run.clone(), limits: LIMITS, inputs };
    tokio::select! {
        provisioned = isolation.provision(spec) => panic!("before bubblewrap began: {:?}", provisioned.err()),
        () = until("bubblewrap is asked for", || asked.exists()) => {}
    }
    // Nobody awaits it any more.
    let mut release = isolation.release(&run, Resource::Sandbox, None);
    let early = tokio::time::timeout(Duration::from_millis(500), &mut release).await;
    assert!(early.is_err(), "its sandbox was still on its way: {early:?}");
    std::fs::write(gate, "").expect("written");
    release.await.expect("released");
    isolation.release(&run, Resource::Storage, None).await.expect("released");
    assert_eq!(processes(&run), 0);
    assert_eq!(isolation.leftovers().await.expect("looked"), []);
}

async fn a_directory_that_nobody_awaits_is_not_left(place: Place) {
    for _ in 0..20 {
        let run = support::run_id();
        // Begun, and given up at once.
        drop(place.isolation.prepare(&run).now_or_never());
        place.isolation.release(&run, Resource::Storage, None).await.expect("released");
        assert_eq!(place.isolation.leftovers().await.expect("looked"), []);
    }
}

async fn whoever_wakes_in_a_sandbox_waits_for_its_turn(place: Place) {
    // The 41st field, in proc(5): 3 is SCHED_BATCH.
    let held = place.sandbox().await;
    assert_eq!(held.say("cut -d ' ' -f 41 /proc/self/stat").await, "3");
    held.release().await;
}

async fn the_runs_user_is_no_one_elses(place: Place) {
    use std::os::unix::fs::MetadataExt;
    let (first, second) = tokio::join!(place.sandbox(), place.sandbox());
    let owner = |run| std::fs::metadata(place.data(run)).expect("it exists");
    let (one, two) = (owner(&first.run), owner(&second.run));
    if rustix::process::geteuid().is_root() {
        assert!(one.uid() != two.uid() && (61184..=65519).contains(&one.uid()) && one.gid() == one.uid());
        assert_eq!(first.storage.handle["uid"], one.uid());
        // RLIMIT, groups and umask as asked for, and no capability.
        assert_eq!(first.say("grep -c 'CapEff:\t0000000000000000' /proc/self/status").await, "1");
        let groups = first.say("sed -n 's/^Groups://p' /proc/self/status").await;
        assert_eq!(groups, "", "supplementary groups");
    } else {
        assert_eq!(one.uid(), rustix::process::geteuid().as_raw());
    }
    let run = place.root.join("runs").join(first.run.as_str());
    assert_eq!(std::fs::metadata(run).expect("it exists").mode() & 0o7777, 0o700);
    assert_eq!(std::fs::metadata(&place.root).expect("it exists").mode() & 0o7777, 0o711);
    first.release().await;
    second.release().await;
}

async fn a_broken_bubblewrap_is_named(place: Place) {
    for (bwrap, said) in
        [("/usr/bin/false", "ended at once"), ("/usr/bin/ls", "--args"), ("/nowhere/bwrap", "/nowhere")]
    {
        let mut config = LocalConfig::new(&place.root, std::env::current_exe().expect("our own path"));
        config.bwrap = bwrap.into();
        let isolation = LocalIsolation::new(config).expect("it is not tried yet");
        let run = support::run_id();
        isolation.prepare(&run).await.expect("prepared");
        let inputs = SandboxInputs { port: 5432, ..SandboxInputs::default() };
        let provisioned = isolation.provision(SandboxSpec { run: run.clone(), limits: LIMITS, inputs }).await;
        let stop = provisioned.err().expect("it cannot work");
        assert!(stop.message.contains(said) && stop.advice.is_some(), "{bwrap}: {stop:?}");
        for resource in [Resource::Sandbox, Resource::Storage] {
            isolation.release(&run, resource, None).await.expect("released");
        }
    }
}

fn for_root_alone() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(directory.path(), mode).expect("its mode is set");
    directory
}

async fn a_state_directory_out_of_reach_is_named(place: Place) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let closed = for_root_alone();
    let isolation = support::isolation(&closed.path().join("state"));
    let stop = isolation.prepare(&support::run_id()).await.expect_err("the sandbox could not enter it");
    assert!(stop.message.contains(&*closed.path().to_string_lossy()) && stop.advice.is_some(), "{stop:?}");
    assert_eq!(isolation.leftovers().await.expect("looked"), []);
    place.must_be_empty().await;
}

async fn a_program_out_of_reach_is_copied(place: Place) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let closed = for_root_alone();
    let program = closed.path().join("muster");
    std::fs::copy(std::env::current_exe().expect("our own path"), &program).expect("copied");
    let isolation = LocalIsolation::new(LocalConfig::new(&place.root, program)).expect("an isolation");
    contract::isolation_is_proven_and_commands_run(&isolation).await;
    contract::isolation_is_proven_and_commands_run(&isolation).await;
    let cache = std::fs::read_dir(place.root.join("cache")).expect("read").flatten();
    assert_eq!(cache.filter(|entry| entry.file_name().to_string_lossy().starts_with("program-")).count(), 1);
}

async fn the_doctor_finds_this_machine_fit(place: Place) {
    let facts = doctor(&LocalConfig::new(&place.root, "/nowhere")).await;
    let names: Vec<&str> = facts.iter().map(|fact| fact.name.as_str()).collect();
    assert_eq!(names, ["bubblewrap", "user namespaces", "cgroups", "session keyring"]);
    for fact in &facts {
        assert!(fact.ok || (fact.name == "cgroups" && fact.advice.is_some()), "{fact:?}");
    }
    let mut absent = LocalConfig::new(&place.root, "/nowhere");
    absent.bwrap = "/nowhere/bwrap".into();
    let facts = doctor(&absent).await;
    assert!(!facts[0].ok && facts[0].advice.as_ref().is_some_and(|advice| advice.contains("apt-get")), "{facts:?}");
}

async fn no_child_is_left_unreaped(place: Place) {
    let held = place.sandbox().await;
    let _agent = held.sandbox.run_agent().await.expect("an agent");
    held.release().await;
    let children = || {
        let tasks = std::fs::read_dir("/proc/self/task").expect("read").flatten();
        tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok()).collect::<String>()
    };
    until("every child is reaped", || children().trim().is_empty()).await;
}
