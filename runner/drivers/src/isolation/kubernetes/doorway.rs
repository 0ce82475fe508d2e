//! Lets a secret store into the database's pod while somebody needs it to: a relay on a port of its own, which ends with whoever is
//! in it, and a policy for that port and the store's address alone.
//!
//! A policy alone would not do: it cuts no connection that stands, and what a hostile server keeps open it keeps.
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use drill::port::Doorway;
use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt;
use kube::api::DeleteParams;
use serde_json::Value;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use super::channel::{Channel, Place};
use super::cluster::{self, Cluster};
use super::inside::{self, frame};
use super::objects::{DOORWAY, PORT};
use super::release;

const OPEN: Duration = Duration::from_secs(30);
/// Of everything that a close does, tried again where the API server stumbles.
const CLOSE: Duration = Duration::from_secs(30);
const AGAIN: Duration = Duration::from_millis(500);

/// How a visitor would get in, and whether one may now.
pub(super) struct WayIn {
    pub(super) cluster: Cluster,
    pub(super) namespace: String,
    pub(super) database: Place,
    /// Where the visitor connects.
    pub(super) address: SocketAddr,
    /// Let in the visitor, and nobody else.
    pub(super) policy: Value,
    pub(super) own: Arc<OwnPolicy>,
    pub(super) leaving: TaskTracker,
}

impl WayIn {
    pub(super) async fn open(self: &Arc<Self>) -> Result<PolicyDoorway, Stop> {
        let tried = "opening a doorway to the sandbox's database";
        // It listens before anybody may come.
        let (own, database) = (self.address.port().to_string(), PORT.to_string());
        let arguments = [drill::port::PROGRAM, inside::DOORWAY, &own, &database];
        let mut relay = self.database.open(&arguments, &self.leaving).await?;
        let (kind, _) = timeout(OPEN, relay.next()).await.or_stop(Reason::Internal, tried)??;
        if kind != frame::RESULT {
            return Err(Stop::internal(format!("{tried}: the relay in the sandbox answered nonsense")));
        }
        let wanted = serde_json::from_value(self.policy.clone()).or_stop(Reason::Internal, tried)?;
        self.own.opens(wanted);
        let doorway =
            PolicyDoorway { way_in: Some(Arc::clone(self)), relay: Mutex::new(Some(relay)), address: self.address };
        let made = self.cluster.apply_policy(&self.policy).await?;
        self.own.opened(made.uid().unwrap_or_default());
        Ok(doorway)
    }

    async fn no_policy(&self) -> Result<(), Stop> {
        let policies = self.cluster.policies(&self.namespace);
        let deadline = Instant::now() + CLOSE;
        loop {
            let gone = async {
                cluster::delete(&policies, DOORWAY, &DeleteParams::default()).await?;
                release::gone(&policies, DOORWAY, CLOSE).await
            };
            match gone.await {
                Err(_) if Instant::now() < deadline => tokio::time::sleep(AGAIN).await,
                done => return done,
            }
        }
    }
}

pub(super) struct PolicyDoorway {
    /// None where it was closed.
    way_in: Option<Arc<WayIn>>,
    relay: Mutex<Option<Channel>>,
    address: SocketAddr,
}

