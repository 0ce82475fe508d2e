//! Who gets in while a doorway is open, and that nobody does after it.
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use drill::port::Doorway;
use drill::spec::{Kubernetes, Visitor};
use drill::verdict::Reason;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::{Held, Place, TestFn, asked, client, run_id};
use crate::test;

pub(crate) fn tests() -> Vec<(&'static str, TestFn)> {
    vec![test!(a_doorway_for_pods_lets_in_those_pods), test!(a_doorway_that_somebody_widens_ends_the_run)]
}

/// This machine's address, as pods see it.
const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 251, 255, 1));
const AT_ONCE: Duration = Duration::from_secs(10);

async fn a_doorway_for_pods_lets_in_those_pods(place: Place) {
    let run = run_id();
    let visitor = Visitor::Pods {
        namespace: format!("dr-witness-{run}"),
        labels: [("muster.dev/run".to_owned(), run.to_string())].into(),
    };
    let held =
        place.asking(Kubernetes { doorway: Some(visitor), ..asked() }).try_sandbox(&run).await.expect("provisioned");
    let doorway = held.sandbox.open_doorway().await.expect("a doorway");
    let address = address_of(doorway.as_ref());
    let mut reached = false;
    for _ in 0..10 {
        reached = reached || Pod::Witness.reaches(&held, address);
    }
    assert!(reached, "the pod that the doorway is for");
    assert!(!Pod::Stranger.reaches(&held, address), "another pod got in");
    drop(doorway);
    let gone = async {
        while policies(&held).await.get_opt("dr-drill-doorway").await.expect("looked").is_some() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(AT_ONCE, gone).await.expect("one that is dropped is closed, too");
    held.release().await;
}

async fn a_doorway_that_somebody_widens_ends_the_run(place: Place) {
    let held = for_visitor(&place, Visitor::Addresses(vec![HERE])).await;
    let doorway = held.sandbox.open_doorway().await.expect("a doorway");
    let wider = json!({ "spec": { "ingress": [{}] } });
    let policies = policies(&held).await;
    policies.patch("dr-drill-doorway", &PatchParams::default(), &Patch::Merge(&wider)).await.expect("widened");
    let stop = tokio::time::timeout(AT_ONCE, held.sandbox.breach()).await.expect("at once");
    assert_eq!(stop.reason, Reason::IsolationBreached);
    assert!(stop.message.contains("policy `dr-drill-doorway` was changed"), "{stop:?}");
    drop(doorway);
    held.release().await;
}

async fn for_visitor(place: &Place, visitor: Visitor) -> Held {
    place.asking(Kubernetes { doorway: Some(visitor), ..asked() }).sandbox().await
}

async fn policies(held: &Held) -> Api<NetworkPolicy> {
    Api::namespaced(client().await, &held.namespace())
}

fn address_of(doorway: &dyn Doorway) -> SocketAddr {
    format!("{}:{}", doorway.host(), doorway.port()).parse().expect("an address")
}

#[derive(Debug, Clone, Copy)]
enum Pod {
    /// Of another namespace.
    Witness,
    /// Of the same, without a label.
    Stranger,
}

impl Pod {
    fn reaches(self, held: &Held, address: SocketAddr) -> bool {
        let (namespace, pod) = match self {
            Self::Witness => (format!("dr-witness-{}", held.run), "witness"),
            Self::Stranger => (held.namespace(), "stranger"),
        };
        let question = json!([{ "name": "it", "address": address, "datagram": false }]).to_string();
        let kubeconfig = std::env::var("KUBECONFIG").expect("in a cluster");
        let kubectl = Path::new(&kubeconfig).parent().expect("a folder").with_file_name("bin").join("kubectl");
        let mut command = Command::new(kubectl);
        command.args(["-n", &namespace, "exec", pod, "--", "/muster", "pod-reach", &question]);
        let output = command.output().expect("kubectl starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let seen: Value = serde_json::from_slice(&output.stdout).expect("an answer");
        seen["open"].as_bool().expect("yes or no")
    }
}
