use std::sync::Arc;

use drill::id::{DrillName, RunId};
use drill::ledger::Damage;
use drill::stop::Stop;
use tokio::sync::{mpsc, oneshot, watch};

use super::view::View;
use crate::book::Book;

/// Everything that can happen to the dispatcher.
pub enum Event {
    /// The scheduler's bell.
    Tick,
    /// Drill files were read anew.
    Drills(Arc<Book>),
    Request(Request),
    /// A run is in the ledger.
    RunBegun {
        drill: DrillName,
        run: RunId,
    },
    /// The first time: no new runs, and those that go on have their grace. From the second time on nobody waits.
    Stop,
}

/// What somebody asks for; the answer comes at once, the run goes on.
pub enum Request {
    Start {
        drill: DrillName,
        self_test: Option<Damage>,
        by: String,
        answer: oneshot::Sender<Result<RunId, StartError>>,
    },
    Cancel {
        run: RunId,
        by: String,
        answer: oneshot::Sender<Result<(), CancelError>>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    #[error("there is no drill `{0}`")]
    NoSuchDrill(DrillName),
    #[error("drill {drill} is running already{}", run.as_ref().map(|run| format!(" as {run}")).unwrap_or_default())]
    Running { drill: DrillName, run: Option<RunId> },
    #[error("drill {drill} has nothing to notice the damage `{damage}` with")]
    CannotNotice { drill: DrillName, damage: Damage },
    #[error("as many runs as may go on at one time do so already")]
    NoSlot,
    #[error("muster is stopping")]
    Stopping,
    #[error("{0}")]
    Refused(Stop),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CancelError {
    #[error("run {0} is not going on")]
    NotRunning(RunId),
    #[error("muster does not answer")]
    Gone,
}

/// How others reach the dispatcher. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    pub(super) events: mpsc::Sender<Event>,
    pub(super) view: watch::Receiver<Arc<View>>,
}

impl Handle {
    pub fn new(events: mpsc::Sender<Event>, view: watch::Receiver<Arc<View>>) -> Self {
        Self { events, view }
    }

    /// Hands over what only the daemon itself may say. A dispatcher that is gone needs to hear nothing.
    pub async fn tell(&self, event: Event) {
        let _ = self.events.send(event).await;
    }

    /// Whether the dispatcher has ended.
    pub fn is_gone(&self) -> bool {
        self.events.is_closed()
    }

    /// The newest.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.borrow())
    }

    /// Resolves after the view has changed.
    pub async fn changed(&mut self) {
        // A dispatcher that is gone changes nothing any more.
        if self.view.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Answers when the run was claimed. With a damage it is a self-test.
    pub async fn start(&self, drill: DrillName, self_test: Option<Damage>, by: String) -> Result<RunId, StartError> {
        let (answer, answered) = oneshot::channel();
        let request = Event::Request(Request::Start { drill, self_test, by, answer });
        if self.events.send(request).await.is_err() {
            return Err(StartError::Stopping);
        }
        answered.await.unwrap_or(Err(StartError::Stopping))
    }

    pub async fn cancel(&self, run: RunId, by: String) -> Result<(), CancelError> {
        let (answer, answered) = oneshot::channel();
        let request = Event::Request(Request::Cancel { run, by, answer });
        if self.events.send(request).await.is_err() {
            return Err(CancelError::Gone);
        }
        answered.await.unwrap_or(Err(CancelError::Gone))
    }
}
