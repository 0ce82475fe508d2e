//! What hostile code inside a sandbox tries, and must not get.
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use drill::id::Sha256Digest;
use drill::port::{Exec, ExitStatus};
use drill::proof::{Expected, IsolationProof};
use drill::verdict::Reason;

use crate::support::{Held, Place, TestFn};
use crate::test;

pub(crate) fn tests() -> Vec<(&'static str, TestFn)> {
    vec![
        test!(isolation_is_proven_with_controls),
        test!(the_same_probes_outside_are_open),
        test!(a_backup_survives_writes_to_every_descriptor),
        test!(refused_calls_are_refused),
        test!(the_runners_environment_and_keyring_are_out_of_reach),
        test!(the_init_keeps_its_descriptors_and_memory),
        test!(the_end_of_the_init_is_a_breach),
    ]
}

async fn isolation_is_proven_with_controls(place: Place) {
    let held = place.sandbox().await;
    let proof = IsolationProof { probes: held.sandbox.probe().await.expect("probed") };
    proof.judge().unwrap_or_else(|stop| panic!("{stop}: {:#?}", proof.probes));
    assert_eq!((proof.closed(), proof.controls()), (11, 3), "{:#?}", proof.probes);
    held.release().await;
}

/// Were the probes to fail for any other reason, they would prove nothing.
async fn the_same_probes_outside_are_open(place: Place) {
    let held = place.sandbox().await;
    let targets = serde_json::to_value(held.sandbox.probe_targets()).expect("targets");
    let question = serde_json::json!({ "targets": targets, "name_servers": [] }).to_string();
    let program = std::env::current_exe().expect("our own path");
    let output = std::process::Command::new(program).args(["sandbox-probe", &question]).output().expect("it ran");
    let answers: Vec<serde_json::Value> =
        String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let open = |name: &str| answers.iter().any(|answer| answer["name"] == name && answer["open"] == true);
    for name in
        ["TCP to the runner's listener", "the runner's abstract socket", "a datagram to the name server", "io_uring"]
    {
        assert!(open(name), "{name}: {answers:#?}");
    }
    for name in ["a new user namespace", "the keyring", "ptrace", "another process's descriptor"] {
        assert!(open(name), "{name}: {answers:#?}");
    }
    // What reached a listener before is not held against the sandbox.
    let proof = IsolationProof { probes: held.sandbox.probe().await.expect("probed") };
    proof.judge().expect("proven");
    held.release().await;
}

async fn a_backup_survives_writes_to_every_descriptor(place: Place) {
    let held = place.sandbox().await;
    let staged = held.storage.staging.join("dump");
    std::fs::write(&staged, vec![7; 100_000]).expect("written");
    held.sandbox.deliver().await.expect("delivered");
    let delivered = place.root.join("runs").join(held.run.as_str()).join("backup/dump");
    let hash = || Sha256Digest::of(&std::fs::read(&delivered).expect("read"));
    let before = hash();
    let hold_it_open = "exec 9</backup/dump; for fd in /proc/[0-9]*/fd/* /proc/self/fd/*; do \
                        (echo overwritten >$fd) 2>/dev/null; (echo overwritten 1<>$fd) 2>/dev/null; done; \
                        (echo overwritten >/proc/self/fd/9) 2>&1; true";
    let mut exec = Exec::new(["/bin/sh", "-c", hold_it_open]);
    exec.stdin = b"input".to_vec();
    let output = held.sandbox.exec(exec).await.expect("it ran");
    assert!(String::from_utf8_lossy(&output.stdout).contains("Read-only"), "{output:?}");
    assert_eq!(hash(), before);
    held.release().await;
}

