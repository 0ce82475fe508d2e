//! The Lease that lets one muster at a time work, in the real cluster.
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use whole_program::{Cluster, Daemon, Fault, FaultyApi, Finished, Muster, Place, within};

use crate::kubernetes_drill::{Account, shipped};

const DURATION: Duration = Duration::from_secs(6);

/// A place whose daemon holds a Lease of this name, as whoever `kubeconfig` names.
fn place(name: &str) -> (Place, String) {
    let place = Place::new();
    fs::create_dir(place.path("drills")).unwrap();
    let configuration =
        format!("drills: [drills]\nkubernetes: {{ lease: {{ namespace: default, name: {name}, duration: 6s }} }}\n");
    (place, configuration)
}

/// Gone when dropped.
struct Named<'a>(&'a Cluster, String);

impl Drop for Named<'_> {
    fn drop(&mut self) {
        self.0.try_kubectl(&["-n", "default", "delete", "lease", &self.1, "--ignore-not-found"], "");
    }
}

impl Named<'_> {
    fn get(&self) -> Value {
        let lease = self.0.kubectl(&["-n", "default", "get", "lease", &self.1, "-o", "json"]);
        serde_json::from_str(&lease).unwrap()
    }
}

fn named(cluster: &Cluster) -> Named<'_> {
    Named(cluster, format!("muster-test-{}", std::process::id()))
}

/// What a daemon said that could not begin.
#[track_caller]
fn refused(place: &Place, configuration: &str, kubeconfig: &Path) -> Finished {
    let text = format!("apiVersion: muster.dev/v1\nkind: Config\nhttp: {{ listen: '127.0.0.1:0' }}\n{configuration}");
    place.write("muster.yaml", &text);
    let serve = ["serve", "--config", "muster.yaml"];
    Muster::start_with(place, &serve, |command| {
        command.env("KUBECONFIG", kubeconfig);
    })
    .wait()
    .expect(3)
}

#[test]
fn a_second_muster_is_refused_until_the_first_is_gone() {
    let Some(cluster) = Cluster::there() else { return };
    let lease = named(&cluster);
    let (first_place, configuration) = place(&lease.1);
    let faulty = FaultyApi::start(&cluster, &first_place, cluster.kubeconfig());
    let first = Daemon::start_with(&first_place, &configuration, |command| {
        command.env("KUBECONFIG", &faulty.kubeconfig);
    });
    first.wait_for("its readiness", |first| (first.ask("/readyz").0 == 200).then_some(()));
    let holder = lease.get()["spec"]["holderIdentity"].as_str().unwrap().to_owned();

    // Another state directory, another lock file: only the Lease stands in its way.
    let (second_place, configuration) = place(&lease.1);
    let refused = refused(&second_place, &configuration, cluster.kubeconfig());
    let since = lease.get()["spec"]["acquireTime"].as_str().unwrap()[..19].to_owned();
    for said in ["is held by another muster", &holder, &since] {
        assert!(refused.stderr.contains(said), "{said}: {}", refused.stderr);
    }

    // One that cannot renew says so, begins nothing, and goes on when it can again.
    faulty.rule(|_| Fault::Refuse(500, "InternalError"));
    first.wait_for("the end of its readiness", |first| {
        let (status, body) = first.ask("/readyz");
        (status == 503 && body.contains("could not be renewed in time")).then_some(())
    });
    faulty.rule(|_| Fault::Pass);
    first.wait_for("its readiness", |first| (first.ask("/readyz").0 == 200).then_some(()));
    assert_eq!(lease.get()["spec"]["holderIdentity"], holder.as_str());

    // Killed: a successor waits for as long as the Lease stands.
    let before = lease.get()["metadata"]["resourceVersion"].clone();
    first.kill();
    let killed = Instant::now();
    let follows = Daemon::start_with(&second_place, &configuration, |command| {
        command.env("KUBECONFIG", cluster.kubeconfig());
    });
    assert!(killed.elapsed() >= DURATION * 2 / 3, "{:?}", killed.elapsed());
    let now = lease.get();
    assert_ne!(now["spec"]["holderIdentity"], holder.as_str());
    assert_ne!(now["metadata"]["resourceVersion"], before);

    // Somebody who takes it all the same ends whoever held it.
    within(10, "somebody else takes it", || {
        let patch = r#"{"spec":{"holderIdentity":"usurper"}}"#;
        cluster
            .try_kubectl(&["-n", "default", "patch", "lease", &lease.1, "-p", patch], "")
            .status
            .success()
            .then_some(())
    });
    let (code, log) = follows.end();
    assert_eq!(code, Some(3), "{log}");
    assert!(log.contains("usurper"), "{log}");
}

