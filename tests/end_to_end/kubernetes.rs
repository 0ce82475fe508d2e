//! The cluster itself, and muster in it as deploy/kubernetes has it.
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use whole_program::{Cluster, Place, sample, within};

const MUSTER: &str = "system:serviceaccount:muster:muster";

#[test]
fn the_node_is_as_the_tests_need_it() {
    let Some(cluster) = Cluster::alone() else { return };
    cluster.script("signal", &["kubelet", "KILL"]);
    cluster.script("signal", &["kube-apiserver", "KILL"]);
    within(60, "the node's programs start again", || {
        let ready = ["wait", "--for=condition=Ready", "node", "--all", "--timeout=1s"];
        cluster.try_kubectl(&ready, "").status.success().then_some(())
    });

    // What a sandbox must not reach answers whoever may.
    let namespace = Namespace::new(&cluster, "muster-test-node");
    let image = cluster.postgresql_image();
    cluster.apply(&format!(
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{ name: data, namespace: {0} }}\n\
         spec: {{ storageClassName: local, accessModes: [ReadWriteOnce], resources: {{ requests: {{ storage: 1Gi }} }} }}\n\
         ---\napiVersion: v1\nkind: Pod\nmetadata: {{ name: free, namespace: {0} }}\nspec:\n  terminationGracePeriodSeconds: 0\n  \
         securityContext: {{ fsGroup: 999 }}\n  volumes: [{{ name: data, persistentVolumeClaim: {{ claimName: data }} }}]\n  containers:\n    \
         - {{ name: free, image: '{image}', command: [/bin/sleep, '600'], volumeMounts: [{{ name: data, mountPath: /data }}] }}\n",
        namespace.name
    ));
    cluster.kubectl(&["-n", namespace.name, "wait", "--for=condition=Ready", "pod/free", "--timeout=60s"]);
    let inside = |script: &str| cluster.kubectl(&["-n", namespace.name, "exec", "free", "--", "/bin/sh", "-c", script]);
    for target in ["10.250.0.10 5432", "169.254.169.254 80", "10.251.254.10 53", "10.251.255.2 443"] {
        inside(&format!("nc -w 5 {target} </dev/null"));
    }
    assert!(inside("nslookup any.example 10.251.254.10").contains("192.0.2.1"));

    // A volume that was let go is offered again, and empty.
    inside("echo kept > /data/file");
    let claim = ["-n", namespace.name, "get", "pvc", "data", "-o", "jsonpath={.spec.volumeName}"];
    let volume = cluster.kubectl(&claim);
    let first = cluster.kubectl(&["get", "pv", &volume, "-o", "jsonpath={.metadata.uid}"]);
    let file = cluster.volumes().join(&volume).join("file");
    assert_eq!(fs::read_to_string(&file).unwrap(), "kept\n");
    cluster.kubectl(&["-n", namespace.name, "delete", "pod/free", "pvc/data"]);
    within(30, "the volume comes back", || {
        let shown = cluster.try_kubectl(&["get", "pv", &volume, "-o", "jsonpath={.status.phase} {.metadata.uid}"], "");
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        (shown.starts_with("Available") && !shown.ends_with(&first)).then_some(())
    });
    assert!(!file.exists());
}

#[test]
fn the_shipped_manifests_run_a_muster_that_keeps_to_its_own() {
    let Some(cluster) = Cluster::there() else { return };
    let place = Place::new();
    let muster = Deployed::apply(&cluster, &place);
    muster.ready();
    assert!(muster.exec(&["health", "--ready"]).contains("ready"));

    // Killed and started again, it is the same muster: its store outlives its pod, and one is there at a time.
    let before = muster.store();
    let pod = muster.pod();
    cluster.kubectl(&["-n", "muster", "delete", "pod", &pod, "--grace-period=1"]);
    muster.ready();
    assert_ne!(muster.pod(), pod);
    assert_eq!(muster.store(), before);

    keeps_to_its_own(&cluster);
}

