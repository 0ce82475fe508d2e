//! The Kubernetes isolation in the real cluster that `tests/services/cluster/with` brings up.
//!
//! This binary is also muster's own program inside the pods, so it has no harness: `main` looks at its arguments first.
mod asked;
mod boundary;
mod doorway;
mod finalizers;
mod lease;
mod lifecycle;
mod measure;
mod support;

use std::ffi::OsString;
use std::panic::AssertUnwindSafe;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use drivers::isolation::kubernetes::inside;
use futures_util::FutureExt;
use support::{Place, TestFn};

const PATIENCE: Duration = Duration::from_mins(4);

fn main() -> ExitCode {
    if let Some(code) = inside::dispatch(std::env::args_os()) {
        return code;
    }
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "agent") {
        return lifecycle::agent();
    }
    if let Some(code) = doorway::in_a_pod(&arguments) {
        return code;
    }
    if arguments.first().is_some_and(|first| first == "--list") {
        return ExitCode::SUCCESS;
    }
    if std::env::var_os(support::IMAGES).is_none() {
        return in_a_cluster(&arguments);
    }
    rustls::crypto::aws_lc_rs::default_provider().install_default().expect("one TLS provider");
    let filter = arguments.iter().filter_map(|one| one.to_str()).find(|one| !one.starts_with('-'));
    let failed = run_all(filter.unwrap_or_default());
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The same again, with a cluster and this binary's image in its environment.
fn in_a_cluster(arguments: &[OsString]) -> ExitCode {
    let Some(cluster) = support::cluster() else {
        eprintln!(
            "NOT TESTED: the Kubernetes isolation: MUSTER_TEST_KUBECONFIG names no cluster; tests/services/cluster/with sets it"
        );
        return ExitCode::SUCCESS;
    };
    let mut command = Command::new(std::env::current_exe().expect("our own path"));
    command.args(arguments).env("KUBECONFIG", cluster.kubeconfig).env(support::IMAGES, cluster.images);
    let status = command.status().expect("it starts");
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_all(filter: &str) -> usize {
    let tests = [
        lifecycle::tests(),
        boundary::tests(),
        asked::tests(),
        doorway::tests(),
        finalizers::tests(),
        lease::tests(),
        measure::tests(),
    ]
    .concat();
    let mut failed = 0;
    for (name, test) in tests.into_iter().filter(|(name, _)| name.contains(filter)) {
        let began = Instant::now();
        let outcome = std::panic::catch_unwind(|| run(test));
        let verdict = if outcome.is_ok() { "ok" } else { "FAILED" };
        eprintln!("test: {name} ... {verdict} ({:.2} s)", began.elapsed().as_secs_f64());
        failed += usize::from(outcome.is_err());
    }
    failed
}

/// Each test has a state directory of its own, and must leave nothing in the cluster.
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
