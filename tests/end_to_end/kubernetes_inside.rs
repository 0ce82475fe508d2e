//! muster in the cluster that it drills in: a drill by `kubectl exec`, and what becomes of one whose pod is killed.
use serde_json::Value;
use whole_program::{Cluster, Place, within};

use crate::kubernetes::Deployed;

#[test]
fn a_muster_in_the_cluster_drills_and_its_successor_settles_what_a_killed_one_left() {
    let Some(cluster) = Cluster::there() else { return };
    if std::env::var("MUSTER_TEST_CNI").as_deref() == Ok("ptp") {
        return;
    }
    let place = Place::new();
    let muster = Deployed::apply(&cluster, &place);
    muster.ready();
    let ask = |arguments: &[&str]| {
        let command = [&["-n", "muster", "exec", "deployment/muster", "--", "/muster"], arguments].concat();
        cluster.try_kubectl(&command, "")
    };
    let passes = || {
        let said = ask(&["start", "shop", "--wait"]);
        assert!(
            said.status.success(),
            "{}{}",
            String::from_utf8_lossy(&said.stdout),
            String::from_utf8_lossy(&said.stderr)
        );
    };
    passes();
    assert_eq!(muster.sandboxes(), [""; 0]);

    // Killed once the restore has begun.
    let said = muster.exec(&["start", "shop"]);
    let run = said.split(' ').next().unwrap().to_owned();
    within(90, "the restore", || {
        // It has no verdict yet, which its exit code says.
        let report = ask(&["report", &run, "--output", "json"]).stdout;
        String::from_utf8_lossy(&report).replace(": ", ":").contains("\"phase\":\"restore\"").then_some(())
    });
    let killed = muster.pod();
    cluster.kubectl(&["-n", "muster", "delete", "pod", &killed, "--grace-period=0", "--force"]);
    assert!(!muster.sandboxes().is_empty(), "its sandbox outlives it");
    // The Lease of the killed one has to run out, and its sandbox to go, before the next is ready.
    within(180, "its successor", || {
        let pods = cluster.kubectl(&["-n", "muster", "get", "pods", "-o", "name"]);
        let other = !pods.is_empty() && !pods.contains(&killed);
        (other && ask(&["health", "--ready"]).status.success()).then_some(())
    });
    let runs = muster.exec(&["runs", "--output", "json"]);
    let ended: Value = serde_json::from_str(runs.lines().next().unwrap()).unwrap();
    assert_eq!((&ended["run"], &ended["verdict"]), (&run.as_str().into(), &"inconclusive".into()), "{ended}");
    assert_eq!((&ended["reason"], &ended["leftovers"]), (&"interrupted".into(), &"none".into()), "{ended}");
    assert_eq!(muster.sandboxes(), [""; 0], "{ended}");
    let evidence = ended["evidence"].as_str().unwrap();
    let trust = "/var/lib/muster/state/evidence.pub";
    let verified = muster.exec(&["evidence", "verify", evidence, "--trust", trust, "--output", "json"]);
    let verified: Value = serde_json::from_str(verified.lines().last().unwrap()).unwrap();
    assert_eq!(verified["statement"]["predicate"]["result"]["verdict"], "inconclusive", "{verified}");
    // And it goes on.
    passes();
}