/// Its account is held to the namespaces of its runs, whatever its `ClusterRole` says.
fn keeps_to_its_own(cluster: &Cluster) {
    let restricted = |name: &str| {
        let labels = "pod-security.kubernetes.io/enforce: restricted";
        format!("apiVersion: v1\nkind: Namespace\nmetadata: {{ name: {name}, labels: {{ {labels} }} }}\n")
    };
    let outside = "may change nothing outside of the namespaces of its runs";
    let name = &muster_name(cluster);
    let another_lease = "apiVersion: coordination.k8s.io/v1\nkind: Lease\nmetadata: { name: another }\n";
    let refusals: [(&[&str], &str); 7] = [
        (&["create", "namespace", "elsewhere"], outside),
        (&["-n", "muster", "exec", name, "--", "/muster", "--version"], outside),
        (&["-n", "muster", "port-forward", name, "9642:9642"], outside),
        (&["-n", "muster", "delete", "pod", name], outside),
        // Of Leases it has its own.
        (&["-n", "muster", "delete", "lease", "muster-daemon"], "cannot delete resource \"leases\""),
        (&["-n", "muster", "create", "-f", "-"], outside),
        (&["create", "namespace", "dr-sandbox-loose"], "does not enforce Pod Security `restricted`"),
    ];
    for (arguments, why) in refusals {
        let said = cluster.refused(&[&["--as", MUSTER], arguments].concat(), another_lease);
        assert!(said.contains(why), "kubectl {arguments:?}: {said}");
    }
    let own = ["--as", MUSTER, "create", "-f", "-"];
    let made = cluster.try_kubectl(&own, &restricted("dr-sandbox-own"));
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let loosen = ["--as", MUSTER, "label", "namespace", "dr-sandbox-own", "pod-security.kubernetes.io/enforce-"];
    assert!(cluster.refused(&loosen, "").contains("does not enforce Pod Security `restricted`"));
    cluster.kubectl(&["--as", MUSTER, "delete", "namespace", "dr-sandbox-own"]);
    ends_no_other_namespace(cluster);
    frees_a_volume_and_changes_nothing_of_it(cluster);
}

/// Where it may finalize namespaces, those are its own as well.
fn ends_no_other_namespace(cluster: &Cluster) {
    let finalizers = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes/finalizers");
    let finalizers = finalizers.to_str().unwrap();
    cluster.kubectl(&["apply", "-k", finalizers]);
    let other = Namespace::new(cluster, "muster-test-finalized");
    let finalize = |name: &str| {
        // As it is: nothing is to be left behind.
        let namespace = cluster.kubectl(&["get", "namespace", name, "-o", "json"]);
        let path = format!("/api/v1/namespaces/{name}/finalize");
        cluster.try_kubectl(&["--as", MUSTER, "replace", "--raw", &path, "-f", "-"], &namespace)
    };
    let refused = finalize(other.name);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("outside of the namespaces of its runs"), "{said}");
    let labels = "pod-security.kubernetes.io/enforce: restricted";
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{ name: dr-sandbox-finalized, labels: {{ {labels} }} }}\n"
    ));
    let done = finalize("dr-sandbox-finalized");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    cluster.kubectl(&["delete", "namespace", "dr-sandbox-finalized"]);
    cluster.kubectl(&["delete", "-k", finalizers]);
}

