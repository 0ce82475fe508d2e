use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use drill::conclude::conclude;
use drill::id::{RunId, Sha256Digest};
use drill::ledger::{Event, Owner, RunStarted, State, Summary, Trigger};
use drill::spec::{Drill, Place};
use drill::stop::Stop;
use drill::verdict::{Leftovers, Reason, Verdict, exit_code};
use futures_util::FutureExt;

use super::journal::Journal;
use super::observe::Update;
use super::phases::{Context, Live, phases};
use super::teardown::teardown;
use super::{Cancel, Loaded, Observer, Ports};
use crate::evidence;

/// One run that is asked for.
pub struct Request {
    pub drill: Drill,
    /// Absolute.
    pub drill_file: PathBuf,
    pub checks: Vec<Loaded>,
    pub evidence_directory: PathBuf,
    pub owner: Owner,
    pub trigger: Trigger,
    /// None: the first of the drill's sources that is there.
    pub only: Option<Place>,
}

/// What came of it.
pub struct Ended {
    pub state: State,
    pub summary: Summary,
    pub leftovers: Leftovers,
    /// Why the ledger or the evidence does not hold all of it.
    pub trouble: Option<Stop>,
}

impl Ended {
    /// A run that could not be written down is never a success.
    pub fn exit_code(&self) -> u8 {
        match (exit_code(self.summary.verdict, self.leftovers), &self.trouble) {
            (0, Some(_)) => exit_code(Verdict::Inconclusive, Leftovers::None),
            (code, _) => code,
        }
    }
}

/// Runs a drill. An error means that nothing was begun; whatever happens after the claim is in [`Ended`].
pub async fn execute(
    mut request: Request,
    ports: &Ports,
    observer: Arc<dyn Observer>,
    cancel: Cancel,
) -> Result<Ended, Stop> {
    request.drill.isolation = request.drill.isolation.beside(&ports.production);
    let started = started(&request)?;
    // Before the claim: what is in the ledger and not live is recovered.
    let _live = ports.live.begin(&started.run);
    ports.store.claim(&started).await?;
    let journal = Journal::begin(Arc::clone(&ports.store), observer, started);
    let live = Live::default();
    let begun = Instant::now();

    let context = Context { request: &request, ports, journal: &journal, live: &live, cancel: &cancel, begun };
    let work = AssertUnwindSafe(phases(&context)).catch_unwind().await;
    let stop = match work {
        Ok(Ok(())) => None,
        Ok(Err(stop)) => Some(stop),
        Err(panic) => Some(Stop::internal(format!("muster itself failed: {}", panic_message(panic.as_ref())))),
    };

    teardown(ports, &journal, live, request.drill.deadlines.teardown).await;
    Ok(finish(ports, &journal, stop).await)
}

/// The conclusion, the evidence and the end of a run whose teardown was tried.
pub(super) async fn finish(ports: &Ports, journal: &Journal, stop: Option<Stop>) -> Ended {
    let summary = summary(&journal.state(), stop);
    let written = AssertUnwindSafe(write_down(ports, journal, &summary)).catch_unwind().await;
    let trouble = match written {
        Ok(written) => written.err(),
        Err(panic) => Some(Stop::internal(format!("muster itself failed: {}", panic_message(panic.as_ref())))),
    };
    let state = journal.state().clone();
    let summary = state.summary.clone().unwrap_or(summary);
    let ended = Ended { leftovers: state.leftovers(), summary, state, trouble };
    if ended.trouble.is_some() {
        journal.observer().update(Update::NotWritten(&ended));
    }
    ended
}

async fn write_down(ports: &Ports, journal: &Journal, summary: &Summary) -> Result<(), Stop> {
    if journal.state().summary.is_none() {
        let trigger = journal.state().started.trigger.clone();
        if let (Reason::DamageUnnoticed, Trigger::SelfTest { damage, .. }) = (summary.reason, trigger) {
            // First, so that a crash in between tells it twice and never not at all.
            let stop = Stop { advice: summary.advice.clone(), ..Stop::new(summary.reason, summary.message.clone()) };
            // Each damage is an alert of its own: that another one is noticed does not close it.
            let subject = format!("{}: {damage}", journal.state().started.drill);
            journal.raise_about("self-test-passed", subject, &stop, serde_json::json!({ "damage": damage })).await?;
        }
        journal.append(Event::Concluded(summary.clone())).await?;
    }
    if journal.state().evidence.is_none() {
        let key = ports.evidence_key.as_deref();
        let written = evidence::write(ports.store.as_ref(), &journal.run(), &ports.state_directory, key).await?;
        journal.append(written.event()).await?;
        if written.key_made {
            journal.observer().update(Update::KeyMade { directory: &ports.state_directory });
        }
    }
    let leftovers = journal.state().leftovers();
    journal.append(Event::Ended { leftovers }).await
}

fn summary(state: &State, stop: Option<Stop>) -> Summary {
    let mut summary = conclude(state);
    // A panic, or a ledger that could not be written, never reached the ledger as the end of a phase.
    if let Some(stop) = stop
        && summary.reason == Reason::Interrupted
    {
        summary.verdict = stop.reason.verdict();
        summary.reason = stop.reason;
        summary.message = stop.message;
        summary.advice = stop.advice;
    }
    summary
}

fn started(request: &Request) -> Result<RunStarted, Stop> {
    let at = jiff::Timestamp::now();
    let mut entropy = [0; 4];
    getrandom::fill(&mut entropy)
        .map_err(|error| Stop::internal(format!("no randomness for a run's name: {error}")))?;
    let drill = &request.drill;
    Ok(RunStarted {
        run: RunId::new(&drill.name, at, entropy),
        drill: drill.name.clone(),
        drill_digest: Sha256Digest::from_bytes(*drill.digest.as_bytes()),
        drill_file: request.drill_file.display().to_string(),
        labels: drill.labels.clone(),
        at,
        owner: request.owner.clone(),
        muster_version: env!("CARGO_PKG_VERSION").to_owned(),
        fidelity: drill.engine.fidelity,
        objectives: drill.objectives,
        evidence_directory: request.evidence_directory.display().to_string(),
        trigger: request.trigger.clone(),
    })
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words")
}
