//! Who is asked for the login of checks, and what is done when that one cannot.
use std::path::Path;

use drill::ledger::PhaseOutcome;
use drill::spec::{Vault, VaultAuth};

use super::*;

fn vault() -> Vault {
    Vault {
        address: "https://vault.example:8200".to_owned(),
        ca: "ca.pem".into(),
        namespace: None,
        auth: VaultAuth::Token { file: "token".into() },
        mount: "database".to_owned(),
        path: "muster".to_owned(),
        ttl: Duration::from_mins(15),
        max_ttl: Duration::from_hours(1),
    }
}

fn outside() -> Outside {
    let mut outside = Outside::new();
    outside.wanted = Credentials::Vault(Box::new(vault()));
    outside.credentials = FakeCredentials::default().with_doorway();
    outside
}

fn refused(why: &str) -> Stop {
    Stop::new(Reason::Credentials, why)
}

#[tokio::test]
async fn a_warm_up_that_fails_stops_the_run_while_it_restores() {
    let outside = outside();
    outside.credentials.fail("warm_up", refused("permission denied on database/config/*"));
    let ended = outside.run().await.expect("it was begun");
    assert_eq!(ended.summary.reason, Reason::Credentials);
    assert!(ended.summary.message.contains("permission denied"), "{}", ended.summary.message);
    assert!(ended.state.phase(Phase::Lease).is_none() && ended.state.phase(Phase::Validate).is_none());
    let stopped = |record: &&drill::ledger::PhaseRecord| matches!(record.ended, Some((_, PhaseOutcome::Stopped(_))));
    assert!(ended.state.phases.iter().any(|record| stopped(&record)), "{:?}", ended.state.phases);
    assert_eq!(outside.world.existing(), []);
}

#[tokio::test]
async fn what_is_productions_is_asked_for_nothing() {
    let mut outside = outside();
    outside.wanted = Credentials::Vault(Box::new(Vault { mount: "database-production".to_owned(), ..vault() }));
    let ended = outside.run().await.expect("it was begun");
    assert_eq!(ended.summary.reason, Reason::Credentials);
    assert!(ended.summary.message.contains("`database-production`"), "{}", ended.summary.message);
    assert!(outside.asked.lock().expect("nobody panics with it").is_empty());
    assert!(ended.state.held.is_empty(), "nothing was made");
}

#[tokio::test]
async fn isolation_is_proven_again_after_a_doorway() {
    let outside = outside();
    let ended = outside.run().await.expect("it was begun");
    assert_eq!(ended.summary.verdict, Verdict::Passed, "{:?}", ended.summary);
    let probes = ended.state.isolation.expect("it was proven").probes;
    let of = |when: &str| probes.iter().filter(|probe| probe.name.contains(when)).count();
    let (issued, revoked) = (of("(after the doorway was closed)"), of("(after the lease was revoked)"));
    assert!(issued >= 2 && issued == revoked && probes.len() > issued + revoked, "{probes:?}");
    let steps = outside.world.steps();
    let at = |wanted: &str| steps.iter().rposition(|step| step == wanted).expect("it happened");
    assert!(at("before probe") > at("after close doorway"), "{steps:?}");

    // A hole that the doorway left is seen.
    let mut outside = super::lease::outside();
    let world = outside.world.clone();
    outside.credentials = FakeCredentials::new(Arc::new(move |step| {
        if step == "credentials.issue" {
            let probe = |name: &str, expected, observed| Probe {
                name: name.to_owned(),
                expected,
                observed,
                detail: "fake".to_owned(),
            };
            world.answer_probes(vec![
                probe("a way out", Expected::Closed, Expected::Open),
                probe("control", Expected::Open, Expected::Open),
            ]);
        }
    }))
    .with_doorway();
    let ended = outside.run().await.expect("it was begun");
    assert_eq!(ended.summary.reason, Reason::IsolationUnproven, "{:?}", ended.summary);
    assert!(ended.state.phase(Phase::Validate).is_none(), "nothing was checked");
    assert_eq!(outside.world.existing(), []);
}

