//! The volume that a run claimed for its databases: let go, and seen gone where its reclaim policy promises that. What is asked
//! for is written on the namespace before the claim goes, so that whoever tries again knows of it.
use std::collections::BTreeSet;
use std::time::Duration;

use drill::stop::Stop;
use k8s_openapi::api::core::v1::{Namespace, PersistentVolume, PersistentVolumeClaim};
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use tokio::time::Instant;

use super::cluster::{self, Cluster};
use super::objects::MANAGER;
use super::release;

/// Names of volumes, with spaces between them.
const VOLUMES: &str = "muster.dev/volumes";
const CLAIM: Duration = Duration::from_mins(1);
/// Whoever deletes it may have a cloud to ask.
const VOLUME: Duration = Duration::from_mins(1);
const LOOK: Duration = Duration::from_millis(500);

/// What was seen of the namespace's claims and their volumes; its pods are gone.
pub(super) async fn gone(cluster: &Cluster, namespace: &Namespace) -> Result<Vec<String>, Stop> {
    let name = namespace.name_any();
    let claims = cluster.claims(&name);
    let found: Vec<PersistentVolumeClaim> = cluster::list(&claims, "").await?;
    let known = namespace.annotations().get(VOLUMES).map(String::as_str).unwrap_or_default();
    let mut volumes: BTreeSet<String> = known.split_whitespace().map(str::to_owned).collect();
    let before = volumes.len();
    volumes.extend(found.iter().filter_map(|claim| claim.spec.as_ref()?.volume_name.clone()));
    if volumes.len() > before {
        let text = volumes.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
        let note = json!({ "metadata": { "annotations": { VOLUMES: text } } });
        let by = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let tried = format!("writing down the volumes of namespace `{name}`");
        let (namespaces, note) = (cluster.namespaces(), Patch::Merge(&note));
        cluster::request(tried, || namespaces.patch(&name, &by, &note)).await?;
    }
    let mut observed = Vec::new();
    for claim in &found {
        let claim = claim.name_any();
        cluster::delete(&claims, &claim, &DeleteParams::default()).await?;
        release::gone(&claims, &claim, CLAIM).await?;
        observed.push(format!("claim {claim} of {name} gone"));
    }
    for volume in volumes {
        observed.push(volume_gone(cluster, &volume, &name).await?);
    }
    Ok(observed)
}

/// Where Kubernetes, or whoever provisioned it, keeps the volume, that is said and is no leftover: its owner wants it so.
async fn volume_gone(cluster: &Cluster, name: &str, namespace: &str) -> Result<String, Stop> {
    let volumes = cluster.volumes();
    let deadline = Instant::now() + VOLUME;
    loop {
        let found: Option<PersistentVolume> = cluster::get(&volumes, name).await?;
        match fate(found.as_ref(), namespace) {
            Fate::Gone => return Ok(format!("volume {name} gone")),
            Fate::Kept(why) => return Ok(format!("volume {name} stays with what is on it: {why}")),
            Fate::Going(phase) if Instant::now() >= deadline => {
                let message = format!(
                    "volume `{name}` must go with its claim and is still there after {} s: its phase is {phase}",
                    VOLUME.as_secs()
                );
                return Err(Stop::internal(message)
                    .advise("see why whoever provisions its class does not delete it: kubectl describe pv"));
            }
            Fate::Going(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Gone,
    Kept(String),
    Going(String),
}

/// A volume of the same name that nobody's claim of ours holds is another, made anew.
fn fate(found: Option<&PersistentVolume>, namespace: &str) -> Fate {
    let Some(volume) = found else { return Fate::Gone };
    let spec = volume.spec.as_ref();
    let holder = spec.and_then(|spec| spec.claim_ref.as_ref()?.namespace.as_deref());
    if holder != Some(namespace) {
        return Fate::Gone;
    }
    let phase = volume.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
    match spec.and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref()) {
        Some("Delete") => Fate::Going(phase),
        policy => Fate::Kept(format!(
            "its reclaim policy is {}, so whoever made it must clear it",
            policy.unwrap_or("Retain")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(policy: &str, holder: Option<&str>) -> PersistentVolume {
        let claim = holder.map(|namespace| json!({ "namespace": namespace, "name": "database" }));
        serde_json::from_value(json!({
            "metadata": { "name": "local-1" },
            "spec": { "persistentVolumeReclaimPolicy": policy, "claimRef": claim },
            "status": { "phase": "Released" },
        }))
        .expect("a volume")
    }

    #[test]
    fn a_volume_is_gone_when_it_is_or_when_nobody_of_ours_holds_it() {
        let ours = "dr-sandbox-x";
        assert_eq!(fate(None, ours), Fate::Gone);
        assert_eq!(fate(Some(&volume("Delete", None)), ours), Fate::Gone);
        assert_eq!(fate(Some(&volume("Delete", Some("elsewhere"))), ours), Fate::Gone);
        assert_eq!(fate(Some(&volume("Delete", Some(ours))), ours), Fate::Going("Released".to_owned()));
        assert!(matches!(fate(Some(&volume("Retain", Some(ours))), ours), Fate::Kept(why) if why.contains("Retain")));
    }
}
