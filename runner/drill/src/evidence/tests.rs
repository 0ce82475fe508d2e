#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::collections::BTreeMap;

use expect_test::expect;

use super::*;
use crate::id::{RunId, Sha256Digest};
use crate::ledger::{self, Event, Owner, Resource, RunStarted, Stamped, Summary};
use crate::proof::ReleaseProof;
use crate::spec::{Fidelity, Objectives};
use crate::stop::Stop;
use crate::verdict::{Leftovers, Reason, Verdict};

fn at(second: u8) -> jiff::Timestamp {
    format!("2026-11-22T02:15:{second:02}Z").parse().unwrap()
}

fn journal() -> Vec<Stamped> {
    let started = RunStarted {
        run: "orders-20261122t021500z-k7x2".parse().unwrap(),
        drill: "orders".parse().unwrap(),
        drill_digest: Sha256Digest::of(b"drill"),
        drill_file: "/etc/muster/orders.yaml".to_owned(),
        labels: BTreeMap::new(),
        at: at(0),
        owner: Owner { pid: 1, start_ticks: 2, boot_id: "b".to_owned() },
        muster_version: "0.1.0".to_owned(),
        fidelity: Fidelity::Production,
        objectives: Objectives { recovery_time: Some(std::time::Duration::from_mins(30)), recovery_point: None },
        evidence_directory: "/var/lib/muster/evidence".to_owned(),
        trigger: crate::ledger::Trigger::Command,
    };
    let events = [
        Event::Started(started),
        Event::PhaseStarted { phase: crate::phase::Phase::Preflight },
        Event::Intended { resource: Resource::Storage },
        Event::Released { resource: Resource::Storage, proof: ReleaseProof::of("directory removed") },
        Event::PhaseStarted { phase: crate::phase::Phase::Evidence },
        Event::Concluded(Summary {
            verdict: Verdict::Inconclusive,
            reason: Reason::Interrupted,
            message: "a signal ended it".to_owned(),
            advice: None,
            recovery_time_milliseconds: None,
            recovery_point_milliseconds: None,
            boundary_overhead_milliseconds: None,
        }),
    ];
    (0..).zip(events).map(|(n, event)| Stamped { sequence: u64::from(n) + 1, at: at(n), event }).collect()
}

fn making() -> Making {
    Making {
        chain: Chain { store_id: "00ff".to_owned(), sequence: 2, previous: Some(Sha256Digest::of(b"first")) },
        key: KeyOrigin::SelfMade,
    }
}

