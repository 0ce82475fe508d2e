//! Whole drills on the real cluster, by an account with no more than deploy/kubernetes gives.
mod asked;
mod volume;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::process::Signal;
use serde_json::{Value, json};
use whole_program::{Cluster, Finished, Muster, Place, muster, sample, within};

#[test]
fn a_drill_in_a_cluster_passes_and_leaves_nothing() {
    let Some(world) = World::new() else { return };
    let run = world.run().expect(0);
    let result = run.result();
    assert_eq!((&result["reason"], &result["leftovers"]), (&json!("proven"), &json!("none")), "{result}");
    world.assert_nothing_left();

    // Nothing secret was ever in etcd: no key, no password, no row of the backup. That the run was there shows that one would see it.
    let id = result["run"].as_str().unwrap();
    assert!(world.in_etcd(&format!("dr-sandbox-{id}")), "etcd's files are read where the run is");
    for secret in ["PRIVATE KEY", "SCRAM-SHA-256", " (married)"] {
        assert!(!world.in_etcd(secret), "{secret} is in etcd");
    }
}

/// What somebody does to a sandbox's namespace.
type Change<'a> = &'a dyn Fn(&str);

#[test]
fn a_changed_boundary_ends_the_run_at_once() {
    let Some(world) = World::new() else { return };
    let changes: [(&str, &str, &str, Change); 4] = [
        ("a policy that is deleted", "policy-deleted", "`dr-drill-isolation`", &|sandbox| {
            world.cluster.kubectl(&["-n", sandbox, "delete", "networkpolicy", "dr-drill-isolation"]);
        }),
        ("a policy that is added", "policy-added", "`hole`", &|sandbox| {
            world.cluster.apply(&format!(
                "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{ name: hole, namespace: {sandbox} }}\n\
                 spec: {{ podSelector: {{}}, policyTypes: [Egress], egress: [{{}}] }}\n"
            ));
        }),
        ("a label that is taken", "pod-changed", "`app=restored-db`", &|sandbox| {
            world.cluster.kubectl(&["-n", sandbox, "label", "pod", "database", "app-"]);
        }),
        ("the whole namespace", "namespace-deleted", "`dr-sandbox-shop-", &|sandbox| {
            world.cluster.kubectl(&["delete", "namespace", sandbox, "--wait=false"]);
        }),
    ];
    for (what, changed, object, change) in changes {
        let (mut running, id) = world.until_acquired("sandbox");
        change(&format!("dr-sandbox-{id}"));
        while running.next_event().is_some() {}
        let run = running.wait().expect(2);
        asked::assert_breach_is_told(&run, what, changed, object);
        world.assert_nothing_left();
    }
}

#[test]
fn a_muster_that_is_killed_leaves_nothing_in_the_cluster() {
    let Some(world) = World::new() else { return };
    for resource in ["storage", "sandbox", "agent", "lease"] {
        let (running, _) = world.until_acquired(resource);
        running.signal(Signal::KILL);
        running.wait();
        world.muster(&["reap"]).expect(0);
        world.assert_nothing_left();
    }
    // While its objects are made, while the backup goes in, and in the teardown, whose longest part is ahead.
    let steps =
        [("intended", "resource", "sandbox"), ("phase-started", "phase", "restore"), ("released", "resource", "lease")];
    for (event, what, value) in steps {
        let mut running = world.start();
        let is_it = |seen: &Value| seen["event"] == event && seen["data"][what] == value;
        while !is_it(&running.next_event().unwrap_or_else(|| panic!("the run ended before {event} {value}"))) {}
        within(30, "the first object", || (!world.cluster.sandboxes().is_empty()).then_some(()));
        running.signal(Signal::KILL);
        running.wait();
        world.muster(&["reap"]).expect(0);
        world.assert_nothing_left();
    }
}

