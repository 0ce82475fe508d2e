//! A Lease of `coordination.k8s.io/v1`, written over the very version that was seen or not at all.
use std::time::Duration;

use async_trait::async_trait;
use drill::config::ClusterLease;
use drill::guard::Record;
use drill::port::Guard;
use drill::stop::Stop;
use drill::verdict::Reason;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, ResourceExt};

use crate::isolation::kubernetes::{ANSWERS, client_for_lease};

pub struct KubernetesGuard {
    leases: Api<Lease>,
    namespace: String,
    name: String,
    /// Of one request.
    patience: Duration,
}

impl KubernetesGuard {
    /// An error where muster's account lacks a right that it needs sooner or later.
    pub async fn new(config: &ClusterLease) -> Result<Self, Stop> {
        let client = client_for_lease(config).await?;
        let leases = Api::namespaced(client, &config.namespace);
        // One that hangs is noticed while there is time for another.
        let patience = config.duration / 3;
        Ok(Self { leases, namespace: config.namespace.clone(), name: config.name.clone(), patience })
    }

    async fn ask<T>(
        &self,
        verb: &str,
        work: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<Result<T, u16>, Stop> {
        let tried = format!("{verb} {}", self.name());
        let late = |_| {
            let message = format!("{tried}: the API server did not answer in {} ms", self.patience.as_millis());
            Stop::new(Reason::Internal, message).advise(ANSWERS)
        };
        match tokio::time::timeout(self.patience, work).await.map_err(late)? {
            Ok(answer) => Ok(Ok(answer)),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(Err(status.code)),
            Err(error) => Err(Stop::new(Reason::Internal, format!("{tried}: {}", drill::stop::chain(&error)))),
        }
    }
}

#[async_trait]
impl Guard for KubernetesGuard {
    fn name(&self) -> String {
        format!("Lease {}/{}", self.namespace, self.name)
    }

    async fn read(&self) -> Result<Option<Record>, Stop> {
        let found = self.ask("reading", self.leases.get_opt(&self.name)).await?;
        Ok(found.ok().flatten().as_ref().map(record))
    }

    async fn write(&self, seen: Option<&Record>, holder: Option<&str>, term: Duration) -> Result<Option<Record>, Stop> {
        let now = Timestamp::now();
        let same = seen.filter(|seen| seen.holder.as_deref() == holder);
        let since = same.map_or_else(|| holder.map(|_| now), |seen| seen.since);
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                resource_version: seen.map(|seen| seen.version.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: holder.map(str::to_owned),
                acquire_time: since.map(MicroTime),
                renew_time: holder.map(|_| MicroTime(now)),
                // A whole number of seconds; never less than what others must wait.
                lease_duration_seconds: i32::try_from(term.as_millis().div_ceil(1_000)).ok(),
                ..LeaseSpec::default()
            }),
        };
        let parameters = PostParams::default();
        let written = match seen {
            None => self.ask("making", self.leases.create(&parameters, &lease)).await?,
            Some(_) => self.ask("renewing", self.leases.replace(&self.name, &parameters, &lease)).await?,
        };
        match written {
            Ok(lease) => Ok(Some(record(&lease))),
            // Somebody wrote, or deleted it, in between.
            Err(409) => Ok(None),
            Err(_) if seen.is_some() => Ok(None),
            Err(_) => {
                let message = format!("making {}: there is no namespace `{}`", self.name(), self.namespace);
                Err(Stop::new(Reason::Internal, message)
                    .advise("make it, or name another in kubernetes.lease.namespace"))
            }
        }
    }
}

fn record(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or_default();
    Record {
        holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
        since: spec.acquire_time.map(|time| time.0),
        term: Duration::from_secs(seconds),
        version: lease.resource_version().unwrap_or_default(),
    }
}
