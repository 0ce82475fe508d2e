//! What somebody's finalizers hold at a run's end.
use std::time::Duration;

use drill::ledger::Resource;
use drill::port::Isolation;
use drill::spec::{Claim, Kubernetes};
use k8s_openapi::api::core::v1::{Namespace, PersistentVolumeClaim, Pod, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::support::{Held, Place, TestFn, asked, client};
use crate::test;

pub(crate) fn tests() -> Vec<(&'static str, TestFn)> {
    vec![test!(finalizers_of_others_are_removed_where_the_drill_says_so_and_each_is_told)]
}

const HOLD: &str = "example.com/hold";

/// Shorter than a drill file may say.
async fn finalizers_of_others_are_removed_where_the_drill_says_so_and_each_is_told(place: Place) {
    let remove_finalizers_after = Some(Duration::from_secs(5));
    let claim = Some(Claim { storage_class: Some("local".to_owned()), size: 1 << 30 });
    let held = place.asking(Kubernetes { remove_finalizers_after, claim, ..asked() }).sandbox().await;
    let namespace = held.namespace();
    let (pods, claims, policies, namespaces, accounts) = in_namespace(&held).await;
    let finalizer = Patch::Merge(json!({ "metadata": { "finalizers": [HOLD] } }));
    let by = PatchParams::default();
    pods.patch("agent", &by, &finalizer).await.expect("held");
    pods.patch("database", &by, &finalizer).await.expect("held");
    // Beside Kubernetes' own, which stays until its pod is gone.
    let both = json!({ "metadata": { "finalizers": ["kubernetes.io/pvc-protection", HOLD] } });
    claims.patch("database", &by, &Patch::Merge(both)).await.expect("held");
    policies.patch("dr-drill-isolation", &by, &finalizer).await.expect("held");
    namespaces.patch(&namespace, &by, &finalizer).await.expect("held");
    // Of a kind that muster's account may not touch.
    let account =
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "held", "finalizers": [HOLD] } });
    accounts.patch("held", &PatchParams::apply("somebody"), &Patch::Apply(&account)).await.expect("made");

    // By another process, which knows no drill.
    let later = drivers::isolation::kubernetes::KubernetesState::open(&place.root()).expect("a state").of_the_past();
    let proof = later.release(&held.run, Resource::Sandbox, None).await.expect("released");
    let told = |what: &str| assert!(proof.observed.iter().any(|seen| seen.starts_with(what)), "{what}: {proof:?}");
    let objects = [
        "pod agent of ",
        "pod database of ",
        "persistentvolumeclaim database of ",
        "networkpolicy dr-drill-isolation of ",
        "namespace ",
    ];
    for object in objects {
        told(&format!("finalizer {HOLD} removed from {object}"));
    }
    told(&format!("finalizer kubernetes removed from namespace {namespace}: "));
    let left = proof.observed.iter().find(|seen| seen.contains("serviceaccounts. has 1 resource instances"));
    assert!(left.is_some(), "what stays is named: {proof:?}");
    told(&format!("namespace {namespace} gone"));
    assert!(namespaces.get_opt(&namespace).await.expect("looked").is_none());

    // What stays in etcd is there again with the namespace's name, and then whoever holds it can let go.
    let again = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } });
    namespaces.patch(&namespace, &PatchParams::apply("somebody"), &Patch::Apply(&again)).await.expect("made");
    accounts.patch("held", &by, &Patch::Merge(json!({ "metadata": { "finalizers": null } }))).await.expect("let go");
    namespaces.delete(&namespace, &DeleteParams::default()).await.expect("deleted");
    place.isolation.release(&held.run, Resource::Storage, None).await.expect("released");
}

type InNamespace = (Api<Pod>, Api<PersistentVolumeClaim>, Api<NetworkPolicy>, Api<Namespace>, Api<ServiceAccount>);

async fn in_namespace(held: &Held) -> InNamespace {
    let (client, namespace) = (client().await, held.namespace());
    (
        Api::namespaced(client.clone(), &namespace),
        Api::namespaced(client.clone(), &namespace),
        Api::namespaced(client.clone(), &namespace),
        Api::all(client.clone()),
        Api::namespaced(client, &namespace),
    )
}
