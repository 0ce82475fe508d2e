//! What a sandbox is made of, as the objects that are applied. Pure: the same drill gives the same text for every run, save for
//! the names in [`Names`], and the digest of that text stands in the evidence.
mod backup;
mod policies;

use drill::id::RunId;
use drill::spec::{Claim, Kubernetes};
use serde_json::{Value, json};

use super::doorway::port_beside;
use super::inside;
pub(super) use backup::WHOLE;
use backup::{backup_claim, verifier};
use policies::{doorway, policies};

/// Who applies: fields that somebody else set show, and whoever applies twice changes nothing.
pub(super) const MANAGER: &str = "muster";
pub(super) const PORT: u16 = 5432;
/// Where the witness listens: TCP, and datagrams that it answers.
pub(super) const WITNESS_PORT: u16 = 7053;

pub(super) const OWNER: &str = "muster.dev/owner";
pub(super) const RUN: &str = "muster.dev/run";
/// What an operator reads of whoever made it.
const RECORD: &str = "muster.dev/owner-record";

pub(super) const ISOLATION: &str = "dr-drill-isolation";
pub(super) const DEFAULT_DENY: &str = "dr-drill-default-deny";
/// There while a doorway is open.
pub(super) const DOORWAY: &str = "dr-drill-doorway";
pub(super) const AGENT_EGRESS: &str = "dr-drill-agent-egress";
/// Lets the stranger out, so that what stops it is the database's own policy; gone before the first byte of a backup comes.
pub(super) const STRANGER_EGRESS: &str = "dr-drill-stranger-egress";

pub(super) const DATABASE: &str = "database";
pub(super) const AGENT: &str = "agent";
/// What the restored databases lie on, where the drill claims a volume.
pub(super) const CLAIM: &str = "database";
/// Holds the volume that has the backup, where the drill names one.
pub(super) const BACKUP: &str = "backup";
/// Looks at that volume before the database's pod is there.
pub(super) const VERIFIER: &str = "verifier";
pub(super) const STRANGER: &str = "stranger";
pub(super) const WITNESS: &str = "witness";
/// The container of the database's pod that takes files from the runner: the database sees them read-only.
pub(super) const INTAKE: &str = "intake";

const DATABASE_USER: u32 = 70;
const AGENT_MEMORY: &str = "1Gi";
const SMALL_MEMORY: &str = "64Mi";

/// What differs between runs.
pub(super) struct Names {
    pub(super) sandbox: String,
    pub(super) witness: String,
    run: String,
    owner: String,
    record: String,
}

impl Names {
    pub(super) fn of(run: &RunId, owner: &str, record: &str) -> Self {
        Self {
            sandbox: format!("dr-sandbox-{run}"),
            witness: format!("dr-witness-{run}"),
            run: run.to_string(),
            owner: owner.to_owned(),
            record: record.to_owned(),
        }
    }

    fn placeholders() -> Self {
        let text = str::to_owned;
        Self {
            sandbox: text("dr-sandbox-RUN"),
            witness: text("dr-witness-RUN"),
            run: text("RUN"),
            owner: text("OWNER"),
            record: text("RECORD"),
        }
    }

    fn labels(&self) -> Value {
        json!({ "app.kubernetes.io/managed-by": MANAGER, OWNER: self.owner, RUN: self.run })
    }

    fn metadata(&self, name: &str, namespace: &str) -> Value {
        json!({ "name": name, "namespace": namespace, "labels": self.labels() })
    }

    fn namespace(&self, name: &str) -> Value {
        let mut labels = self.labels();
        for mode in ["enforce", "warn", "audit"] {
            labels[format!("pod-security.kubernetes.io/{mode}")] = json!("restricted");
        }
        json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": { "name": name, "labels": labels, "annotations": { RECORD: self.record } },
        })
    }
}

/// Everything of one run, in the order in which it is made.
pub(super) struct Objects {
    pub(super) namespaces: Vec<Value>,
    pub(super) quota: Value,
    pub(super) limit_range: Value,
    /// The allowing ones before the denying, because an exception that comes second is missed for a moment.
    pub(super) policies: Vec<Value>,
    pub(super) claim: Option<Value>,
    /// The claim on the backup's volume, without its storage class, which is the volume's own; and the pod that looks at it. They come
    /// before all other pods.
    pub(super) backup: Option<(Value, Value)>,
    /// Made and removed again while the sandbox lives.
    pub(super) doorway: Option<Value>,
    pub(super) pods: Vec<Value>,
}

