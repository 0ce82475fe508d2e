//! A mount, a policy and a login of one test's own, in the Vault that all of them share.
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use drill::id::RunId;
use drill::port::Credentials as _;
use drill::secret::SecretSource;
use drill::spec::{Vault, VaultAuth};
use drivers::credentials::vault::VaultCredentials;
use reqwest::Method;
use serde_json::{Value, json};

use super::server::{VaultServer, repository, vault};

pub(super) struct Place {
    pub(super) vault: Arc<VaultServer>,
    pub(super) name: String,
    directory: tempfile::TempDir,
    role_id: String,
}

impl Place {
    pub(super) async fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("drills-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let vault = vault().await;
        let directory = tempfile::Builder::new().prefix("muster-test-").tempdir().expect("a directory");
        vault.ok(Method::POST, &format!("sys/mounts/{name}"), Some(json!({ "type": "database" }))).await;
        let role = format!("auth/approle/role/{name}");
        let wanted = json!({ "token_policies": name, "token_no_default_policy": true, "token_period": "60s" });
        vault.ok(Method::POST, &role, Some(wanted)).await;
        let id = vault.ok(Method::GET, &format!("{role}/role-id"), None).await;
        let role_id = id["data"]["role_id"].as_str().expect("an id").to_owned();
        let place = Self { vault, name, directory, role_id };
        place.set_policy(&place.policy()).await;
        let secret = place.vault.ok(Method::POST, &format!("{role}/secret-id"), Some(json!({}))).await;
        place.put("secret-id", secret["data"]["secret_id"].as_str().expect("a secret"));
        place
    }

    /// The policy that ships, for this place's mount.
    pub(super) fn policy(&self) -> String {
        let shipped = repository().join("deploy/vault/muster.hcl");
        let shipped = std::fs::read_to_string(shipped).expect("the policy that ships");
        shipped.replace("database/", &format!("{}/", self.name))
    }

    pub(super) async fn set_policy(&self, policy: &str) {
        let path = format!("sys/policies/acl/{}", self.name);
        self.vault.ok(Method::PUT, &path, Some(json!({ "policy": policy }))).await;
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(super) fn put(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, format!("{text}\n")).expect("written");
        path
    }

    pub(super) fn config(&self) -> Vault {
        Vault {
            address: self.vault.address(),
            ca: self.vault.ca(),
            namespace: None,
            auth: VaultAuth::AppRole {
                mount: "approle".to_owned(),
                role_id: self.role_id.clone(),
                secret_id: SecretSource::File(self.path("secret-id")),
            },
            mount: self.name.clone(),
            path: "muster".to_owned(),
            ttl: Duration::from_mins(5),
            max_ttl: Duration::from_hours(1),
        }
    }

    pub(super) fn credentials(&self) -> VaultCredentials {
        credentials_of(self.config())
    }

    async fn list(&self, path: &str) -> Vec<Value> {
        let (status, answer) = self.vault.root("LIST", path, None).await;
        assert!(matches!(status, 200 | 404), "{path}: {status} {answer}");
        answer["data"]["keys"].as_array().cloned().unwrap_or_default()
    }

    pub(super) async fn leases_of(&self, name: &str) -> usize {
        self.list(&format!("sys/leases/lookup/{}/creds/{name}/", self.name)).await.len()
    }

    /// No lease, no role, no connection; and no token of a login, once each of `used` has given its own back.
    pub(super) async fn assert_clean_after(&self, used: &[&VaultCredentials], run: &RunId) {
        for credentials in used {
            credentials.cool_down(run).await;
        }
        for path in ["config", "roles"] {
            assert_eq!(self.list(&format!("{}/{path}", self.name)).await, Vec::<Value>::new(), "{path}");
        }
        assert_eq!(self.list(&format!("sys/leases/lookup/{}/", self.name)).await, Vec::<Value>::new());
        assert_eq!(self.tokens().await.len(), 1, "beside root's own, tokens are left");
    }

    /// What `vault list auth/token/accessors` shows.
    pub(super) async fn tokens(&self) -> Vec<Value> {
        self.list("auth/token/accessors").await
    }

    /// A token beside root's own, where there is one.
    pub(super) async fn token(&self) -> Option<Value> {
        for accessor in self.tokens().await {
            let wanted = json!({ "accessor": accessor });
            let (status, mut answer) = self.vault.root("POST", "auth/token/lookup-accessor", Some(wanted)).await;
            if status == 200 && answer["data"]["path"] != "auth/token/root" {
                return Some(answer["data"].take());
            }
        }
        None
    }
}

pub(super) fn credentials_of(config: Vault) -> VaultCredentials {
    VaultCredentials::new(config).expect("an https address")
}
