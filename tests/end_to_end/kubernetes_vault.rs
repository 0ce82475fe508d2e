//! Drills in the real cluster whose login a real Vault leases.
use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use whole_program::{Cluster, Vault};

use crate::kubernetes_drill::World;
use crate::vault::assert_leased_and_revoked;

/// From where this machine's Vault reaches pods.
const VAULT_COMES_FROM: &str = "10.251.255.1";

/// muster shows Vault its service account, as it does in a pod.
#[test]
fn a_vault_that_trusts_the_cluster_leases_the_login_of_a_drill_in_it() {
    let Some(world) = World::new() else { return };
    let vault = Vault::start();
    let login = ServiceAccounts::trusted_by(&vault, &world);
    let credentials = vault.credentials_by(&world.place, "kubernetes: { role: muster, tokenFile: service-account }");
    let drill = format!("{}      doorway: {{ addresses: [{VAULT_COMES_FROM}] }}\n{credentials}", world.drill_text());

    world.place.write("service-account", &login.token("default", "vault"));
    let run = world.run_text(&drill).expect(2);
    let result = run.result();
    assert_eq!(result["reason"], "credentials", "an account that the role does not name: {result}");
    assert!(result["message"].as_str().unwrap().contains("auth/kubernetes/login"), "{result}");

    world.place.write("service-account", &login.token(&login.name, "vault"));
    let run = world.run_text(&drill).expect(0);
    assert_eq!(run.result()["reason"], "proven", "{}", run.result());
    assert_leased_and_revoked(&run);
    let proofs = run.events("isolation");
    assert!(proofs.iter().any(|proof| proof.to_string().contains("after the doorway was closed")), "{proofs:?}");
    let evidence = fs::read_to_string(run.result()["evidence"]["path"].as_str().unwrap()).unwrap();
    assert!(!run.stdout.contains("PRIVATE KEY") && !evidence.contains("PRIVATE KEY"));
    vault.assert_no_lease_left();
    assert_eq!(vault.list("sys/leases/lookup/auth/kubernetes/login"), "", "a token of muster's is left");
    world.assert_nothing_left();
}

/// What a team writes, with what the platform wrote once.
#[test]
fn a_compact_manifest_is_a_whole_drill_with_a_vault_in_a_cluster() {
    let Some(world) = World::new() else { return };
    let vault = Vault::start();
    let credentials = vault.credentials(&world.place);
    let config = format!(
        "apiVersion: muster.dev/v1\nkind: Config\ndrills: [.]\ncompact:\n    backups: backups\n    trustedKeys: [{{ file: backup.pub }}]\n    \
         kubernetes: {{ image: '{}', musterImage: '{}', doorway: {{ addresses: [{VAULT_COMES_FROM}] }} }}\n{}",
        world.cluster.postgresql_image(),
        world.cluster.muster_image(),
        credentials.strip_prefix("  credentials:\n").unwrap(),
    );
    world.place.write("muster.yaml", &config);
    let manifest = json!({
        "drill_id": "shop", "backup_snapshot": "shop/latest", "db_engine": "postgresql:15", "target_port": 6432,
        "vault_path": "database", "ttl_seconds": 600,
    });
    world.place.write("shop.json", &manifest.to_string());
    let run = world.muster(&["run", "shop.json", "--config", "muster.yaml", "--output", "json"]).expect(0);
    assert_eq!(run.events("lease")[0]["ttlMilliseconds"], 600_000, "{:?}", run.events("lease"));
    vault.assert_nothing_left();
    world.assert_nothing_left();

    // What it stands for is the same drill.
    let expanded = world.muster(&["expand", "shop.json", "--config", "muster.yaml"]).expect(0).stdout;
    world.place.write("expanded.yaml", &expanded);
    let rendered = |arguments: &[&str]| world.muster(arguments).expect(0).stdout;
    let of_manifest = rendered(&["render", "shop.json", "--config", "muster.yaml"]);
    assert!(of_manifest.contains("\"port\": 6432") && of_manifest.contains("dr-drill-doorway"), "{of_manifest}");
    assert_eq!(rendered(&["render", "expanded.yaml"]), of_manifest);
}

/// Vault's reviewer, and the account that logs in; gone when dropped.
struct ServiceAccounts<'a> {
    cluster: &'a Cluster,
    name: String,
    reviewer: String,
}

impl<'a> ServiceAccounts<'a> {
    /// As docs/kubernetes.md says.
    fn trusted_by(vault: &Vault, world: &'a World) -> Self {
        let cluster = &world.cluster;
        let name = format!("muster-login-{}", std::process::id());
        let accounts = Self { cluster, reviewer: format!("{name}-reviewer"), name };
        let account = |name: &str| {
            json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": name, "namespace": "default" } }).to_string()
        };
        cluster.apply(&account(&accounts.name));
        cluster.apply(&account(&accounts.reviewer));
        let rbac = "rbac.authorization.k8s.io";
        let binding = json!({
            "apiVersion": format!("{rbac}/v1"), "kind": "ClusterRoleBinding", "metadata": { "name": accounts.reviewer },
            "roleRef": { "apiGroup": rbac, "kind": "ClusterRole", "name": "system:auth-delegator" },
            "subjects": [{ "kind": "ServiceAccount", "name": accounts.reviewer, "namespace": "default" }],
        });
        cluster.apply(&binding.to_string());
        let reviewer = cluster.kubectl(&["-n", "default", "create", "token", &accounts.reviewer, "--duration=1h"]);
        let reviewer = world.place.write("reviewer", reviewer.trim());
        let view = cluster.kubectl(&["config", "view", "--raw", "-o", "json"]);
        let view: Value = serde_json::from_str(&view).unwrap();
        let server = &view["clusters"][0]["cluster"];
        let ca = STANDARD.decode(server["certificate-authority-data"].as_str().unwrap()).unwrap();
        let ca = world.place.write("cluster-ca.pem", &String::from_utf8(ca).unwrap());
        vault.cli(&["auth", "enable", "kubernetes"]);
        let file = |name: &str, path: &std::path::Path| format!("{name}=@{}", path.display());
        vault.cli(&[
            "write",
            "auth/kubernetes/config",
            &format!("kubernetes_host={}", server["server"].as_str().unwrap()),
            &file("kubernetes_ca_cert", &ca),
            &file("token_reviewer_jwt", &reviewer),
        ]);
        vault.cli(&[
            "write",
            "auth/kubernetes/role/muster",
            &format!("bound_service_account_names={}", accounts.name),
            "bound_service_account_namespaces=default",
            "audience=vault",
            "token_policies=muster",
            "token_no_default_policy=true",
            "token_period=20m",
        ]);
        accounts
    }

    fn token(&self, of: &str, audience: &str) -> String {
        let audience = format!("--audience={audience}");
        self.cluster.kubectl(&["-n", "default", "create", "token", of, &audience, "--duration=1h"]).trim().to_owned()
    }
}

impl Drop for ServiceAccounts<'_> {
    fn drop(&mut self) {
        let gone = |kind: &str, name: &str| {
            self.cluster.try_kubectl(&["-n", "default", "delete", kind, name, "--ignore-not-found"], "");
        };
        gone("clusterrolebinding", &self.reviewer);
        gone("serviceaccount", &self.reviewer);
        gone("serviceaccount", &self.name);
    }
}
