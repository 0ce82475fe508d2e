//! From what was seen to what is said: proofs, reasons, verdicts and exit codes, each table written down a second time.
use drill::proof::{Attempt, Expected, IsolationProof, LeaseProof, Probe};
use drill::verdict::{EXIT_NOTHING_BEGUN, Leftovers, Reason, Verdict, exit_code};
use proptest::prelude::*;

/// Every reason with the verdict that the design gives it. The match makes a new reason a compile error here.
fn reasons() -> Vec<(Reason, Verdict, &'static str)> {
    let mut all = Vec::new();
    let mut next = Some(Reason::Proven);
    while let Some(reason) = next {
        let (verdict, name, following) = match reason {
            Reason::Proven => (Verdict::Passed, "proven", Some(Reason::ArtifactRefused)),
            Reason::ArtifactRefused => (Verdict::Failed, "artifact-refused", Some(Reason::RestoreFailed)),
            Reason::RestoreFailed => (Verdict::Failed, "restore-failed", Some(Reason::CheckFailed)),
            Reason::CheckFailed => (Verdict::Failed, "check-failed", Some(Reason::ObjectiveExceeded)),
            Reason::ObjectiveExceeded => (Verdict::Failed, "objective-exceeded", Some(Reason::DeadlineAfterObjective)),
            Reason::DeadlineAfterObjective => {
                (Verdict::Failed, "deadline-after-objective", Some(Reason::DamageUnnoticed))
            }
            Reason::DamageUnnoticed => (Verdict::Failed, "damage-unnoticed", Some(Reason::SandboxUnfit)),
            Reason::SandboxUnfit => (Verdict::Inconclusive, "sandbox-unfit", Some(Reason::TemplateDrift)),
            Reason::TemplateDrift => (Verdict::Inconclusive, "template-drift", Some(Reason::IsolationUnproven)),
            Reason::IsolationUnproven => (Verdict::Inconclusive, "isolation-unproven", Some(Reason::IsolationBreached)),
            Reason::IsolationBreached => (Verdict::Inconclusive, "isolation-breached", Some(Reason::LimitReached)),
            Reason::LimitReached => (Verdict::Inconclusive, "limit-reached", Some(Reason::Credentials)),
            Reason::Credentials => (Verdict::Inconclusive, "credentials", Some(Reason::Deadline)),
            Reason::Deadline => (Verdict::Inconclusive, "deadline", Some(Reason::Interrupted)),
            Reason::Interrupted => (Verdict::Inconclusive, "interrupted", Some(Reason::Quarantined)),
            Reason::Quarantined => (Verdict::Inconclusive, "quarantined", Some(Reason::SourceUnreachable)),
            Reason::SourceUnreachable => (Verdict::Inconclusive, "source-unreachable", Some(Reason::ArtifactChanged)),
            Reason::ArtifactChanged => (Verdict::Inconclusive, "artifact-changed", Some(Reason::CheckInconclusive)),
            Reason::CheckInconclusive => {
                (Verdict::Inconclusive, "check-inconclusive", Some(Reason::SelfTestInconclusive))
            }
            Reason::SelfTestInconclusive => {
                (Verdict::Inconclusive, "self-test-inconclusive", Some(Reason::AlreadyRunning))
            }
            Reason::AlreadyRunning => (Verdict::Inconclusive, "already-running", Some(Reason::Internal)),
            Reason::Internal => (Verdict::Inconclusive, "internal", None),
        };
        all.push((reason, verdict, name));
        next = following;
    }
    all
}

#[test]
fn a_verdict_follows_from_its_reason_and_reasons_keep_their_names() {
    let all = reasons();
    assert_eq!(all.iter().map(|(reason, ..)| *reason).collect::<Vec<_>>(), Reason::ALL);
    for (reason, verdict, name) in all {
        assert_eq!(reason.verdict(), verdict, "{reason:?}");
        assert_eq!(serde_json::json!(reason), name);
        assert_eq!(reason.as_str(), name);
    }
}

#[test]
fn nothing_but_proof_passes() {
    let passing: Vec<Reason> =
        reasons().into_iter().map(|(reason, ..)| reason).filter(|r| r.verdict() == Verdict::Passed).collect();
    assert_eq!(passing, [Reason::Proven]);
}

#[test]
fn exit_codes_are_those_of_the_manual() {
    let table = [
        (Verdict::Passed, Leftovers::None, 0),
        (Verdict::Passed, Leftovers::Some, 4),
        (Verdict::Inconclusive, Leftovers::None, 2),
        (Verdict::Inconclusive, Leftovers::Some, 4),
        (Verdict::Failed, Leftovers::None, 1),
        (Verdict::Failed, Leftovers::Some, 1),
    ];
    for (verdict, leftovers, code) in table {
        assert_eq!(exit_code(verdict, leftovers), code, "{verdict} with leftovers {leftovers:?}");
        assert_ne!(code, EXIT_NOTHING_BEGUN, "{verdict}: something was begun");
    }
}

fn any_expected() -> impl Strategy<Value = Expected> {
    prop::sample::select(vec![Expected::Closed, Expected::Open])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn isolation_is_proven_by_probes_and_controls_that_all_went_as_expected(
        probes in prop::collection::vec((any_expected(), any_expected()), 0..6)
    ) {
        let proof = IsolationProof {
            probes: probes.iter().enumerate().map(|(index, (expected, observed))| Probe {
                name: format!("probe-{index}"), expected: *expected, observed: *observed, detail: format!("seen-{index}"),
            }).collect(),
        };
        let wrong: Vec<usize> = (0..probes.len()).filter(|index| probes[*index].0 != probes[*index].1).collect();
        let both = probes.iter().any(|(expected, _)| *expected == Expected::Closed)
            && probes.iter().any(|(expected, _)| *expected == Expected::Open);
        match proof.judge() {
            Ok(()) => prop_assert!(wrong.is_empty() && both),
            Err(stop) => {
                prop_assert!(!wrong.is_empty() || !both);
                prop_assert_eq!(stop.reason, Reason::IsolationUnproven);
                for index in 0..probes.len() {
                    let named = stop.message.contains(&format!("probe-{index} (seen-{index})"));
                    prop_assert_eq!(named, wrong.contains(&index), "{}", stop.message);
                }
            }
        }
        prop_assert_eq!(proof.closed() + proof.controls(), probes.len());
    }

    #[test]
    fn a_lease_is_proven_by_attempts_that_all_held(held in prop::collection::vec(any::<bool>(), 0..6)) {
        let attempt = |(index, held): (usize, &bool)| Attempt {
            what: format!("attempt-{index}"), database: "orders".to_owned(), held: *held, sqlstate: None,
        };
        let proof = LeaseProof {
            role: "r".to_owned(),
            ttl: std::time::Duration::from_mins(15),
            attempts: held.iter().enumerate().map(attempt).collect(),
            untried: Vec::new(),
            leases: Vec::new(),
        };
        match proof.judge() {
            Ok(()) => prop_assert!(!held.is_empty() && held.iter().all(|held| *held)),
            Err(stop) => {
                prop_assert_eq!(stop.reason, Reason::Credentials);
                prop_assert!(held.is_empty() || held.iter().any(|held| !held));
                for (index, held) in held.iter().enumerate() {
                    prop_assert_eq!(stop.message.contains(&format!("attempt-{index}")), !held, "{}", stop.message);
                }
            }
        }
    }
}
