//! A volume that has the backup already: claimed for the run, and read-only wherever it is mounted.
use drill::spec::{Kubernetes, Volume};
use serde_json::{Value, json};

use super::{BACKUP, DATABASE_USER, Names, SMALL_MEMORY, VERIFIER, container, pod_spec};
use crate::isolation::kubernetes::inside;

/// Where the verifier sees all of the volume.
pub(in super::super) const WHOLE: &str = "/volume";
/// Bytes that the claim asks for: it is the volume that it names, however large that is.
pub(super) const LEAST: u64 = 1;
/// Of whoever hashes: a chunk of up to 16 MiB for each of up to 16 threads, and the manifest.
pub(super) const MEMORY: &str = "512Mi";

pub(super) fn backup_claim(names: &Names, volume: &Volume) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": names.metadata(BACKUP, &names.sandbox),
        "spec": {
            "accessModes": ["ReadOnlyMany"], "volumeName": volume.name,
            "resources": { "requests": { "storage": LEAST.to_string() } },
        },
    })
}

/// Of a user that may read no more than the database's. Its role keeps it out of every policy that allows anything.
pub(super) fn verifier(names: &Names, asked: &Kubernetes) -> Value {
    let mut metadata = names.metadata(VERIFIER, &names.sandbox);
    metadata["labels"]["role"] = json!("artifact-verifier");
    let mut spec = pod_spec(DATABASE_USER);
    spec["volumes"] = json!([volume()]);
    let limits = json!({ "memory": MEMORY, "ephemeral-storage": SMALL_MEMORY });
    let mounts = json!([{ "name": BACKUP, "mountPath": WHOLE, "readOnly": true }]);
    spec["containers"] = json!([container(VERIFIER, &asked.muster_image, &[inside::POD, "wait"], &limits, &mounts)]);
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec })
}

pub(super) fn volume() -> Value {
    json!({ "name": BACKUP, "persistentVolumeClaim": { "claimName": BACKUP, "readOnly": true } })
}

/// What is to be restored, in the database's pod.
pub(super) fn mount(asked: &Kubernetes, read_only: bool) -> Value {
    let mut mount = json!({ "name": BACKUP, "mountPath": "/backup", "readOnly": read_only });
    if let Some(path) = asked.artifact.as_ref().and_then(|volume| volume.path.as_ref()) {
        mount["subPath"] = json!(path);
    }
    mount
}

#[cfg(test)]
mod tests {
    use super::super::tests::{asked, asked_for_more};
    use super::super::{Names, Objects, template};
    use super::*;

    fn on_a_volume(from: Kubernetes) -> Kubernetes {
        let volume = Volume { name: "backups-orders".to_owned(), path: Some("orders/latest".to_owned()) };
        Kubernetes { artifact: Some(volume), ..from }
    }

    #[test]
    fn a_backup_on_a_volume_is_read_only_wherever_it_is_mounted() {
        let objects = Objects::render(&Names::placeholders(), &on_a_volume(asked()));
        let (claim, verifier) = objects.backup.expect("asked for");
        assert_eq!(claim["spec"]["volumeName"], "backups-orders");
        assert_eq!(claim["spec"]["accessModes"], json!(["ReadOnlyMany"]));
        let mut seen = Vec::new();
        for pod in objects.pods.iter().chain([&verifier]) {
            let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
            for volume in volumes.filter(|volume| volume["persistentVolumeClaim"]["claimName"] == BACKUP) {
                assert_eq!(volume["persistentVolumeClaim"]["readOnly"], true, "{pod}");
            }
            for container in pod["spec"]["containers"].as_array().expect("containers") {
                for mount in
                    container["volumeMounts"].as_array().into_iter().flatten().filter(|one| one["name"] == BACKUP)
                {
                    assert_eq!(mount["readOnly"], true, "{container}");
                    seen.push((container["name"].clone(), mount["subPath"].clone()));
                }
            }
        }
        let path = json!("orders/latest");
        assert_eq!(
            seen,
            [(json!("database"), path.clone()), (json!("intake"), path), (json!("verifier"), json!(null))]
        );
    }

    /// The stranger's policy lets out whoever has neither `app` nor `role`.
    #[test]
    fn no_policy_that_allows_holds_the_verifier_and_the_template_has_it() {
        let asked = on_a_volume(asked());
        let objects = Objects::render(&Names::placeholders(), &asked);
        let labels = objects.backup.expect("asked for").1["metadata"]["labels"].clone();
        assert_eq!((&labels["role"], labels.get("app")), (&json!("artifact-verifier"), None));
        assert!(
            objects
                .policies
                .iter()
                .all(|policy| policy["spec"]["podSelector"]["matchLabels"]["role"] != labels["role"])
        );
        assert!(template(&asked).contains("artifact-verifier"));
    }

    #[test]
    fn there_is_room_for_each_claim_and_no_more() {
        let hard = |asked: &Kubernetes| Objects::render(&Names::placeholders(), asked).quota["spec"]["hard"].clone();
        assert_eq!((&hard(&asked())["pods"], &hard(&on_a_volume(asked()))["pods"]), (&json!("3"), &json!("4")));
        let (one, both) = (hard(&on_a_volume(asked())), hard(&on_a_volume(asked_for_more())));
        assert_eq!((&one["persistentvolumeclaims"], &one["requests.storage"]), (&json!("1"), &json!("1")));
        let size = ((8_u64 << 30) + LEAST).to_string();
        assert_eq!((&both["persistentvolumeclaims"], &both["requests.storage"]), (&json!("2"), &json!(size)));
    }
}
