//! The executor against fakes: a crash at every step, recovered twice, leaves nothing; and what went wrong is said.
mod boundary;
mod lease;
mod outside;
mod volume;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use drill::finding::Severity;
use drill::id::Sha256Digest;
use drill::ledger::{Damage, Event, Figure, Resource};
use drill::phase::Phase;
use drill::port::{Outbox, Store};
use drill::proof::{Expected, Probe};
use drill::spec::Credentials;
use drill::stop::Stop;
use drill::verdict::{Leftovers, Reason, Verdict};
use drivers::credentials::fake::FakeCredentials;
use drivers::store::fake::Cut;

use self::outside::agent;
pub(crate) use self::outside::{Outside, owner};
use super::{Cancel, Request, Silent, execute};

#[tokio::test]
async fn a_whole_run_passes_and_leaves_nothing() {
    let outside = Outside::new();
    let ended = outside.run().await.expect("it was begun");
    assert_eq!((ended.summary.verdict, ended.leftovers), (Verdict::Passed, Leftovers::None), "{:?}", ended.summary);
    assert_eq!(outside.world.existing(), []);
    assert!(ended.state.evidence.is_some());
    let figures = vec![Figure { name: "tables".to_owned(), labels: Vec::new(), value: 38.0 }];
    assert_eq!(ended.state.checks[0].figures, figures, "the last value, and only what can be a series");
}

/// Invariants 3 and 5.
#[tokio::test]
async fn a_crash_at_every_write_of_the_ledger_is_recovered_twice_and_leaves_nothing() {
    let whole = Outside::new();
    whole.run().await.expect("it was begun");
    for nth in 1..=whole.store.writes() {
        for cut in [Cut::Before, Cut::After] {
            let mut outside = Outside::new();
            outside.store.crash_at(nth, cut);
            tokio::select! {
                ended = outside.run() => panic!("it ended before write {nth}: {:?}", ended.map(|ended| ended.summary)),
                () = outside.store.crashed() => {}
            }
            outside.restart();
            recovered_twice(&outside, &format!("{cut:?} write {nth}")).await;
        }
    }
}

/// A slot is run once, or nothing of it was begun: never claimed without a run, never run twice.
#[tokio::test]
async fn a_crash_around_the_claim_of_a_slot_keeps_slot_and_run_together() {
    let slot: jiff::Timestamp = "2026-11-22T02:15:00Z".parse().expect("a time");
    let begin = async |outside: &Outside| {
        let trigger = drill::ledger::Trigger::Schedule { scheduled_for: slot };
        let request = Request { trigger, ..outside.request() };
        execute(request, &outside.ports(), Arc::new(Silent), Cancel::default()).await
    };
    for cut in [Cut::Before, Cut::After] {
        let mut outside = Outside::new();
        outside.store.crash_at(1, cut);
        tokio::select! {
            _ = begin(&outside) => panic!("it ended"),
            () = outside.store.crashed() => {}
        }
        outside.restart();
        outside.recover().await;
        let claimed = outside.store.histories().await.expect("it can be read");
        let again = begin(&outside).await;
        match cut {
            Cut::Before => {
                assert!(claimed.is_empty(), "{claimed:?}");
                assert_eq!(again.expect("it was begun").summary.verdict, Verdict::Passed);
            }
            Cut::After => {
                assert_eq!(claimed[0].schedules[&None].last_slot, Some(slot));
                assert_eq!(claimed[0].last.as_ref().map(|run| run.reason), Some(Some(Reason::Interrupted)));
                assert!(again.is_err_and(|stop| stop.reason == Reason::AlreadyRunning));
            }
        }
        assert_eq!(outside.store.runs(None, 10).await.expect("it can be read").len(), 1);
        assert_eq!(outside.world.existing(), []);
    }
}

