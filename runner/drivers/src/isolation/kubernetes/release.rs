//! Removes what a run holds in a cluster, from its name alone, and looks until it is gone. Pods go before their namespace: a
//! namespace that ends may take its policies away before its pods (CVE-2024-7598).
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use drill::id::RunId;
use drill::ledger::Resource;
use drill::port::Leftover;
use drill::proof::ReleaseProof;
use drill::stop::Stop;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{DeleteParams, ListParams, Preconditions};
use kube::{Api, ResourceExt};
use tokio::time::Instant;

use super::cluster::{self, Cluster};
use super::finalizers::{FREED, Finalizers, remaining};
use super::objects::{AGENT, Names, OWNER, RUN};
use super::record::{Records, Where};
use super::volumes;

const PODS: Duration = Duration::from_mins(1);
const NAMESPACE: Duration = Duration::from_mins(2);
const LOOK: Duration = Duration::from_millis(200);

pub(super) async fn sandbox(records: &Records, run: &RunId) -> Result<ReleaseProof, Stop> {
    let Some(place) = records.read(run)? else { return Ok(ReleaseProof::of("no sandbox was found")) };
    let cluster = Cluster::connect(place.context.as_deref()).await?;
    let names = Names::of(run, records.owner(), "");
    let [mut of_sandbox, mut of_witness] = [(); 2].map(|()| Finalizers::removed_after(place.remove_finalizers_after));
    let (sandbox, witness) = tokio::join!(
        namespace(&cluster, records, &names.sandbox, &mut of_sandbox),
        namespace(&cluster, records, &names.witness, &mut of_witness),
    );
    let (sandbox, witness) = (of_sandbox.told(sandbox), of_witness.told(witness));
    let mut observed = sandbox?;
    observed.extend(witness?);
    if let Some(volume) = &place.volume {
        observed.extend(volumes::freed(&cluster, volume, &names.sandbox).await?);
    }
    if observed.is_empty() {
        observed.push("no sandbox was found".to_owned());
    }
    Ok(ReleaseProof { observed })
}

pub(super) async fn agent(records: &Records, run: &RunId) -> Result<ReleaseProof, Stop> {
    let nothing = || Ok(ReleaseProof::of("no agent was found"));
    let Some(place) = records.read(run)? else { return nothing() };
    let cluster = Cluster::connect(place.context.as_deref()).await?;
    let names = Names::of(run, records.owner(), "");
    let Some(found) = cluster::get(&cluster.namespaces(), &names.sandbox).await? else { return nothing() };
    must_be_ours(&found, records)?;
    let pods = cluster.pods(&names.sandbox);
    if cluster::get(&pods, AGENT).await?.is_none() {
        return nothing();
    }
    cluster::delete(&pods, AGENT, &DeleteParams::default()).await?;
    let mut finalizers = Finalizers::removed_after(place.remove_finalizers_after);
    let ended = agent_gone(&pods, &mut finalizers).await.map(|()| vec![format!("pod {AGENT} gone")]);
    Ok(ReleaseProof { observed: finalizers.told(ended)? })
}

async fn agent_gone(pods: &Api<Pod>, finalizers: &mut Finalizers) -> Result<(), Stop> {
    let Err(stop) = gone(pods, AGENT, PODS).await else { return Ok(()) };
    if !finalizers.free(pods, cluster::get(pods, AGENT).await?.as_slice()).await? {
        return Err(stop);
    }
    gone(pods, AGENT, FREED).await
}

