//! The login that checks use, from the choice of who makes it to its revocation.
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use drill::agent::LeaseGrant;
use drill::ledger::{Event, Held, Resource};
use drill::phase::Phase;
use drill::port::{Credentials, Inside, Lease, LeaseRequest, Server};
use drill::proof::{IsolationProof, Probe, ReleaseProof};
use drill::spec;
use drill::stop::{OrStop, Stop};
use drill::unit;
use drill::verdict::Reason;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::Ports;
use super::journal::Journal;
use super::observe::Update;
use super::phases::{Context, LiveParts, phase};

/// Who makes the login of a drill's checks.
pub type CredentialsFor = Arc<dyn Fn(&spec::Credentials) -> Result<Arc<dyn Credentials>, Stop> + Send + Sync>;

/// A secret store that answers slowly, and a database that must be seen dead before the store may be forced.
const REVOKE: Duration = Duration::from_secs(90);
const COOL_DOWN: Duration = Duration::from_secs(10);
const PROVE_AT_THE_END: Duration = Duration::from_secs(20);
const AFTER_DOORWAY: &str = "(after the doorway was closed)";
const AFTER_REVOCATION: &str = "(after the lease was revoked)";

/// What can be found out while the backup is still being restored.
#[derive(Clone)]
pub(super) struct WarmUp {
    outcome: watch::Receiver<Option<Result<(), Stop>>>,
    _task: Arc<AbortOnDropHandle<()>>,
}

impl WarmUp {
    /// Resolves when it has failed, and not otherwise.
    pub(super) async fn failed(mut self) -> Stop {
        match self.done().await {
            Err(stop) => stop,
            Ok(()) => std::future::pending().await,
        }
    }

    async fn done(&mut self) -> Result<(), Stop> {
        let ended = self.outcome.wait_for(Option::is_some).await;
        ended.map_err(|_| Stop::internal("warming up the credentials ended in a panic"))?.clone().unwrap_or(Ok(()))
    }
}

/// Chooses who will be asked, writes that down, and begins to ask what can be asked without a database.
pub(super) async fn warm_up(context: &Context<'_>) -> Result<(), Stop> {
    let base = context.request.drill_file.parent().unwrap_or(Path::new("/"));
    let wanted = match context.request.drill.credentials.clone() {
        spec::Credentials::Vault(vault) => {
            let vault = vault.beneath(base);
            if let Some(listed) = context.ports.production.forbids(&vault) {
                let message = format!("the drill wants its leases from `{listed}`, which is listed as production's");
                return Err(Stop::new(Reason::Credentials, message).advise(
                    "give drills a mount or a path of their own; `production` in the configuration lists what they may not use",
                ));
            }
            context.journal.append(Event::LeaseFrom(vault.clone())).await?;
            spec::Credentials::Vault(Box::new(vault))
        }
        embedded @ spec::Credentials::Embedded { .. } => embedded,
    };
    let credentials = (context.ports.credentials)(&wanted)?;
    let (tell, outcome) = watch::channel(None);
    let (asked, run, allowed) =
        (Arc::clone(&credentials), context.journal.run(), context.request.drill.deadlines.lease);
    let task = tokio::spawn(async move {
        let asked = timeout(allowed, asked.warm_up(&run)).await;
        let asked = asked.unwrap_or_else(|_| {
            let allowed = unit::duration(allowed);
            Err(Stop::new(Reason::Credentials, format!("warming up the credentials did not end within {allowed}")))
        });
        tell.send_replace(Some(asked));
    });
    let mut parts = context.live.parts();
    parts.credentials = Some(credentials);
    parts.warm_up = Some(WarmUp { outcome, _task: Arc::new(AbortOnDropHandle::new(task)) });
    Ok(())
}

/// Makes the login that checks use, and proves what it cannot do.
pub(super) async fn lease(
    context: &Context<'_>,
    server: &dyn Server,
    databases: Vec<String>,
) -> Result<LeaseRequest, Stop> {
    let drill = &context.request.drill;
    let work = async {
        let (credentials, warm_up) = {
            let parts = context.live.parts();
            (parts.credentials.clone(), parts.warm_up.clone())
        };
        let (Some(credentials), Some(mut warm_up)) = (credentials, warm_up) else {
            return Err(Stop::internal("nobody was asked for the lease"));
        };
        warm_up.done().await?;
        let ttl = drill.credentials.ttl();
        let not_after = jiff::Timestamp::now() + drill.deadlines.lease + drill.deadlines.validate;
        let request = LeaseRequest { run: context.journal.run(), databases, ttl, not_after };
        context.live.parts().lease_request = Some(request.clone());
        context.journal.append(Event::Intended { resource: Resource::Lease }).await?;
        let sandbox = context.live.sandbox()?;
        let lease = credentials.issue(&request, Inside { server, sandbox: sandbox.as_ref() }).await?;
        context.live.parts().lease = Some(lease.clone());
        let expires_at = lease.grant.expires_at;
        context.journal.observer().update(Update::Lease { expires_at, renewed: false });
        tell(context, &lease).await?;
        if credentials.opens_doorway() {
            prove_again(context, server).await?;
        }
        let refused = unit::plural(u64::try_from(lease.proof.attempts.len()).unwrap_or(u64::MAX), "attempt");
        let from = match credentials.name() {
            "embedded" => String::new(),
            name => format!(" from {name}"),
        };
        Ok((request, format!("read-only{from} for {}, {refused} to do more held", unit::duration(ttl))))
    };
    phase(context, Phase::Lease, drill.deadlines.lease, work).await
}

