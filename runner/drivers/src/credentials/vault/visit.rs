//! Vault's way into the restored database, open for as long as one request needs it.
use std::time::Duration;

use drill::ledger::Resource;
use drill::port::{Doorway, Inside, LeaseRequest, Server};
use drill::stop::Stop;

use super::super::readonly::{admin, role};
use super::api::{Api, Reach};
use super::statements::{VAULT_ROLE, make_vault_role};
use crate::engine::postgresql::MAINTENANCE_DATABASE;

/// Longer than all tries of a request take.
const LONGEST: Duration = Duration::from_mins(5);

/// Dropping it closes the doorway; the role stays, and is of no use without.
pub(super) struct Visit {
    doorway: Box<dyn Doorway>,
}

impl Visit {
    /// Vault has been in when it returns: it tries a connection before it takes it.
    pub(super) async fn begin(api: &Api<'_>, request: &LeaseRequest, inside: Inside<'_>) -> Result<Self, Stop> {
        role::remove(inside.server, VAULT_ROLE, &[]).await?;
        admin(inside.server, "making Vault's role", &make_vault_role()).await?;
        let visit = Self { doorway: inside.sandbox.open_doorway().await? };
        let reach = Reach {
            host: visit.doorway.host(),
            port: visit.doorway.port(),
            database: MAINTENANCE_DATABASE,
            identity: inside.server.identity(VAULT_ROLE, LONGEST)?,
            users: Resource::lease_role(&request.run),
        };
        match api.write_connection(reach).await {
            Ok(()) => Ok(visit),
            Err(failure) => {
                visit.end(inside.server).await?;
                Err(failure.stop("letting Vault into the restored database"))
            }
        }
    }

    pub(super) async fn end(self, server: &dyn Server) -> Result<(), Stop> {
        let closed = self.doorway.close().await;
        let removed = role::remove(server, VAULT_ROLE, &[]).await;
        closed.and(removed.map(drop))
    }
}