/// Until it is seen gone.
pub(super) async fn gone<K>(api: &Api<K>, name: &str, patience: Duration) -> Result<(), Stop>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let deadline = Instant::now() + patience;
    while cluster::get(api, name).await?.is_some() {
        if Instant::now() >= deadline {
            return Err(Stop::internal(format!(
                "`{name}` was deleted and is still there after {} s",
                patience.as_secs()
            )));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// What was seen of it going; nothing where there was none.
async fn namespace(
    cluster: &Cluster,
    records: &Records,
    name: &str,
    finalizers: &mut Finalizers,
) -> Result<Vec<String>, Stop> {
    let namespaces = cluster.namespaces();
    let Some(found) = cluster::get(&namespaces, name).await? else { return Ok(Vec::new()) };
    must_be_ours(&found, records)?;
    let mut observed = Vec::new();
    let pods = pods_gone(&cluster.pods(name), finalizers).await?;
    if pods > 0 {
        observed.push(format!("{} of {name} gone", drill::unit::plural(pods, "pod")));
    }
    observed.extend(claims_gone(cluster, &found, finalizers).await?);
    let uid = found.uid();
    let mine = DeleteParams {
        preconditions: Some(Preconditions { uid: uid.clone(), resource_version: None }),
        ..DeleteParams::default()
    };
    cluster::delete(&namespaces, name, &mine).await?;
    let patience = finalizers.patience(NAMESPACE);
    let deadline = Instant::now() + patience;
    loop {
        match cluster::get(&namespaces, name).await? {
            Some(still) if still.uid() == uid => {
                finalizers.free_namespace(cluster, &still).await?;
                if Instant::now() >= deadline {
                    return Err(stuck(&still, patience));
                }
            }
            Some(_) | None => break,
        }
        tokio::time::sleep(LOOK).await;
    }
    observed.push(format!("namespace {name} gone"));
    Ok(observed)
}

/// A claim that is held is seen by the wait for it.
async fn claims_gone(
    cluster: &Cluster,
    namespace: &Namespace,
    finalizers: &mut Finalizers,
) -> Result<Vec<String>, Stop> {
    let stop = match volumes::gone(cluster, namespace).await {
        Err(stop) => stop,
        observed => return observed,
    };
    let claims = cluster.claims(&namespace.name_any());
    if !finalizers.free(&claims, &cluster::list(&claims, "").await?).await? {
        return Err(stop);
    }
    volumes::gone(cluster, namespace).await
}

/// How many there were. Deleted, and seen gone.
async fn pods_gone(pods: &Api<Pod>, finalizers: &mut Finalizers) -> Result<u64, Stop> {
    let patience = finalizers.patience(PODS);
    let deadline = Instant::now() + patience;
    let (everything, now) = (ListParams::default(), DeleteParams::default());
    let there = cluster::list(pods, "").await?.len() as u64;
    if there > 0 {
        cluster::request("deleting the sandbox's pods", || pods.delete_collection(&now, &everything)).await?;
    }
    loop {
        let left = cluster::list(pods, "").await?;
        let Some(one) = left.first() else { return Ok(there) };
        finalizers.free(pods, &left).await?;
        if Instant::now() >= deadline {
            let message =
                format!("pod `{}` was deleted and is still there after {} s", one.name_any(), patience.as_secs());
            return Err(Stop::internal(message).advise("see why its node does not end it: kubectl describe pod"));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Nothing of anybody else is ever deleted, whatever it is called.
fn must_be_ours(found: &Namespace, records: &Records) -> Result<(), Stop> {
    if found.labels().get(OWNER).map(String::as_str) == Some(records.owner()) {
        return Ok(());
    }
    Err(Stop::internal(format!("namespace `{}` does not carry this muster's label {OWNER}", found.name_any()))
        .advise("see who changed it, and delete it by hand if nobody needs it"))
}

/// Names what holds it.
fn stuck(namespace: &Namespace, patience: Duration) -> Stop {
    let of_spec = namespace.spec.iter().flat_map(|spec| spec.finalizers.iter().flatten());
    let finalizers: Vec<&str> = namespace.finalizers().iter().chain(of_spec).map(String::as_str).collect();
    let remaining = remaining(namespace);
    let message = format!(
        "namespace `{}` is still there {} s after it was deleted, held by {}{}",
        namespace.name_any(),
        patience.as_secs(),
        if finalizers.is_empty() { "no finalizer".to_owned() } else { format!("finalizer {}", finalizers.join(", ")) },
        if remaining.is_empty() { String::new() } else { format!(": {}", remaining.join("; ")) },
    );
    Stop::internal(message).advise("see who owns what remains in it, and why that does not end; muster tries again")
}

/// Directories of this machine, and namespaces with this state directory's label in each cluster that one of them names.
pub(super) async fn leftovers(records: &Records) -> Result<Vec<Leftover>, Stop> {
    let mut found: BTreeMap<(RunId, Resource), String> = BTreeMap::new();
    let mut places: BTreeMap<Where, BTreeSet<RunId>> = BTreeMap::new();
    for run in records.runs()? {
        if let Some(place) = records.read(&run)? {
            places.entry(place).or_default().insert(run.clone());
        }
        let what = format!("directory {}", records.run(&run).display());
        found.insert((run, Resource::Storage), what);
    }
    for (place, runs) in places {
        match namespaces(&place, records).await {
            Ok(namespaces) => found.extend(namespaces),
            // What cannot be looked at is not said to be gone.
            Err(stop) => found.extend(runs.into_iter().map(|run| {
                let what = format!("perhaps a namespace: {}", stop.message);
                ((run, Resource::Sandbox), what)
            })),
        }
    }
    Ok(found.into_iter().map(|((run, resource), what)| Leftover { run, resource, what }).collect())
}

async fn namespaces(place: &Where, records: &Records) -> Result<BTreeMap<(RunId, Resource), String>, Stop> {
    let cluster = Cluster::connect(place.context.as_deref()).await?;
    let ours = format!("{OWNER}={}", records.owner());
    let mut found = BTreeMap::new();
    for namespace in cluster::list(&cluster.namespaces(), &ours).await? {
        let run = namespace.labels().get(RUN).and_then(|run| run.parse::<RunId>().ok());
        if let Some(run) = run {
            found.insert((run, Resource::Sandbox), format!("namespace {}", namespace.name_any()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use drill::verdict::Reason;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_stuck_namespace_names_what_holds_it() {
        let namespace: Namespace = serde_json::from_value(json!({
            "metadata": { "name": "dr-sandbox-x", "finalizers": ["example.com/hold"] },
            "spec": { "finalizers": ["kubernetes"] },
            "status": { "phase": "Terminating", "conditions": [{
                "type": "NamespaceFinalizersRemaining", "status": "True", "lastTransitionTime": "2026-11-22T02:15:00Z",
                "message": "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances",
            }] },
        }))
        .expect("a namespace");
        let stop = stuck(&namespace, NAMESPACE);
        assert_eq!(stop.reason, Reason::Internal);
        assert!(stop.message.contains("example.com/hold, kubernetes"), "{}", stop.message);
        assert!(stop.message.contains("1 resource instances"), "{}", stop.message);
    }
}
