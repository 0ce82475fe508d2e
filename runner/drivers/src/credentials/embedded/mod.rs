//! A role made over the administrator's connection, for one run, that can read everything and change nothing.
use async_trait::async_trait;
use drill::id::RunId;
use drill::ledger::Resource;
use drill::port::{Credentials, Inside, Lease, LeaseRequest};
use drill::proof::{LeaseProof, ReleaseProof};
use drill::stop::Stop;

use super::readonly::{self, Guards, admin, role};
use super::{end_of_lease, grant};
use crate::engine::postgresql::text::{identifier, literal};

#[derive(Default)]
pub struct Embedded {
    guards: Guards,
}

impl Embedded {
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl Credentials for Embedded {
    fn name(&self) -> &'static str {
        "embedded"
    }

    fn opens_doorway(&self) -> bool {
        false
    }

    /// Everything it needs is in the database.
    async fn warm_up(&self, _run: &RunId) -> Result<(), Stop> {
        Ok(())
    }

    async fn issue(&self, request: &LeaseRequest, inside: Inside<'_>) -> Result<Lease, Stop> {
        let server = inside.server;
        let role = Resource::lease_role(&request.run);
        let taken = readonly::close(server, &request.databases).await?;
        role::remove(server, &role, &request.databases).await?;
        let expires_at = end_of_lease(request);
        let name = identifier(&role);
        let mut statements = role::make(&name, &literal(&expires_at.to_string()));
        statements.extend(role::admit(&name, &request.databases));
        admin(server, "making the lease's role", &statements.join(";\n")).await?;
        let grant = grant(server, &role, expires_at)?;
        self.guards.post(server, &role, expires_at).await?;
        let tried = readonly::prove(server, &grant.identity, &request.databases).await?;
        let handle = serde_json::json!({ "role": role });
        let proof =
            LeaseProof { role, ttl: request.ttl, attempts: tried.attempts, untried: tried.untried, leases: Vec::new() };
        proof.judge()?;
        Ok(Lease { grant, proof, handle, taken })
    }

    async fn renew(&self, request: &LeaseRequest, lease: &Lease, inside: Inside<'_>) -> Result<Lease, Stop> {
        let expires_at = end_of_lease(request);
        let role = Resource::lease_role(&request.run);
        self.guards.extend(&role, expires_at)?;
        let statement = format!("ALTER ROLE {} VALID UNTIL {}", identifier(&role), literal(&expires_at.to_string()));
        admin(inside.server, "renewing the lease", &statement).await?;
        Ok(lease.renewed(grant(inside.server, &role, expires_at)?))
    }

    async fn revoke(
        &self,
        request: &LeaseRequest,
        _lease: Option<&Lease>,
        inside: Option<Inside<'_>>,
    ) -> Result<ReleaseProof, Stop> {
        let Some(Inside { server, .. }) = inside else {
            return Ok(ReleaseProof::of("the only database that knew the login went with its sandbox"));
        };
        let role = Resource::lease_role(&request.run);
        let removed = role::remove(server, &role, &request.databases).await?;
        self.guards.relieve(&role);
        let refused = readonly::see_refused(server, &role, &request.databases).await?;
        Ok(ReleaseProof { observed: vec![removed.to_owned(), refused] })
    }

    /// Nobody was asked.
    async fn cool_down(&self, _run: &RunId) {}
}