#[test]
fn one_that_is_stopped_leaves_the_lease_to_the_next_at_once() {
    let Some(cluster) = Cluster::there() else { return };
    let lease = Named(&cluster, format!("muster-test-stopped-{}", std::process::id()));
    let (place, configuration) = place(&lease.1);
    for _ in 0..2 {
        let daemon = Daemon::start_with(&place, &configuration, |command| {
            command.env("KUBECONFIG", cluster.kubeconfig());
        });
        assert!(!daemon.log().contains("it may be gone"), "it waited: {}", daemon.log());
        daemon.signal(Signal::TERM);
        let (code, log) = daemon.end();
        assert_eq!(code, Some(0), "{log}");
        assert!(lease.get()["spec"].get("holderIdentity").is_none(), "{}", lease.get());
    }
}

/// All of the Role that ships is enough.
#[test]
fn each_verb_of_the_role_is_needed_and_named_when_it_is_missing() {
    let Some(cluster) = Cluster::there() else { return };
    // As the Role names it; it is in another namespace than the one that ships.
    let lease = Named(&cluster, "muster-daemon".to_owned());
    let (place, configuration) = place(&lease.1);
    let account = Account::new(&cluster, &place);
    let role = Role::of(&cluster, &account);
    let rules = shipped(&cluster, "base/lease.yaml", "Role")["rules"].as_array().unwrap().clone();
    let verbs = rules.iter().enumerate().flat_map(|(nth, rule)| {
        rule["verbs"].as_array().unwrap().iter().map(move |verb| (nth, verb.as_str().unwrap().to_owned()))
    });
    let verbs: Vec<(usize, String)> = verbs.collect();
    assert_eq!(verbs.len(), 3, "{rules:?}");
    for (nth, verb) in verbs {
        let mut less = rules.clone();
        less[nth]["verbs"].as_array_mut().unwrap().retain(|other| *other != *verb);
        less.retain(|rule| rule["verbs"] != json!([]));
        role.grant(&less);
        let run = refused(&place, &configuration, &account.kubeconfig);
        let named = format!("may not {verb} leases.coordination.k8s.io in namespace `default`");
        assert!(run.stderr.contains(&named) && run.stderr.contains("lease.yaml"), "without {verb}: {}", run.stderr);
    }
    role.grant(&rules);
    let daemon = Daemon::start_with(&place, &configuration, |command| {
        command.env("KUBECONFIG", &account.kubeconfig);
    });
    daemon.wait_for("its readiness", |daemon| (daemon.ask("/readyz").0 == 200).then_some(()));
    daemon.signal(Signal::TERM);
    let (code, log) = daemon.end();
    assert_eq!(code, Some(0), "{log}");
}

/// What an account may do in the namespace of its Lease; gone when dropped.
struct Role<'a> {
    cluster: &'a Cluster,
    name: String,
}

impl<'a> Role<'a> {
    fn of(cluster: &'a Cluster, account: &Account) -> Self {
        let role = Self { cluster, name: account.name.clone() };
        role.apply(
            "RoleBinding",
            json!({
                "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role.name },
                "subjects": [{ "kind": "ServiceAccount", "name": role.name, "namespace": "default" }],
            }),
        );
        role
    }

    fn grant(&self, rules: &[Value]) {
        self.apply("Role", json!({ "rules": rules }));
    }

    fn apply(&self, kind: &str, mut object: Value) {
        object["apiVersion"] = json!("rbac.authorization.k8s.io/v1");
        object["kind"] = json!(kind);
        object["metadata"] = json!({ "name": self.name, "namespace": "default" });
        self.cluster.apply(&object.to_string());
    }
}

impl Drop for Role<'_> {
    fn drop(&mut self) {
        for kind in ["rolebinding", "role"] {
            self.cluster.try_kubectl(&["-n", "default", "delete", kind, &self.name, "--ignore-not-found"], "");
        }
    }
}