impl Objects {
    pub(super) fn render(names: &Names, asked: &Kubernetes) -> Self {
        Self {
            namespaces: vec![names.namespace(&names.sandbox), names.namespace(&names.witness)],
            quota: quota(names, asked),
            limit_range: limit_range(names),
            policies: policies(names, asked),
            claim: asked.claim.as_ref().map(|claim| volume_claim(names, claim)),
            backup: asked.artifact.as_ref().map(|volume| (backup_claim(names, volume), verifier(names, asked))),
            doorway: asked.doorway.as_ref().map(|visitor| doorway(names, visitor, port_beside(asked.port))),
            pods: vec![database(names, asked), agent(names, asked), stranger(names, asked), witness(names, asked)],
        }
    }

    fn all(self) -> Vec<Value> {
        let one = vec![self.quota, self.limit_range];
        let backup = self.backup.into_iter().flat_map(|(claim, verifier)| [claim, verifier]);
        let asked_for = self.doorway.into_iter().chain(self.claim).chain(backup).collect();
        [self.namespaces, one, self.policies, asked_for, self.pods].concat()
    }
}

/// The same for every run of a drill: a List that `kubectl` could read.
pub(super) fn template(asked: &Kubernetes) -> String {
    let items = Objects::render(&Names::placeholders(), asked).all();
    format!("{:#}\n", json!({ "apiVersion": "v1", "kind": "List", "items": items }))
}

fn quota(names: &Names, asked: &Kubernetes) -> Value {
    // The verifier has gone by then, and may count for a moment still.
    let (pods, more) = if asked.artifact.is_some() { ("4", 3) } else { ("3", 2) };
    let memory = asked.memory + (more << 30);
    let mut quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": names.metadata("dr-drill", &names.sandbox),
        "spec": { "hard": {
            "pods": pods, "services": "0", "secrets": "0", "configmaps": "1", "persistentvolumeclaims": "0",
            "limits.memory": memory.to_string(),
            "limits.ephemeral-storage": (asked.disk * 2 + (2 << 30)).to_string(),
        } },
    });
    let claims = u8::from(asked.claim.is_some()) + u8::from(asked.artifact.is_some());
    quota["spec"]["hard"]["persistentvolumeclaims"] = json!(claims.to_string());
    if claims > 0 {
        let size =
            asked.claim.as_ref().map_or(0, |claim| claim.size) + backup::LEAST * u64::from(asked.artifact.is_some());
        quota["spec"]["hard"]["requests.storage"] = json!(size.to_string());
    }
    quota
}

fn volume_claim(names: &Names, claim: &Claim) -> Value {
    let mut object = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": names.metadata(CLAIM, &names.sandbox),
        "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": claim.size.to_string() } } },
    });
    if let Some(class) = &claim.storage_class {
        object["spec"]["storageClassName"] = json!(class);
    }
    object
}

/// For pods that somebody else makes here: they are small.
fn limit_range(names: &Names) -> Value {
    json!({
        "apiVersion": "v1", "kind": "LimitRange", "metadata": names.metadata("dr-drill", &names.sandbox),
        "spec": { "limits": [{
            "type": "Container",
            "default": { "memory": SMALL_MEMORY, "ephemeral-storage": SMALL_MEMORY },
            "defaultRequest": { "memory": SMALL_MEMORY, "ephemeral-storage": SMALL_MEMORY },
        }] },
    })
}

