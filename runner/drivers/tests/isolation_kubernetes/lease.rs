//! The Lease that lets one muster at a time work.
use std::time::Duration;

use drill::config::ClusterLease;
use drivers::guard::kubernetes::KubernetesGuard;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::DeleteParams;

use crate::support::{Place, TestFn, client, run_id};
use crate::test;

pub(crate) fn tests() -> Vec<(&'static str, TestFn)> {
    vec![test!(a_lease_keeps_the_contract), test!(a_lease_in_no_namespace_is_said)]
}

fn config(namespace: &str) -> ClusterLease {
    // Of this test alone.
    let name = run_id().to_string();
    ClusterLease { context: None, namespace: namespace.to_owned(), name, duration: Duration::from_secs(15) }
}

async fn a_lease_keeps_the_contract(_: Place) {
    let config = config("default");
    let guard = KubernetesGuard::new(&config).await.expect("an account that may");
    drivers::guard::contract::all(&guard).await;
    let leases: Api<Lease> = Api::namespaced(client().await, &config.namespace);
    leases.delete(&config.name, &DeleteParams::default()).await.expect("it is there");
}

async fn a_lease_in_no_namespace_is_said(_: Place) {
    use drill::port::Guard;
    let guard = KubernetesGuard::new(&config("muster-test-nowhere")).await.expect("an account that may");
    let stop = guard.write(None, Some("me"), Duration::from_secs(15)).await.expect_err("there is no such namespace");
    assert!(stop.message.contains("there is no namespace `muster-test-nowhere`") && stop.advice.is_some(), "{stop:?}");
}
