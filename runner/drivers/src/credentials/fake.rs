//! Credentials without a boundary, for the tests of whoever needs some.
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use drill::agent::LeaseGrant;
use drill::id::RunId;
use drill::ledger::Resource;
use drill::port::{Credentials, Inside, Lease, LeaseRequest, SqlError};
use drill::proof::{Attempt, LeaseProof, ReleaseProof};
use drill::stop::Stop;
use drill::verdict::Reason;

use super::end_of_lease;

/// Called with the name of a step, such as `credentials.issue`, before it happens.
pub type Hook = Arc<dyn Fn(&str) + Send + Sync>;

/// Clones share what fails.
#[derive(Clone)]
pub struct FakeCredentials {
    hook: Hook,
    doorway: bool,
    failures: Arc<Mutex<BTreeMap<String, Vec<Stop>>>>,
}

impl FakeCredentials {
    pub fn new(hook: Hook) -> Self {
        Self { hook, doorway: false, failures: Arc::default() }
    }

    /// As one that is asked from outside.
    #[must_use]
    pub fn with_doorway(mut self) -> Self {
        self.doorway = true;
        self
    }

    /// The next time that the step is asked for, such as `warm_up`, it fails. Several are used in turn.
    pub fn fail(&self, step: &str, why: Stop) {
        self.failures().entry(step.to_owned()).or_default().push(why);
    }

    fn step(&self, step: &str) -> Result<(), Stop> {
        (self.hook)(&format!("credentials.{step}"));
        match self.failures().get_mut(step) {
            Some(stops) if !stops.is_empty() => Err(stops.remove(0)),
            _ => Ok(()),
        }
    }

    fn failures(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Stop>>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for FakeCredentials {
    fn default() -> Self {
        Self::new(Arc::new(|_| ()))
    }
}

#[async_trait]
impl Credentials for FakeCredentials {
    fn name(&self) -> &'static str {
        "embedded"
    }

    fn opens_doorway(&self) -> bool {
        self.doorway
    }

    async fn warm_up(&self, _run: &RunId) -> Result<(), Stop> {
        self.step("warm_up")
    }

    async fn issue(&self, request: &LeaseRequest, inside: Inside<'_>) -> Result<Lease, Stop> {
        let server = inside.server;
        self.step("issue")?;
        if self.doorway {
            inside.sandbox.open_doorway().await?.close().await?;
        }
        let role = Resource::lease_role(&request.run);
        server.admin("template1", &format!("CREATE ROLE \"{role}\"")).await.map_err(|error| stop("making", &error))?;
        (self.hook)("credentials.issued");
        let attempt = |database: &String| Attempt {
            what: "create a table".to_owned(),
            database: database.clone(),
            held: true,
            sqlstate: Some("42501".to_owned()),
        };
        Ok(Lease {
            grant: LeaseGrant { identity: server.identity(&role, request.ttl)?, expires_at: end_of_lease(request) },
            handle: serde_json::json!({ "role": role }),
            proof: LeaseProof {
                role,
                ttl: request.ttl,
                attempts: request.databases.iter().map(attempt).collect(),
                untried: Vec::new(),
                leases: Vec::new(),
            },
            taken: std::collections::BTreeMap::new(),
        })
    }

    async fn renew(&self, request: &LeaseRequest, lease: &Lease, inside: Inside<'_>) -> Result<Lease, Stop> {
        self.step("renew")?;
        let expires_at = end_of_lease(request);
        let identity = inside.server.identity(&lease.proof.role, request.ttl)?;
        Ok(lease.renewed(LeaseGrant { identity, expires_at }))
    }

    async fn revoke(
        &self,
        request: &LeaseRequest,
        _lease: Option<&Lease>,
        inside: Option<Inside<'_>>,
    ) -> Result<ReleaseProof, Stop> {
        self.step("revoke")?;
        let Some(Inside { server, .. }) = inside else {
            return Ok(ReleaseProof::of("the login went with its database"));
        };
        let role = Resource::lease_role(&request.run);
        let dropped = server.admin("template1", &format!("DROP ROLE IF EXISTS \"{role}\"")).await;
        dropped.map_err(|error| stop("dropping", &error))?;
        (self.hook)("credentials.revoked");
        match server.login(&server.identity(&role, Duration::from_mins(1))?, "template1").await {
            Ok(_) => Err(Stop::new(Reason::Credentials, "the login still works after its revocation")),
            Err(error) => Ok(ReleaseProof::of(format!("login refused with {}", error.sqlstate.unwrap_or_default()))),
        }
    }

    async fn cool_down(&self, _run: &RunId) {
        (self.hook)("credentials.cool_down");
    }
}

fn stop(doing: &str, error: &SqlError) -> Stop {
    Stop::new(Reason::Credentials, format!("{doing} the lease: {error}"))
}
