//! A backup that lies on a volume of the cluster: claimed for the run, and compared with its manifest by a pod of muster's own before
//! the database's pod is there, and by the database's pod once more when all of it was read.
use std::sync::Arc;
use std::time::Duration;

use drill::id::RunId;
use drill::manifest::Manifest;
use drill::port::Progress;
use drill::spec::{Kubernetes, Volume};
use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::ResourceExt;
use kube::api::DeleteParams;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::channel::{self, Channel, Input, Place};
use super::cluster::{self, Cluster};
use super::inside::{self, frame};
use super::objects::{BACKUP, Names, Objects, VERIFIER, WHOLE};
use super::sandbox::{ground, record, to_the_end};
use super::volumes::{RETAIN, how_to_retain};
use super::{Shared, pods, release};
use crate::isolation::local::exec::clean;

/// For the verifier to run, its image pulled and all.
const START: Duration = Duration::from_secs(100);
const GONE: Duration = Duration::from_mins(1);
/// Of a claim that names a volume which is free: it waits for nobody.
const BOUND: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(200);

/// The storage class that its claim must name. An error where a run cannot borrow it.
pub(super) async fn class_of(cluster: &Cluster, volume: &Volume) -> Result<String, Stop> {
    let found: Option<PersistentVolume> = cluster::get(&cluster.volumes(), &volume.name).await?;
    lendable(&volume.name, found.as_ref())?;
    Ok(found.and_then(|found| found.spec?.storage_class_name).unwrap_or_default())
}

fn lendable(name: &str, found: Option<&PersistentVolume>) -> Result<(), Stop> {
    let refused = |what: &str, advice: String| {
        Err(Stop::new(Reason::SandboxUnfit, format!("volume `{name}` cannot lend a run its backup: {what}"))
            .advise(advice))
    };
    let Some((volume, spec)) = found.and_then(|volume| Some((volume, volume.spec.as_ref()?))) else {
        return refused("there is none of this name", "`kubectl get pv` lists them".to_owned());
    };
    let policy = spec.persistent_volume_reclaim_policy.as_deref().unwrap_or(RETAIN);
    if policy != RETAIN {
        let what = format!("its reclaim policy is {policy}, so the backup would go with the run's claim");
        return refused(&what, how_to_retain(name));
    }
    if !spec.access_modes.iter().flatten().any(|mode| mode == "ReadOnlyMany") {
        return refused(
            "it is not offered as ReadOnlyMany",
            "make another PersistentVolume of the same storage that is".to_owned(),
        );
    }
    if spec.volume_mode.as_deref().is_some_and(|mode| mode != "Filesystem") {
        return refused("it has no file system", "name one with volumeMode: Filesystem".to_owned());
    }
    if let Some(claim) = &spec.claim_ref {
        let text = |word: Option<&str>| clean(word.unwrap_or_default());
        let (name, namespace) = (text(claim.name.as_deref()), text(claim.namespace.as_deref()));
        let what = format!("claim `{name}` of namespace `{namespace}` has it");
        let advice = "wait until that one is gone, or make a PersistentVolume of the same storage for drills alone; one that a namespace \
                      of muster's has and that is gone itself is freed by `muster reap`";
        return refused(&what, advice.to_owned());
    }
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
    if phase != "Available" || volume.metadata.deletion_timestamp.is_some() {
        let what = format!("it is not free: its phase is {}", clean(phase));
        return refused(&what, "see what its controller says: kubectl describe pv".to_owned());
    }
    Ok(())
}

