use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;

use crate::agent::LeaseGrant;
use crate::id::RunId;
use crate::port::{Sandbox, Server};
use crate::proof::{LeaseProof, ReleaseProof};
use crate::schema::Taken;
use crate::stop::Stop;

/// Makes the login that checks use, and takes it away.
#[async_trait]
pub trait Credentials: Send + Sync {
    /// `embedded` or `vault`.
    fn name(&self) -> &'static str;

    /// Whether somebody outside reaches the database while a lease is made, renewed or revoked. The isolation proof is repeated
    /// after it.
    fn opens_doorway(&self) -> bool;

    /// Whatever can be found out before there is a database; failing here stops the run early.
    async fn warm_up(&self, run: &RunId) -> Result<(), Stop>;

    /// Closes what a reader must not reach, makes the role, and tries what it must not be able to do.
    async fn issue(&self, request: &LeaseRequest, inside: Inside<'_>) -> Result<Lease, Stop>;

    /// The same login with a new end, never beyond `request.not_after`, and a new certificate; or another login, proven like the
    /// first. What the first one has open may go on until its own end.
    async fn renew(&self, request: &LeaseRequest, lease: &Lease, inside: Inside<'_>) -> Result<Lease, Stop>;

    /// Ends its sessions, removes the role and sees its login refused. A role that is not there is success. `lease` is None
    /// where the runner that issued it is gone; `inside` is None where the database went with its sandbox, and was seen gone.
    async fn revoke(
        &self,
        request: &LeaseRequest,
        lease: Option<&Lease>,
        inside: Option<Inside<'_>>,
    ) -> Result<ReleaseProof, Stop>;

    /// Gives back what was got for asking, at the end of each run: also of one that came to no lease. Harmless when repeated; what
    /// cannot be given back ends by itself.
    async fn cool_down(&self, run: &RunId);
}

/// The database that a lease is for, and the sandbox that it is in.
#[derive(Clone, Copy)]
pub struct Inside<'a> {
    pub server: &'a dyn Server,
    pub sandbox: &'a dyn Sandbox,
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
    /// The driver's own; goes into the ledger, for recovery. Holds no secret.
    pub handle: serde_json::Value,
    /// By database: what was revoked from everybody so that the lease cannot have it. Whoever compares privileges counts it as
    /// granted.
    pub taken: BTreeMap<String, Vec<Taken>>,
}

impl Lease {
    /// The same login with another end.
    #[must_use]
    pub fn renewed(&self, grant: LeaseGrant) -> Self {
        Self { grant, ..self.clone() }
    }
}
