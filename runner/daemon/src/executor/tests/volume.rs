//! A backup that lies on a volume in the cluster: when it is looked at, and what comes of what is seen.
use drill::config::Production;
use drill::spec::{Kubernetes, Volume};

use super::boundary::{asked, run};
use super::*;
use crate::executor::recover;

fn on_a_volume() -> Kubernetes {
    let volume = Volume { name: "backups-orders".to_owned(), path: Some("orders/latest".to_owned()) };
    Kubernetes { artifact: Some(volume), probe_interval: Duration::from_mins(1), ..asked() }
}

fn at(steps: &[String], step: &str) -> usize {
    steps.iter().position(|one| one == step).unwrap_or_else(|| panic!("no `{step}` in {steps:?}"))
}

#[tokio::test]
async fn it_is_looked_at_before_there_is_a_sandbox_and_again_before_the_checks() {
    let outside = Outside::new();
    let ended = run(&outside, on_a_volume(), Production::default()).await;
    assert_eq!(ended.summary.verdict, Verdict::Passed, "{:?}", ended.summary);
    let steps = outside.world.steps();
    assert!(at(&steps, "after verify") < at(&steps, "before provision"), "{steps:?}");
    assert!(at(&steps, "after deliver") < at(&steps, "before verify again"), "{steps:?}");
    assert!(ended.state.verified_first);
    let artifact = ended.state.artifact.expect("it was opened");
    assert_eq!(artifact.location, "/backups and orders/latest on volume backups-orders");
}

#[tokio::test]
async fn a_wrong_one_is_refused_and_quarantined_where_it_lies_and_no_sandbox_sees_it() {
    let outside = Outside::new();
    outside.world.fail("verify", Stop::new(Reason::ArtifactRefused, "a byte is wrong"));
    let ended = run(&outside, on_a_volume(), Production::default()).await;
    assert_eq!((ended.summary.verdict, ended.summary.reason), (Verdict::Failed, Reason::ArtifactRefused));
    assert!(!outside.world.steps().iter().any(|step| step == "before provision"));
    let quarantined = outside.store.quarantined().await.expect("it can be read");
    assert_eq!(quarantined[0].location, "/backups and orders/latest on volume backups-orders");
    assert_eq!(outside.world.existing(), [], "what looked at it is gone");
}

#[tokio::test]
async fn one_that_was_changed_since_is_no_verdict_and_no_check_counts() {
    let outside = Outside::new();
    outside.world.fail("verify again", Stop::new(Reason::ArtifactChanged, "a byte was changed"));
    let ended = run(&outside, on_a_volume(), Production::default()).await;
    assert_eq!((ended.summary.verdict, ended.summary.reason), (Verdict::Inconclusive, Reason::ArtifactChanged));
    assert!(ended.state.checks.is_empty() && ended.state.quarantined.is_none());
    assert_eq!(outside.world.existing(), []);
}

#[tokio::test]
async fn a_restore_that_fails_because_of_a_change_is_no_verdict() {
    for (changed, reason) in [(true, Reason::ArtifactChanged), (false, Reason::RestoreFailed)] {
        let outside = Outside::new();
        outside.script.fail("server.restore", Stop::new(Reason::RestoreFailed, "the dump is wrong"));
        if changed {
            outside.world.fail("verify again", Stop::new(Reason::ArtifactChanged, "a byte was changed"));
        }
        let ended = run(&outside, on_a_volume(), Production::default()).await;
        assert_eq!(ended.summary.reason, reason, "{:?}", ended.summary);
    }
}

#[tokio::test]
async fn a_crash_while_it_is_looked_at_is_recovered_and_leaves_nothing() {
    for step in ["before verify", "after verify", "before verify again"] {
        let mut outside = Outside::new();
        outside.world.crash_when(Arc::new(move |now| now == step));
        tokio::select! {
            ended = run(&outside, on_a_volume(), Production::default()) => panic!("{step}: it ended: {:?}", ended.summary),
            () = outside.world.crashed() => {}
        }
        outside.restart();
        let ports = outside.ports_in_a_cluster();
        recover(&ports, Arc::new(Silent), &owner(2), |_| false).await.expect("recovery can work");
        assert_eq!(outside.world.existing(), [], "{step}");
        assert_eq!(outside.only_run().await.ended, Some(Leftovers::None), "{step}");
    }
}
