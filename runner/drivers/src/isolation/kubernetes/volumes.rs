//! Volumes that a run claimed. One for its databases is let go, and seen gone where its reclaim policy promises that; it is written
//! on the namespace before the claim goes, so that whoever tries again knows of it. One that has the backup is freed, and nothing on
//! it is touched.
use std::collections::BTreeSet;
use std::time::Duration;

use drill::stop::Stop;
use k8s_openapi::api::core::v1::{Namespace, PersistentVolume, PersistentVolumeClaim};
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use tokio::time::Instant;

use super::cluster::{self, Cluster};
use super::objects::{BACKUP, MANAGER};
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
    let (borrowed, own): (Vec<_>, Vec<_>) = found.iter().partition(|claim| claim.name_any() == BACKUP);
    let named = |claim: &&PersistentVolumeClaim| claim.spec.as_ref()?.volume_name.clone();
    for volume in borrowed.iter().filter_map(named) {
        outlives_its_claim(cluster, &volume).await?;
    }
    volumes.extend(own.iter().filter_map(named));
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

/// Somebody may have changed its policy since it was looked at.
async fn outlives_its_claim(cluster: &Cluster, name: &str) -> Result<(), Stop> {
    let found: Option<PersistentVolume> = cluster::get(&cluster.volumes(), name).await?;
    let policy = found.and_then(|volume| volume.spec?.persistent_volume_reclaim_policy);
    if policy.as_deref().is_none_or(|policy| policy == RETAIN) {
        return Ok(());
    }
    let message = format!(
        "the reclaim policy of volume `{name}`, which has the backup, became {}: it is not let go, because the backup would go with it",
        policy.unwrap_or_default()
    );
    Err(Stop::internal(message).advise(format!("give it {RETAIN} again; muster tries again: {}", how_to_retain(name))))
}

pub(super) const RETAIN: &str = "Retain";

pub(super) fn how_to_retain(name: &str) -> String {
    format!(
        "kubectl patch persistentvolume {name} -p '{{\"spec\":{{\"persistentVolumeReclaimPolicy\":\"{RETAIN}\"}}}}'"
    )
}

/// The volume that had the backup, free of this namespace's claim, which is gone: the next one can claim it.
pub(super) async fn freed(cluster: &Cluster, name: &str, namespace: &str) -> Result<Option<String>, Stop> {
    let volumes = cluster.volumes();
    let deadline = Instant::now() + VOLUME;
    let mut was_ours = false;
    loop {
        let found: Option<PersistentVolume> = cluster::get(&volumes, name).await?;
        match bond(found.as_ref(), namespace) {
            Bond::None => return Ok(was_ours.then(|| format!("volume {name} free again, with what is on it"))),
            Bond::Settling(_) if Instant::now() >= deadline && !was_ours => return Ok(None),
            Bond::Settling(phase) if Instant::now() >= deadline => {
                let message = format!(
                    "volume `{name}` has no claim and is not free after {} s: its phase is {phase}",
                    VOLUME.as_secs()
                );
                return Err(Stop::internal(message).advise("see what its controller says: kubectl describe pv"));
            }
            Bond::Settling(_) => {}
            Bond::Ours { version } => {
                if Instant::now() >= deadline {
                    let message =
                        format!("volume `{name}` is held by the run's claim still, after {} s", VOLUME.as_secs());
                    return Err(Stop::internal(message));
                }
                was_ours = true;
                // Of this version alone: whoever changed it meanwhile may have lent it to another.
                let free = json!({ "metadata": { "resourceVersion": version }, "spec": { "claimRef": null } });
                let by = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
                let patch = Patch::Merge(&free);
                let freed = || async {
                    match volumes.patch(name, &by, &patch).await {
                        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
                        other => other.map(drop),
                    }
                };
                cluster::request(format!("freeing volume `{name}` of the run's claim"), freed).await?;
                continue;
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Bond {
    /// Free, another's, or gone: nothing of ours.
    None,
    Ours {
        version: Option<String>,
    },
    /// Nobody holds it, and nobody has said yet that it can be claimed.
    Settling(String),
}

fn bond(found: Option<&PersistentVolume>, namespace: &str) -> Bond {
    let Some(volume) = found else { return Bond::None };
    let claim = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
    match claim {
        Some(claim) if claim.namespace.as_deref() == Some(namespace) && claim.name.as_deref() == Some(BACKUP) => {
            Bond::Ours { version: volume.resource_version() }
        }
        None if phase != "Available" => Bond::Settling(phase.to_owned()),
        Some(_) | None => Bond::None,
    }
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
    fn a_volume_that_has_the_backup_is_freed_of_our_own_claim_alone() {
        let held = |namespace: &str, name: &str, phase: &str| {
            let mut volume = volume("Retain", Some(namespace));
            volume.metadata.resource_version = Some("7".to_owned());
            volume.spec.as_mut().and_then(|spec| spec.claim_ref.as_mut()).expect("a claim").name =
                Some(name.to_owned());
            volume.status.as_mut().expect("a status").phase = Some(phase.to_owned());
            volume
        };
        let ours = "dr-sandbox-x";
        for phase in ["Bound", "Released"] {
            let version = Some("7".to_owned());
            assert_eq!(bond(Some(&held(ours, BACKUP, phase)), ours), Bond::Ours { version });
        }
        assert_eq!(bond(Some(&held("dr-sandbox-y", BACKUP, "Bound")), ours), Bond::None);
        assert_eq!(bond(Some(&held(ours, "database", "Released")), ours), Bond::None, "it has restored data on it");
        assert_eq!(bond(None, ours), Bond::None);
        let mut free = held(ours, BACKUP, "Released");
        free.spec.as_mut().expect("a spec").claim_ref = None;
        assert_eq!(bond(Some(&free), ours), Bond::Settling("Released".to_owned()));
        free.status.as_mut().expect("a status").phase = Some("Available".to_owned());
        assert_eq!(bond(Some(&free), ours), Bond::None);
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