#[test]
fn a_cluster_that_stumbles_is_no_verdict_on_the_backup_and_leaves_nothing() {
    let Some(world) = Cluster::alone().map(World::of) else { return };
    for program in ["kube-apiserver", "kubelet"] {
        let (mut running, _) = world.until_acquired("sandbox");
        world.cluster.script("signal", &[program, "KILL"]);
        while running.next_event().is_some() {}
        let run = running.wait();
        let result = run.result();
        assert_ne!(result["verdict"], "failed", "{program}: {result}");
        world.cluster.assert_node_comes_back();
        world.muster(&["reap"]).expect(0);
        world.assert_nothing_left();
    }
}

#[test]
fn what_the_cluster_cannot_do_is_said_and_is_no_verdict_on_the_backup() {
    let Some(world) = World::new() else { return };
    let missing = format!("muster.local/postgres@sha256:{}", "0".repeat(64));
    let image = world.cluster.postgresql_image();
    let drill = world.drill_text().replace(image, &missing);
    let run = world.run_text(&drill).expect(2);
    assert!(run.stdout.contains("isolation.kubernetes.image") || run.stdout.contains("Pull"), "{}", run.stdout);
    // No node has as much: the pod is never scheduled, and the phase's deadline ends the wait.
    let greedy = world.drill_text() + "      limits: { memory: 4TiB }\n  deadlines: { sandbox: 20s }\n";
    let run = world.run_text(&greedy).expect(2);
    assert_eq!(run.result()["verdict"], "inconclusive", "{}", run.result());
    world.assert_nothing_left();
}

/// The server's own words answer which verb is missing, before anything is made.
#[test]
fn each_rule_of_the_account_is_needed_and_named_when_it_is_missing() {
    let Some(world) = World::new() else { return };
    let rules = shipped_rules(&world.cluster);
    assert!(rules.len() > 20, "{rules:?}");
    for (nth, (group, resource, verb)) in rules.iter().enumerate() {
        let others: Vec<_> =
            rules.iter().enumerate().filter(|(other, _)| *other != nth).map(|(_, rule)| rule.clone()).collect();
        world.account.grant(&world.cluster, &others);
        // Freeing a volume is asked about where a drill names one.
        let artifact = if verb == "patch" && resource == "persistentvolumes" {
            "      artifact: { volume: { name: any } }\n"
        } else {
            ""
        };
        let run = world.run_text(&(world.drill_text() + artifact)).expect(2);
        let group = if group.is_empty() { String::new() } else { format!(".{group}") };
        let named = format!("may not {verb} {resource}{group}");
        assert!(run.result().to_string().contains(&named) || run.stdout.contains(&named), "{named}: {}", run.stdout);
    }
    // One rule more where the drill asks for more.
    world.account.grant(&world.cluster, &rules);
    let run = world.run_text(&(world.drill_text() + REMOVES_FINALIZERS)).expect(2);
    for said in ["may not update namespaces/finalize", "deploy/kubernetes/finalizers"] {
        assert!(run.result().to_string().contains(said), "{said}: {}", run.result());
    }
    world.assert_nothing_left();
}

/// After the drill's text.
pub(crate) const REMOVES_FINALIZERS: &str = "      removeFinalizersAfter: 1m\n";

#[test]
fn a_network_that_nobody_enforces_is_refused() {
    if std::env::var("MUSTER_TEST_CNI").as_deref() != Ok("ptp") {
        return;
    }
    let Some(world) = Cluster::there().map(World::of) else { return };
    let run = world.run().expect(2);
    let result = run.result();
    assert_eq!(result["reason"], "isolation-unproven", "{result}");
    let begun: Vec<Value> = run.events("phase-started");
    assert!(!begun.iter().any(|event| event["phase"] == "restore"), "no byte of the backup was loaded: {begun:?}");
    world.assert_nothing_left();
}

/// A cluster, a backup, and an account.
pub(crate) struct World {
    pub(crate) place: Place,
    pub(crate) cluster: Cluster,
    pub(crate) account: Account,
}

