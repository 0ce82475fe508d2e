//! A namespace of a Kubernetes cluster for each run, which can reach nothing, and is seen gone at the end.
//!
//! [`KubernetesIsolation`] makes and removes. `objects` is what a sandbox is made of (pure), `cluster` how the API server is asked,
//! `pods` what becomes of a pod, `channel`, `exec` and `deliver` how the runner talks to what runs inside ([`inside`]), `probe`
//! how isolation is proven, `watch` what ends a sandbox early, `doorway` who may come in for a moment, `release` how it goes, `volumes`
//! how a claimed volume does, `finalizers` what may be removed of what holds them, `artifact` how a backup is looked at that lies on a
//! volume, `access` what muster's account must be allowed, `clock` that both sides mean the same time, and `record` what this machine
//! keeps. Everything that comes out of a sandbox is hostile.
mod access;
mod artifact;
mod channel;
mod clock;
mod cluster;
mod deliver;
mod doorway;
mod exec;
mod finalizers;
pub mod inside;
mod objects;
mod pods;
mod probe;
mod record;
mod release;
mod sandbox;
mod volumes;
mod watch;

pub(crate) use cluster::ANSWERS;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use drill::config::ClusterLease;
use drill::id::RunId;
use drill::ledger::Resource;
use drill::manifest::Manifest;
use drill::port::{Isolation, Leftover, Progress, Sandbox, SandboxSpec, Storage, Survey};
use drill::proof::{LimitInForce, ReleaseProof};
use drill::spec::{Kubernetes, Limits};
use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;
use tokio::sync::RwLock;

use cluster::Cluster;
use record::{Records, Where};

/// Sandboxes of one state directory, in the cluster that a drill names.
#[derive(Clone)]
pub struct KubernetesIsolation {
    shared: Arc<Shared>,
    /// None: only what is left of earlier runs can be asked for.
    asked: Option<Kubernetes>,
}

struct Shared {
    records: Records,
    /// Read while objects are made. Whoever releases waits for it: what is made later than the look is not seen.
    making: Arc<RwLock<()>>,
}

/// The sandboxes of a state directory, before a drill says where.
#[derive(Clone)]
pub struct KubernetesState(Arc<Shared>);

impl KubernetesState {
    pub fn open(state_root: &Path) -> Result<Self, Stop> {
        Ok(Self(Arc::new(Shared { records: Records::open(state_root)?, making: Arc::default() })))
    }

    /// For one drill.
    pub fn isolation(&self, asked: &Kubernetes) -> KubernetesIsolation {
        KubernetesIsolation { shared: Arc::clone(&self.0), asked: Some(asked.clone()) }
    }

    /// For what earlier runs left: releases, and makes nothing.
    pub fn of_the_past(&self) -> KubernetesIsolation {
        KubernetesIsolation { shared: Arc::clone(&self.0), asked: None }
    }
}

impl KubernetesIsolation {
    fn asked(&self) -> Result<&Kubernetes, Stop> {
        self.asked.as_ref().ok_or_else(|| Stop::internal("no drill says which cluster is meant"))
    }
}

/// A client of the cluster that a context names, whose account may hold this Lease.
pub(crate) async fn client_for_lease(lease: &ClusterLease) -> Result<kube::Client, Stop> {
    let client = Cluster::connect(lease.context.as_deref()).await?.client;
    access::check_lease(&client, &lease.namespace, &lease.name).await?;
    Ok(client)
}

#[async_trait]
impl Isolation for KubernetesIsolation {
    fn name(&self) -> &'static str {
        "kubernetes"
    }

    fn template(&self, _: &Limits) -> Result<String, Stop> {
        self.asked().map(objects::template)
    }

    async fn survey(&self, _: &Limits) -> Result<Survey, Stop> {
        let asked = self.asked()?;
        let cluster = Cluster::connect(asked.context.as_deref()).await?;
        access::check(&cluster, asked).await?;
        clock::check(&cluster).await?;
        if let Some(volume) = &asked.artifact {
            artifact::class_of(&cluster, volume).await?;
        }
        let limit = |what: &str, value, enforced_by: &str| LimitInForce {
            what: what.to_owned(),
            value,
            enforced_by: enforced_by.to_owned(),
            total: true,
        };
        let mut limits = vec![
            limit("memory", asked.memory, "kubelet (cgroup of the container)"),
            match &asked.claim {
                None => limit("disk", asked.disk, "kubelet (evicts the pod)"),
                Some(claim) => limit("disk", claim.size, "the claimed volume, where its driver keeps to the size"),
            },
        ];
        limits.extend(asked.cpu_millis.map(|cpu| limit("cpu", cpu.into(), "kubelet (thousandths of a core)")));
        let free_disk = asked.claim.as_ref().map_or(asked.disk, |claim| claim.size);
        Ok(Survey { limits, free_disk, free_memory: asked.memory, warnings: Vec::new() })
    }

    async fn prepare(&self, run: &RunId) -> Result<Storage, Stop> {
        let asked = self.asked()?;
        let place = Where {
            context: asked.context.clone(),
            remove_finalizers_after: asked.remove_finalizers_after,
            volume: asked.artifact.as_ref().map(|volume| volume.name.clone()),
        };
        let directory = self.shared.records.make(run, &place)?;
        let staging = self.shared.records.staging(run);
        Ok(Storage { handle: serde_json::json!({ "path": directory, "context": place.context }), staging })
    }

    async fn verify(&self, run: &RunId, manifest: &Manifest, progress: &dyn Progress) -> Result<(), Stop> {
        let asked = self.asked()?;
        let Some(volume) = &asked.artifact else {
            return Err(Stop::internal("the drill names no volume that has its backup"));
        };
        Box::pin(artifact::verify(&self.shared, asked, volume, run, manifest, progress)).await
    }

    async fn provision(&self, spec: SandboxSpec) -> Result<Arc<dyn Sandbox>, Stop> {
        let asked = self.asked()?.clone();
        if self.shared.records.read(&spec.run)?.is_none() {
            return Err(Stop::internal(format!("{} has no directory: it was not prepared", spec.run)));
        }
        Ok(Arc::new(Box::pin(sandbox::KubernetesSandbox::provision(&self.shared, asked, spec)).await?))
    }

    async fn release(
        &self,
        run: &RunId,
        resource: Resource,
        _handle: Option<&serde_json::Value>,
    ) -> Result<ReleaseProof, Stop> {
        let made = tokio::time::timeout(sandbox::MAKE * 2, self.shared.making.write()).await;
        drop(made.or_stop(Reason::Internal, "waiting for a sandbox that is being made")?);
        match resource {
            Resource::Sandbox => release::sandbox(&self.shared.records, run).await,
            Resource::Agent => release::agent(&self.shared.records, run).await,
            Resource::Storage => {
                let (shared, run) = (Arc::clone(&self.shared), run.clone());
                let removed = tokio::task::spawn_blocking(move || shared.records.remove(&run)).await;
                let found = removed.or_stop(Reason::Internal, "removing the run's directory")??;
                Ok(ReleaseProof::of(if found { "directory removed" } else { "no directory was found" }))
            }
            Resource::Lease => Err(Stop::internal("a lease is not the sandbox's to release")),
        }
    }

    async fn leftovers(&self) -> Result<Vec<Leftover>, Stop> {
        release::leftovers(&self.shared.records).await
    }
}