/// Of a run's claim on a backup alone.
fn frees_a_volume_and_changes_nothing_of_it(cluster: &Cluster) {
    let name = "muster-test-confined";
    let held = |namespace: &str, claim: &str| {
        format!(
            "apiVersion: v1\nkind: PersistentVolume\nmetadata: {{ name: {name}, labels: {{ a: b }} }}\nspec:\n  capacity: {{ storage: 1Gi }}\n  \
             accessModes: [ReadOnlyMany]\n  persistentVolumeReclaimPolicy: Retain\n  hostPath: {{ path: /nowhere }}\n  \
             claimRef: {{ namespace: {namespace}, name: {claim} }}\n"
        )
    };
    let free = r#""claimRef": null"#;
    let patches = [
        ("dr-sandbox-own", "backup", r#"{"spec": {"persistentVolumeReclaimPolicy": "Delete"}}"#.to_owned()),
        ("dr-sandbox-own", "backup", format!(r#"{{"spec": {{{free}, "persistentVolumeReclaimPolicy": "Delete"}}}}"#)),
        ("dr-sandbox-own", "backup", format!(r#"{{"spec": {{{free}, "mountOptions": ["suid"]}}}}"#)),
        ("dr-sandbox-own", "backup", format!(r#"{{"spec": {{{free}}}, "metadata": {{"labels": {{"a": "c"}}}}}}"#)),
        ("dr-sandbox-own", "backup", r#"{"spec": {"claimRef": {"namespace": "dr-sandbox-other"}}}"#.to_owned()),
        // It has restored data on it.
        ("dr-sandbox-own", "database", format!(r#"{{"spec": {{{free}}}}}"#)),
        ("production", "backup", format!(r#"{{"spec": {{{free}}}}}"#)),
    ];
    let patch =
        |patch: &str| cluster.try_kubectl(&["--as", MUSTER, "patch", "pv", name, "--type=merge", "-p", patch], "");
    for (namespace, claim, change) in patches {
        cluster.apply(&held(namespace, claim));
        let tried = patch(&change);
        let said = String::from_utf8_lossy(&tried.stderr).into_owned();
        assert!(
            !tried.status.success() && said.contains("may change nothing outside"),
            "{namespace}/{claim} {change}: {said}"
        );
        cluster.kubectl(&["delete", "pv", name, "--timeout=30s"]);
    }
    cluster.apply(&held("dr-sandbox-own", "backup"));
    let freed = patch(&format!(r#"{{"spec": {{{free}}}}}"#));
    assert!(freed.status.success(), "{}", String::from_utf8_lossy(&freed.stderr));
    assert!(cluster.refused(&["--as", MUSTER, "delete", "pv", name], "").contains("cannot delete"));
    cluster.kubectl(&["delete", "pv", name, "--timeout=30s"]);
}

fn muster_name(cluster: &Cluster) -> String {
    let pods = cluster.kubectl(&["-n", "muster", "get", "pods", "-o", "json"]);
    let pods: Value = serde_json::from_str(&pods).unwrap();
    pods["items"][0]["metadata"]["name"].as_str().unwrap().to_owned()
}

/// There is one namespace of this name.
static ONE: Mutex<()> = Mutex::new(());

/// muster as deploy/kubernetes/example has it, with a backup and a drill of it, `shop`; gone when dropped.
pub(crate) struct Deployed<'a> {
    cluster: &'a Cluster,
    volume: PathBuf,
    _one: MutexGuard<'static, ()>,
}

impl<'a> Deployed<'a> {
    pub(crate) fn apply(cluster: &'a Cluster, place: &Place) -> Self {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes/example");
        let (muster, image) = (cluster.muster_image(), cluster.postgresql_image());
        assert!(muster.starts_with("muster.local/muster@sha256:"), "{muster}");
        let deployed = Self { cluster, volume: cluster.volumes().join("muster-backups"), _one: one };
        deployed.backups(place);
        cluster.apply("apiVersion: v1\nkind: Namespace\nmetadata: { name: muster }\n");
        cluster.apply(
            "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: { name: muster-backups, namespace: muster }\n\
             spec: { storageClassName: '', volumeName: muster-backups, accessModes: [ReadOnlyMany], resources: { requests: { storage: 1Gi } } }\n",
        );
        place.write("shop.yaml", &drill(muster, image));
        let from = |name: &str| format!("--from-file={}", place.path(name).display());
        let (drill, key) = (from("shop.yaml"), from("backup.pub"));
        cluster.kubectl(&["-n", "muster", "create", "configmap", "muster-drills", &drill, &key]);
        cluster.kubectl(&["apply", "--server-side", "--force-conflicts", "-k", example.to_str().unwrap()]);
        deployed
    }

    fn backups(&self, place: &Place) {
        let backup = sample(place, "shop");
        let name = backup.name;
        let copied = std::process::Command::new("cp").arg("-r").arg(place.path("backups")).arg(&self.volume).status();
        assert!(copied.unwrap().success());
        assert!(self.volume.join(name).exists());
        let mut open = std::process::Command::new("chmod");
        assert!(open.args(["-R", "a+rX"]).arg(&self.volume).status().unwrap().success());
        self.cluster.apply(&format!(
            "apiVersion: v1\nkind: PersistentVolume\nmetadata: {{ name: muster-backups }}\nspec:\n  capacity: {{ storage: 1Gi }}\n  \
             accessModes: [ReadOnlyMany]\n  persistentVolumeReclaimPolicy: Retain\n  local: {{ path: {} }}\n  nodeAffinity: {{ required: {{ \
             nodeSelectorTerms: [{{ matchExpressions: [{{ key: kubernetes.io/hostname, operator: Exists }}] }}] }} }}\n",
            self.volume.display()
        ));
    }

    /// Tests beside this one end the API server and the kubelet; a pod that met that is begun again after ever longer pauses.
    #[track_caller]
    pub(crate) fn ready(&self) {
        self.cluster.kubectl(&["-n", "muster", "rollout", "status", "deployment/muster", "--timeout=300s"]);
    }

    pub(crate) fn pod(&self) -> String {
        muster_name(self.cluster)
    }

    /// Which file its store is.
    fn store(&self) -> (u64, u64) {
        let found = fs::metadata(self.state().join("muster.db")).unwrap();
        (found.dev(), found.ino())
    }

    /// Where its state lies on this machine.
    pub(crate) fn state(&self) -> PathBuf {
        let claim = ["-n", "muster", "get", "pvc", "muster-state", "-o", "jsonpath={.spec.volumeName}"];
        let volume = self.cluster.try_kubectl(&claim, "").stdout;
        self.cluster.volumes().join(String::from_utf8_lossy(&volume).as_ref()).join("state")
    }

    /// Namespaces of its runs.
    pub(crate) fn sandboxes(&self) -> Vec<String> {
        let owner = fs::read_to_string(self.state().join("kubernetes/owner")).unwrap_or_default();
        let of_its_own = ["get", "namespaces", "-o", "name", "-l", &format!("muster.dev/owner={owner}")];
        let names = self.cluster.try_kubectl(&of_its_own, "").stdout;
        String::from_utf8_lossy(&names).lines().map(str::to_owned).collect()
    }

    #[track_caller]
    pub(crate) fn exec(&self, arguments: &[&str]) -> String {
        let command = [&["-n", "muster", "exec", "deployment/muster", "--", "/muster"], arguments].concat();
        self.cluster.kubectl(&command)
    }
}

impl Drop for Deployed<'_> {
    fn drop(&mut self) {
        // Of a test that failed: nobody would end them.
        for sandbox in self.sandboxes() {
            self.cluster.try_kubectl(&["delete", &sandbox, "--wait=false"], "");
        }
        let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes/example");
        let gone = ["delete", "--ignore-not-found", "--timeout=120s", "-k", base.to_str().unwrap_or_default()];
        self.cluster.try_kubectl(&gone, "");
        self.cluster.try_kubectl(&["delete", "pv", "muster-backups", "--ignore-not-found", "--timeout=30s"], "");
        let _ = fs::remove_dir_all(&self.volume);
    }
}

/// As a drill in the cluster names what is there.
fn drill(muster: &str, image: &str) -> String {
    format!(
        "apiVersion: muster.dev/v1\nkind: Drill\nmetadata: {{ name: shop }}\nspec:\n  \
         source: {{ manifest: /backups/shop/latest/manifest.json, trustedKeys: [{{ file: /drills/backup.pub }}] }}\n  \
         isolation:\n    kubernetes:\n      image: {image}\n      musterImage: {muster}\n      production: ['10.250.0.10:5432']\n"
    )
}

/// Gone when dropped.
struct Namespace<'a> {
    cluster: &'a Cluster,
    name: &'a str,
}

impl<'a> Namespace<'a> {
    fn new(cluster: &'a Cluster, name: &'a str) -> Self {
        cluster.kubectl(&["create", "namespace", name]);
        within(30, "the default service account", || {
            cluster.try_kubectl(&["-n", name, "get", "serviceaccount", "default"], "").status.success().then_some(())
        });
        Self { cluster, name }
    }
}

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        self.cluster.try_kubectl(&["delete", "namespace", self.name, "--timeout=60s"], "");
    }
}