#[tokio::test]
async fn a_crash_at_every_effect_is_recovered_twice_and_leaves_nothing() {
    let whole = Outside::new();
    whole.run().await.expect("it was begun");
    for step in whole.world.steps() {
        let mut outside = Outside::new();
        let wanted = step.clone();
        outside.world.crash_when(Arc::new(move |step| step == wanted));
        tokio::select! {
            ended = outside.run() => panic!("it ended before {step}: {:?}", ended.map(|ended| ended.summary)),
            () = outside.world.crashed() => {}
        }
        outside.restart();
        recovered_twice(&outside, &step).await;
    }
}

async fn recovered_twice(outside: &Outside, place: &str) {
    outside.recover().await;
    assert_eq!(outside.world.existing(), [], "{place}");
    let second = outside.recover().await;
    assert!(second.settled.is_empty() && second.orphans.is_empty(), "{place}: {second:?}");
    assert_eq!(outside.world.existing(), [], "{place}");
    if outside.store.runs(None, 1).await.expect("it can be read").is_empty() {
        return;
    }
    let state = outside.only_run().await;
    assert_eq!(state.ended, Some(Leftovers::None), "{place}");
    assert!(state.evidence.is_some(), "{place}");
    let summary = state.summary.expect("it is concluded");
    assert_ne!(summary.verdict, Verdict::Failed, "{place}: a crash is no verdict on the backup");
}

/// Invariant 8, and teardown on the path of every failure.
#[tokio::test]
async fn whatever_an_effect_answers_the_run_is_torn_down() {
    let whole = Outside::new();
    whole.run().await.expect("it was begun");
    let effects: BTreeSet<String> =
        whole.world.steps().iter().filter_map(|step| step.strip_prefix("before ")).map(str::to_owned).collect();
    assert!(effects.len() > 5, "{effects:?}");
    for effect in effects {
        let outside = Outside::new();
        outside.world.fail(&effect, Stop::internal("as the test wants"));
        let ended = outside.run().await.expect("it was begun");
        assert_eq!(outside.world.existing(), [], "{effect}");
        assert_ne!(ended.summary.verdict, Verdict::Failed, "{effect}");
        assert_eq!(ended.leftovers, Leftovers::None, "{effect}: a second try removes it");
    }
}

#[tokio::test]
async fn what_cannot_be_removed_stays_owed_and_is_removed_later() {
    let outside = Outside::new();
    for _ in 0..2 {
        outside.world.fail("release storage", Stop::internal("as the test wants"));
    }
    let ended = outside.run().await.expect("it was begun");
    assert_eq!((ended.summary.verdict, ended.leftovers), (Verdict::Passed, Leftovers::Some));
    assert!(ended.state.evidence.is_some(), "evidence says what is left");
    let recovered = outside.recover().await;
    assert_eq!(recovered.settled.len(), 1);
    assert_eq!(outside.world.existing(), []);
    assert_eq!(outside.only_run().await.leftovers(), Leftovers::None);
}

#[tokio::test]
async fn a_panic_in_any_phase_is_torn_down_and_inconclusive() {
    for phase in Phase::ALL.into_iter().filter(|phase| *phase < Phase::Teardown) {
        let outside = Outside::new();
        outside.store.observe(move |_, event| {
            if let Event::PhaseEnded { phase: ended, .. } = event
                && *ended == phase
            {
                panic!("as the test wants");
            }
        });
        let ended = outside.run().await.expect("it was begun");
        assert_eq!(outside.world.existing(), [], "{phase}");
        assert_eq!((ended.summary.verdict, ended.summary.reason), (Verdict::Inconclusive, Reason::Internal), "{phase}");
        assert!(ended.summary.message.contains("as the test wants"), "{}", ended.summary.message);
    }
}