pub(super) async fn verify(
    shared: &Arc<Shared>,
    asked: &Kubernetes,
    volume: &Volume,
    run: &RunId,
    manifest: &Manifest,
    progress: &dyn Progress,
) -> Result<(), Stop> {
    let cluster = Cluster::connect(asked.context.as_deref()).await?;
    let names = Names::of(run, shared.records.owner(), &record(run));
    let objects = Objects::render(&names, asked);
    let (all, lent) = (cluster.clone(), volume.clone());
    to_the_end(shared, async move { make(&all, &lent, &objects).await }).await?;
    let pods = cluster.pods(&names.sandbox);
    pods::running(&pods, VERIFIER, START).await?;
    let leaving = TaskTracker::new();
    let place = Place { pods: pods.clone(), pod: VERIFIER, container: VERIFIER };
    let directory = match &volume.path {
        Some(path) => format!("{WHOLE}/{path}"),
        None => WHOLE.to_owned(),
    };
    let total = manifest.total_size();
    let tell = |done: u64| progress.set(done.min(total), Some(total), "bytes");
    judge(volume, compare(&place, &directory, manifest, &leaving, &tell).await?)?;
    cluster::delete(&pods, VERIFIER, &DeleteParams::default()).await?;
    release::gone(&pods, VERIFIER, GONE).await
}

/// What its reading took from the volume is what is there now.
pub(super) async fn verify_again(
    place: &Place,
    volume: &Volume,
    manifest: &Manifest,
    leaving: &TaskTracker,
) -> Result<(), Stop> {
    let answer = compare(place, "/backup", manifest, leaving, &|_| ()).await?;
    judge(volume, answer).map_err(changed)
}

/// It was the backup when it was looked at first: what is wrong now is no fault of whoever made it.
fn changed(stop: Stop) -> Stop {
    match stop.reason {
        Reason::ArtifactRefused => Stop::new(
            Reason::ArtifactChanged,
            format!("somebody wrote to the backup while it was restored: {}", stop.message),
        )
        .advise("find out who writes to the volume; a backup that is kept is one that nobody writes to"),
        _ => stop,
    }
}

async fn make(cluster: &Cluster, volume: &Volume, objects: &Objects) -> Result<(), Stop> {
    let Some((mut claim, verifier)) = objects.backup.clone() else {
        return Err(Stop::internal("the drill names no volume that has its backup"));
    };
    // Looked at again: preflight was a while ago.
    claim["spec"]["storageClassName"] = class_of(cluster, volume).await?.into();
    let (namespace, _) = ground(cluster, objects).await?;
    cluster.apply_claim(&claim).await?;
    bound(cluster, volume, &namespace.name_any()).await?;
    cluster.apply_pod(&verifier).await.map(drop)
}

