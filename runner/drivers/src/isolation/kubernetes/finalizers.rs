//! What holds a run's objects although they were deleted, taken away where the drill says after how long: other people's
//! finalizers of what muster knows in the run's own namespaces, and last the namespace controller's own. Each removal is told.
use std::time::Duration;

use drill::stop::Stop;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::cluster::{self, Cluster};
use super::objects::MANAGER;

/// How long something may take to go once nobody holds it any more: the namespace's controller looks again after eight seconds.
pub(super) const FREED: Duration = Duration::from_secs(30);
/// What one try waits for altogether; a drill that wants longer is served by a later one.
const LONGEST: Duration = Duration::from_mins(2);

/// Of one release.
pub(super) struct Finalizers {
    /// None: they stay, whatever they hold.
    after: Option<Duration>,
    removed: Vec<String>,
}

impl Finalizers {
    pub(super) fn removed_after(after: Option<Duration>) -> Self {
        Self { after, removed: Vec::new() }
    }

    /// Of a wait that is usually so long: what is freed in it has time to go.
    pub(super) fn patience(&self, usual: Duration) -> Duration {
        self.after.map_or(usual, |after| usual.max(after.min(LONGEST) + FREED * 2))
    }

    /// What was removed is told, however the release ends.
    pub(super) fn told(self, result: Result<Vec<String>, Stop>) -> Result<Vec<String>, Stop> {
        match result {
            Ok(observed) => Ok([self.removed, observed].concat()),
            Err(stop) if self.removed.is_empty() => Err(stop),
            Err(stop) => Err(Stop { message: format!("{} ({})", stop.message, self.removed.join("; ")), ..stop }),
        }
    }

    /// Lets go of those that were deleted long enough ago; false where there was nothing to remove. Kubernetes' own finalizers
    /// end by themselves, and stay.
    pub(super) async fn free<K>(&mut self, api: &Api<K>, objects: &[K]) -> Result<bool, Stop>
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
    {
        let before = self.removed.len();
        for object in objects {
            if !self.is_due(object.meta(), Duration::ZERO) {
                continue;
            }
            let (theirs, kept): (Vec<&String>, Vec<&String>) =
                object.finalizers().iter().partition(|finalizer| !is_of_kubernetes(finalizer));
            if theirs.is_empty() {
                continue;
            }
            let name = object.name_any();
            // Of this very object: somebody else may have changed the list meanwhile, and then the next look sees it.
            let patch = json!({ "metadata": {
                "finalizers": kept, "resourceVersion": object.resource_version(), "uid": object.uid(),
            } });
            let by = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
            let patch = Patch::Merge(&patch);
            let freed = || unless_it_changed(api.patch(&name, &by, &patch));
            if cluster::request(format!("removing the finalizers of `{name}`"), freed).await? {
                let theirs: Vec<&str> = theirs.into_iter().map(String::as_str).collect();
                let of = object.namespace().map_or_else(String::new, |namespace| format!(" of {namespace}"));
                let kind = K::kind(&()).to_lowercase();
                self.removed.push(format!("finalizer {} removed from {kind} {name}{of}", theirs.join(", ")));
            }
        }
        Ok(self.removed.len() > before)
    }

    /// The namespace, and what it still has. Its controller has a moment to see that nothing holds it any more; then its own
    /// finalizer goes, too, and what is left in the namespace stays in etcd.
    pub(super) async fn free_namespace(&mut self, cluster: &Cluster, namespace: &Namespace) -> Result<(), Stop> {
        if !self.is_due(&namespace.metadata, Duration::ZERO) {
            return Ok(());
        }
        let (namespaces, name) = (cluster.namespaces(), namespace.name_any());
        self.free(&namespaces, std::slice::from_ref(namespace)).await?;
        let policies = cluster.policies(&name);
        self.free(&policies, &cluster::list(&policies, "").await?).await?;
        let of_controller = namespace.spec.iter().flat_map(|spec| spec.finalizers.iter().flatten()).next().is_some();
        if !of_controller || !self.is_due(&namespace.metadata, FREED) {
            return Ok(());
        }
        let mut freed = namespace.clone();
        freed.spec.get_or_insert_default().finalizers = Some(Vec::new());
        let by = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let finalized = || unless_it_changed(namespaces.replace_subresource("finalize", &name, &by, &freed));
        if cluster::request(format!("finalizing namespace `{name}`"), finalized).await? {
            let left = remaining(namespace);
            let left = if left.is_empty() { "nothing is known to be left in it".to_owned() } else { left.join("; ") };
            self.removed.push(format!("finalizer kubernetes removed from namespace {name}: {left}"));
        }
        Ok(())
    }

    /// By the API server's time of the deletion, so that a later try goes on where the first one stopped.
    fn is_due(&self, meta: &ObjectMeta, beyond: Duration) -> bool {
        let (Some(after), Some(deleted)) = (self.after, &meta.deletion_timestamp) else { return false };
        Duration::try_from(jiff::Timestamp::now().duration_since(deleted.0)).is_ok_and(|since| since >= after + beyond)
    }
}

/// False where it is gone already, or is not what it was: then it is looked at anew.
async fn unless_it_changed<K>(work: impl Future<Output = Result<K, kube::Error>>) -> Result<bool, kube::Error> {
    match work.await {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(false),
        other => other.map(|_| true),
    }
}

/// `kubernetes.io/…`, `….kubernetes.io/…`, and those without a domain, such as `foregroundDeletion`.
fn is_of_kubernetes(finalizer: &str) -> bool {
    finalizer.split_once('/').is_none_or(|(domain, _)| domain == "kubernetes.io" || domain.ends_with(".kubernetes.io"))
}

/// What the namespace's controller says of what it could not delete.
pub(super) fn remaining(namespace: &Namespace) -> Vec<String> {
    let conditions = namespace.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let remaining = conditions
        .filter(|one| one.status == "True" && one.type_ != "NamespaceDeletionDiscoveryFailure")
        .filter_map(|one| one.message.as_deref());
    remaining.filter(|text| text.contains("remain")).map(crate::isolation::local::exec::clean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubernetes_own_finalizers_are_known() {
        for own in ["kubernetes.io/pvc-protection", "external-attacher.csi.kubernetes.io/x", "foregroundDeletion"] {
            assert!(is_of_kubernetes(own), "{own}");
        }
        for theirs in ["example.com/hold", "notkubernetes.io/hold", "kubernetes.io.example.com/hold"] {
            assert!(!is_of_kubernetes(theirs), "{theirs}");
        }
    }

    #[test]
    fn nothing_is_due_unless_the_drill_says_so_and_it_was_deleted_long_enough_ago() {
        let deleted = |ago: i64| {
            let at = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(ago);
            let text = at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            serde_json::from_value::<ObjectMeta>(json!({ "deletionTimestamp": text })).expect("metadata")
        };
        let minute = Finalizers::removed_after(Some(Duration::from_mins(1)));
        assert!(minute.is_due(&deleted(70), Duration::ZERO));
        assert!(!minute.is_due(&deleted(70), FREED) && !minute.is_due(&deleted(30), Duration::ZERO));
        assert!(!minute.is_due(&ObjectMeta::default(), Duration::ZERO), "nobody deleted it");
        assert!(!Finalizers::removed_after(None).is_due(&deleted(9_999), Duration::ZERO));
    }
}
