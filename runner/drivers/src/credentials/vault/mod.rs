//! Credentials leased from the database secrets engine of a Vault. Start at [`VaultCredentials`].
//!
//! For each run muster writes a connection and a role into Vault, and Vault makes a user in the restored database ([`api`],
//! [`statements`]) that has what every lease has (`readonly`). Vault reaches the database through a doorway and as a role of its
//! own, which both exist while a lease is made, renewed or revoked ([`visit`]). The login is by certificate of the run's
//! authority, so the password that Vault makes opens nothing, and is not read.
//!
//! A lease hangs on the token that asked for it: when Vault forgets muster's token, the lease goes, and is replaced at its next
//! renewal. Names follow from the run, so that a lease whose id was never heard is found ([`api::Api::leases`]).
mod api;
mod client;
mod endpoints;
mod fault;
mod link;
mod revoke;
mod session;
mod statements;
mod visit;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use drill::id::RunId;
use drill::ledger::Resource;
use drill::port::{Credentials, Inside, Lease, LeaseRequest, Server};
use drill::proof::{LeaseProof, ReleaseProof, StoredLease};
use drill::schema::Taken;
use drill::spec::Vault;
use drill::stop::Stop;
use drill::verdict::Reason;

use super::readonly::{self, Guards, admin, role};
use super::{end_of_lease, grant};
use crate::engine::postgresql::text::identifier;
use api::{Api, Leased};
use client::Client;
use fault::{Failure, Fault};
use visit::Visit;

/// Vault counts in seconds, and rounds.
const ROUNDING: u64 = 5;

pub struct VaultCredentials {
    vault: Vault,
    client: Client,
    guards: Guards,
    /// Runs that may hold a lease: muster's token is given back after the last of them.
    runs: Mutex<BTreeSet<RunId>>,
}

impl VaultCredentials {
    /// Asks nobody yet.
    pub fn new(vault: Vault) -> Result<Self, Stop> {
        let client = Client::new(vault.clone());
        let client = client.map_err(|failure| failure.stop("reading credentials.vault"))?;
        Ok(Self { vault, client, guards: Guards::default(), runs: Mutex::default() })
    }

    fn api(&self, run: &RunId) -> Api<'_> {
        Api::new(&self.client, &self.vault, run)
    }

    fn runs(&self) -> std::sync::MutexGuard<'_, BTreeSet<RunId>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the databases to the user that Vault made, and tries what it must not be able to do.
    async fn open(
        &self,
        request: &LeaseRequest,
        server: &dyn Server,
        made: Leased,
        before: Before,
    ) -> Result<Lease, Stop> {
        let Leased { user, lease, duration } = made;
        let expires_at = end_of_lease(request);
        let admitted = role::admit(&identifier(&user), &request.databases).join(";\n");
        admin(server, "opening the databases to the lease", &admitted).await?;
        let grant = grant(server, &user, expires_at)?;
        self.guards.post(server, &user, expires_at).await?;
        let tried = readonly::prove(server, &grant.identity, &request.databases).await?;
        let mut leases = before.leases;
        leases.push(StoredLease {
            id: lease,
            role: user.clone(),
            issued_at: jiff::Timestamp::now(),
            ttl: Duration::from_secs(duration),
        });
        let ids: Vec<&str> = leases.iter().map(|lease| lease.id.as_str()).collect();
        let handle = serde_json::json!({ "role": user, "leases": ids });
        let proof =
            LeaseProof { role: user, ttl: request.ttl, attempts: tried.attempts, untried: tried.untried, leases };
        proof.judge()?;
        Ok(Lease { grant, proof, handle, taken: before.taken })
    }
}

/// What a lease takes over from the one that it replaces.
struct Before {
    leases: Vec<StoredLease>,
    taken: BTreeMap<String, Vec<Taken>>,
}

#[async_trait]
impl Credentials for VaultCredentials {
    fn name(&self) -> &'static str {
        "vault"
    }

    fn opens_doorway(&self) -> bool {
        true
    }

    async fn warm_up(&self, run: &RunId) -> Result<(), Stop> {
        self.runs().insert(run.clone());
        let api = self.api(run);
        api.check_policy().await?;
        api.check_engine().await
    }

    async fn issue(&self, request: &LeaseRequest, inside: Inside<'_>) -> Result<Lease, Stop> {
        self.runs().insert(request.run.clone());
        let taken = readonly::close(inside.server, &request.databases).await?;
        let api = self.api(&request.run);
        let remaining = readonly::remaining(request.not_after)?;
        let visit = Visit::begin(&api, request, inside).await?;
        let made = async {
            api.write_role(seconds(request.ttl.min(remaining)), seconds(self.vault.max_ttl.min(remaining))).await?;
            api.lease().await
        };
        let made = made.await;
        visit.end(inside.server).await?;
        let made = expected(request, made)?;
        self.open(request, inside.server, made, Before { leases: Vec::new(), taken }).await
    }

    async fn renew(&self, request: &LeaseRequest, lease: &Lease, inside: Inside<'_>) -> Result<Lease, Stop> {
        let doing = "renewing the lease";
        let Some(current) = lease.proof.leases.last() else {
            return Err(Stop::internal(format!("{doing}: it is none of Vault's")));
        };
        let expires_at = end_of_lease(request);
        let wanted = seconds(request.ttl.min(readonly::remaining(request.not_after)?));
        let api = self.api(&request.run);
        let visit = Visit::begin(&api, request, inside).await?;
        let another = match api.renew(&current.id, wanted).await {
            Ok(given) if given + ROUNDING >= wanted => None,
            // It may not live longer, or Vault knows it no more.
            Ok(_) | Err(Failure { fault: Fault::Refused(..) | Fault::Absent, .. }) => Some(api.lease().await),
            Err(failure) => Some(Err(failure)),
        };
        visit.end(inside.server).await?;
        if let Some(made) = another {
            let made = expected(request, made)?;
            let before = Before { leases: lease.proof.leases.clone(), taken: lease.taken.clone() };
            return self.open(request, inside.server, made, before).await;
        }
        self.guards.extend(&current.role, expires_at)?;
        Ok(lease.renewed(grant(inside.server, &current.role, expires_at)?))
    }

    async fn revoke(
        &self,
        request: &LeaseRequest,
        lease: Option<&Lease>,
        inside: Option<Inside<'_>>,
    ) -> Result<ReleaseProof, Stop> {
        match inside {
            Some(inside) => self.revoke_beside(request, lease, inside).await,
            None => self.revoke_after("the database went with its sandbox", &request.run).await,
        }
    }

    async fn cool_down(&self, run: &RunId) {
        let is_last = {
            let mut runs = self.runs();
            runs.remove(run);
            runs.is_empty()
        };
        if is_last {
            self.client.log_out().await;
        }
    }
}

/// A user of another name than was asked for is not one that muster would find again.
fn expected(request: &LeaseRequest, made: Result<Leased, Failure>) -> Result<Leased, Stop> {
    let made = made.map_err(|failure| failure.stop("leasing credentials from Vault"))?;
    let base = Resource::lease_role(&request.run);
    let plain = |rest: &str| rest.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if made.user.len() <= 63 && made.user.strip_prefix(&base).is_some_and(plain) {
        Ok(made)
    } else {
        let what = "leasing credentials from Vault: it made a user of another name than its connection says";
        Err(Stop::new(Reason::Credentials, what))
    }
}

/// Rounded up, so that Vault never ends it before muster does.
fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}
