use std::sync::Arc;
use std::time::Duration;

use drill::id::RunId;
use drill::ledger::{Owner, State};
use drill::port::{Isolation, Leftover};
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
    /// Runs that were not due to be tried again.
    pub waiting: Vec<RunId>,
    /// What no ledger of this store owed, removed by name.
    pub orphans: Vec<Leftover>,
    /// What could not be settled or removed; the next recovery tries again.
    pub troubles: Vec<(RunId, Stop)>,
}

/// Ends every run that its process did not end. `me` takes them over; `alive` says whether an owner's process still lives.
/// Safe to repeat: the second time finds nothing. Runs that this process is busy with are left alone.
pub async fn recover(
    ports: &Ports,
    observer: Arc<dyn Observer>,
    me: &Owner,
    alive: impl Fn(&Owner) -> bool,
) -> Result<Recovered, Stop> {
    recover_due(ports, observer, me, alive, |_| true).await
}

/// The same for runs that `due` wants tried now.
pub async fn recover_due(
    ports: &Ports,
    observer: Arc<dyn Observer>,
    me: &Owner,
    alive: impl Fn(&Owner) -> bool,
    due: impl Fn(&RunId) -> bool,
) -> Result<Recovered, Stop> {
    let mut recovered = Recovered::default();
    for run in ports.store.unsettled().await? {
        if !due(&run) {
            recovered.waiting.push(run);
            continue;
        }
        match recover_one(ports, &observer, &run, me, &alive).await {
            Ok(Some(leftovers)) => recovered.settled.push((run, leftovers)),
            Ok(None) => recovered.alive.push(run),
            Err(stop) => recovered.troubles.push((run, stop)),
        }
    }
    orphans(ports, &mut recovered, due).await?;
    Ok(recovered)
}

/// None where another process, or another task of this one, has it.
async fn recover_one(
    ports: &Ports,
    observer: &Arc<dyn Observer>,
    run: &RunId,
    me: &Owner,
    alive: &impl Fn(&Owner) -> bool,
) -> Result<Option<Leftovers>, Stop> {
    let Some(_live) = ports.live.begin(run) else { return Ok(None) };
    let Some(owner) = ports.store.owner(run).await? else {
        // Settled and forgotten since it was listed.
        return Ok(Some(Leftovers::None));
    };
    let before = replay(ports, run).await?;
    // Its first process ended the run and owes something: that process does not come back to it.
    let given_up = before.ended.is_some() && owner == before.started.owner;
    if owner != *me && alive(&owner) && !given_up {
        return Ok(None);
    }
    if !ports.store.take_over(run, &owner, me).await? {
        return Ok(None);
    }
    // What an earlier process wrote until this one took over.
    let state = replay(ports, run).await?;
    if state.ended.is_some() && !state.owes() {
        return Ok(Some(Leftovers::None));
    }
    settle(ports, Arc::clone(observer), state).await.map(Some)
}

async fn replay(ports: &Ports, run: &RunId) -> Result<State, Stop> {
    State::replay(&ports.store.events(run).await?).map_err(|error| Stop::internal(format!("run {run}: {error}")))
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
    let ended = finish(ports, &journal, None).await;
    match ended.trouble {
        Some(stop) => Err(stop),
        None => Ok(ended.leftovers),
    }
}

/// What exists under muster's names and nobody owes: of runs that this store does not know, or that owe nothing any more.
async fn orphans(ports: &Ports, recovered: &mut Recovered, due: impl Fn(&RunId) -> bool) -> Result<(), Stop> {
    for isolation in ports.isolations.all() {
        orphans_of(isolation.as_ref(), ports, recovered, &due).await?;
    }
    Ok(())
}

async fn orphans_of(
    isolation: &dyn Isolation,
    ports: &Ports,
    recovered: &mut Recovered,
    due: &impl Fn(&RunId) -> bool,
) -> Result<(), Stop> {
    for leftover in isolation.leftovers().await? {
        // A run that has just begun may have a directory before this look at the ledger, and never before its claim.
        if ports.live.contains(&leftover.run) || !due(&leftover.run) {
            continue;
        }
        let events = ports.store.events(&leftover.run).await?;
        let settled = State::replay(&events).is_ok_and(|state| state.ended.is_some() && !state.owes());
        if !events.is_empty() && !settled {
            continue;
        }
        match isolation.release(&leftover.run, leftover.resource, None).await {
            Ok(_) => recovered.orphans.push(leftover),
            Err(stop) => recovered.troubles.push((leftover.run, stop)),
        }
    }
    Ok(())
}