/// `call NUMBER ARGUMENTS`: one system call; its error number is the exit code, 0 where it succeeded.
#[expect(unsafe_code, reason = "hostile code makes system calls that no library offers")]
pub(crate) fn call(arguments: &[OsString]) -> ExitCode {
    let mut numbers = [0; 6];
    for (number, text) in numbers.iter_mut().zip(&arguments[1..]) {
        *number = text.to_str().and_then(|text| text.parse::<libc::c_long>().ok()).expect("a number");
    }
    // SAFETY: the arguments are small numbers; none is an address.
    let answer =
        unsafe { libc::syscall(numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5], 0_usize) };
    if answer >= 0 {
        return ExitCode::SUCCESS;
    }
    let error = std::io::Error::last_os_error().raw_os_error().unwrap_or(255);
    ExitCode::from(u8::try_from(error).unwrap_or(255))
}

async fn errno(held: &Held, numbers: &[libc::c_long]) -> i32 {
    let mut argv = vec!["/muster".to_owned(), "call".to_owned()];
    argv.extend(numbers.iter().map(ToString::to_string));
    match held.sandbox.exec(Exec::new(argv)).await.expect("it ran").status {
        ExitStatus::Code(code) => code,
        other => panic!("{numbers:?}: {other:?}"),
    }
}

async fn refused_calls_are_refused(place: Place) {
    let held = place.sandbox().await;
    let namespace = |flag: libc::c_int| [libc::SYS_clone, libc::c_long::from(flag | libc::SIGCHLD)];
    let refused: &[&[libc::c_long]] = &[
        &[libc::SYS_ptrace, libc::c_long::from(libc::PTRACE_ATTACH), 1],
        &[libc::SYS_ptrace, libc::c_long::from(libc::PTRACE_SEIZE), 2],
        &[libc::SYS_process_vm_readv, 2],
        &[libc::SYS_pidfd_getfd, 3, 3],
        &[libc::SYS_keyctl, 0, -3],
        &[libc::SYS_add_key],
        &[libc::SYS_request_key],
        &[libc::SYS_io_uring_setup, 8],
        &[libc::SYS_bpf],
        &[libc::SYS_userfaultfd],
        &[libc::SYS_perf_event_open],
        &[libc::SYS_unshare, libc::c_long::from(libc::CLONE_NEWUSER)],
        &[libc::SYS_unshare, libc::c_long::from(libc::CLONE_NEWNS)],
        &[libc::SYS_setns],
        &[libc::SYS_mount],
        &[libc::SYS_open_by_handle_at],
        &namespace(libc::CLONE_NEWUSER),
        &namespace(libc::CLONE_NEWNET),
        &namespace(libc::CLONE_NEWPID | libc::CLONE_NEWNS),
        &[libc::SYS_socket, libc::c_long::from(libc::AF_PACKET), 3, 0],
        &[libc::SYS_socket, libc::c_long::from(libc::AF_VSOCK), 1, 0],
        &[libc::SYS_socket, libc::c_long::from(libc::AF_ALG), 5, 0],
        &[libc::SYS_ioctl, 0, 0x5412],
        // On no list of what leads out, and not on the list of what is needed.
        &[libc::SYS_personality, 0xffff_ffff],
        &[libc::SYS_msgget, 0, 0o1600],
        &[libc::SYS_mq_open],
        &[libc::SYS_pidfd_open, 1],
        &[libc::SYS_mknodat, -100],
        &[libc::SYS_sethostname],
        &[libc::SYS_fanotify_init],
        &[libc::SYS_inotify_init1, 0],
        &[libc::SYS_fcntl, 0, libc::F_NOTIFY.into(), 1],
        &[libc::SYS_landlock_create_ruleset],
        &[libc::SYS_ioctl, 0, libc::TIOCSPGRP.cast_signed()],
    ];
    for call in refused {
        assert_eq!(errno(&held, call).await, libc::EPERM, "{call:?}");
    }
    // Two that libraries go round, two that are newer than the list, and one that is not yet.
    for call in [libc::SYS_clone3, libc::SYS_memfd_create, libc::SYS_set_mempolicy_home_node + 1, 462, 4_000] {
        assert_eq!(errno(&held, &[call]).await, libc::ENOSYS, "{call}");
    }
    if cfg!(target_arch = "x86_64") {
        // getpid of x32.
        assert_eq!(errno(&held, &[0x4000_0000 + libc::SYS_getpid]).await, libc::EPERM);
    }
    for family in [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK] {
        let kind = if family == libc::AF_NETLINK { libc::SOCK_RAW } else { libc::SOCK_STREAM };
        assert_eq!(errno(&held, &[libc::SYS_socket, family.into(), kind.into(), 0]).await, 0, "{family}");
    }
    held.release().await;
}

