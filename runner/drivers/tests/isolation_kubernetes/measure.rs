//! How fast a backup gets in, beside the plain ways: `MUSTER_MEASURE_MB=200`, and a filter that names it. No assertion on time.
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Held, Place, TestFn};
use crate::test;

pub(crate) fn tests() -> Vec<(&'static str, TestFn)> {
    if std::env::var_os("MUSTER_MEASURE_MB").is_none() {
        return Vec::new();
    }
    vec![test!(measure_the_stream_beside_plain_copies)]
}

async fn measure_the_stream_beside_plain_copies(place: Place) {
    let megabytes: usize = std::env::var("MUSTER_MEASURE_MB").expect("set").parse().expect("a number");
    let held = place.sandbox().await;
    let file = held.storage.staging.join("file");
    let mut bytes = vec![0; megabytes << 20];
    getrandom::fill(&mut bytes).expect("random");
    std::fs::write(&file, &bytes).expect("written");
    drop(bytes);
    let outside = place.root().join("file");
    std::fs::copy(&file, &outside).expect("copied");
    let (_, alone) = timed(|| std::fs::copy(&outside, place.root().join("again")).expect("copied"));
    say("cp on this machine", megabytes, alone);

    // Before the backup goes in: the boundary stands, and nothing else is busy.
    let (_, cat) = timed(|| {
        let command = "cat >/data/plain; echo there";
        let input = std::fs::File::open(&outside).expect("it is there");
        exec(&held, &["-i"], command).stdin(input).stdout(Stdio::null()).status().expect("it runs")
    });
    let arrived = exec(&held, &[], "stat -c %s /data/plain").output().expect("it runs");
    let arrived = String::from_utf8_lossy(&arrived.stdout).trim().to_owned();
    say(&format!("kubectl exec cat, {arrived} bytes arrived"), megabytes, cat);

    let to = format!("{}/database:/data/copied", held.namespace());
    let (copied, cp) = timed(|| kubectl().args(["cp", "-c", "database"]).arg(&outside).arg(&to).status());
    say(&format!("kubectl cp, {}", copied.expect("it runs")), megabytes, cp);

    let began = Instant::now();
    held.sandbox.deliver().await.expect("delivered");
    say("deliver: hashed at both ends, the stranger removed", megabytes, began.elapsed());
    held.release().await;
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let began = Instant::now();
    (work(), began.elapsed())
}

fn say(what: &str, megabytes: usize, took: Duration) {
    let rate = f64::from(u32::try_from(megabytes).expect("few")) / took.as_secs_f64();
    eprintln!("measured: {what}: {megabytes} MiB in {:.2} s, {rate:.1} MiB/s", took.as_secs_f64());
}

fn kubectl() -> Command {
    let kubeconfig = std::env::var("KUBECONFIG").expect("in a cluster");
    let state = Path::new(&kubeconfig).parent().expect("it lies in the cluster's own folder");
    let mut command = Command::new(state.with_file_name("bin").join("kubectl"));
    command.arg("--kubeconfig").arg(&kubeconfig);
    command
}

fn exec(held: &Held, more: &[&str], script: &str) -> Command {
    let mut command = kubectl();
    command.args(["-n", &held.namespace(), "exec"]).args(more);
    command.args(["database", "-c", "database", "--", "/bin/sh", "-c", script]);
    command
}