async fn tell(context: &Context<'_>, lease: &Lease) -> Result<(), Stop> {
    let handle = lease.handle.clone();
    context.journal.append(Event::Acquired { resource: Resource::Lease, handle }).await?;
    context.journal.append(Event::Lease(lease.proof.clone())).await?;
    lease.proof.judge()
}

/// Somebody outside reached the database for a moment. That nobody does now is seen anew; the agent is at its checks by the time
/// of a renewal, so that what it could reach is not asked again.
async fn prove_again(context: &Context<'_>, server: &dyn Server) -> Result<(), Stop> {
    let sandbox = context.live.sandbox()?;
    let proof = probe_again(Inside { server, sandbox: sandbox.as_ref() }, AFTER_DOORWAY).await?;
    context.journal.append(Event::Isolation(proof.clone())).await?;
    proof.judge()
}

async fn probe_again(inside: Inside<'_>, when: &str) -> Result<IsolationProof, Stop> {
    let (sandbox, database) = tokio::try_join!(inside.sandbox.probe(), inside.server.probe())?;
    let again = |probe: Probe| Probe { name: format!("{} {when}", probe.name), ..probe };
    Ok(IsolationProof { probes: sandbox.into_iter().chain(database).map(again).collect() })
}

/// The last doorway was closed; the database goes next. What is seen open decides the verdict, like what was seen before the
/// checks; that nobody could look any more is told.
pub(super) async fn prove_at_the_end(journal: &Journal, live: &mut LiveParts) {
    let parts = (live.credentials.clone(), live.server.clone(), live.sandbox.clone());
    let (Some(credentials), Some(server), Some(sandbox)) = parts else { return };
    if !credentials.opens_doorway() {
        return;
    }
    let inside = Inside { server: server.as_ref(), sandbox: sandbox.as_ref() };
    let proof = timeout(PROVE_AT_THE_END, probe_again(inside, AFTER_REVOCATION)).await;
    let recorded = match proof.or_stop(Reason::IsolationUnproven, "proving the isolation again") {
        Ok(Ok(proof)) => journal.append(Event::Isolation(proof)).await,
        Ok(Err(stop)) | Err(stop) => {
            let message = format!("not seen again {AFTER_REVOCATION}: {}", stop.message);
            journal.warn("teardown", "isolation", message).await
        }
    };
    // A ledger that cannot be written is met by the next release's own record.
    let _ = recorded;
}

/// Called when two thirds of the lease's life are over.
pub(super) async fn renew(
    context: &Context<'_>,
    server: &dyn Server,
    request: &LeaseRequest,
) -> Result<LeaseGrant, Stop> {
    let (credentials, sandbox, lease) = {
        let parts = context.live.parts();
        (parts.credentials.clone(), parts.sandbox.clone(), parts.lease.clone())
    };
    let (Some(credentials), Some(sandbox), Some(lease)) = (credentials, sandbox, lease) else {
        return Err(Stop::internal("there is no lease to renew"));
    };
    let renewed = credentials.renew(request, &lease, Inside { server, sandbox: sandbox.as_ref() }).await?;
    context.live.parts().lease = Some(renewed.clone());
    let expires_at = renewed.grant.expires_at;
    context.journal.observer().update(Update::Lease { expires_at, renewed: true });
    if renewed.handle != lease.handle {
        tell(context, &renewed).await?;
    }
    if credentials.opens_doorway() {
        prove_again(context, server).await?;
    }
    Ok(renewed.grant)
}

/// For teardown. Where the run's own runner is gone, the ledger says whom to ask.
pub(super) async fn revoke(ports: &Ports, journal: &Journal, live: &mut LiveParts) -> Result<ReleaseProof, Stop> {
    let (server, sandbox) = (live.server.clone(), live.sandbox.clone());
    let inside = match (&server, &sandbox) {
        (Some(server), Some(sandbox)) => Some(Inside { server: server.as_ref(), sandbox: sandbox.as_ref() }),
        _ if journal.state().held.get(&Resource::Sandbox).is_some_and(Held::is_owed) => {
            return Err(Stop::internal(
                "the lease cannot be revoked: its database does not answer and is not gone yet",
            ));
        }
        _ => None,
    };
    let credentials = match &live.credentials {
        Some(credentials) => Arc::clone(credentials),
        None => Arc::clone(live.credentials.insert((ports.credentials)(&asked(journal))?)),
    };
    let request = live.lease_request.clone().unwrap_or_else(|| LeaseRequest {
        run: journal.run(),
        databases: Vec::new(),
        ttl: Duration::ZERO,
        not_after: jiff::Timestamp::now(),
    });
    let revoked = timeout(REVOKE, credentials.revoke(&request, live.lease.as_ref(), inside));
    revoked.await.or_stop(Reason::Credentials, "revoking the lease")?
}

/// When nothing more is asked of whoever made the login.
pub(super) async fn cool_down(journal: &Journal, live: &mut LiveParts) {
    let Some(credentials) = live.credentials.take() else { return };
    if let Some(mut warm_up) = live.warm_up.take() {
        // A login whose answer nobody waits for would leave what it got.
        let _ = timeout(COOL_DOWN, warm_up.done()).await;
    }
    let _ = timeout(COOL_DOWN, credentials.cool_down(&journal.run())).await;
}

fn asked(journal: &Journal) -> spec::Credentials {
    match journal.state().lease_from.clone() {
        Some(vault) => spec::Credentials::Vault(Box::new(vault)),
        None => spec::Credentials::Embedded { ttl: Duration::ZERO },
    }
}
