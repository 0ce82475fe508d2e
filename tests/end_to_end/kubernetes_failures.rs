//! What goes wrong in a cluster while a drill is on: no verdict on the backup, a message that says what to do, and nothing left.
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::Value;
use whole_program::{Cluster, Fault, FaultyApi, Finished, Muster, captured, within};

use crate::kubernetes_drill::{REMOVES_FINALIZERS, World};

/// A world whose muster speaks to the API server through a proxy that the test commands.
fn with_faults() -> Option<(World, FaultyApi)> {
    let mut world = World::new()?;
    let faulty = FaultyApi::start(&world.cluster, &world.place, &world.account.kubeconfig);
    world.account.kubeconfig.clone_from(&faulty.kubeconfig);
    Some((world, faulty))
}

/// To its end, whatever that is.
fn to_the_end(mut running: Muster) -> Finished {
    while running.next_event().is_some() {}
    running.wait()
}

/// A run that has begun to restore, and its namespace.
fn restoring(world: &World) -> (Muster, String) {
    restoring_text(world, &world.drill_text())
}

fn restoring_text(world: &World, drill: &str) -> (Muster, String) {
    let mut running = world.start_text(drill);
    let mut namespace = None;
    loop {
        let Some(event) = running.next_event() else { panic!("it never restored: {}", running.wait().stdout) };
        if event["event"] == "acquired" && event["data"]["resource"] == "sandbox" {
            namespace = event["data"]["handle"]["namespace"].as_str().map(str::to_owned);
        }
        if event["event"] == "phase-started" && event["data"]["phase"] == "restore" {
            return (running, namespace.expect("it has a sandbox"));
        }
    }
}

/// Muster's own trouble, told in these words.
#[track_caller]
fn assert_no_verdict(run: &Finished, words: &[&str]) {
    let result = run.result();
    assert_eq!(result["verdict"], "inconclusive", "{result}\n{}", run.stdout);
    let said = stops(run) + &result.to_string();
    for word in words {
        assert!(said.contains(word), "{word} is not said: {said}\n{result}");
    }
}

/// What every phase that was stopped said, with its advice.
fn stops(run: &Finished) -> String {
    run.events("phase-ended").into_iter().map(|ended| ended["outcome"]["stopped"].to_string() + "\n").collect()
}

#[test]
fn an_api_server_that_is_slow_refuses_and_forgets_is_waited_out() {
    let Some((world, faulty)) = with_faults() else { return };
    let (answered, forgets): (Arc<[AtomicUsize; 4]>, Arc<AtomicBool>) = Default::default();
    let (counts, forgotten) = (Arc::clone(&answered), Arc::clone(&forgets));
    faulty.rule(move |asked| {
        let count = |nth: usize| counts[nth].fetch_add(1, Ordering::Relaxed);
        // Each watch that is taken up again is refused as too old, once.
        if asked.is_watch() && forgotten.load(Ordering::Relaxed) && count(0) < 3 {
            return Fault::Expired;
        }
        match asked.nth % 11 {
            3 if !asked.is_watch() => {
                count(1);
                Fault::Refuse(429, "TooManyRequests")
            }
            6 if !asked.is_watch() => {
                count(2);
                Fault::Refuse(500, "InternalError")
            }
            9 => {
                count(3);
                Fault::Late(Duration::from_millis(1_500))
            }
            _ => Fault::Pass,
        }
    });
    let (running, _) = restoring(&world);
    forgets.store(true, Ordering::Relaxed);
    assert!(faulty.cut_watches() > 0, "the boundary is watched");
    let run = to_the_end(running).expect(0);
    assert_eq!(run.result()["reason"], "proven", "{}", run.result());
    let answered: Vec<usize> = answered.iter().map(|count| count.load(Ordering::Relaxed)).collect();
    assert!(answered.iter().all(|count| *count > 2), "410, 429, 500 and late: {answered:?}");
    drop(faulty);
    world.assert_nothing_left();
}

#[test]
#[ignore = "takes minutes: each thing that is owed is tried until patience ends"]
fn an_api_server_that_refuses_everything_is_said_and_what_is_owed_goes_later() {
    let Some((world, faulty)) = with_faults() else { return };
    let (running, _) = restoring(&world);
    faulty.rule(|_| Fault::Refuse(500, "InternalError"));
    faulty.cut_watches();
    let run = to_the_end(running).expect(4);
    assert_no_verdict(&run, &[]);
    assert_eq!(run.result()["leftovers"], "some", "{}", run.result());
    let owed: Vec<Value> = run.events("release-failed");
    let said = owed.iter().map(Value::to_string).collect::<String>();
    assert!(said.contains("the test's own answer") && said.contains("/readyz"), "{said}");
    faulty.rule(|_| Fault::Pass);
    world.muster(&["reap"]).expect(0);
    drop(faulty);
    world.assert_nothing_left();
}

