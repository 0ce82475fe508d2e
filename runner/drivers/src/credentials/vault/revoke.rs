//! The end of a lease: in the database, in Vault, and seen from both.
use drill::id::RunId;
use drill::ledger::Resource;
use drill::port::{Inside, Lease, LeaseRequest, Server, SqlError};
use drill::proof::ReleaseProof;
use drill::stop::Stop;
use drill::verdict::Reason;

use super::super::readonly::{self, admin, role};
use super::VaultCredentials;
use super::api::Api;
use super::fault::Failure;
use super::statements::VAULT_ROLE;
use super::visit::Visit;
use crate::engine::postgresql::MAINTENANCE_DATABASE;
use crate::engine::postgresql::text::literal;

const DOING: &str = "revoking the lease in Vault";

impl VaultCredentials {
    /// While the database is there. Whatever Vault does, the login is locked first and gone at the end.
    pub(super) async fn revoke_beside(
        &self,
        request: &LeaseRequest,
        lease: Option<&Lease>,
        inside: Inside<'_>,
    ) -> Result<ReleaseProof, Stop> {
        let server = inside.server;
        let users = match users(server, &request.run).await {
            Ok(users) => users,
            Err(SqlError { sqlstate: None, message }) => {
                return self.revoke_after(&format!("the database does not answer ({message})"), &request.run).await;
            }
            Err(error) => return Err(readonly::stop("looking for the lease's login", &error)),
        };
        for user in &users {
            for statement in role::lock(user) {
                admin(server, "locking the lease", &statement).await?;
            }
            self.guards.relieve(user);
        }
        let api = self.api(&request.run);
        let in_vault = revoke_in_vault(&api, request, inside).await;
        let login = match (lease, users.first()) {
            (Some(lease), _) => lease.grant.identity.role.clone(),
            (None, Some(user)) => user.clone(),
            (None, None) => Resource::lease_role(&request.run),
        };
        let refused = readonly::see_refused(server, &login, &request.databases).await;
        // Once more, because a request whose answer was lost may have been fulfilled since.
        for user in self::users(server, &request.run).await.map_err(|error| readonly::stop(DOING, &error))? {
            role::remove(server, &user, &request.databases).await?;
        }
        role::remove(server, VAULT_ROLE, &[]).await?;
        let mut observed = in_vault?;
        observed.push(refused?);
        remove_from_vault(&api).await?;
        observed.push("Vault's role and connection removed".to_owned());
        Ok(ReleaseProof { observed })
    }

    /// Where there is no database to ask, Vault forgets what it lent for it. The role goes first, so that a request that is still
    /// on its way makes nothing new.
    pub(super) async fn revoke_after(&self, why: &str, run: &RunId) -> Result<ReleaseProof, Stop> {
        let api = self.api(run);
        let failed = |failure: Failure| failure.stop(DOING);
        api.delete_role().await.map_err(failed)?;
        let leases = api.leases().await.map_err(failed)?;
        let mut observed = vec![why.to_owned()];
        if leases.is_empty() {
            observed.push("Vault has no lease of the run".to_owned());
        } else {
            api.forget_all().await.map_err(failed)?;
            see_none(&api).await?;
            observed.extend(leases.iter().map(|lease| format!("lease {lease} revoked by force")));
        }
        remove_from_vault(&api).await?;
        observed.push("Vault's role and connection removed".to_owned());
        Ok(ReleaseProof { observed })
    }
}

async fn revoke_in_vault(api: &Api<'_>, request: &LeaseRequest, inside: Inside<'_>) -> Result<Vec<String>, Stop> {
    let leases = api.leases().await.map_err(|failure| failure.stop(DOING))?;
    if leases.is_empty() {
        return Ok(vec!["Vault has no lease of the run".to_owned()]);
    }
    let visit = Visit::begin(api, request, inside).await?;
    let revoked = api.revoke_all().await;
    visit.end(inside.server).await?;
    revoked.map_err(|failure| failure.stop(DOING))?;
    see_none(api).await?;
    Ok(leases.iter().map(|lease| format!("lease {lease} revoked")).collect())
}

async fn see_none(api: &Api<'_>) -> Result<(), Stop> {
    let left = api.leases().await.map_err(|failure| failure.stop("looking whether the leases are gone"))?;
    if left.is_empty() {
        return Ok(());
    }
    let what = format!("{DOING}: Vault still lists {} after it said that it was done", left.join(", "));
    Err(Stop::new(Reason::Credentials, what).advise("its log says why; muster asks again"))
}

/// What was lent between the last look and the end of the role is forgotten: its user is gone from the database.
async fn remove_from_vault(api: &Api<'_>) -> Result<(), Stop> {
    let removed = async {
        api.delete_role().await?;
        if !api.leases().await?.is_empty() {
            api.forget_all().await?;
        }
        api.delete_connection().await
    };
    removed.await.map_err(|failure| failure.stop("removing muster's role and connection from Vault"))
}

/// The logins that Vault made for the run, also those that nobody told muster of.
async fn users(server: &dyn Server, run: &RunId) -> Result<Vec<String>, SqlError> {
    let base = Resource::lease_role(run);
    let query = format!(
        "SELECT rolname FROM pg_catalog.pg_roles WHERE pg_catalog.starts_with(rolname, {})",
        literal(&format!("{base}-"))
    );
    let rows = server.admin(MAINTENANCE_DATABASE, &query).await?;
    Ok(rows.into_iter().filter_map(|mut row| row.swap_remove(0)).collect())
}