/// Until the claim has the volume: only then is it known that no other claim was faster.
async fn bound(cluster: &Cluster, volume: &Volume, namespace: &str) -> Result<(), Stop> {
    let claims = cluster.claims(namespace);
    let deadline = Instant::now() + BOUND;
    loop {
        let claim: Option<PersistentVolumeClaim> = cluster::get(&claims, BACKUP).await?;
        let phase = claim.and_then(|claim| claim.status?.phase).unwrap_or_default();
        if phase == "Bound" {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let message = format!(
                "volume `{}` is not the run's after {} s: its claim's phase is {phase}",
                volume.name,
                BOUND.as_secs()
            );
            let advice = "another run or claim may have been faster: kubectl describe pv";
            return Err(Stop::new(Reason::SandboxUnfit, message).advise(advice));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What whoever looks says is wrong with what lies in `directory`.
async fn compare(
    place: &Place,
    directory: &str,
    manifest: &Manifest,
    leaving: &TaskTracker,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Option<Stop>, Stop> {
    let bytes = serde_json::to_vec(manifest).or_stop(Reason::Internal, "writing the manifest")?;
    let mut channel = place.open(&[drill::port::PROGRAM, inside::VERIFY, directory], leaving).await?;
    let mut input = channel.take_input().ok_or_else(|| Stop::internal("a command in a pod has no input"))?;
    let (sent, heard) = tokio::join!(send(&mut input, &bytes), hear(&mut channel, progress));
    // What it says of its end is the cause; that our stream broke follows from it.
    let heard = heard?;
    sent.map(|()| heard)
}

async fn send(input: &mut Input, bytes: &[u8]) -> Result<(), Stop> {
    for piece in bytes.chunks(frame::MAX) {
        channel::write(input, frame::DATA, piece).await?;
    }
    channel::write(input, frame::END, b"").await
}

async fn hear(channel: &mut Channel, progress: &(dyn Fn(u64) + Sync)) -> Result<Option<Stop>, Stop> {
    let tried = "reading what is said of the backup on the volume";
    loop {
        let (kind, payload) = channel.next().await?;
        match kind {
            frame::STDOUT => progress(serde_json::from_slice(&payload).or_stop(Reason::Internal, tried)?),
            frame::RESULT => return serde_json::from_slice(&payload).or_stop(Reason::Internal, tried),
            _ => return Err(Stop::internal(format!("{tried}: it is nonsense"))),
        }
    }
}

/// Of what a look can give as a reason; the rest would be said of the run by somebody who knows nothing of it.
fn judge(volume: &Volume, answer: Option<Stop>) -> Result<(), Stop> {
    let Some(wrong) = answer else { return Ok(()) };
    let reason = match wrong.reason {
        reason @ (Reason::ArtifactRefused | Reason::SourceUnreachable | Reason::SandboxUnfit) => reason,
        _ => Reason::Internal,
    };
    let advice = wrong.advice.as_deref().map(clean);
    Err(Stop { advice, ..Stop::new(reason, format!("{volume}: {}", clean(&wrong.message))) })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn volume(spec: &Value) -> PersistentVolume {
        let mut volume = json!({
            "metadata": { "name": "backups" }, "status": { "phase": "Available" },
            "spec": { "accessModes": ["ReadOnlyMany"], "persistentVolumeReclaimPolicy": "Retain" },
        });
        for (key, value) in spec.as_object().expect("keys") {
            volume["spec"][key] = value.clone();
        }
        serde_json::from_value(volume).expect("a volume")
    }

    #[test]
    fn only_a_volume_that_outlives_its_claim_and_is_free_lends_its_backup() {
        assert_eq!(lendable("backups", Some(&volume(&json!({})))), Ok(()));
        let claim = json!({ "namespace": "production", "name": "theirs" });
        let refusals = [
            (json!({ "persistentVolumeReclaimPolicy": "Delete" }), "its reclaim policy is Delete"),
            (json!({ "persistentVolumeReclaimPolicy": "Recycle" }), "its reclaim policy is Recycle"),
            (json!({ "accessModes": ["ReadWriteMany"] }), "it is not offered as ReadOnlyMany"),
            (json!({ "volumeMode": "Block" }), "it has no file system"),
            (json!({ "claimRef": claim }), "claim `theirs` of namespace `production` has it"),
        ];
        for (spec, said) in refusals {
            let stop = lendable("backups", Some(&volume(&spec))).expect_err(said);
            assert_eq!(stop.reason, Reason::SandboxUnfit);
            assert!(stop.message.contains(said) && stop.advice.is_some(), "{stop:?}");
        }
        let mut failed = volume(&json!({}));
        failed.status.as_mut().expect("a status").phase = Some("Failed".to_owned());
        assert!(
            lendable("backups", Some(&failed)).expect_err("it is not free").message.contains("its phase is Failed")
        );
        assert!(lendable("backups", None).expect_err("none").message.contains("none of this name"));
    }

    #[test]
    fn whoever_looks_says_nothing_but_what_is_wrong_with_the_backup() {
        let volume = Volume { name: "backups".to_owned(), path: Some("orders".to_owned()) };
        let of = |reason| judge(&volume, Some(Stop::new(reason, "`a`\u{1b}: it differs"))).expect_err("it is wrong");
        let refused = of(Reason::ArtifactRefused);
        assert_eq!(refused, Stop::new(Reason::ArtifactRefused, "orders on volume backups: `a` : it differs"));
        assert_eq!(changed(refused).reason, Reason::ArtifactChanged);
        assert_eq!(changed(of(Reason::SourceUnreachable)).reason, Reason::SourceUnreachable);
        assert_eq!(of(Reason::Proven).reason, Reason::Internal);
        assert_eq!(judge(&volume, None), Ok(()));
    }
}
