//! The requests that vaultrs lacks, or whose answers it would cut short.
use std::collections::BTreeMap;

use rustify_derive::Endpoint;
use serde::Deserialize;
use serde::de::IgnoredAny;

/// What the token may do with each path.
#[derive(Debug, Endpoint)]
#[endpoint(path = "sys/capabilities-self", method = "POST", response = "BTreeMap<String, Vec<String>>")]
pub(super) struct Capabilities {
    pub paths: Vec<String>,
}

/// What is mounted there: answered to whoever may use anything of it.
#[derive(Debug, Endpoint)]
#[endpoint(path = "sys/internal/ui/mounts/{self.mount}", response = "Mount")]
pub(super) struct ReadMount {
    #[endpoint(skip)]
    pub mount: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Mount {
    #[serde(rename = "type")]
    pub kind: String,
}

/// vaultrs has no TLS material for it; Vault takes it from 1.18 on.
#[derive(Endpoint)]
#[endpoint(path = "{self.mount}/config/{self.name}", method = "POST", response = "IgnoredAny")]
pub(super) struct WriteConnection {
    #[endpoint(skip)]
    pub mount: String,
    #[endpoint(skip)]
    pub name: String,
    pub plugin_name: &'static str,
    pub connection_url: String,
    pub username: String,
    pub username_template: String,
    pub allowed_roles: Vec<String>,
    pub verify_connection: bool,
    pub max_open_connections: u32,
    pub tls_ca: String,
    pub tls_certificate: String,
    pub private_key: String,
}

impl Drop for WriteConnection {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.private_key);
    }
}

/// vaultrs would keep the password and drop the lease.
#[derive(Debug, Endpoint)]
#[endpoint(path = "{self.mount}/creds/{self.name}", response = "MadeUser")]
pub(super) struct MakeCredentials {
    #[endpoint(skip)]
    pub mount: String,
    #[endpoint(skip)]
    pub name: String,
}

/// The password that comes with it is not read: it opens nothing, because the login is by certificate.
#[derive(Debug, Deserialize)]
pub(super) struct MadeUser {
    pub username: String,
}

#[derive(Debug, Endpoint)]
#[endpoint(path = "sys/leases/lookup/{self.prefix}", method = "LIST", response = "Keys")]
pub(super) struct ListLeases {
    #[endpoint(skip)]
    pub prefix: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Keys {
    pub keys: Vec<String>,
}

/// With the lease in the path, so that a policy can say which leases.
#[derive(Debug, Endpoint)]
#[endpoint(path = "sys/leases/renew/{self.lease}", method = "PUT", response = "IgnoredAny")]
pub(super) struct RenewLease {
    #[endpoint(skip)]
    pub lease: String,
    /// Seconds.
    pub increment: u64,
}

/// Returns when all of them are revoked, or one could not be.
#[derive(Debug, Endpoint)]
#[endpoint(path = "sys/leases/revoke-prefix/{self.prefix}", method = "PUT", response = "IgnoredAny")]
pub(super) struct RevokePrefix {
    #[endpoint(skip)]
    pub prefix: String,
    pub sync: bool,
}

/// Forgets them without asking the database.
#[derive(Debug, Endpoint)]
#[endpoint(path = "sys/leases/revoke-force/{self.prefix}", method = "PUT", response = "IgnoredAny")]
pub(super) struct RevokeForce {
    #[endpoint(skip)]
    pub prefix: String,
}

/// vaultrs writes a tab at the beginning of its path.
#[derive(Debug, Endpoint)]
#[endpoint(path = "auth/token/renew-self", method = "POST", response = "IgnoredAny")]
pub(super) struct RenewSelf {}

#[derive(Debug, Endpoint)]
#[endpoint(path = "auth/token/revoke-self", method = "POST", response = "IgnoredAny")]
pub(super) struct RevokeSelf {}