fn database(names: &Names, asked: &Kubernetes) -> Value {
    let mut metadata = names.metadata(DATABASE, &names.sandbox);
    metadata["labels"]["app"] = json!("restored-db");
    let mount =
        |name: &str, path: &str, read_only: bool| json!({ "name": name, "mountPath": path, "readOnly": read_only });
    let part = |name: &str, part: &str, path: &str, read_only: bool| json!({ "name": name, "subPath": part, "mountPath": path, "readOnly": read_only });
    let disk = asked.disk.to_string();
    let on_the_node = |name: &str| json!({ "name": name, "emptyDir": { "sizeLimit": disk } });
    let data = match &asked.claim {
        None => on_the_node("data"),
        Some(_) => json!({ "name": "data", "persistentVolumeClaim": { "claimName": CLAIM } }),
    };
    let backup = if asked.artifact.is_some() { backup::volume() } else { on_the_node("backup") };
    // What lies on volumes of its own takes no room on the node's disk.
    let times = u64::from(asked.claim.is_none()) + u64::from(asked.artifact.is_none());
    let quarter = asked.memory.div_ceil(4).to_string();
    let mut spec = pod_spec(DATABASE_USER);
    spec["hostname"] = json!("sandbox");
    if asked.claim.is_some() {
        // A fresh volume is root's.
        spec["securityContext"]["fsGroup"] = json!(DATABASE_USER);
    }
    spec["volumes"] = json!([
        { "name": "program", "emptyDir": { "sizeLimit": "512Mi" } },
        data,
        backup,
        { "name": "conf", "emptyDir": { "medium": "Memory", "sizeLimit": "16Mi" } },
        { "name": "tmp", "emptyDir": { "sizeLimit": quarter } },
        { "name": "shm", "emptyDir": { "medium": "Memory", "sizeLimit": quarter } },
    ]);
    spec["initContainers"] = json!([container(
        "prepare",
        &asked.muster_image,
        &[inside::PREPARE, "/volumes"],
        &json!({
            "memory": SMALL_MEMORY, "ephemeral-storage": SMALL_MEMORY,
        }),
        &json!([mount("program", "/volumes/program", false), mount("data", "/volumes/data", false)])
    )]);
    let (own, server) = (asked.port.to_string(), PORT.to_string());
    let mut database = container(
        DATABASE,
        &asked.image,
        &[inside::POD, "relay", &own, &server],
        &json!({
            "memory": asked.memory.to_string(), "ephemeral-storage": (asked.disk * times + (1 << 30)).to_string(),
        }),
        &json!([
            part("program", "muster", "/muster", true),
            part("program", "muster.d", "/muster.d", true),
            part("program", "passwd", "/etc/passwd", true),
            part("program", "group", "/etc/group", true),
            part("data", "data", "/data", false),
            mount("conf", "/conf", true),
            backup::mount(asked, true),
            mount("tmp", "/tmp", false),
            mount("shm", "/dev/shm", false),
        ]),
    );
    // The backup and the databases rarely both fill what they may: room for one of them is asked for.
    database["resources"]["requests"]["ephemeral-storage"] = json!(disk);
    database["env"] = json!([{ "name": "POD_IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } }]);
    if let Some(cpu) = asked.cpu_millis {
        database["resources"]["limits"]["cpu"] = json!(format!("{cpu}m"));
    }
    let intake = container(
        INTAKE,
        &asked.muster_image,
        &[inside::POD, "wait"],
        &json!({
            "memory": if asked.artifact.is_some() { backup::MEMORY } else { "128Mi" }, "ephemeral-storage": SMALL_MEMORY,
        }),
        &json!([mount("conf", "/conf", false), backup::mount(asked, asked.artifact.is_some())]),
    );
    spec["containers"] = json!([database, intake]);
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec })
}

fn agent(names: &Names, asked: &Kubernetes) -> Value {
    let mut metadata = names.metadata(AGENT, &names.sandbox);
    metadata["labels"]["role"] = json!("validation-agent");
    let mut spec = pod_spec(71);
    spec["volumes"] = json!([{ "name": "tmp", "emptyDir": { "medium": "Memory", "sizeLimit": SMALL_MEMORY } }]);
    spec["containers"] = json!([container(
        AGENT,
        &asked.muster_image,
        &[inside::POD, "wait"],
        &json!({
            "memory": AGENT_MEMORY, "ephemeral-storage": SMALL_MEMORY,
        }),
        &json!([{ "name": "tmp", "mountPath": "/tmp" }])
    )]);
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec })
}

fn stranger(names: &Names, asked: &Kubernetes) -> Value {
    plain(names, asked, STRANGER, &names.sandbox, &[inside::POD, "wait"])
}

fn witness(names: &Names, asked: &Kubernetes) -> Value {
    plain(names, asked, WITNESS, &names.witness, &[inside::POD, "listen", &WITNESS_PORT.to_string()])
}

fn plain(names: &Names, asked: &Kubernetes, name: &str, namespace: &str, arguments: &[&str]) -> Value {
    let mut spec = pod_spec(72);
    let limits = json!({ "memory": SMALL_MEMORY, "ephemeral-storage": SMALL_MEMORY });
    spec["containers"] = json!([container(name, &asked.muster_image, arguments, &limits, &json!([]))]);
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": names.metadata(name, namespace), "spec": spec })
}

/// No token, no name server, no second chance.
fn pod_spec(user: u32) -> Value {
    json!({
        "automountServiceAccountToken": false, "enableServiceLinks": false, "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1, "dnsPolicy": "None", "dnsConfig": { "nameservers": ["127.0.0.1"] },
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": user, "runAsGroup": user, "seccompProfile": { "type": "RuntimeDefault" },
        },
    })
}