async fn the_runners_environment_and_keyring_are_out_of_reach(place: Place) {
    let key = join_keyring_with_a_key();
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some(), "the test has an environment to lose");
    let held = place.sandbox().await;
    let names = held.say("cat /proc/[0-9]*/environ | tr '\\0' '\\n' | sed 's/=.*//' | sort -u | tr '\\n' ' '").await;
    let ours = ["HOME", "LANG", "PATH", "PWD", "OLDPWD", "SHLVL", "_"];
    assert!(names.split_whitespace().all(|name| ours.contains(&name)), "{names}");
    assert_eq!(held.say("wc -c </proc/1/environ").await, "0");
    let keys = std::fs::read_to_string("/proc/keys").expect("read");
    assert!(keys.contains(key), "the runner holds it: {keys}");
    assert_eq!(held.sh(&format!("grep {key} /proc/keys")).await.status, ExitStatus::Code(1));
    let arguments = held.say("cat /proc/[0-9]*/cmdline | tr '\\0' ' '").await;
    assert!(!arguments.contains(&*place.root.to_string_lossy()), "{arguments}");
    held.release().await;
}

/// In this thread's session keyring, as a person's key would be.
#[expect(unsafe_code, reason = "keyrings have no safe wrapper")]
fn join_keyring_with_a_key() -> &'static str {
    let (kind, name) = (c"user", c"muster-test-key");
    // SAFETY: both names end in a zero, the payload is four bytes long, and -3 names the session keyring.
    let key = unsafe { libc::syscall(libc::SYS_add_key, kind.as_ptr(), name.as_ptr(), c"text".as_ptr(), 4_usize, -3) };
    assert!(key > 0, "{}", std::io::Error::last_os_error());
    "muster-test-key"
}

async fn the_init_keeps_its_descriptors_and_memory(place: Place) {
    let held = place.sandbox().await;
    let init = held.say("grep -l muster /proc/[0-9]*/comm | head -1").await;
    let init = init.trim_end_matches("/comm");
    for closed in ["ls FD/fd/", "cat FD/environ", "cat FD/mem", "cat FD/maps", "ls FD/cwd/", "cat FD/fdinfo/*"] {
        let output = held.sh(&closed.replace("FD", init)).await;
        assert_ne!(output.status, ExitStatus::Code(0), "{closed}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("ermission denied"), "{closed}: {output:?}");
    }
    // No descriptor but the three pipes comes with a command.
    assert_eq!(held.say("exec ls /proc/self/fd | tr '\\n' ' '").await, "0 1 2 3");
    held.release().await;
}

async fn the_end_of_the_init_is_a_breach(place: Place) {
    let held = place.sandbox().await;
    let running = held.sandbox.exec(Exec::new(["/bin/sleep", "1000"]));
    let killing = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let _ = held.sandbox.exec(Exec::new(["/bin/sh", "-c", "kill -9 -1; kill -9 2"])).await;
    };
    let (ended, ()) = tokio::join!(running, killing);
    assert!(ended.is_err(), "{ended:?}");
    let breach = tokio::time::timeout(Duration::from_secs(5), held.sandbox.breach()).await.expect("it is noticed");
    assert_eq!(breach.reason, Reason::Internal);
    let probes = held.sandbox.probe().await;
    assert!(probes.is_err() || probes.is_ok_and(|probes| probes.iter().any(|p| p.observed == Expected::Open)));
    held.release().await;
}