/// Invariant 1.
#[tokio::test]
async fn a_refused_artifact_is_never_delivered_and_is_quarantined() {
    let mut outside = Outside::new();
    outside.artifact.refuse = true;
    let ended = outside.run().await.expect("it was begun");
    assert_eq!((ended.summary.verdict, ended.summary.reason), (Verdict::Failed, Reason::ArtifactRefused));
    assert!(!outside.world.steps().iter().any(|step| step.contains("deliver")), "{:?}", outside.world.steps());
    assert_eq!(outside.store.quarantined().await.expect("it can be read").len(), 1);
    assert_eq!(outside.store.open_alerts().await.expect("it can be read").len(), 1);
    let again = outside.run().await.expect("it was begun");
    assert_eq!((again.summary.verdict, again.summary.reason), (Verdict::Inconclusive, Reason::Quarantined));
}

/// A gate that lets a damaged copy pass, and a check that is blind to it: the loudest alert, and no byte of it restored.
#[tokio::test]
async fn a_self_test_that_is_not_refused_is_the_loudest_alert() {
    for damage in [Damage::Byte, Damage::BaselineRows] {
        let outside = Outside::new();
        let ended = outside.self_test(damage).await;
        let summary = &ended.summary;
        assert_eq!(
            (summary.verdict, summary.reason),
            (Verdict::Failed, Reason::DamageUnnoticed),
            "{damage}: {summary:?}"
        );
        let delivered = outside.world.steps().iter().any(|step| step.contains("deliver"));
        assert_eq!(delivered, damage == Damage::BaselineRows, "{damage}: {:?}", outside.world.steps());
        let alerts = outside.store.open_alerts().await.expect("it can be read");
        assert_eq!(alerts.iter().map(|alert| alert.kind.as_str()).collect::<Vec<_>>(), ["self-test-passed"]);
        assert_eq!(outside.world.existing(), []);
    }
}

#[tokio::test]
async fn a_self_test_that_is_refused_passes_and_condemns_nothing() {
    for damage in [Damage::Byte, Damage::BaselineRows] {
        let mut outside = Outside::new();
        outside.artifact.refuse = damage == Damage::Byte;
        outside.world.on_agent(Arc::new(|stream| {
            tokio::spawn(agent(stream, Severity::Failure));
        }));
        let ended = outside.self_test(damage).await;
        assert_eq!(ended.summary.reason, Reason::Proven, "{damage}: {:?}", ended.summary);
        assert!(outside.store.quarantined().await.expect("it can be read").is_empty());
        assert!(outside.store.open_alerts().await.expect("it can be read").is_empty());
        assert_eq!(outside.world.existing(), []);
    }
}

/// Invariant 2.
#[tokio::test]
async fn without_a_proof_of_isolation_nothing_is_delivered() {
    let open = Probe {
        name: "sandbox: TCP".to_owned(),
        expected: Expected::Closed,
        observed: Expected::Open,
        detail: "connected".to_owned(),
    };
    for probes in [vec![open]] {
        let outside = Outside::new();
        outside.world.answer_probes(probes);
        let ended = outside.run().await.expect("it was begun");
        assert_eq!((ended.summary.verdict, ended.summary.reason), (Verdict::Inconclusive, Reason::IsolationUnproven));
        assert!(!outside.world.steps().iter().any(|step| step.contains("deliver")), "{:?}", outside.world.steps());
    }
}

#[tokio::test]
async fn a_breach_ends_the_run_with_its_own_reason() {
    let outside = Outside::new();
    let world = outside.world.clone();
    outside.store.observe(move |_, event| {
        if matches!(event, Event::PhaseStarted { phase: Phase::Restore }) {
            world.breach(Stop::new(Reason::LimitReached, "the sandbox ran out of memory"));
        }
    });
    let ended = outside.run().await.expect("it was begun");
    assert_eq!(ended.summary.reason, Reason::LimitReached);
    assert_eq!(outside.world.existing(), []);
}

#[tokio::test]
async fn a_signal_in_any_phase_is_inconclusive_and_torn_down() {
    for phase in Phase::ALL.into_iter().filter(|phase| *phase < Phase::Teardown) {
        let outside = Outside::new();
        let cancel = Cancel::default();
        let signal = cancel.clone();
        outside.store.observe(move |_, event| {
            if matches!(event, Event::PhaseStarted { phase: started } if *started == phase) {
                signal.signal();
            }
        });
        let ended = outside.run_with(cancel).await.expect("it was begun");
        assert_eq!(ended.summary.reason, Reason::Interrupted, "{phase}: {:?}", ended.summary);
        assert_eq!(outside.world.existing(), [], "{phase}");
    }
}

