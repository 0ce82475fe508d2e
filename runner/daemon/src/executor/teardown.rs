use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use drill::ledger::{Database, Event, Held, PhaseOutcome, Resource, plan_teardown};
use drill::phase::Phase;
use drill::proof::ReleaseProof;
use drill::stop::Stop;
use drill::unit;
use futures_util::FutureExt;
use tokio::time::timeout;

use super::Ports;
use super::journal::Journal;
use super::lease::{cool_down, prove_at_the_end, revoke};
use super::phases::{Live, LiveParts};

/// Takes down what the ledger shows as owed. Has a budget of its own; never fails: what remains stays owed, and says why.
///
/// A ledger that cannot be written does not stop it: what is gone without a record is found gone by recovery.
pub(super) async fn teardown(ports: &Ports, journal: &Journal, live: Live, budget: Duration) {
    let begun = Instant::now();
    let recorded = journal.append(Event::PhaseStarted { phase: Phase::Teardown }).await;
    release_all(ports, journal, live.into_parts(), begun, budget).await;
    let outcome = outcome(journal);
    if recorded.is_ok() {
        // An unwritten end of teardown leaves the run unsettled, which recovery settles.
        let _ = journal.phase_ended(Phase::Teardown, begun.elapsed(), outcome).await;
    }
}

/// Of a run that has ended owing something, or whose process is gone: nothing of it is live.
pub(super) async fn release_owed(ports: &Ports, journal: &Journal, budget: Duration) {
    release_all(ports, journal, LiveParts::default(), Instant::now(), budget).await;
}

async fn release_all(ports: &Ports, journal: &Journal, mut live: LiveParts, begun: Instant, budget: Duration) {
    let mut database = if live.server.is_some() { Database::Serving } else { Database::Gone };
    // The second pass takes what went with something else, such as a lease that a dead server could not revoke.
    for _ in 0..2 {
        let plan = plan_teardown(&journal.state(), database);
        for resource in plan {
            let left = budget.saturating_sub(begun.elapsed()).max(Duration::from_secs(5));
            release(ports, journal, &mut live, resource, left).await;
        }
        database = Database::Gone;
    }
    // See `release`: a panic here would take the rest of the run's end with it.
    let _ = AssertUnwindSafe(cool_down(journal, &mut live)).catch_unwind().await;
}

async fn release(ports: &Ports, journal: &Journal, live: &mut LiveParts, resource: Resource, budget: Duration) {
    let work = async {
        match resource {
            Resource::Lease => revoke(ports, journal, live).await,
            Resource::Agent | Resource::Sandbox | Resource::Storage => remove(ports, journal, live, resource).await,
        }
    };
    let result = match AssertUnwindSafe(timeout(budget, work)).catch_unwind().await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => {
            Err(Stop::internal(format!("removing the {resource} did not end within {}", unit::duration(budget))))
        }
        Err(_) => Err(Stop::internal(format!("removing the {resource} ended in a panic"))),
    };
    let event = match result {
        Ok(proof) => Event::Released { resource, proof },
        Err(stop) => Event::ReleaseFailed { resource, stop },
    };
    // See `teardown`: what is gone is gone, with or without a record.
    let _ = journal.append(event).await;
    if resource == Resource::Lease {
        // After its record, so that the time of a revocation is its own.
        let _ = AssertUnwindSafe(prove_at_the_end(journal, live)).catch_unwind().await;
    }
}

async fn remove(
    ports: &Ports,
    journal: &Journal,
    live: &mut LiveParts,
    resource: Resource,
) -> Result<ReleaseProof, Stop> {
    match resource {
        Resource::Agent => live.agent = None,
        Resource::Sandbox => {
            // Asked politely first, so that the server's own end is seen; a server that does not listen is killed with its sandbox.
            if let Some(server) = live.server.take() {
                let _ = timeout(Duration::from_secs(10), server.stop()).await;
            }
            live.sandbox = None;
        }
        Resource::Storage => must_be_unused(journal)?,
        Resource::Lease => {}
    }
    let (run, handle) = {
        let state = journal.state();
        (state.started.run.clone(), state.held.get(&resource).and_then(|held| held.handle().cloned()))
    };
    let isolation = ports.isolations.of_run(&journal.state());
    isolation.release(&run, resource, handle.as_ref()).await
}

/// A process that still runs would write on into files that nobody sees any more.
fn must_be_unused(journal: &Journal) -> Result<(), Stop> {
    let state = journal.state();
    let owed = |resource| state.held.get(&resource).is_some_and(Held::is_owed);
    match [Resource::Sandbox, Resource::Agent].into_iter().find(|resource| owed(*resource)) {
        Some(user) => Err(Stop::internal(format!("the storage is kept while the {user} may still use it"))),
        None => Ok(()),
    }
}

fn outcome(journal: &Journal) -> PhaseOutcome {
    let state = journal.state();
    let owed: Vec<String> = Resource::ALL
        .into_iter()
        .filter(|resource| state.held.get(resource).is_some_and(Held::is_owed))
        .map(|resource| resource.to_string())
        .collect();
    if !owed.is_empty() {
        let message = format!("still there: {}", owed.join(", "));
        return PhaseOutcome::Stopped(Stop::internal(message).advise("`muster reap` tries again"));
    }
    let said = |resource| match state.held.get(&resource) {
        Some(_) if resource == Resource::Lease => Some("lease revoked and refused"),
        Some(_) if resource == Resource::Sandbox => Some("sandbox gone"),
        Some(_) if resource == Resource::Storage => Some("storage removed"),
        Some(_) | None => None,
    };
    let notes: Vec<&str> =
        [Resource::Lease, Resource::Sandbox, Resource::Storage].into_iter().filter_map(said).collect();
    let note = if notes.is_empty() { "nothing to remove".to_owned() } else { notes.join(", ") };
    PhaseOutcome::Done { note }
}
