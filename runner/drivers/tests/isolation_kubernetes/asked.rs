//! What a drill may ask for beside the least: networks of production, an orchestrator, a volume; and proofs while a run lasts.
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use drill::ledger::Resource;
use drill::port::Isolation;
use drill::proof::{Expected, IsolationProof, Probe};
use drill::spec::{Claim, Kubernetes};
use drill::verdict::Reason;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::support::{Held, Place, TestFn, asked, client, run_id};
use crate::test;

pub(crate) fn tests() -> Vec<(&'static str, TestFn)> {
    vec![
        test!(of_a_network_both_ends_are_tried_and_what_answers_is_a_control),
        test!(what_was_proven_is_proven_again_and_a_hole_is_seen_at_once),
        test!(the_orchestrator_comes_to_the_database_and_nobody_else_does),
        test!(an_orchestrator_that_holds_pods_is_refused),
        test!(a_claimed_volume_has_the_databases_and_goes_with_the_run),
        test!(a_volume_that_is_to_be_kept_is_kept_and_said),
    ]
}

async fn proof(held: &Held) -> IsolationProof {
    IsolationProof { probes: held.sandbox.probe().await.expect("probed") }
}

fn find<'a>(proof: &'a IsolationProof, name: &str) -> &'a Probe {
    proof.probes.iter().find(|probe| probe.name == name).unwrap_or_else(|| panic!("no `{name}` in {proof:#?}"))
}

async fn of_a_network_both_ends_are_tried_and_what_answers_is_a_control(place: Place) {
    let production = ["10.250.0.10/31:5432", "10.250.0.0/24:5432"].map(|text| text.parse().expect("a target")).to_vec();
    let held = place.asking(Kubernetes { production, ..asked() }).sandbox().await;
    let proof = proof(&held).await;
    proof.judge().expect("isolation is proven");
    let answers = "production at 10.250.0.10:5432, of 10.250.0.10/31:5432";
    let control = find(&proof, &format!("an unlabelled pod that may go anywhere: {answers}"));
    assert_eq!((control.expected, control.observed), (Expected::Open, Expected::Open));
    for place in ["sandbox", "agent"] {
        assert!(!find(&proof, &format!("{place}: {answers}")).detail.contains("nothing answers"));
        let last = find(&proof, &format!("{place}: production at 10.250.0.254:5432, of 10.250.0.0/24:5432"));
        assert_eq!(last.observed, Expected::Closed);
        assert!(last.detail.contains("nothing answers there without a policy either"), "{last:?}");
    }
    held.release().await;
}

async fn what_was_proven_is_proven_again_and_a_hole_is_seen_at_once(place: Place) {
    let held = place.sandbox().await;
    proof(&held).await.judge().expect("isolation is proven");
    held.sandbox.deliver().await.expect("delivered");
    let again = proof(&held).await;
    again.judge_again().expect("it still is");
    for target in ["the node", "production at 10.250.0.10:5432"] {
        assert_eq!(find(&again, &format!("sandbox: {target}")).observed, Expected::Closed);
        assert_eq!(find(&again, &format!("a pod that no policy holds: {target}")).observed, Expected::Open);
    }
    let policies: Api<NetworkPolicy> = Api::namespaced(client().await, &held.namespace());
    for name in ["dr-drill-isolation", "dr-drill-default-deny"] {
        policies.delete(name, &DeleteParams::default()).await.expect("deleted");
    }
    // Deleted policies are in force for a moment still.
    let mut told = None;
    for _ in 0..20 {
        told = proof(&held).await.judge_again().err();
        if told.is_some() {
            break;
        }
    }
    let stop = told.expect("there is a hole");
    assert_eq!((stop.reason, stop.cause.as_deref()), (Reason::IsolationBreached, Some("probe-open")));
    assert!(stop.message.contains("sandbox: the node"), "{stop:?}");
    held.release().await;
}

/// From this machine, which is outside of the cluster.
async fn comes_in(held: &Held) -> bool {
    let pods: Api<Pod> = Api::namespaced(client().await, &held.namespace());
    let database = pods.get("database").await.expect("it is there");
    let address = database.status.expect("it runs").pod_ip.expect("an address").parse().expect("an address");
    let port = SocketAddr::new(address, 5432);
    let tried = tokio::task::spawn_blocking(move || TcpStream::connect_timeout(&port, Duration::from_secs(2)));
    tried.await.expect("no panic").is_ok()
}

async fn the_orchestrator_comes_to_the_database_and_nobody_else_does(place: Place) {
    let nobody = place.sandbox().await;
    proof(&nobody).await.judge().expect("isolation is proven");
    assert!(!comes_in(&nobody).await, "no orchestrator is named");
    nobody.release().await;

    let orchestrator = Some("10.251.255.1/32".parse().expect("a network"));
    let held = place.asking(Kubernetes { orchestrator, ..asked() }).sandbox().await;
    let proof = proof(&held).await;
    proof.judge().expect("what is not in it stays closed");
    let elsewhere = find(&proof, "a pod of another namespace: the database's port");
    assert_eq!((elsewhere.expected, elsewhere.observed), (Expected::Closed, Expected::Closed));
    assert!(comes_in(&held).await, "it is the orchestrator");
    held.release().await;
}

