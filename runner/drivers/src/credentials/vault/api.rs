//! What muster asks of a Vault, in its own words.
use drill::spec::Vault;
use drill::stop::Stop;
use vaultrs::api::database::requests::{DeleteConnectionRequest, DeleteRoleRequest, SetRoleRequest};

use super::client::Client;
use super::endpoints::{
    Capabilities, ListLeases, MakeCredentials, ReadMount, RenewLease, RevokeForce, RevokePrefix, WriteConnection,
};
use super::fault::{Failure, Fault};
use super::statements;

/// One run's connection, role and leases.
pub(super) struct Api<'a> {
    client: &'a Client,
    mount: &'a str,
    name: String,
}

/// A user that Vault made in the database, and the lease that it hangs on.
pub(super) struct Leased {
    pub(super) user: String,
    pub(super) lease: String,
    /// Seconds.
    pub(super) duration: u64,
}

/// Where Vault finds the database, and as whom.
pub(super) struct Reach {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) database: &'static str,
    pub(super) identity: drill::agent::ClientIdentity,
    /// The users' names begin with it.
    pub(super) users: String,
}

impl<'a> Api<'a> {
    pub(super) fn new(client: &'a Client, vault: &'a Vault, run: &drill::id::RunId) -> Self {
        Self { client, mount: &vault.mount, name: vault.name_of(run) }
    }

    /// What leases of this run begin with.
    fn prefix(&self) -> String {
        format!("{}/creds/{}", self.mount, self.name)
    }

    /// Says which path and which capability is missing.
    pub(super) async fn check_policy(&self) -> Result<(), Stop> {
        let doing = "asking Vault what muster may do";
        let wanted = self.wanted();
        let paths = wanted.iter().map(|(path, _)| path.clone()).collect();
        let answer = self.client.call(Capabilities { paths }).await.map_err(|failure| failure.stop(doing))?;
        let granted = answer.data.unwrap_or_default();
        let missing = wanted.iter().filter_map(|(path, wanted)| {
            let granted = granted.get(path).map_or(&[][..], Vec::as_slice);
            let has = |capability: &str| granted.iter().any(|granted| granted == capability || granted == "root");
            let lacking: Vec<&str> = wanted.iter().copied().filter(|wanted| !has(wanted)).collect();
            (!lacking.is_empty()).then(|| format!("{} on {path}", lacking.join(", ")))
        });
        let missing: Vec<String> = missing.collect();
        if missing.is_empty() {
            return Ok(());
        }
        let what = format!("muster's policy in Vault lacks {}", missing.join("; "));
        Err(Stop::new(drill::verdict::Reason::Credentials, what)
            .advise("docs/vault.md has the whole policy")
            .because("permission-denied"))
    }