/// Its limits are what it asks for: a node that lacks them is not chosen.
fn container(name: &str, image: &str, arguments: &[&str], limits: &Value, mounts: &Value) -> Value {
    let mut command = vec![drill::port::PROGRAM];
    command.extend(arguments);
    json!({
        "name": name, "image": image, "imagePullPolicy": "IfNotPresent", "command": command,
        "resources": { "limits": limits, "requests": { "cpu": "50m" } },
        "securityContext": {
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "privileged": false,
            "capabilities": { "drop": ["ALL"] },
        },
        "volumeMounts": mounts,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn asked() -> Kubernetes {
        Kubernetes {
            context: None,
            image: format!("registry.example/postgres@sha256:{}", "1".repeat(64)),
            muster_image: format!("registry.example/muster@sha256:{}", "2".repeat(64)),
            memory: 1 << 30,
            disk: 4 << 30,
            cpu_millis: Some(500),
            production: vec!["10.20.0.5:5432".parse().expect("a target")],
            orchestrator: None,
            probe_interval: std::time::Duration::from_mins(1),
            claim: None,
            port: 5432,
            doorway: None,
            remove_finalizers_after: None,
            artifact: None,
        }
    }

    /// With what a drill may ask for beside.
    pub(super) fn asked_for_more() -> Kubernetes {
        Kubernetes {
            orchestrator: Some("10.30.0.0/24".parse().expect("a network")),
            claim: Some(Claim { storage_class: Some("fast".to_owned()), size: 8 << 30 }),
            ..asked()
        }
    }

    #[test]
    fn a_claim_takes_the_place_of_the_nodes_disk() {
        let objects = Objects::render(&Names::placeholders(), &asked_for_more());
        let claim = objects.claim.expect("a claim");
        assert_eq!(claim["spec"]["storageClassName"], "fast");
        assert_eq!(claim["spec"]["resources"]["requests"]["storage"], (8_u64 << 30).to_string());
        assert_eq!(objects.quota["spec"]["hard"]["persistentvolumeclaims"], "1");
        let database = &objects.pods[0];
        let volumes = database["spec"]["volumes"].as_array().expect("volumes");
        let data = volumes.iter().find(|volume| volume["name"] == "data").expect("data");
        assert_eq!(data["persistentVolumeClaim"]["claimName"], claim["metadata"]["name"]);
        assert_eq!(database["spec"]["securityContext"]["fsGroup"], DATABASE_USER);
        let without = Objects::render(&Names::placeholders(), &asked());
        assert!(without.claim.is_none() && without.quota["spec"]["hard"]["persistentvolumeclaims"] == "0");
    }

    fn each_container(object: &Value) -> Vec<&Value> {
        let lists = ["initContainers", "containers"].map(|list| object["spec"][list].as_array());
        lists.into_iter().flatten().flatten().collect()
    }

    #[test]
    fn the_template_knows_no_run_and_is_what_was_approved() {
        let golden = include_str!("template.json");
        let text = template(&asked());
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/isolation/kubernetes/template.json"), &text)
                .expect("written");
        }
        assert_eq!(text, golden, "UPDATE_GOLDEN=1 writes it anew");
    }

    #[test]
    fn every_pod_is_restricted_and_has_limits() {
        for pod in Objects::render(&Names::placeholders(), &asked()).pods {
            assert_eq!(pod["spec"]["automountServiceAccountToken"], false);
            assert_eq!(pod["spec"]["securityContext"]["runAsNonRoot"], true);
            assert_eq!(pod["spec"]["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
            for container in each_container(&pod) {
                assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true, "{container}");
                assert_eq!(container["securityContext"]["capabilities"]["drop"], json!(["ALL"]));
                assert!(container["resources"]["limits"]["memory"].is_string(), "{container}");
            }
        }
    }

    #[test]
    fn what_the_runner_sends_is_read_only_to_the_database() {
        let pod = database(&Names::placeholders(), &asked());
        let mounts = pod["spec"]["containers"][0]["volumeMounts"].as_array().expect("mounts");
        for path in ["/muster", "/etc/passwd", "/conf", "/backup"] {
            let mount = mounts.iter().find(|mount| mount["mountPath"] == path).expect(path);
            assert_eq!(mount["readOnly"], true, "{path}");
        }
    }
}
