use std::sync::Arc;
use std::time::Duration;

use drill::id::RunId;
use drill::ledger::{Owner, State};
use drill::port::Leftover;
use drill::stop::Stop;
use drill::verdict::Leftovers;

use super::journal::Journal;
use super::phases::Live;
use super::run::finish;
use super::teardown::{release_owed, teardown};
use super::{Observer, Ports};

/// Time for the teardown of one run that somebody else began.
const BUDGET: Duration = Duration::from_mins(5);

#[derive(Debug, Default)]
pub struct Recovered {
    /// Runs whose process was gone: torn down, concluded as interrupted, with evidence.
    pub settled: Vec<(RunId, Leftovers)>,
    /// Runs whose process lives.
    pub alive: Vec<RunId>,
    /// What no ledger of this store knows, removed by name.
    pub orphans: Vec<Leftover>,
}

/// Ends every run that its process did not end. `me` takes them over; `alive` says whether an owner's process still lives.
/// Safe to repeat: the second time finds nothing.
pub async fn recover(
    ports: &Ports,
    observer: Arc<dyn Observer>,
    me: &Owner,
    alive: impl Fn(&Owner) -> bool,
) -> Result<Recovered, Stop> {
    let mut recovered = Recovered::default();
    for run in ports.store.unsettled().await? {
        let events = ports.store.events(&run).await?;
        let state = State::replay(&events).map_err(|error| Stop::internal(error.to_string()))?;
        let owner = ports.store.owner(&run).await?.unwrap_or_else(|| state.started.owner.clone());
        let ended = state.ended.is_some();
        if !ended && owner != *me && alive(&owner) {
            recovered.alive.push(run);
            continue;
        }
        if !ports.store.take_over(&run, &owner, me).await? {
            recovered.alive.push(run);
            continue;
        }
        let leftovers = settle(ports, Arc::clone(&observer), state).await?;
        recovered.settled.push((run, leftovers));
    }
    recovered.orphans = orphans(ports).await?;
    Ok(recovered)
}

async fn settle(ports: &Ports, observer: Arc<dyn Observer>, state: State) -> Result<Leftovers, Stop> {
    let ended = state.ended.is_some();
    let journal = Journal::resume(Arc::clone(&ports.store), observer, state);
    if ended {
        // Only releases may follow the end of a run.
        release_owed(ports, &journal, BUDGET).await;
        return Ok(journal.state().leftovers());
    }
    // What was concluded before the crash had its teardown.
    if journal.state().summary.is_none() {
        teardown(ports, &journal, Live::default(), BUDGET).await;
    }
    finish(ports, &journal, None).await.map(|ended| ended.leftovers)
}

/// What exists under muster's names and belongs to no run of this store. Runs that the store knows are settled by their ledger.
async fn orphans(ports: &Ports) -> Result<Vec<Leftover>, Stop> {
    let mut removed = Vec::new();
    for leftover in ports.isolation.leftovers().await? {
        if ports.store.events(&leftover.run).await?.is_empty() {
            ports.isolation.release(&leftover.run, leftover.resource, None).await?;
            removed.push(leftover);
        }
    }
    Ok(removed)
}