/// The checks have passed by then, and the database goes next.
#[tokio::test]
async fn a_hole_that_the_last_doorway_leaves_is_no_pass_and_one_that_nobody_could_look_for_is_told() {
    let mut outside = super::lease::outside();
    let world = outside.world.clone();
    outside.credentials = FakeCredentials::new(Arc::new(move |step| {
        if step == "credentials.revoked" {
            let open = |name: &str, expected| Probe {
                name: name.to_owned(),
                expected,
                observed: Expected::Open,
                detail: "fake".to_owned(),
            };
            world.answer_probes(vec![open("a way out", Expected::Closed), open("control", Expected::Open)]);
        }
    }))
    .with_doorway();
    let ended = outside.run().await.expect("it was begun");
    assert_eq!(ended.summary.reason, Reason::IsolationUnproven, "{:?}", ended.summary);
    assert!(ended.summary.message.contains("a way out (after the lease was revoked)"), "{}", ended.summary.message);
    assert_eq!(
        (ended.leftovers, outside.world.existing()),
        (Leftovers::None, vec![]),
        "and it is torn down all the same"
    );

    let mut outside = super::lease::outside();
    let world = outside.world.clone();
    outside.credentials = FakeCredentials::new(Arc::new(move |step| {
        if step == "credentials.revoked" {
            world.fail("probe", Stop::internal("the sandbox does not answer"));
        }
    }))
    .with_doorway();
    let ended = outside.run().await.expect("it was begun");
    assert_eq!(ended.summary.verdict, Verdict::Passed, "{:?}", ended.summary);
    let told = ended.state.findings.iter().any(|finding| finding.message.contains("the sandbox does not answer"));
    assert!(told, "{:?}", ended.state.findings);
}

/// Also where no lease came of it, and by whoever recovers.
#[tokio::test]
async fn what_was_got_for_asking_is_given_back_at_the_end_of_every_run() {
    let steps = Arc::new(std::sync::Mutex::new(Vec::new()));
    let listening = || {
        let steps = Arc::clone(&steps);
        let hear: drivers::credentials::fake::Hook =
            Arc::new(move |step| steps.lock().expect("nobody panics with it").push(step.to_owned()));
        FakeCredentials::new(hear).with_doorway()
    };
    let heard = || std::mem::take(&mut *steps.lock().expect("nobody panics with it"));

    let mut outside = outside();
    outside.credentials = listening();
    outside.run().await.expect("it was begun");
    let whole = heard();
    assert_eq!(whole.last().map(String::as_str), Some("credentials.cool_down"), "{whole:?}");

    let mut outside = super::lease::outside();
    outside.credentials = listening();
    outside.world.fail("prepare", Stop::internal("as the test wants"));
    outside.run().await.expect("it was begun");
    assert_eq!(heard(), ["credentials.warm_up", "credentials.cool_down"]);

    let mut outside = super::lease::outside();
    outside.credentials = listening();
    for _ in 0..2 {
        outside.credentials.fail("revoke", refused("the Vault is sealed"));
    }
    outside.run().await.expect("it was begun");
    heard();
    outside.restart();
    assert_eq!(outside.recover().await.settled[0].1, Leftovers::None);
    assert_eq!(heard(), ["credentials.revoke", "credentials.cool_down"]);
}

/// Revoked once the database is gone, where it could not be before; owed, where not even that could be done; and recovery asks
/// the one that the ledger names.
#[tokio::test]
async fn a_lease_that_cannot_be_revoked_stays_owed_until_the_same_store_takes_it_back() {
    let outside = outside();
    outside.credentials.fail("revoke", refused("the Vault is sealed"));
    let ended = outside.run().await.expect("it was begun");
    assert_eq!((ended.summary.verdict, ended.leftovers), (Verdict::Passed, Leftovers::None), "the second try");

    let mut outside = super::lease::outside();
    // A teardown tries twice: with the database, and without it.
    for _ in 0..4 {
        outside.credentials.fail("revoke", refused("the Vault is sealed"));
    }
    let ended = outside.run().await.expect("it was begun");
    assert_eq!((ended.summary.verdict, ended.leftovers), (Verdict::Passed, Leftovers::Some));
    let owed = ended.state.held.get(&Resource::Lease).expect("it was made");
    assert!(owed.is_owed() && owed.handle().is_some(), "{owed:?}");

    outside.restart();
    let recovered = outside.recover().await;
    assert_eq!(recovered.settled.len(), 1);
    assert_eq!(recovered.settled[0].1, Leftovers::Some, "sealed still");
    let recovered = outside.recover().await;
    assert_eq!(recovered.settled[0].1, Leftovers::None);
    let asked = outside.asked.lock().expect("nobody panics with it").clone();
    let named = Credentials::Vault(Box::new(vault().beneath(Path::new("/drills"))));
    assert!(asked.len() >= 3 && asked.iter().all(|asked| *asked == named), "the run and each recovery: {asked:?}");
}

/// Invariant 5, with a secret store.
#[tokio::test]
async fn a_crash_at_every_write_with_a_secret_store_is_recovered() {
    let whole = outside();
    whole.run().await.expect("it was begun");
    for nth in 1..=whole.store.writes() {
        let mut outside = outside();
        outside.store.crash_at(nth, Cut::After);
        tokio::select! {
            ended = outside.run() => panic!("it ended before write {nth}: {:?}", ended.map(|ended| ended.summary)),
            () = outside.store.crashed() => {}
        }
        outside.restart();
        recovered_twice(&outside, &format!("write {nth}")).await;
    }
}
