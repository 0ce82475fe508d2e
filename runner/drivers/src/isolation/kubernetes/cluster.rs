//! Talking to the API server: every request has a deadline, and every error says what was tried.
use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use drill::stop::Stop;
use drill::verdict::Reason;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{LimitRange, Namespace, PersistentVolume, PersistentVolumeClaim, Pod, ResourceQuota};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::Instant;

use super::objects::MANAGER;

/// Of one request.
const REQUEST: Duration = Duration::from_secs(20);
const CONNECT: Duration = Duration::from_secs(5);
/// How long a namespace may be without its default service account, which pods need.
const SERVICE_ACCOUNT: Duration = Duration::from_secs(20);

#[derive(Clone)]
pub(super) struct Cluster {
    pub(super) client: Client,
    /// Host and port of the API server, as this machine reaches it.
    pub(super) server: (String, u16),
}

impl Cluster {
    /// `$KUBECONFIG` or `~/.kube/config`, or what a pod finds of its own cluster.
    pub(super) async fn connect(context: Option<&str>) -> Result<Self, Stop> {
        let tried = "reading how to reach the cluster";
        let stop = |error: &dyn std::error::Error| {
            Stop::new(Reason::SandboxUnfit, format!("{tried}: {}", drill::stop::chain(error)))
                .advise("set KUBECONFIG to a kubeconfig that has the drill's context")
        };
        let mut config = match context {
            None => Config::infer().await.map_err(|error| stop(&error))?,
            Some(context) => {
                let options = KubeConfigOptions { context: Some(context.to_owned()), ..KubeConfigOptions::default() };
                let file = Kubeconfig::read().map_err(|error| stop(&error))?;
                Config::from_custom_kubeconfig(file, &options).await.map_err(|error| stop(&error))?
            }
        };
        config.connect_timeout = Some(CONNECT);
        let port = config.cluster_url.port_u16().unwrap_or(443);
        let server = (config.cluster_url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned(), port);
        Ok(Self { client: Client::try_from(config).map_err(|error| stop(&error))?, server })
    }

    pub(super) fn namespaces(&self) -> Api<Namespace> {
        Api::all(self.client.clone())
    }

    pub(super) fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    pub(super) fn policies(&self, namespace: &str) -> Api<NetworkPolicy> {
        Api::namespaced(self.client.clone(), namespace)
    }

    pub(super) fn claims(&self, namespace: &str) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.client.clone(), namespace)
    }

    pub(super) fn volumes(&self) -> Api<PersistentVolume> {
        Api::all(self.client.clone())
    }

    pub(super) async fn apply_namespace(&self, object: &Value) -> Result<Namespace, Stop> {
        apply(&self.namespaces(), object).await
    }

    pub(super) async fn apply_quota(&self, object: &Value) -> Result<(), Stop> {
        apply(&self.in_its_namespace::<ResourceQuota>(object), object).await.map(drop)
    }

    pub(super) async fn apply_limit_range(&self, object: &Value) -> Result<(), Stop> {
        apply(&self.in_its_namespace::<LimitRange>(object), object).await.map(drop)
    }

    pub(super) async fn apply_policy(&self, object: &Value) -> Result<NetworkPolicy, Stop> {
        apply(&self.in_its_namespace::<NetworkPolicy>(object), object).await
    }

    pub(super) async fn apply_claim(&self, object: &Value) -> Result<(), Stop> {
        apply(&self.in_its_namespace::<PersistentVolumeClaim>(object), object).await.map(drop)
    }

    /// A new namespace has no default service account for a moment, and refuses pods until then.
    pub(super) async fn apply_pod(&self, object: &Value) -> Result<Pod, Stop> {
        let deadline = Instant::now() + SERVICE_ACCOUNT;
        loop {
            match apply(&self.in_its_namespace::<Pod>(object), object).await {
                Err(stop) if stop.message.contains("serviceaccount") && Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                other => return other,
            }
        }
    }

    fn in_its_namespace<K>(&self, object: &Value) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), object["metadata"]["namespace"].as_str().unwrap_or_default())
    }
}

async fn apply<K>(api: &Api<K>, object: &Value) -> Result<K, Stop>
where
    K: Clone + std::fmt::Debug + DeserializeOwned,
{
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let tried = format!("applying {} `{name}`", object["kind"].as_str().unwrap_or_default());
    let parameters = PatchParams::apply(MANAGER).force();
    request(&tried, api.patch(name, &parameters, &Patch::Apply(object))).await
}

pub(super) async fn get<K>(api: &Api<K>, name: &str) -> Result<Option<K>, Stop>
where
    K: Clone + std::fmt::Debug + DeserializeOwned,
{
    request(&format!("reading `{name}`"), api.get_opt(name)).await
}

pub(super) async fn list<K>(api: &Api<K>, labels: &str) -> Result<Vec<K>, Stop>
where
    K: Clone + std::fmt::Debug + DeserializeOwned,
{
    let list = request("listing what is in the cluster", api.list(&ListParams::default().labels(labels))).await?;
    Ok(list.items)
}

/// Finding nothing is fine.
pub(super) async fn delete<K>(api: &Api<K>, name: &str, parameters: &DeleteParams) -> Result<(), Stop>
where
    K: Clone + std::fmt::Debug + DeserializeOwned,
{
    match deadline(api.delete(name, parameters)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Ok(()),
        Ok(Err(error)) => Err(refused(&format!("deleting `{name}`"), &error)),
        Err(late) => Err(late),
    }
}

pub(super) async fn request<T>(
    tried: impl Display,
    work: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Stop> {
    deadline(work)
        .await
        .map_err(|late| Stop { message: format!("{tried}: {}", late.message), ..late })?
        .map_err(|error| refused(&tried.to_string(), &error))
}

async fn deadline<T>(work: impl Future<Output = T>) -> Result<T, Stop> {
    let late = |_| {
        Stop::new(Reason::SandboxUnfit, format!("the API server did not answer in {} s", REQUEST.as_secs()))
            .advise("see whether the cluster answers: kubectl get --raw /readyz")
    };
    tokio::time::timeout(REQUEST, work).await.map_err(late)
}

fn refused(tried: &str, error: &kube::Error) -> Stop {
    let stop = Stop::new(Reason::SandboxUnfit, format!("{tried}: {}", drill::stop::chain(error)));
    match error {
        kube::Error::Api(status) if status.code == 403 && status.message.contains("exceeded quota") => {
            stop.advise("raise the quota, or lower isolation.kubernetes.limits")
        }
        kube::Error::Api(status) if status.code == 403 => {
            stop.advise("give muster's account the rules of deploy/kubernetes")
        }
        _ => stop,
    }
}
