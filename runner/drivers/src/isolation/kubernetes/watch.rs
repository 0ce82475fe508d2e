//! Watches a sandbox's boundary while it lives: its namespace, its policies, its pods. A change ends the run.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use drill::stop::Stop;
use drill::verdict::Reason;
use futures_util::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, ResourceExt};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::cluster::Cluster;
use super::doorway::OwnPolicy;
use super::objects::{AGENT, DATABASE, DOORWAY, Names};
use super::pods;
use crate::isolation::local::exec::clean;

/// How long the API server may be silent before a change could have been missed.
const BLIND: Duration = Duration::from_mins(1);

/// What must stay as it is.
#[derive(Clone)]
pub(super) struct Expected {
    pub(super) namespace: Kept,
    pub(super) policies: BTreeMap<String, Kept>,
    pub(super) pods: BTreeMap<String, Kept>,
    /// The pod and the policy that go once isolation was proven, by uid: a watch may tell of them late.
    pub(super) passing: BTreeSet<String>,
    pub(super) doorway: Arc<OwnPolicy>,
}

/// One object as it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    uid: String,
    labels: BTreeMap<String, String>,
    /// Counts changes of what is asked for.
    generation: i64,
}

impl Kept {
    pub(super) fn of(object: &impl ResourceExt) -> Self {
        Self {
            uid: object.uid().unwrap_or_default(),
            labels: object.labels().clone(),
            generation: object.meta().generation.unwrap_or_default(),
        }
    }

    /// What is different now, of which only muster had a say.
    fn change(&self, now: &Self, rules_count: bool) -> Option<String> {
        if self.uid != now.uid {
            return Some("was replaced by another of its name".to_owned());
        }
        let keys = self.labels.keys().chain(now.labels.keys());
        let changed =
            keys.map(|key| (key, self.labels.get(key), now.labels.get(key))).find(|(_, then, now)| then != now);
        if let Some((key, then, now)) = changed {
            return Some(match (then, now) {
                (Some(then), Some(now)) => {
                    format!("has another label: `{}={}` became `{}`", clean(key), clean(then), clean(now))
                }
                (Some(then), None) => format!("lost its label `{}={}`", clean(key), clean(then)),
                (None, now) => format!("got a label: `{}={}`", clean(key), clean(now.map_or("", String::as_str))),
            });
        }
        let rules = rules_count && self.generation != now.generation;
        rules.then(|| "was changed: it has other rules now".to_owned())
    }
}

pub(super) struct Watch {
    breach: watch::Receiver<Option<Stop>>,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

impl Watch {
    pub(super) fn start(cluster: &Cluster, names: &Names, expected: Expected) -> Self {
        let (sender, breach) = watch::channel(None);
        let sender = Arc::new(sender);
        let only = watcher::Config::default().fields(&format!("metadata.name={}", names.sandbox));
        let all = watcher::Config::default();
        let (of_namespace, of_policies, of_pods) = (expected.clone(), expected.clone(), expected);
        let tasks = vec![
            task(cluster.namespaces(), only, &sender, move |change| of_namespace.namespace(&change)),
            task(cluster.policies(&names.sandbox), all.clone(), &sender, move |change| of_policies.policies(&change)),
            task(cluster.pods(&names.sandbox), all, &sender, move |change| of_pods.pods(&change)),
        ];
        Self { breach, _tasks: tasks }
    }

    pub(super) async fn breach(&self) -> Stop {
        let mut breach = self.breach.clone();
        match breach.wait_for(Option::is_some).await {
            Ok(stop) => stop.clone().unwrap_or_else(|| Stop::internal("the sandbox ended")),
            Err(_) => Stop::internal("the sandbox is not watched any more"),
        }
    }
}

/// What a watch tells.
enum Change<K> {
    Seen(K),
    Gone(K),
    /// Everything there is, after the watch had to begin anew.
    All(Vec<K>),
}

impl Expected {
    fn namespace(&self, change: &Change<Namespace>) -> Option<Stop> {
        let seen = match change {
            Change::Seen(namespace) => Some(namespace),
            Change::Gone(_) => None,
            Change::All(all) => all.first(),
        };
        match seen {
            None => Some(broken("namespace-deleted", "the sandbox's namespace was deleted")),
            Some(now) if now.metadata.deletion_timestamp.is_some() => {
                let message = format!("somebody deletes namespace `{}`", now.name_any());
                Some(broken("namespace-deleted", message))
            }
            Some(now) => {
                let change = self.namespace.change(&Kept::of(now), false)?;
                Some(broken("namespace-changed", format!("namespace `{}` {change}", now.name_any())))
            }
        }
    }