#[test]
fn a_node_that_is_drained_is_said() {
    let Some(world) = World::new() else { return };
    let (running, namespace) = restoring(&world);
    let eviction = format!(
        r#"{{"apiVersion":"policy/v1","kind":"Eviction","metadata":{{"name":"database","namespace":"{namespace}"}}}}"#
    );
    let path = format!("/api/v1/namespaces/{namespace}/pods/database/eviction");
    let asked = world.cluster.try_kubectl(&["create", "--raw", &path, "-f", "-"], &eviction);
    assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    let run = to_the_end(running).expect(2);
    assert_no_verdict(&run, &["was evicted while the run went on", "EvictionByEvictionAPI", "not drained any more"]);
    world.assert_nothing_left();
}

#[test]
fn a_kubelet_that_is_killed_in_the_middle_of_a_restore_is_no_verdict() {
    let Some(world) = Cluster::alone().map(World::of) else { return };
    let (running, _) = restoring(&world);
    world.cluster.script("signal", &["kubelet", "KILL"]);
    let run = to_the_end(running);
    assert_ne!(run.result()["verdict"], "failed", "{}", run.result());
    world.cluster.assert_node_comes_back();
    world.muster(&["reap"]).expect(0);
    world.assert_nothing_left();
}

#[test]
fn a_database_that_needs_more_memory_than_its_limit_is_no_verdict() {
    let Some(world) = World::new() else { return };
    // A value that is small in the dump and large while it is restored.
    captured(
        &world.place,
        "large",
        "CREATE TABLE large (id int PRIMARY KEY, it text, long text GENERATED ALWAYS AS (repeat(it, 200000000)) STORED);\
         INSERT INTO large VALUES (1, 'x')",
    );
    let drill = world.drill_text().replace("backups/shop/", "backups/large/") + "      limits: { memory: 256MiB }\n";
    let run = world.run_text(&drill).expect(2);
    assert_no_verdict(&run, &["limit-reached", "memory limit"]);
    world.assert_nothing_left();
}

#[test]
fn a_quota_that_is_too_small_is_said_before_anything_runs() {
    let Some((world, faulty)) = with_faults() else { return };
    // Somebody's own controller gives each new namespace a quota: here, just before its first pod.
    let kubeconfig = world.cluster.kubeconfig().to_owned();
    let once = OnceLock::new();
    faulty.rule(move |asked| {
        if asked.method == "PATCH" && asked.path.contains("/pods/") {
            once.get_or_init(|| small_quota(&Cluster::to_clean_up(&kubeconfig), &asked.path));
        }
        Fault::Pass
    });
    let run = world.run().expect(2);
    assert_no_verdict(&run, &["exceeded quota: small", "raise the quota"]);
    assert!(run.events("phase-started").iter().all(|begun| begun["phase"] != "restore"));
    drop(faulty);
    world.assert_nothing_left();
}

fn small_quota(cluster: &Cluster, path: &str) {
    let namespace = path.split('/').nth(4).unwrap();
    cluster.apply(&format!(
        "apiVersion: v1\nkind: ResourceQuota\nmetadata: {{ name: small, namespace: {namespace} }}\nspec: {{ hard: {{ pods: '0' }} }}\n"
    ));
    within(30, "the quota counts", || {
        let status = ["-n", namespace, "get", "resourcequota", "small", "-o", "jsonpath={.status.hard.pods}"];
        (cluster.kubectl(&status) == "0").then_some(())
    });
}

#[test]
#[ignore = "takes minutes: room is waited for until patience ends"]
fn a_pod_that_no_node_has_room_for_is_said() {
    let Some(world) = World::new() else { return };
    let greedy = world.drill_text() + "      limits: { memory: 4TiB }\n";
    let run = world.run_text(&greedy).expect(2);
    assert_no_verdict(&run, &["Insufficient memory", "isolation.kubernetes.limits"]);
    world.assert_nothing_left();
}

#[test]
fn two_musters_with_the_same_drill_do_not_meet() {
    let Some((one, other)) = World::new().and_then(|one| Some((one, World::new()?))) else { return };
    let ((first, _), second) = (restoring(&one), other.start());
    // And one more beside the first, with the same store: it is told who runs the drill.
    let beside = one.run();
    for run in [to_the_end(first), to_the_end(second)] {
        let run = run.expect(0);
        assert_eq!(run.result()["reason"], "proven", "{}", run.result());
    }
    let beside = beside.expect(2);
    assert!(beside.stderr.contains("drill shop is running already"), "{}", beside.stderr);
    for world in [one, other] {
        world.assert_nothing_left();
    }
}