impl PolicyDoorway {
    fn relay(&mut self) -> Option<Channel> {
        self.relay.get_mut().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[async_trait]
impl Doorway for PolicyDoorway {
    fn host(&self) -> String {
        self.address.ip().to_string()
    }

    fn port(&self) -> u16 {
        self.address.port()
    }

    async fn close(mut self: Box<Self>) -> Result<(), Stop> {
        let Some(way_in) = self.way_in.clone() else { return Ok(()) };
        way_in.own.closes();
        let (ended, gone) = tokio::join!(end(self.relay()), way_in.no_policy());
        ended.and(gone).map_err(|stop| {
            let message = format!("closing the doorway to the sandbox's database: {}", stop.message);
            let is_unknown = stop.reason == Reason::IsolationUnproven;
            let reason = if is_unknown { stop.reason } else { Reason::IsolationBreached };
            Stop { message, reason, ..stop }
        })?;
        self.way_in = None;
        Ok(())
    }
}

impl Drop for PolicyDoorway {
    fn drop(&mut self) {
        let Some(way_in) = self.way_in.take() else { return };
        way_in.own.closes();
        let (relay, leaving) = (self.relay(), way_in.leaving.clone());
        if tokio::runtime::Handle::try_current().is_ok() {
            leaving.spawn(async move {
                // Whoever tears down removes the namespace, and sees that gone.
                let _ = tokio::join!(end(relay), way_in.no_policy());
            });
        }
    }
}

/// It says that it ends, and its connections end with it. The end of the stream says nothing: one that broke off looks the same,
/// the command's status included.
async fn end(relay: Option<Channel>) -> Result<(), Stop> {
    let Some(mut relay) = relay else { return Ok(()) };
    drop(relay.take_input());
    let late = |_| Stop::internal(format!("the relay in the sandbox did not end in {} s", CLOSE.as_secs()));
    match timeout(CLOSE, relay.next()).await.map_err(late)? {
        Ok((frame::END, _)) => timeout(CLOSE, relay.next()).await.map(drop).map_err(late),
        Ok(_) => Err(Stop::internal("the relay in the sandbox spoke when it was to end")),
        Err(stop) => {
            let message = format!("nobody knows whether the relay in the sandbox ended: {}", stop.message);
            Err(Stop { message, reason: Reason::IsolationUnproven, ..stop })
        }
    }
}

/// The doorway's policy, for the watch of the boundary: what muster adds and removes by itself is no breach, and what anybody else
/// makes of it is.
#[derive(Default)]
pub(super) struct OwnPolicy(Mutex<Own>);

#[derive(Default)]
struct Own {
    /// As it always is. None: no doorway was ever opened.
    wanted: Option<NetworkPolicy>,
    /// From before it is made until it is to go.
    is_open: bool,
    /// The one that lets somebody in now.
    open: Option<String>,
    /// Those that were muster's: a watch may tell of them late.
    past: BTreeSet<String>,
}

impl OwnPolicy {
    fn own(&self) -> MutexGuard<'_, Own> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn opens(&self, wanted: NetworkPolicy) {
        let mut own = self.own();
        own.wanted = Some(wanted);
        own.is_open = true;
    }

    fn opened(&self, uid: String) {
        let mut own = self.own();
        if own.is_open {
            own.open = Some(uid);
        }
    }

    fn closes(&self) {
        let mut own = self.own();
        own.is_open = false;
        let open = own.open.take();
        own.past.extend(open);
    }

    /// What is wrong with a policy of this name.
    pub(super) fn seen(&self, policy: &NetworkPolicy) -> Option<&'static str> {
        let mut own = self.own();
        let uid = policy.uid().unwrap_or_default();
        let is_known = own.open.as_ref() == Some(&uid) || own.past.contains(&uid);
        if !is_known {
            if !own.is_open || own.open.is_some() {
                return Some("added");
            }
            // The watch was quicker than the answer to who made it.
            own.open = Some(uid);
        }
        let same = |wanted: &NetworkPolicy| wanted.spec == policy.spec && wanted.labels() == policy.labels();
        (!own.wanted.as_ref().is_some_and(same)).then_some("changed")
    }

    /// Whether somebody else removed it.
    pub(super) fn gone(&self, policy: &NetworkPolicy) -> bool {
        self.own().open.as_ref() == Some(&policy.uid().unwrap_or_default())
    }
}

/// The one beside the database's, where the visitor's policy opens nothing else.
pub(super) fn port_beside(database: u16) -> u16 {
    database.checked_add(1).unwrap_or(database - 1)
}

pub(super) fn address(pod: IpAddr, database: u16) -> SocketAddr {
    SocketAddr::new(pod, port_beside(database))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy(uid: &str, port: u16) -> NetworkPolicy {
        let spec =
            json!({ "podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{ "ports": [{ "port": port }] }] });
        let metadata = json!({ "name": DOORWAY, "uid": uid, "labels": { "a": "b" } });
        serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).expect("a policy")
    }

    #[test]
    fn only_the_policy_that_muster_makes_is_its_own() {
        let own = OwnPolicy::default();
        assert_eq!(own.seen(&policy("1", 5433)), Some("added"), "nobody opened a doorway");
        own.opens(policy("", 5433));
        assert_eq!(own.seen(&policy("1", 5433)), None, "seen before the answer came");
        own.opened("1".to_owned());
        assert_eq!(own.seen(&policy("1", 5432)), Some("changed"));
        assert_eq!(own.seen(&policy("2", 5433)), Some("added"), "another in its place");
        assert!(own.gone(&policy("1", 5433)), "somebody took it away");
        own.closes();
        assert!(!own.gone(&policy("1", 5433)));
        assert_eq!(own.seen(&policy("1", 5433)), None, "told late");
        assert_eq!(own.seen(&policy("1", 5432)), Some("changed"), "told late, and opened wider");
        assert_eq!(own.seen(&policy("3", 5433)), Some("added"), "made by somebody who knows how");
    }

    #[test]
    fn the_doorways_port_is_never_the_databases() {
        assert_eq!((port_beside(5432), port_beside(u16::MAX)), (5433, u16::MAX - 1));
    }
}