async fn an_orchestrator_that_holds_pods_is_refused(place: Place) {
    let orchestrator = Some("10.251.0.0/24".parse().expect("a network"));
    let place = place.asking(Kubernetes { orchestrator, ..asked() });
    let run = run_id();
    let stop = place.try_sandbox(&run).await.err().expect("it is refused");
    assert_eq!(stop.reason, Reason::SandboxUnfit);
    assert!(stop.message.contains("orchestratorCidr 10.251.0.0/24 lets in pods"), "{stop:?}");
    for resource in [Resource::Sandbox, Resource::Storage] {
        place.isolation.release(&run, resource, None).await.expect("released");
    }
}

fn with_a_claim(class: &str) -> Kubernetes {
    Kubernetes { claim: Some(Claim { storage_class: Some(class.to_owned()), size: 1 << 30 }), ..asked() }
}

/// The volume that the run's claim is bound to.
async fn volume(held: &Held) -> PersistentVolume {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client().await, &held.namespace());
    let claim = claims.get("database").await.expect("it is there");
    let name = claim.spec.and_then(|spec| spec.volume_name).expect("it is bound");
    Api::all(client().await).get(&name).await.expect("it is there")
}

async fn let_go(held: Held) -> Vec<String> {
    let Held { place, run, .. } = held;
    let proof = place.isolation.release(&run, Resource::Sandbox, None).await.expect("released");
    place.isolation.release(&run, Resource::Storage, None).await.expect("released");
    proof.observed
}

async fn a_claimed_volume_has_the_databases_and_goes_with_the_run(place: Place) {
    let held = place.asking(with_a_claim("local")).sandbox().await;
    let volume = volume(&held).await;
    let (name, uid) = (volume.metadata.name.expect("a name"), volume.metadata.uid);
    let script = "echo kept >/data/file && stat -c %U:%a /data";
    let output = held.run(&["/bin/sh", "-c", script]).await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.starts_with("postgres:") && said.trim().ends_with("700"), "a server takes no other: {output:?}");
    let file = directory_of(volume.spec.as_ref()).join("data/file");
    assert_eq!(std::fs::read_to_string(&file).expect("it lies on the volume"), "kept\n");
    let observed = let_go(held).await;
    assert!(observed.iter().any(|seen| seen.starts_with("claim database of dr-sandbox-")), "{observed:?}");
    assert!(observed.contains(&format!("volume {name} gone")), "{observed:?}");
    let volumes: Api<PersistentVolume> = Api::all(client().await);
    let now = volumes.get_opt(&name).await.expect("looked").and_then(|volume| volume.metadata.uid);
    assert!(now.is_none() || now != uid, "another one, made anew");
    assert!(!file.exists());
}

fn directory_of(spec: Option<&PersistentVolumeSpec>) -> PathBuf {
    let local = spec.and_then(|spec| spec.local.as_ref()).expect("a local volume");
    PathBuf::from(&local.path)
}

async fn a_volume_that_is_to_be_kept_is_kept_and_said(place: Place) {
    let name = format!("muster-test-kept-{}", std::process::id());
    let volumes: Api<PersistentVolume> = Api::all(client().await);
    let any = volumes.list(&kube::api::ListParams::default()).await.expect("listed").items;
    let offered =
        any.into_iter().find(|one| one.metadata.name.as_deref().is_some_and(|name| name.starts_with("local-")));
    let directory = directory_of(offered.expect("the harness offers volumes").spec.as_ref()).with_file_name(&name);
    std::fs::create_dir_all(&directory).expect("made");
    let kept = json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": name },
        "spec": {
            "storageClassName": name, "capacity": { "storage": "2Gi" }, "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain", "local": { "path": directory },
            "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [{
                "key": "kubernetes.io/hostname", "operator": "Exists",
            }] }] } },
        },
    });
    let by = PatchParams::apply("muster-test");
    volumes.patch(&name, &by, &Patch::Apply(&kept)).await.expect("made");
    let held = place.asking(with_a_claim(&name)).sandbox().await;
    let observed = let_go(held).await;
    let said = observed.iter().find(|seen| seen.starts_with(&format!("volume {name} stays")));
    assert!(said.is_some_and(|said| said.contains("Retain")), "{observed:?}");
    assert!(volumes.get_opt(&name).await.expect("looked").is_some());
    volumes.delete(&name, &DeleteParams::default()).await.expect("deleted");
    std::fs::remove_dir_all(&directory).expect("removed");
}