/// What was made is seen by teardown, at whatever moment of it the work was ended.
#[tokio::test]
async fn a_signal_at_every_effect_leaves_nothing() {
    let whole = Outside::new();
    whole.run().await.expect("it was begun");
    let of_work = |step: &&String| !step.contains("release") && !step.contains("revoke");
    for step in whole.world.steps().iter().filter(of_work) {
        let outside = Outside::new();
        let (cancel, wanted) = (Cancel::default(), step.clone());
        let signal = cancel.clone();
        outside.world.crash_when(Arc::new(move |step| {
            if step == wanted {
                // Twice, so that nobody waits for checks.
                signal.signal();
                signal.signal();
            }
            false
        }));
        let ended = outside.run_with(cancel).await.expect("it was begun");
        assert_eq!(ended.leftovers, Leftovers::None, "{step}: {:?}", ended.summary);
        assert_eq!(outside.world.existing(), [], "{step}");
    }
}

#[tokio::test]
async fn what_a_check_finds_fails_the_drill() {
    let outside = Outside::new();
    outside.world.on_agent(Arc::new(|stream| {
        tokio::spawn(agent(stream, Severity::Failure));
    }));
    let ended = outside.run().await.expect("it was begun");
    assert_eq!((ended.summary.verdict, ended.summary.reason), (Verdict::Failed, Reason::CheckFailed));
}

#[tokio::test]
async fn an_agent_that_ends_before_it_is_done_is_inconclusive() {
    let outside = Outside::new();
    outside.world.on_agent(Arc::new(|stream| {
        tokio::spawn(async move {
            let cut = tokio::time::timeout(Duration::from_millis(50), agent(stream, Severity::Info));
            let _ = cut.await;
        });
    }));
    outside.store.observe(|_, event| {
        if matches!(event, Event::PhaseStarted { phase: Phase::Restore }) {
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let ended = outside.run().await.expect("it was begun");
    assert_eq!(ended.summary.verdict, Verdict::Inconclusive, "{:?}", ended.summary);
    assert_eq!(outside.world.existing(), []);
}

#[tokio::test]
async fn a_template_that_was_not_approved_stops_before_anything_is_made() {
    let mut outside = Outside::new();
    outside.approved_template = Some(Sha256Digest::of(b"another"));
    let ended = outside.run().await.expect("it was begun");
    assert_eq!((ended.summary.verdict, ended.summary.reason), (Verdict::Inconclusive, Reason::TemplateDrift));
    let rendered = ended.state.template.as_ref().expect("it is recorded").1;
    for digest in [rendered, Sha256Digest::of(b"another")] {
        assert!(ended.summary.message.contains(&digest.to_string()), "{}", ended.summary.message);
    }
    assert!(!outside.world.steps().iter().any(|step| step.contains("prepare")), "{:?}", outside.world.steps());
    outside.approved_template = Some(rendered);
    assert_eq!(outside.run().await.expect("it was begun").summary.verdict, Verdict::Passed);
}

/// Invariant 10, for the executor's own waits.
#[tokio::test]
async fn a_ledger_that_cannot_be_written_stops_the_next_effect() {
    let outside = Outside::new();
    // The claim, then the artifact, then the start of preflight.
    outside.store.fail_at(3, Stop::internal("the disk is full"));
    let ended = outside.run().await.expect("it was begun");
    assert_eq!(ended.summary.reason, Reason::Internal);
    let made = |resource: Resource| outside.world.steps().iter().any(|step| step.contains(resource.as_str()));
    assert!(!made(Resource::Sandbox), "{:?}", outside.world.steps());
}
