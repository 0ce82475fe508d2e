//! What holds a sandbox, and what happens when somebody takes it away.
use std::time::Duration;

use drill::proof::IsolationProof;
use drill::verdict::Reason;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::json;

use crate::support::{Held, Place, TestFn, client};
use crate::test;

pub(crate) fn tests() -> Vec<(&'static str, TestFn)> {
    vec![
        test!(isolation_is_proven_with_its_controls_and_the_stranger_goes),
        test!(without_its_policies_isolation_is_not_proven),
        test!(a_policy_that_is_deleted_ends_the_run),
        test!(a_policy_that_is_added_ends_the_run),
        test!(a_pod_that_is_deleted_ends_the_run),
        test!(a_namespace_of_somebody_else_is_left_alone),
    ]
}

const AT_ONCE: Duration = Duration::from_secs(10);

async fn policies(held: &Held) -> Api<NetworkPolicy> {
    Api::namespaced(client().await, &held.namespace())
}

async fn isolation_is_proven_with_its_controls_and_the_stranger_goes(place: Place) {
    let held = place.sandbox().await;
    let proof = IsolationProof { probes: held.sandbox.probe().await.expect("probed") };
    for probe in &proof.probes {
        eprintln!("  {:?} {}: {}", probe.observed, probe.name, probe.detail);
    }
    proof.judge().expect("isolation is proven");
    for target in ["the node", "the API server", "the metadata address", "production at 10.250.0.10:5432"] {
        let names: Vec<&str> = proof.probes.iter().map(|probe| probe.name.as_str()).collect();
        for place in ["sandbox", "agent", "an unlabelled pod that may go anywhere"] {
            assert!(names.contains(&format!("{place}: {target}").as_str()), "{place}: {target} in {names:?}");
        }
    }
    held.sandbox.deliver().await.expect("delivered");
    let names = |list: Vec<String>| list.join(" ");
    let listed = policies(&held).await.list(&ListParams::default()).await.expect("listed");
    let left = names(listed.items.into_iter().filter_map(|policy| policy.metadata.name).collect());
    assert_eq!(left, "dr-drill-agent-egress dr-drill-default-deny dr-drill-isolation");
    let pods: Api<Pod> = Api::namespaced(client().await, &held.namespace());
    let listed = pods.list(&ListParams::default()).await.expect("listed");
    assert_eq!(names(listed.items.into_iter().filter_map(|pod| pod.metadata.name).collect()), "agent database");
    let secrets: Api<Secret> = Api::namespaced(client().await, &held.namespace());
    assert!(secrets.list(&ListParams::default()).await.expect("listed").items.is_empty());
    held.release().await;
}

/// As if nothing enforced them: the probes see the hole.
async fn without_its_policies_isolation_is_not_proven(place: Place) {
    let held = place.sandbox().await;
    let policies = policies(&held).await;
    for name in ["dr-drill-isolation", "dr-drill-default-deny"] {
        policies.delete(name, &DeleteParams::default()).await.expect("deleted");
    }
    let proof = IsolationProof { probes: held.sandbox.probe().await.expect("probed") };
    let stop = proof.judge().expect_err("there is a hole");
    assert!(stop.message.contains("sandbox: the node"), "{stop:?}");
    assert!(stop.message.contains("an unlabelled pod: the database's port"), "{stop:?}");
    assert!(stop.message.contains("a pod of another namespace: the database's port"), "{stop:?}");
    held.release().await;
}

async fn a_policy_that_is_deleted_ends_the_run(place: Place) {
    let held = place.sandbox().await;
    policies(&held).await.delete("dr-drill-isolation", &DeleteParams::default()).await.expect("deleted");
    let stop = tokio::time::timeout(AT_ONCE, held.sandbox.breach()).await.expect("at once");
    assert_eq!((stop.reason, stop.cause.as_deref()), (Reason::IsolationBreached, Some("policy-deleted")));
    assert!(stop.message.contains("policy `dr-drill-isolation` was deleted"), "{stop:?}");
    held.release().await;
}

async fn a_policy_that_is_added_ends_the_run(place: Place) {
    let held = place.sandbox().await;
    let open = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": { "name": "open" },
        "spec": { "podSelector": {}, "policyTypes": ["Egress"], "egress": [{}] },
    });
    let by = PatchParams::apply("somebody");
    policies(&held).await.patch("open", &by, &Patch::Apply(&open)).await.expect("added");
    let stop = tokio::time::timeout(AT_ONCE, held.sandbox.breach()).await.expect("at once");
    assert!(stop.message.contains("policy `open` was added"), "{stop:?}");
    held.release().await;
}

async fn a_pod_that_is_deleted_ends_the_run(place: Place) {
    let held = place.sandbox().await;
    let pods: Api<Pod> = Api::namespaced(client().await, &held.namespace());
    pods.delete("database", &DeleteParams::default()).await.expect("deleted");
    let stop = tokio::time::timeout(AT_ONCE, held.sandbox.breach()).await.expect("at once");
    assert!(stop.message.contains("pod `database`"), "{stop:?}");
    held.release().await;
}

async fn a_namespace_of_somebody_else_is_left_alone(place: Place) {
    use drill::ledger::Resource;
    use drill::port::Isolation;
    let run = crate::support::run_id();
    place.isolation.prepare(&run).await.expect("prepared");
    let namespaces: Api<Namespace> = Api::all(client().await);
    let name = format!("dr-sandbox-{run}");
    let theirs = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
    let by = PatchParams::apply("somebody");
    namespaces.patch(&name, &by, &Patch::Apply(&theirs)).await.expect("made");
    let stop = place.isolation.release(&run, Resource::Sandbox, None).await.expect_err("it is not ours");
    assert!(stop.message.contains("does not carry this muster's label"), "{stop:?}");
    assert!(
        namespaces.get_opt(&name).await.expect("looked").is_some_and(|one| one.metadata.deletion_timestamp.is_none())
    );
    namespaces.delete(&name, &DeleteParams::default()).await.expect("deleted");
    place.isolation.release(&run, Resource::Storage, None).await.expect("released");
}