impl World {
    pub(crate) fn new() -> Option<Self> {
        if std::env::var("MUSTER_TEST_CNI").as_deref() == Ok("ptp") {
            return None;
        }
        Cluster::there().map(Self::of)
    }

    pub(crate) fn of(cluster: Cluster) -> Self {
        let place = Place::new();
        sample(&place, "shop");
        let account = Account::new(&cluster, &place);
        Self { place, cluster, account }
    }

    pub(crate) fn drill_text(&self) -> String {
        let (image, own) = (self.cluster.postgresql_image(), self.cluster.muster_image());
        format!(
            "apiVersion: muster.dev/v1\nkind: Drill\nmetadata: {{ name: shop }}\nspec:\n  \
             source: {{ manifest: backups/shop/latest/manifest.json, trustedKeys: [{{ file: backup.pub }}] }}\n  \
             isolation:\n    kubernetes:\n      image: {image}\n      musterImage: {own}\n      production: ['10.250.0.10:5432']\n"
        )
    }

    pub(crate) fn start_text(&self, drill: &str) -> Muster {
        self.place.write("shop.yaml", drill);
        Muster::start_with(&self.place, &["run", "shop.yaml", "--output", "json"], |command| {
            command.env("KUBECONFIG", &self.account.kubeconfig);
        })
    }

    pub(crate) fn start(&self) -> Muster {
        self.start_text(&self.drill_text())
    }

    pub(crate) fn run(&self) -> Finished {
        self.start().wait()
    }

    pub(crate) fn run_text(&self, drill: &str) -> Finished {
        self.start_text(drill).wait()
    }

    pub(crate) fn muster(&self, arguments: &[&str]) -> Finished {
        Muster::start_with(&self.place, arguments, |command| {
            command.env("KUBECONFIG", &self.account.kubeconfig);
        })
        .wait()
    }

    /// A run that goes on, and its id.
    pub(crate) fn until_acquired(&self, resource: &str) -> (Muster, String) {
        self.until_acquired_of(&self.drill_text(), resource)
    }

    pub(crate) fn until_acquired_of(&self, drill: &str, resource: &str) -> (Muster, String) {
        let mut running = self.start_text(drill);
        loop {
            let event = running.next_event();
            let Some(event) = event else { panic!("no {resource} was acquired: {}", running.wait().stdout) };
            if event["event"] == "acquired" && event["data"]["resource"] == resource {
                break;
            }
        }
        let runs = muster(&self.place, &["runs", "--output", "json", "--limit", "1"]).expect(0).stdout;
        let run: Value = serde_json::from_str(runs.lines().next().unwrap()).unwrap();
        (running, run["run"].as_str().unwrap().to_owned())
    }

    fn in_etcd(&self, text: &str) -> bool {
        let found = std::process::Command::new("grep").args(["-rqaF", text]).arg(self.cluster.etcd()).status();
        found.unwrap().success()
    }

    /// Of this place: other tests have sandboxes, too.
    #[track_caller]
    pub(crate) fn assert_nothing_left(&self) {
        self.place.assert_nothing_left();
        let owner = fs::read_to_string(self.place.state().join("kubernetes/owner")).unwrap_or_default();
        let left = ["get", "namespaces", "-o", "name", "-l", &format!("muster.dev/owner={owner}")];
        assert_eq!(self.cluster.kubectl(&left), "", "namespaces are left");
        let records = fs::read_dir(self.place.state().join("kubernetes")).unwrap();
        let records: Vec<_> = records.map(|entry| entry.unwrap().file_name()).filter(|name| name != "owner").collect();
        assert!(records.is_empty(), "{records:?}");
    }
}

type Rule = (String, String, String);

/// Group, resource and verb of each rule that deploy/kubernetes grants to the whole cluster and that a run cannot do without.
fn shipped_rules(cluster: &Cluster) -> Vec<Rule> {
    rules_of(&shipped(cluster, "base/rbac.yaml", "ClusterRole"))
}

