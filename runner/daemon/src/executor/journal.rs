use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use drill::finding::{Finding, Severity};
use drill::id::RunId;
use drill::ledger::{Event, PhaseOutcome, RunStarted, Stamped, State};
use drill::phase::Phase;
use drill::port::{Alert, Progress, Store};
use drill::stop::Stop;

use super::observe::{Observer, Update};

/// The run's own hand on the ledger: appends, keeps the fold, tells the observer. An append that fails stops the next effect.
pub(super) struct Journal {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Store>,
    observer: Arc<dyn Observer>,
    state: Mutex<State>,
    /// One append at a time, so that the fold sees events in the order in which the store does.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Journal {
    /// Of a run that the store has just claimed.
    pub(super) fn begin(store: Arc<dyn Store>, observer: Arc<dyn Observer>, started: RunStarted) -> Self {
        let stamped = Stamped { sequence: 1, at: started.at, event: Event::Started(started.clone()) };
        observer.update(Update::Event(&stamped));
        Self::resume(store, observer, State::new(started))
    }

    /// Of a run that an earlier process began.
    pub(super) fn resume(store: Arc<dyn Store>, observer: Arc<dyn Observer>, state: State) -> Self {
        Self { inner: Arc::new(Inner { store, observer, state: Mutex::new(state), turn: Arc::default() }) }
    }

    /// Durable when it returns. A caller that stops waiting does not stop the write: the next append waits for it, so that the
    /// fold never misses what the store has.
    pub(super) async fn append(&self, event: Event) -> Result<(), Stop> {
        let turn = Arc::clone(&self.inner.turn).lock_owned().await;
        let inner = Arc::clone(&self.inner);
        let written = tokio::spawn(async move {
            let result = inner.append(event).await;
            drop(turn);
            result
        });
        match written.await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(error) => Err(Stop::internal(format!("writing the ledger: {error}"))),
            },
        }
    }

    pub(super) async fn warn(&self, source: &str, subject: &str, message: String) -> Result<(), Stop> {
        self.append(Event::Finding(Finding {
            source: source.to_owned(),
            database: None,
            severity: Severity::Warning,
            subject: subject.to_owned(),
            message,
            details: Vec::new(),
        }))
        .await
    }

    pub(super) async fn phase_ended(
        &self,
        phase: Phase,
        duration: Duration,
        outcome: PhaseOutcome,
    ) -> Result<(), Stop> {
        self.append(Event::PhaseEnded { phase, duration, outcome }).await
    }

    /// About the drill. `details` is an object for machines.
    pub(super) async fn raise(&self, kind: &str, stop: &Stop, details: serde_json::Value) -> Result<(), Stop> {
        let subject = self.state().started.drill.to_string();
        self.raise_about(kind, subject, stop, details).await
    }

    pub(super) async fn raise_about(
        &self,
        kind: &str,
        subject: String,
        stop: &Stop,
        details: serde_json::Value,
    ) -> Result<(), Stop> {
        let alert = {
            let state = self.state();
            Alert {
                kind: kind.to_owned(),
                subject,
                drill: Some(state.started.drill.clone()),
                run: Some(state.started.run.clone()),
                at: jiff::Timestamp::now(),
                message: stop.message.clone(),
                advice: stop.advice.clone(),
                details,
            }
        };
        self.inner.store.raise(&alert).await?;
        self.inner.observer.update(Update::Alert(&alert));
        Ok(())
    }

    pub(super) fn run(&self) -> RunId {
        self.state().started.run.clone()
    }

    pub(super) fn observer(&self) -> &dyn Observer {
        self.inner.observer.as_ref()
    }

    /// Held only for a look: never across an await.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state()
    }

    pub(super) fn progress(&self, phase: Phase) -> PhaseProgress<'_> {
        PhaseProgress { observer: self.observer(), phase }
    }
}

impl Inner {
    async fn append(&self, event: Event) -> Result<(), Stop> {
        let run = self.state().started.run.clone();
        let stamped = self.store.append(&run, &event).await?;
        self.state().apply(&stamped).map_err(|error| Stop::internal(error.to_string()))?;
        self.observer.update(Update::Event(&stamped));
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct PhaseProgress<'a> {
    observer: &'a dyn Observer,
    phase: Phase,
}

impl Progress for PhaseProgress<'_> {
    fn set(&self, done: u64, total: Option<u64>, unit: &str) {
        self.observer.update(Update::Progress { phase: self.phase, done, total, unit });
    }
}