#[test]
fn a_clock_that_is_far_off_is_said_and_one_that_is_a_little_off_is_not_in_the_way() {
    let Some(world) = World::new() else { return };
    let shim = clock_shim(&world);
    let run_by = |seconds: &str| {
        world.place.write("shop.yaml", &world.drill_text());
        let running = Muster::start_with(&world.place, &["run", "shop.yaml", "--output", "json"], |command| {
            command.env("KUBECONFIG", &world.account.kubeconfig).env("LD_PRELOAD", &shim).env("CLOCK_OFF_BY", seconds);
        });
        to_the_end(running)
    };
    // So far behind, and the backup is from the future already.
    for (seconds, said) in [("-5400", "one of the clocks is wrong"), ("5400", "ahead of the cluster's")] {
        let run = run_by(seconds).expect(2);
        assert_no_verdict(&run, &[said, "set the clock"]);
        assert!(run.events("phase-started").iter().all(|begun| begun["phase"] != "sandbox"));
    }
    let run = run_by("-30").expect(0);
    assert_eq!(run.result()["reason"], "proven", "{}", run.result());
    world.assert_nothing_left();
}

/// The C library's clock, set off by a number of seconds. Only the clock that people set: the other is left alone.
fn clock_shim(world: &World) -> std::path::PathBuf {
    let source = world.place.write(
        "clock.c",
        "#define _GNU_SOURCE\n#include <stdlib.h>\n#include <sys/syscall.h>\n#include <time.h>\n#include <unistd.h>\n\
         int clock_gettime(clockid_t clock, struct timespec *at) {\n\
         \x20 int answer = syscall(SYS_clock_gettime, clock, at);\n\
         \x20 if (clock == CLOCK_REALTIME && getenv(\"CLOCK_OFF_BY\")) at->tv_sec += atol(getenv(\"CLOCK_OFF_BY\"));\n\
         \x20 return answer;\n}\n",
    );
    let shim = world.place.path("clock.so");
    let built = std::process::Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&shim, &source]).status();
    assert!(built.expect("a C compiler, as `make setup` finds it").success());
    shim
}

#[test]
#[ignore = "takes minutes: a namespace is waited for until patience ends"]
fn a_namespace_that_does_not_end_is_told_with_what_holds_it_and_tried_again() {
    let Some(world) = World::new() else { return };
    let (running, namespace) = restoring(&world);
    hold(&world, &namespace);
    let run = to_the_end(running).expect(4);
    assert_eq!(run.result()["verdict"], "passed", "{}", run.result());
    let said = run.events("release-failed").iter().map(Value::to_string).collect::<String>();
    assert!(said.contains("example.com/hold") && said.contains("muster tries again"), "{said}");
    let phase = ["get", "namespace", &namespace, "-o", "jsonpath={.status.phase}"];
    assert_eq!(world.cluster.kubectl(&phase), "Terminating", "it is never forced");
    let_go(&world, &namespace);
    world.muster(&["reap"]).expect(0);
    world.assert_nothing_left();
}

#[test]
#[ignore = "takes minutes: finalizers are removed after one, at the earliest"]
fn a_namespace_that_somebody_holds_ends_where_the_drill_says_so() {
    let Some(world) = World::new() else { return };
    world.account.may_finalize(&world.cluster);
    let (running, namespace) = restoring_text(&world, &(world.drill_text() + REMOVES_FINALIZERS));
    hold(&world, &namespace);
    let run = to_the_end(running).expect(0);
    // What stays in etcd is there again with the namespace's name.
    world.cluster.kubectl(&["create", "namespace", &namespace]);
    let_go(&world, &namespace);
    world.cluster.kubectl(&["delete", "namespace", &namespace, "--timeout=60s"]);
    let evidence = crate::self_test::evidence(&run.result()).to_string();
    let told = format!("finalizer kubernetes removed from namespace {namespace}: ");
    for said in [run.events("released").iter().map(Value::to_string).collect::<String>(), evidence] {
        assert!(said.contains(&told) && said.contains("serviceaccounts. has 1 resource instances"), "{said}");
    }
    world.assert_nothing_left();
}

/// Something in a run's namespace that somebody holds.
fn hold(world: &World, namespace: &str) {
    world.cluster.apply(&format!(
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {{ name: held, namespace: {namespace}, finalizers: [example.com/hold] }}\n"
    ));
}

fn let_go(world: &World, namespace: &str) {
    let free = r#"{"metadata":{"finalizers":null}}"#;
    world.cluster.kubectl(&["-n", namespace, "patch", "serviceaccount", "held", "--type=merge", "-p", free]);
}
