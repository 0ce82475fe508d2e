//! The boundary of a sandbox while its run lasts: proven again at intervals, and told of when it was broken.
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use drill::ledger::Event;
use drill::phase::Phase;
use drill::proof::{IsolationProof, Probe};
use drill::spec::Isolation;
use drill::stop::Stop;
use drill::unit;
use drill::verdict::Reason;
use tokio::time::{Instant, sleep, timeout};

use super::phases::Context;

/// How long it may stay unknown whether isolation holds.
const UNKNOWN: Duration = Duration::from_mins(2);
/// After an attempt that told nothing.
const SOON: Duration = Duration::from_secs(10);

/// The proofs that were made again during one phase.
#[derive(Default)]
pub(super) struct Again(Mutex<Rounds>);

#[derive(Default)]
struct Rounds {
    held: u64,
    last: Vec<Probe>,
}

impl Again {
    /// Resolves when isolation did not hold, or when nobody could tell for too long. Only while a backup is inside.
    pub(super) async fn broken(&self, context: &Context<'_>, phase: Phase) -> Stop {
        let sandbox = context.live.parts().sandbox.clone();
        let interval = context.request.drill.isolation.probe_interval();
        let (Phase::Restore | Phase::Validate, Some(sandbox), Some(interval)) = (phase, sandbox, interval) else {
            return std::future::pending().await;
        };
        let mut unknown_since: Option<Instant> = None;
        loop {
            sleep(if unknown_since.is_some() { interval.min(SOON) } else { interval }).await;
            let judged = match timeout(UNKNOWN, sandbox.probe()).await {
                Ok(Ok(probes)) => {
                    let proof = IsolationProof { probes };
                    let judged = proof.judge_again();
                    // A control that failed for a moment is no proof of anything.
                    if judged.as_ref().err().is_none_or(is_breach) {
                        self.rounds(|rounds| {
                            rounds.held += u64::from(judged.is_ok());
                            rounds.last = proof.probes;
                        });
                    }
                    judged
                }
                Ok(Err(stop)) => Err(stop),
                Err(_) => Err(Stop::internal(format!("the probes did not end within {}", unit::duration(UNKNOWN)))),
            };
            match judged {
                Ok(()) => unknown_since = None,
                Err(stop) if is_breach(&stop) => return stop,
                Err(stop) => {
                    let since = *unknown_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= UNKNOWN {
                        let message = format!(
                            "isolation could not be proven again for {}: {}",
                            unit::duration(UNKNOWN),
                            stop.message
                        );
                        return Stop { message, reason: Reason::IsolationUnproven, ..stop };
                    }
                }
            }
        }
    }

    /// The last round stands for all of them: the ledger of a restore of hours stays short.
    pub(super) async fn write_down(&self, context: &Context<'_>, phase: Phase) -> Result<(), Stop> {
        let (held, last) = self.rounds(|rounds| (rounds.held, std::mem::take(&mut rounds.last)));
        if last.is_empty() {
            return Ok(());
        }
        let again = |probe: Probe| Probe {
            name: format!("{} (again during {phase})", probe.name),
            detail: format!("{}; proofs that held: {held}", probe.detail),
            ..probe
        };
        let probes = last.into_iter().map(again).collect();
        context.journal.append(Event::Isolation(IsolationProof { probes })).await
    }

    fn rounds<T>(&self, see: impl FnOnce(&mut Rounds) -> T) -> T {
        see(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

pub(super) fn is_breach(stop: &Stop) -> bool {
    stop.reason == Reason::IsolationBreached
}

/// A finding that names what was changed, and an alert: what lay in the sandbox may have got out, whatever the verdict is.
pub(super) async fn tell(context: &Context<'_>, phase: Phase, stop: &Stop) -> Result<(), Stop> {
    let changed = stop.cause.as_deref().unwrap_or("boundary");
    context.journal.warn("isolation", changed, stop.message.clone()).await?;
    let details = serde_json::json!({ "phase": phase, "changed": changed });
    context.journal.raise("isolation-breached", stop, details).await
}

/// A drill lets nobody in whom the configuration knows as production's.
pub(super) fn lets_no_production_in(isolation: &Isolation) -> Result<(), Stop> {
    let Isolation::Kubernetes(asked) = isolation else { return Ok(()) };
    match asked.orchestrated_production() {
        None => Ok(()),
        Some(production) => {
            let message =
                format!("the drill's `orchestratorCidr` lets in what is listed as production's: {production}");
            Err(Stop::new(Reason::SandboxUnfit, message).advise("name the machines alone that drive this drill"))
        }
    }
}
