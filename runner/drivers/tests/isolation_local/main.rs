//! The local isolation with the real bubblewrap: as root, who drops to an unused user id, and as a plain user.
//!
//! This binary is also muster's own program inside the sandboxes, so it has no harness: `main` looks at its arguments first.
mod boundary;
mod lifecycle;
mod limits;
mod support;
mod use_it;

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::panic::AssertUnwindSafe;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use drivers::isolation::local::inside;
use futures_util::FutureExt;
use support::{Place, TestFn};

/// A user id without a name and, among tests, without another use.
const PLAIN_USER: u32 = 60_917;
/// Not the user's number, because a system user's group often has another one.
const PLAIN_GROUP: u32 = 60_918;
const PATIENCE: Duration = Duration::from_mins(3);

fn main() -> ExitCode {
    if let Some(code) = inside::dispatch(std::env::args_os()) {
        return code;
    }
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    match arguments.first().and_then(|first| first.to_str()) {
        Some("agent") => return use_it::agent(),
        Some("provision-and-wait") => return lifecycle::provision_and_wait(&arguments),
        Some("call") => return boundary::call(&arguments),
        _ => {}
    }
    let filter = arguments.iter().filter_map(|one| one.to_str()).find(|one| !one.starts_with('-'));
    let mut failed = run_all(filter.unwrap_or_default());
    if rustix::process::geteuid().is_root() {
        failed += as_plain_user(&arguments);
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn tests() -> Vec<(&'static str, TestFn)> {
    [use_it::tests(), boundary::tests(), lifecycle::tests(), limits::tests()].concat()
}

fn run_all(filter: &str) -> usize {
    let who = if rustix::process::geteuid().is_root() { "root" } else { "plain user" };
    let mut failed = 0;
    for (name, test) in tests().into_iter().filter(|(name, _)| name.contains(filter)) {
        let began = Instant::now();
        let outcome = std::panic::catch_unwind(|| run(test));
        let verdict = if outcome.is_ok() { "ok" } else { "FAILED" };
        eprintln!("test {who}: {name} ... {verdict} ({:.2} s)", began.elapsed().as_secs_f64());
        failed += usize::from(outcome.is_err());
    }
    failed
}

/// Each test has a state directory of its own, and must leave nothing in it.
fn run(test: TestFn) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let place = Place::new();
    runtime.block_on(async {
        let test = async {
            tokio::time::timeout(PATIENCE, test(place.clone())).await.expect("the test ends in time");
            place.must_be_empty().await;
        };
        if let Err(panic) = AssertUnwindSafe(test).catch_unwind().await {
            place.clean_up().await;
            std::panic::resume_unwind(panic);
        }
    });
}

fn as_plain_user(arguments: &[OsString]) -> usize {
    // The build directory may be out of the user's reach.
    let directory = tempfile::tempdir().expect("a directory");
    let program = directory.path().join("isolation_local");
    std::fs::copy(std::env::current_exe().expect("our own path"), &program).expect("copied");
    support::open_to_all(directory.path());
    support::open_to_all(&program);
    let mut command = Command::new(&program);
    command.args(arguments).current_dir("/").uid(PLAIN_USER).gid(PLAIN_GROUP);
    usize::from(!command.status().expect("it starts").success())
}