/// The vector of the specification.
#[test]
fn the_encoding_is_that_of_the_specification() {
    let encoded = pre_authentication_encoding("http://example.com/HelloWorld", b"hello world");
    assert_eq!(encoded, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
}

#[test]
fn evidence_reads_back_and_does_not_depend_on_what_came_after() {
    let mut events = journal();
    let statement = evidence(&events, making()).unwrap();
    let bytes = serde_json::to_vec(&statement).unwrap();
    assert_eq!(serde_json::from_slice::<Statement>(&bytes).unwrap(), statement);
    let (path, digest) = ("/x".to_owned(), Sha256Digest::of(b"x"));
    let later = [Event::EvidenceWritten { path, digest, sequence: 2 }, Event::Ended { leftovers: Leftovers::None }];
    events.extend((6..).zip(later).map(|(n, event)| Stamped { sequence: u64::from(n) + 1, at: at(n), event }));
    assert_eq!(evidence(&events, making()).unwrap(), statement);
}

#[test]
fn what_was_never_concluded_has_no_evidence() {
    let stop = evidence(&journal()[..5], making()).unwrap_err();
    assert_eq!(stop.reason, Reason::Internal);
}

#[test]
fn unknown_keys_are_errors() {
    let mut value = serde_json::to_value(evidence(&journal(), making()).unwrap()).unwrap();
    value["predicate"]["chain"]["skipped"] = true.into();
    assert!(serde_json::from_value::<Statement>(value).unwrap_err().to_string().contains("skipped"));
}

#[test]
fn what_is_owed_and_why_is_said() {
    let mut events = journal();
    let stop = Stop::internal("directory is busy").advise("`muster reap`");
    events[3].event = Event::ReleaseFailed { resource: Resource::Storage, stop };
    let predicate = evidence(&events, making()).unwrap().predicate;
    assert_eq!(predicate.result.leftovers, Leftovers::Some);
    let [owed] = predicate.teardown.try_into().unwrap();
    assert_eq!((owed.resource.as_str(), owed.outcome), ("storage", ResourceOutcome::StillOwed));
    assert_eq!(owed.problem.unwrap().message, "directory is busy");
}

#[test]
fn the_subject_is_the_manifest_where_a_backup_was_opened() {
    let mut events = journal();
    let opened = Event::Artifact(ledger::Artifact {
        digest: Sha256Digest::of(b"manifest"),
        name: "orders".to_owned(),
        location: "/backups/orders/20261122T021500Z".to_owned(),
        vouched: ledger::Vouched::Signature { key: "backup.pub".to_owned() },
        size: 12,
        snapshot_time: Some(at(0)),
        snapshot_time_from: crate::manifest::SnapshotTimeFrom::Capture,
        source_version: "15.18".to_owned(),
        databases: vec!["orders".to_owned()],
    });
    events[1].event = opened;
    let [subject] = evidence(&events, making()).unwrap().subject.try_into().unwrap();
    assert_eq!((subject.name.as_str(), subject.digest.sha256), ("orders", Sha256Digest::of(b"manifest").hex()));
}

#[test]
fn an_envelope_opens_only_with_the_signature_of_its_payload() {
    let sign = |message: &[u8]| {
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(Sha256Digest::of(message).as_bytes());
        signature
    };
    let envelope = Envelope::seal(b"{}", "key", sign);
    let read = Envelope::parse(&envelope.to_bytes()).unwrap();
    assert_eq!(read, envelope);
    let verifies = |message: &[u8], signature: &[u8; 64]| sign(message) == *signature;
    assert_eq!(read.open(verifies).unwrap(), b"{}");
    let forged = Envelope { payload: "e30K".to_owned(), ..read.clone() };
    assert!(forged.open(verifies).unwrap_err().message.contains("no trusted key"));
    let unsigned = Envelope { signatures: vec![], ..read.clone() };
    assert!(unsigned.open(|_, _| true).unwrap_err().message.contains("nobody"));
    let other = Envelope { payload_type: "text/plain".to_owned(), ..read };
    assert!(Envelope::parse(&other.to_bytes()).is_err());
}

/// Names that others parse. A change here is a change of the predicate's type.
#[test]
fn the_names_are_stable() {
    let statement = evidence(&journal(), making()).unwrap();
    let run: RunId = statement.predicate.run.clone();
    assert_eq!(run.suffix(), "k7x2");
    expect![[r#"
        {
          "_type": "https://in-toto.io/Statement/v1",
          "subject": [
            {
              "name": "drill orders",
              "digest": {
                "sha256": "b76419d9ad059fdfdc06637cb4db8ac93be25deb5bdf3cd2a7bbedaffe99d014"
              }
            }
          ],
          "predicateType": "https://muster.dev/evidence/v1",
          "predicate": {
            "run": "orders-20261122t021500z-k7x2",
            "drill": {
              "name": "orders",
              "digest": "sha256:b76419d9ad059fdfdc06637cb4db8ac93be25deb5bdf3cd2a7bbedaffe99d014",
              "file": "/etc/muster/orders.yaml",
              "labels": {}
            },
            "musterVersion": "0.1.0",
            "started": "2026-11-22T02:15:00Z",
            "concluded": "2026-11-22T02:15:05Z",
            "result": {
              "verdict": "inconclusive",
              "reason": "interrupted",
              "message": "a signal ended it",
              "advice": null,
              "leftovers": "none"
            },
            "recovery": {
              "fidelity": "production",
              "timeActualMilliseconds": null,
              "timeObjectiveMilliseconds": 1800000,
              "pointActualMilliseconds": null,
              "pointObjectiveMilliseconds": null,
              "boundaryOverheadMilliseconds": null
            },
            "artifact": null,
            "quarantined": null,
            "phases": [
              {
                "phase": "preflight",
                "started": "2026-11-22T02:15:01Z",
                "milliseconds": null,
                "outcome": "cut-off",
                "note": null,
                "problem": null
              }
            ],
            "checks": [],
            "findings": [],
            "plugins": [],
            "isolation": {
              "template": null,
              "limits": [],
              "probes": []
            },
            "lease": null,
            "teardown": [
              {
                "resource": "storage",
                "outcome": "released",
                "observed": [
                  "directory removed"
                ],
                "problem": null
              }
            ],
            "connectionsReportedByRestoredServer": [],
            "chain": {
              "storeId": "00ff",
              "sequence": 2,
              "previous": "sha256:a7937b64b8caa58f03721bb6bacf5c78cb235febe0e70b1b84cd99541461a08e"
            },
            "key": "self-made"
          }
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&statement).unwrap());
}