    fn policies(&self, change: &Change<NetworkPolicy>) -> Option<Stop> {
        let one = |policy: &NetworkPolicy| {
            let name = policy.name_any();
            match self.policies.get(&name) {
                None if name == DOORWAY => {
                    let wrong = self.doorway.seen(policy);
                    wrong.map(|wrong| broken(&format!("policy-{wrong}"), format!("policy `{name}` was {wrong}")))
                }
                None if self.passes(policy) => None,
                None => Some(broken("policy-added", format!("policy `{}` was added", clean(&name)))),
                Some(kept) => {
                    let change = kept.change(&Kept::of(policy), true)?;
                    Some(broken("policy-changed", format!("policy `{name}` {change}")))
                }
            }
        };
        let deleted = |name: &str| broken("policy-deleted", format!("policy `{name}` was deleted"));
        match change {
            Change::Seen(policy) => one(policy),
            Change::Gone(policy) => {
                let name = policy.name_any();
                let missed = self.policies.contains_key(&name) || (name == DOORWAY && self.doorway.gone(policy));
                missed.then(|| deleted(&name))
            }
            Change::All(all) => {
                let lost = self.policies.keys().find(|name| !all.iter().any(|policy| policy.name_any() == **name));
                let lost = lost.map(|name| deleted(name));
                lost.or_else(|| all.iter().find_map(one))
            }
        }
    }

    fn passes(&self, object: &impl ResourceExt) -> bool {
        object.uid().is_some_and(|uid| self.passing.contains(&uid))
    }

    fn pods(&self, change: &Change<Pod>) -> Option<Stop> {
        let one = |pod: &Pod| {
            let name = pod.name_any();
            let Some(kept) = self.pods.get(&name) else {
                let message = || format!("pod `{}` was added to the sandbox's namespace", clean(&name));
                return (!self.passes(pod)).then(|| broken("pod-added", message()));
            };
            if let Some(change) = kept.change(&Kept::of(pod), false) {
                return Some(broken("pod-changed", format!("pod `{name}` {change}")));
            }
            let spec = pod.spec.as_ref();
            if spec.is_some_and(|spec| spec.ephemeral_containers.as_ref().is_some_and(|list| !list.is_empty())) {
                return Some(broken("pod-debugged", format!("somebody debugs pod `{name}`")));
            }
            pods::over(pod).or_else(|| pods::evicted(pod))
        };
        let deleted = |name: &str| Stop::internal(format!("pod `{name}` was deleted while the run went on"));
        match change {
            Change::Seen(pod) => one(pod),
            Change::Gone(pod) => {
                let name = pod.name_any();
                // The agent's is deleted by teardown, before the others.
                self.pods.contains_key(&name).then(|| pods::evicted(pod).unwrap_or_else(|| deleted(&name)))
            }
            Change::All(all) => {
                let lost = self.pods.keys().find(|name| !all.iter().any(|pod| pod.name_any() == **name));
                lost.map(|name| deleted(name)).or_else(|| all.iter().find_map(one))
            }
        }
    }
}

/// `change` is a stable word for machines.
fn broken(change: &str, what: impl std::fmt::Display) -> Stop {
    Stop::new(Reason::IsolationBreached, format!("the sandbox's isolation was broken while the run went on: {what}"))
        .because(change)
        .advise("find out who changed it: the API server's audit log names them")
}

fn task<K>(
    api: Api<K>,
    config: watcher::Config,
    sender: &Arc<watch::Sender<Option<Stop>>>,
    judge: impl Fn(Change<K>) -> Option<Stop> + Send + 'static,
) -> AbortOnDropHandle<()>
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + Sync + 'static,
{
    let sender = Arc::clone(sender);
    let changes = watcher(api, config).default_backoff();
    AbortOnDropHandle::new(tokio::spawn(async move {
        let stop = until_breach(changes, BLIND, judge).await;
        // The first one is the cause.
        sender.send_if_modified(|held| {
            let first = held.is_none();
            held.get_or_insert(stop);
            first
        });
    }))
}

async fn until_breach<K>(
    changes: impl Stream<Item = Result<Event<K>, watcher::Error>>,
    patience: Duration,
    judge: impl Fn(Change<K>) -> Option<Stop>,
) -> Stop {
    let mut changes = Box::pin(changes);
    let mut all = Vec::new();
    let mut blind_since: Option<Instant> = None;
    loop {
        let event = match blind_since {
            None => changes.next().await,
            Some(since) => match tokio::time::timeout_at(since + patience, changes.next()).await {
                Ok(event) => event,
                Err(_) => return blind("it did not answer"),
            },
        };
        let change = match event {
            None => return Stop::internal("the watch of the sandbox ended by itself"),
            Some(Err(error)) => {
                let since = *blind_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= patience {
                    return blind(&drill::stop::chain(&error));
                }
                continue;
            }
            Some(Ok(Event::Init)) => {
                all.clear();
                continue;
            }
            Some(Ok(Event::InitApply(object))) => {
                all.push(object);
                continue;
            }
            Some(Ok(Event::InitDone)) => Change::All(std::mem::take(&mut all)),
            Some(Ok(Event::Apply(object))) => Change::Seen(object),
            Some(Ok(Event::Delete(object))) => Change::Gone(object),
        };
        blind_since = None;
        if let Some(stop) = judge(change) {
            return stop;
        }
    }
}

fn blind(why: &str) -> Stop {
    let message = format!(
        "the sandbox could not be watched for {} s, so that nobody knows what was changed: {why}",
        BLIND.as_secs()
    );
    Stop::new(Reason::IsolationUnproven, message).advise("see why the API server does not answer")
}

/// What of the run's pods must stay.
pub(super) const LASTING: [&str; 2] = [DATABASE, AGENT];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::objects::{STRANGER, STRANGER_EGRESS};
    use super::*;

