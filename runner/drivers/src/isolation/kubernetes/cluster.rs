//! Talking to the API server: every request has a deadline, what passes is waited out, and every error says what was tried.
use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use drill::stop::Stop;
use drill::verdict::Reason;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{LimitRange, Namespace, PersistentVolume, PersistentVolumeClaim, Pod, ResourceQuota};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::client::UpgradeConnectionError;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::Instant;

use super::objects::MANAGER;

/// Of one request.
const REQUEST: Duration = Duration::from_secs(20);
const CONNECT: Duration = Duration::from_secs(5);
/// How long a server that is restarted, or in trouble, is asked again.
const PATIENCE: Duration = Duration::from_secs(20);
const LONGEST_WAIT: Duration = Duration::from_secs(2);
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
    let (parameters, patch) = (PatchParams::apply(MANAGER).force(), Patch::Apply(object));
    request(&tried, || api.patch(name, &parameters, &patch)).await
}

pub(super) async fn get<K>(api: &Api<K>, name: &str) -> Result<Option<K>, Stop>
where
    K: Clone + std::fmt::Debug + DeserializeOwned,
{
    request(&format!("reading `{name}`"), || api.get_opt(name)).await
}

pub(super) async fn list<K>(api: &Api<K>, labels: &str) -> Result<Vec<K>, Stop>
where
    K: Clone + std::fmt::Debug + DeserializeOwned,
{
    let parameters = ListParams::default().labels(labels);
    Ok(request("listing what is in the cluster", || api.list(&parameters)).await?.items)
}

/// Finding nothing is fine.
pub(super) async fn delete<K>(api: &Api<K>, name: &str, parameters: &DeleteParams) -> Result<(), Stop>
where
    K: Clone + std::fmt::Debug + DeserializeOwned,
{
    let deleted = || async {
        match api.delete(name, parameters).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            other => other.map(drop),
        }
    };
    request(&format!("deleting `{name}`"), deleted).await
}

/// Asks until it is answered for good: nothing that muster asks for does more the second time. kube itself waits out 429 and 503.
pub(super) async fn request<T, W>(tried: impl Display, ask: impl Fn() -> W) -> Result<T, Stop>
where
    W: Future<Output = Result<T, kube::Error>>,
{
    let mut waits = ExponentialBuilder::default()
        .with_jitter()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(LONGEST_WAIT)
        .without_max_times()
        .build();
    let begun = Instant::now();
    loop {
        let Ok(answer) = tokio::time::timeout(REQUEST, ask()).await else {
            // One that hangs has had its time.
            let message = format!("{tried}: the API server did not answer in {} s", REQUEST.as_secs());
            return Err(Stop::new(Reason::SandboxUnfit, message).advise(ANSWERS));
        };
        match answer {
            Err(error) if may_pass(&error) && begun.elapsed() < PATIENCE => {
                tokio::time::sleep(waits.next().unwrap_or(LONGEST_WAIT)).await;
            }
            answer => return answer.map_err(|error| refused(&tried.to_string(), &error)),
        }
    }
}

/// What to do about a server that does not answer.
pub(crate) const ANSWERS: &str = "see whether the cluster answers: kubectl get --raw /readyz";

/// A server that is in trouble, or not there for a moment; not one that says no.
fn may_pass(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => matches!(status.code, 429 | 500..),
        kube::Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(status)) => {
            status.as_u16() == 429 || status.is_server_error()
        }
        kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::ReadEvents(_) => {
            !is_about_its_certificate(error)
        }
        _ => false,
    }
}

/// rustls' words for one that is not valid, here and now.
fn is_about_its_certificate(error: &kube::Error) -> bool {
    drill::stop::chain(error).contains("invalid peer certificate")
}

fn refused(tried: &str, error: &kube::Error) -> Stop {
    let stop = Stop::new(Reason::SandboxUnfit, format!("{tried}: {}", drill::stop::chain(error)));
    match error {
        error if may_pass(error) => stop.advise(ANSWERS),
        error if is_about_its_certificate(error) => stop.advise(
            "see that this machine's clock is right, and that the kubeconfig names the API server's own authority",
        ),
        kube::Error::Api(status) if status.code == 403 && status.message.contains("exceeded quota") => {
            stop.advise("raise the quota, or lower isolation.kubernetes.limits")
        }
        kube::Error::Api(status) if status.code == 403 => {
            stop.advise("give muster's account the rules of deploy/kubernetes")
        }
        _ => stop,
    }
}