    /// Each path of this run with what must be allowed on it; deploy/vault/muster.hcl says the same.
    fn wanted(&self) -> Vec<(String, &'static [&'static str])> {
        let (mount, name, prefix) = (self.mount, &self.name, self.prefix());
        vec![
            (format!("{mount}/config/{name}"), &["create", "update", "delete"]),
            (format!("{mount}/roles/{name}"), &["create", "update", "delete"]),
            (format!("{mount}/creds/{name}"), &["read"]),
            (format!("sys/leases/renew/{prefix}/id"), &["update"]),
            (format!("sys/leases/lookup/{prefix}/"), &["list", "sudo"]),
            (format!("sys/leases/revoke-prefix/{prefix}"), &["update", "sudo"]),
            (format!("sys/leases/revoke-force/{prefix}"), &["update", "sudo"]),
            ("auth/token/renew-self".to_owned(), &["update"]),
            ("auth/token/revoke-self".to_owned(), &["update"]),
        ]
    }

    pub(super) async fn check_engine(&self) -> Result<(), Stop> {
        let doing = "looking for the database secrets engine";
        let mount = ReadMount { mount: self.mount.to_owned() };
        let answer = self.client.call(mount).await.map_err(|failure| failure.stop(doing))?;
        match answer.data {
            Some(mount) if mount.kind == "database" => Ok(()),
            other => {
                let kind = other.map_or_else(|| "nothing".to_owned(), |mount| format!("a `{}` engine", mount.kind));
                let what = format!("{doing}: at `{}` there is {kind}", self.mount);
                let advice = format!("vault secrets enable -path={} database", self.mount);
                Err(Stop::new(drill::verdict::Reason::Credentials, what).advise(advice).because("not-found"))
            }
        }
    }

    /// Vault connects to the database before it answers.
    pub(super) async fn write_connection(&self, reach: Reach) -> Result<(), Failure> {
        let Reach { host, port, database, identity, users } = reach;
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let connection = WriteConnection {
            mount: self.mount.to_owned(),
            name: self.name.clone(),
            plugin_name: "postgresql-database-plugin",
            connection_url: format!("postgresql://{{{{username}}}}@{host}:{port}/{database}?sslmode=verify-full"),
            username: identity.role,
            username_template: statements::username_template(&users),
            allowed_roles: vec![self.name.clone()],
            verify_connection: true,
            max_open_connections: 2,
            tls_ca: identity.ca,
            tls_certificate: identity.certificate,
            private_key: identity.key.0.expose().to_owned(),
        };
        self.client.call(connection).await.map(drop)
    }

    /// `ttl` and `max_ttl` are seconds.
    pub(super) async fn write_role(&self, ttl: u64, max_ttl: u64) -> Result<(), Failure> {
        let role = SetRoleRequest {
            mount: self.mount.to_owned(),
            name: self.name.clone(),
            db_name: self.name.clone(),
            creation_statements: Some(statements::creation()),
            renew_statements: Some(statements::renewal()),
            revocation_statements: Some(statements::revocation()),
            rollback_statements: None,
            default_ttl: Some(format!("{ttl}s")),
            max_ttl: Some(format!("{max_ttl}s")),
        };
        self.client.call(role).await.map(drop)
    }

    pub(super) async fn lease(&self) -> Result<Leased, Failure> {
        let request = MakeCredentials { mount: self.mount.to_owned(), name: self.name.clone() };
        let answer = self.client.call(request).await?;
        let garbled = || Failure {
            request: format!("GET {}", self.prefix()),
            fault: Fault::Garbled("credentials without a user or a lease".to_owned()),
        };
        let user = answer.data.map(|made| made.username).filter(|user| !user.is_empty()).ok_or_else(garbled)?;
        if answer.lease_id.is_empty() {
            return Err(garbled());
        }
        Ok(Leased { user, lease: answer.lease_id, duration: answer.lease_duration })
    }

    /// Returns the seconds that it lives from now, which may be fewer.
    pub(super) async fn renew(&self, lease: &str, increment: u64) -> Result<u64, Failure> {
        let answer = self.client.call(RenewLease { lease: lease.to_owned(), increment }).await?;
        Ok(answer.lease_duration)
    }

    /// The ids of the run's leases, whoever asked for them.
    pub(super) async fn leases(&self) -> Result<Vec<String>, Failure> {
        let prefix = format!("{}/", self.prefix());
        match self.client.call(ListLeases { prefix: prefix.clone() }).await {
            Ok(answer) => {
                let keys = answer.data.map(|listed| listed.keys).unwrap_or_default();
                Ok(keys.into_iter().map(|key| format!("{prefix}{key}")).collect())
            }
            Err(Failure { fault: Fault::Absent, .. }) => Ok(Vec::new()),
            Err(failure) => Err(failure),
        }
    }

    pub(super) async fn revoke_all(&self) -> Result<(), Failure> {
        self.client.call(RevokePrefix { prefix: self.prefix(), sync: true }).await.map(drop)
    }

    pub(super) async fn forget_all(&self) -> Result<(), Failure> {
        self.client.call(RevokeForce { prefix: self.prefix() }).await.map(drop)
    }

    /// One that is not there is success, in Vault's eyes.
    pub(super) async fn delete_role(&self) -> Result<(), Failure> {
        let request = DeleteRoleRequest { mount: self.mount.to_owned(), name: self.name.clone() };
        self.client.call(request).await.map(drop)
    }

    pub(super) async fn delete_connection(&self) -> Result<(), Failure> {
        let request = DeleteConnectionRequest { mount: self.mount.to_owned(), name: self.name.clone() };
        self.client.call(request).await.map(drop)
    }
}