/// The one object of this kind in a file of deploy/kubernetes.
pub(crate) fn shipped(cluster: &Cluster, file: &str, kind: &str) -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes").join(file);
    let shown = cluster.kubectl(&["create", "--dry-run=client", "-o", "json", "-f", file.to_str().unwrap()]);
    // Several objects one after the other, or a list.
    let objects = serde_json::Deserializer::from_str(&shown).into_iter::<Value>().map(Result::unwrap);
    let mut objects = objects.flat_map(|object| object["items"].as_array().cloned().unwrap_or_else(|| vec![object]));
    objects.find(|object| object["kind"] == kind).unwrap()
}

fn rules_of(role: &Value) -> Vec<Rule> {
    let words = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().map(|word| word.as_str().unwrap().to_owned()).collect()
    };
    let mut rules = Vec::new();
    for rule in role["rules"].as_array().unwrap().iter().filter(|rule| rule.get("resourceNames").is_none()) {
        for group in words(&rule["apiGroups"]) {
            for resource in words(&rule["resources"]) {
                rules.extend(words(&rule["verbs"]).into_iter().map(|verb| (group.clone(), resource.clone(), verb)));
            }
        }
    }
    rules
}

/// A service account with a `ClusterRole` of its own, gone when dropped.
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) kubeconfig: PathBuf,
    server: PathBuf,
}

impl Account {
    pub(crate) fn new(cluster: &Cluster, place: &Place) -> Self {
        static NEXT: OnceLock<std::sync::atomic::AtomicU32> = OnceLock::new();
        let nth = NEXT.get_or_init(Default::default).fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("muster-test-{}-{nth}", std::process::id());
        let account = Self { name, kubeconfig: place.path("kubeconfig"), server: cluster.kubeconfig().to_owned() };
        account.grant(cluster, &shipped_rules(cluster));
        let name = &account.name;
        let object = |kind: &str, api: &str, more: Value| {
            let mut object =
                json!({ "apiVersion": api, "kind": kind, "metadata": { "name": name, "namespace": "default" } });
            object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            object.to_string()
        };
        cluster.apply(&object("ServiceAccount", "v1", json!({})));
        let rbac = "rbac.authorization.k8s.io";
        let binding = json!({
            "roleRef": { "apiGroup": rbac, "kind": "ClusterRole", "name": name },
            "subjects": [{ "kind": "ServiceAccount", "name": name, "namespace": "default" }],
        });
        cluster.apply(&object("ClusterRoleBinding", &format!("{rbac}/v1"), binding));
        let token = cluster.kubectl(&["-n", "default", "create", "token", name, "--duration=1h"]);
        let admin = cluster.kubectl(&["config", "view", "--raw", "-o", "json"]);
        let mut config: Value = serde_json::from_str(&admin).unwrap();
        config["users"][0]["user"] = json!({ "token": token.trim() });
        place.write("kubeconfig", &config.to_string());
        account
    }

    /// What the base gives, and what deploy/kubernetes/finalizers adds to it.
    pub(crate) fn may_finalize(&self, cluster: &Cluster) {
        let more = rules_of(&shipped(cluster, "finalizers/rbac.yaml", "ClusterRole"));
        self.grant(cluster, &[shipped_rules(cluster), more].concat());
    }

    fn grant(&self, cluster: &Cluster, rules: &[Rule]) {
        let rules: Vec<Value> = rules
            .iter()
            .map(|(group, resource, verb)| json!({ "apiGroups": [group], "resources": [resource], "verbs": [verb] }))
            .collect();
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": { "name": self.name }, "rules": rules,
        });
        cluster.apply(&role.to_string());
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let cluster = Cluster::to_clean_up(&self.server);
        for kind in ["clusterrolebinding", "clusterrole", "serviceaccount"] {
            cluster.try_kubectl(&["-n", "default", "delete", kind, &self.name, "--ignore-not-found"], "");
        }
    }
}