    fn policy(name: &str, generation: i64) -> NetworkPolicy {
        let metadata = json!({ "name": name, "uid": name, "generation": generation, "labels": { "a": "b" } });
        serde_json::from_value(json!({ "metadata": metadata, "spec": { "podSelector": {} } })).expect("a policy")
    }

    fn pod(name: &str, label: &str) -> Pod {
        let metadata = json!({ "name": name, "uid": name, "labels": { "app": label } });
        serde_json::from_value(json!({ "metadata": metadata })).expect("a pod")
    }

    fn namespace(label: &str) -> Namespace {
        let metadata = json!({ "name": "it", "uid": "it", "labels": { "pod-security.kubernetes.io/enforce": label } });
        serde_json::from_value(json!({ "metadata": metadata })).expect("a namespace")
    }

    fn expected() -> Expected {
        let keep = |objects: &[NetworkPolicy]| objects.iter().map(|one| (one.name_any(), Kept::of(one))).collect();
        Expected {
            namespace: Kept::of(&namespace("restricted")),
            policies: keep(&[policy("isolation", 1), policy("deny", 1)]),
            pods: [("database".to_owned(), Kept::of(&pod("database", "restored-db")))].into(),
            passing: [STRANGER, STRANGER_EGRESS].map(str::to_owned).into(),
            doorway: Arc::default(),
        }
    }

    #[test]
    fn policies_that_stay_are_fine_and_every_change_is_a_breach() {
        let expected = expected();
        let all = || vec![policy("isolation", 1), policy("deny", 1), policy(STRANGER_EGRESS, 1)];
        assert_eq!(expected.policies(&Change::All(all())), None);
        assert_eq!(expected.policies(&Change::Gone(policy(STRANGER_EGRESS, 1))), None);
        assert!(expected.policies(&Change::Gone(policy("deny", 1))).is_some());
        let changed = expected.policies(&Change::Seen(policy("deny", 2))).expect("a breach");
        assert_eq!((changed.reason, changed.cause.as_deref()), (Reason::IsolationBreached, Some("policy-changed")));
        assert!(changed.message.ends_with("policy `deny` was changed: it has other rules now"), "{changed:?}");
        assert!(expected.policies(&Change::Seen(policy("open", 1))).is_some());
        assert!(expected.policies(&Change::Seen(policy(DOORWAY, 1))).is_some(), "no doorway is open");
        assert!(expected.policies(&Change::All(all().split_off(1))).is_some(), "deleted while nobody watched");
        let mut another = policy(STRANGER_EGRESS, 1);
        another.metadata.uid = Some("another".to_owned());
        assert!(expected.policies(&Change::Seen(another)).is_some(), "somebody else's of that name");
    }

    #[test]
    fn a_pod_that_is_added_relabelled_or_gone_is_a_breach() {
        let expected = expected();
        assert_eq!(expected.pods(&Change::All(vec![pod("database", "restored-db"), pod(STRANGER, "")])), None);
        let relabelled = expected.pods(&Change::Seen(pod("database", "other"))).expect("a breach");
        let said = "pod `database` has another label: `app=restored-db` became `other`";
        assert!(relabelled.message.ends_with(said), "{relabelled:?}");
        assert!(expected.pods(&Change::Seen(pod("somebody", ""))).is_some());
        let mut another = pod(STRANGER, "");
        another.metadata.uid = Some("another".to_owned());
        assert!(expected.pods(&Change::Seen(another)).is_some(), "somebody else's of that name");
        assert!(expected.pods(&Change::Gone(pod("database", "restored-db"))).is_some());
        assert!(expected.pods(&Change::All(Vec::new())).is_some());
    }

    #[test]
    fn a_namespace_that_is_relabelled_or_gone_is_a_breach() {
        let expected = expected();
        assert_eq!(expected.namespace(&Change::Seen(namespace("restricted"))), None);
        assert!(expected.namespace(&Change::Seen(namespace("privileged"))).is_some());
        assert!(expected.namespace(&Change::Gone(namespace("restricted"))).is_some());
        assert!(expected.namespace(&Change::All(Vec::new())).is_some());
    }

    #[tokio::test]
    async fn a_watch_that_sees_nothing_for_too_long_is_a_breach() {
        let failing =
            futures_util::stream::repeat_with(|| Err(watcher::Error::NoResourceVersion)).then(|error| async {
                tokio::time::sleep(Duration::from_millis(5)).await;
                error
            });
        let stop = until_breach::<Namespace>(failing, Duration::from_millis(30), |_| None).await;
        assert!(stop.message.contains("could not be watched"), "{}", stop.message);
        let hanging =
            futures_util::stream::iter([Err(watcher::Error::NoResourceVersion)]).chain(futures_util::stream::pending());
        let stop = until_breach::<Namespace>(hanging, Duration::from_millis(30), |_| None).await;
        assert!(stop.message.contains("did not answer"), "{}", stop.message);
    }
}
