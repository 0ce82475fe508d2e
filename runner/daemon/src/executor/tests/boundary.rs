//! A boundary that is proven again while the run lasts, and what is told when it breaks.
use drill::config::Production;
use drill::spec::{Isolation, Kubernetes};

use super::outside::agent_after;
use super::*;
use crate::executor::{Ended, Ports};

const BRIEF: Duration = Duration::from_millis(5);

/// A drill in a cluster, whose checks go on until isolation was tried this often.
fn outside(rounds: usize) -> Outside {
    let outside = Outside::new();
    let world = outside.world.clone();
    outside.world.on_agent(Arc::new(move |stream| {
        let world = world.clone();
        let patience = async move {
            while world.steps().iter().filter(|step| *step == "after probe").count() < rounds {
                tokio::time::sleep(BRIEF).await;
            }
        };
        tokio::spawn(agent_after(stream, Severity::Info, patience));
    }));
    outside
}

pub(super) fn asked() -> Kubernetes {
    let image = |name: &str| format!("registry.example/{name}@sha256:{}", "0".repeat(64));
    Kubernetes {
        context: None,
        image: image("postgres"),
        muster_image: image("muster"),
        memory: 1 << 30,
        disk: 1 << 30,
        cpu_millis: None,
        production: Vec::new(),
        orchestrator: None,
        probe_interval: BRIEF,
        claim: None,
        port: 5432,
        doorway: None,
        remove_finalizers_after: None,
        artifact: None,
    }
}

pub(super) async fn run(outside: &Outside, asked: Kubernetes, production: Production) -> Ended {
    let mut request = outside.request();
    request.drill.isolation = Isolation::Kubernetes(Box::new(asked));
    let ports = Ports { production, ..outside.ports_in_a_cluster() };
    let run = execute(request, &ports, Arc::new(Silent), Cancel::default());
    tokio::time::timeout(Duration::from_mins(1), run).await.expect("it ends").expect("it was begun")
}

#[tokio::test]
async fn isolation_is_proven_again_while_the_run_lasts() {
    let outside = outside(5);
    let ended = run(&outside, asked(), Production::default()).await;
    assert_eq!(ended.summary.verdict, Verdict::Passed, "{:?}", ended.summary);
    let probes = ended.state.isolation.expect("it was proven").probes;
    let again: Vec<&Probe> = probes.iter().filter(|probe| probe.name.ends_with("(again during validate)")).collect();
    assert_eq!(again.len(), 2, "however often it was: {probes:?}");
    let held = again[0].detail.rsplit(' ').next().expect("a number").parse::<u32>().expect("a number");
    assert!(held >= 4, "the first was before the restore: {again:?}");
}

#[tokio::test]
async fn a_hole_that_opens_while_the_run_lasts_ends_it_with_its_own_reason_finding_and_alert() {
    let outside = outside(usize::MAX);
    let world = outside.world.clone();
    outside.store.observe(move |_, event| {
        if matches!(event, Event::PhaseStarted { phase: Phase::Validate }) {
            let probe = |name: &str, expected| Probe {
                name: name.to_owned(),
                expected,
                observed: Expected::Open,
                detail: "connect was answered".to_owned(),
            };
            world.answer_probes(vec![
                probe("sandbox: the node", Expected::Closed),
                probe("control: the node", Expected::Open),
            ]);
        }
    });
    let ended = run(&outside, asked(), Production::default()).await;
    let summary = &ended.summary;
    assert_eq!((summary.verdict, summary.reason), (Verdict::Inconclusive, Reason::IsolationBreached), "{summary:?}");
    assert!(summary.message.contains("sandbox: the node (connect was answered)"), "{summary:?}");
    told(&outside, &ended, "probe-open").await;
}

#[tokio::test]
async fn a_change_that_the_watch_sees_is_told_with_its_object() {
    let outside = outside(usize::MAX);
    let world = outside.world.clone();
    outside.store.observe(move |_, event| {
        if matches!(event, Event::PhaseStarted { phase: Phase::Validate }) {
            let stop = Stop::new(Reason::IsolationBreached, "policy `open` was added").because("policy-added");
            world.breach(stop);
        }
    });
    let ended = run(&outside, asked(), Production::default()).await;
    assert_eq!(ended.summary.reason, Reason::IsolationBreached, "{:?}", ended.summary);
    assert!(told(&outside, &ended, "policy-added").await.contains("policy `open`"));
}

/// What the finding says.
async fn told(outside: &Outside, ended: &Ended, changed: &str) -> String {
    let finding = ended.state.findings.iter().find(|finding| finding.source == "isolation").expect("a finding");
    assert_eq!((finding.subject.as_str(), finding.severity), (changed, Severity::Warning));
    let alerts = outside.store.open_alerts().await.expect("it can be read");
    assert_eq!(alerts.iter().map(|alert| alert.kind.as_str()).collect::<Vec<_>>(), ["isolation-breached"]);
    assert_eq!((&alerts[0].details["changed"], &alerts[0].details["phase"]), (&changed.into(), &"validate".into()));
    assert_eq!(outside.world.existing(), [], "torn down");
    finding.message.clone()
}

/// The API server may stumble: what cannot be tried is no hole, for a while.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_tried_for_a_while_is_tried_again_and_for_too_long_ends_the_run() {
    let stumbles = |outside: &Outside, times: usize| {
        let world = outside.world.clone();
        outside.store.observe(move |_, event| {
            if matches!(event, Event::PhaseStarted { phase: Phase::Validate }) {
                for _ in 0..times {
                    world.fail("probe", Stop::internal("the API server did not answer"));
                }
            }
        });
    };
    let patient = Kubernetes { probe_interval: Duration::from_secs(30), ..asked() };
    let outside_ = outside(8);
    stumbles(&outside_, 3);
    let ended = run_paused(&outside_, patient.clone()).await;
    assert_eq!(ended.summary.verdict, Verdict::Passed, "{:?}", ended.summary);

    let outside_ = outside(usize::MAX);
    stumbles(&outside_, 1_000);
    let ended = run_paused(&outside_, patient).await;
    assert_eq!(ended.summary.reason, Reason::IsolationUnproven, "{:?}", ended.summary);
    assert!(ended.summary.message.contains("the API server did not answer"), "{:?}", ended.summary);
    assert!(outside_.store.open_alerts().await.expect("it can be read").is_empty(), "nobody opened anything");
}

async fn run_paused(outside: &Outside, asked: Kubernetes) -> Ended {
    let mut request = outside.request();
    request.drill.isolation = Isolation::Kubernetes(Box::new(asked));
    execute(request, &outside.ports_in_a_cluster(), Arc::new(Silent), Cancel::default()).await.expect("it was begun")
}

#[tokio::test]
async fn an_orchestrator_that_the_configuration_knows_as_productions_is_let_in_nowhere() {
    let outside = outside(0);
    let asked = Kubernetes { orchestrator: Some("10.20.0.0/24".parse().expect("a network")), ..asked() };
    let production =
        Production { networks: vec!["10.20.0.0/16:5432".parse().expect("a target")], ..Default::default() };
    let ended = run(&outside, asked.clone(), production).await;
    assert_eq!(ended.summary.reason, Reason::SandboxUnfit, "{:?}", ended.summary);
    assert!(ended.summary.message.contains("production's: 10.20.0.0/16:5432"), "{:?}", ended.summary);
    assert!(ended.state.held.is_empty(), "nothing was made");
    let ended = run(&outside, asked, Production::default()).await;
    assert_eq!(ended.summary.verdict, Verdict::Passed, "{:?}", ended.summary);
}
