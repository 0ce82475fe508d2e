//! Credentials that a Vault leases, or whatever else speaks its API.
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::RunId;
use crate::secret::SecretSource;

/// Where the leases of a drill come from. Holds no secret, so that the ledger can say whom recovery must ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Vault {
    /// `https://HOST:PORT`.
    pub address: String,
    /// A PEM file: the only roots that are trusted. Relative to the drill file.
    pub ca: PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    pub auth: VaultAuth,
    /// Where the database secrets engine is mounted, without slashes at its ends.
    pub mount: String,
    /// What the names begin with that muster writes beneath the mount.
    pub path: String,
    #[serde(with = "crate::unit::millis", rename = "ttlMilliseconds")]
    pub ttl: Duration,
    /// A lease that would live longer is replaced.
    #[serde(with = "crate::unit::millis", rename = "maxTtlMilliseconds")]
    pub max_ttl: Duration,
}

/// How muster logs in. `mount` is where the method is mounted beneath `auth/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum VaultAuth {
    AppRole {
        mount: String,
        role_id: String,
        secret_id: SecretSource,
    },
    /// With the token of a service account.
    Kubernetes {
        mount: String,
        role: String,
        token: PathBuf,
    },
    /// A token that somebody else keeps, such as Vault's agent; read again when the file changes.
    Token {
        file: PathBuf,
    },
    /// A client certificate, PEM.
    Certificate {
        mount: String,
        /// None: whichever role takes the certificate.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        role: Option<String>,
        certificate: PathBuf,
        key: PathBuf,
    },
}

impl Vault {
    /// The name of a run's connection and of its role in the secrets engine.
    pub fn name_of(&self, run: &RunId) -> String {
        format!("{}-{run}", self.path)
    }

    /// With its files found from the directory of the drill file. What stands in a variable of the service manager is resolved
    /// by whoever reads the file.
    #[must_use]
    pub fn beneath(mut self, base: &Path) -> Self {
        for path in self.files() {
            if !path.as_os_str().as_encoded_bytes().starts_with(b"${") {
                *path = base.join(&*path);
            }
        }
        self
    }

    /// Every file that it names.
    pub fn files(&mut self) -> Vec<&mut PathBuf> {
        let mut files = vec![&mut self.ca];
        match &mut self.auth {
            VaultAuth::AppRole { secret_id: SecretSource::File(file), .. }
            | VaultAuth::Kubernetes { token: file, .. }
            | VaultAuth::Token { file } => files.push(file),
            VaultAuth::AppRole { secret_id: SecretSource::Env(_), .. } => {}
            VaultAuth::Certificate { certificate, key, .. } => files.extend([certificate, key]),
        }
        files
    }
}
