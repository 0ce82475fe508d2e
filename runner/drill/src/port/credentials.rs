use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;

use crate::agent::LeaseGrant;
use crate::id::RunId;
use crate::port::Server;
use crate::proof::{LeaseProof, ReleaseProof};
use crate::schema::Taken;
use crate::stop::Stop;

/// Makes the login that checks use, and takes it away.
#[async_trait]
pub trait Credentials: Send + Sync {
    /// `embedded` or `vault`.
    fn name(&self) -> &'static str;

    /// Whatever can be found out before there is a database; failing here stops the run early.
    async fn warm_up(&self) -> Result<(), Stop>;

    /// Closes what a reader must not reach, makes the role, and tries what it must not be able to do.
    async fn issue(&self, request: &LeaseRequest, server: &dyn Server) -> Result<Lease, Stop>;

    /// Returns the new end, never beyond `request.not_after`.
    async fn renew(&self, request: &LeaseRequest, server: &dyn Server) -> Result<jiff::Timestamp, Stop>;

    /// Ends its sessions, removes the role and sees its login refused. A role that is not there is success. `lease` is None
    /// where the runner that issued it is gone.
    async fn revoke(
        &self,
        request: &LeaseRequest,
        lease: Option<&Lease>,
        server: &dyn Server,
    ) -> Result<ReleaseProof, Stop>;
}

#[derive(Debug, Clone)]
pub struct LeaseRequest {
    pub run: RunId,
    pub databases: Vec<String>,
    pub ttl: Duration,
    /// The run's own deadline.
    pub not_after: jiff::Timestamp,
}

#[derive(Debug, Clone)]
pub struct Lease {
    pub grant: LeaseGrant,
    pub proof: LeaseProof,
    /// By database: what was revoked from everybody so that the lease cannot have it. Whoever compares privileges counts it as
    /// granted.
    pub taken: BTreeMap<String, Vec<Taken>>,
}
