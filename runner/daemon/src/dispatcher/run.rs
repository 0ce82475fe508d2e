//! Does what the state decides: the loop, the runs, and what is written of slots that are not run.
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use drill::config::Concurrency;
use drill::id::{DrillName, RunId};
use drill::ledger::Event as LedgerEvent;
use drill::port::{RunSummary, Store};
use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_cron_scheduler::{Job as Bell, JobScheduler};

use super::event::{Event, Handle, Request, StartError};
use super::happening::{Happening, Listener, Listeners};
use super::state::{Action, Outcome, State};
use super::view::View;
use super::{Job, Runner};
use crate::alarms::Alarms;
use crate::book::Book;
use crate::executor::{Cancel, Ended, Observer, Update};

/// Events that wait for the dispatcher; whoever has more waits.
const QUEUE: usize = 1_024;
/// How many events are dealt with before others see what became of them.
const BATCH: usize = 256;
/// A bell that has not rung for so long has stopped.
const SILENT: Duration = Duration::from_secs(5);

/// What a dispatcher works with.
pub struct Setup {
    pub concurrency: Concurrency,
    /// How long runs go on after the first stop.
    pub grace: Duration,
    pub store: Arc<dyn Store>,
    pub runner: Arc<dyn Runner>,
    pub listeners: Listeners,
    pub alarms: Alarms,
}

pub struct Dispatcher {
    setup: Setup,
    state: State,
    /// Kept, so that the queue is open for as long as the dispatcher is.
    sender: mpsc::Sender<Event>,
    events: mpsc::Receiver<Event>,
    view: watch::Sender<Arc<View>>,
    runs: JoinSet<Result<Ended, Stop>>,
    /// By the task that runs it: a panic does not say which drill it was.
    tasks: HashMap<tokio::task::Id, DrillName>,
    cancels: HashMap<DrillName, Cancel>,
    answers: HashMap<DrillName, oneshot::Sender<Result<RunId, StartError>>>,
    /// The drills of the newest book: one that is gone is forgotten when its run ends.
    book: Arc<Book>,
    /// When patience with runs ends, once a stop was asked for.
    patience: Option<Instant>,
    rang: Instant,
}

impl Dispatcher {
    /// Learns from the store where schedules stand.
    pub async fn new(setup: Setup, book: Arc<Book>) -> Result<(Self, Handle), Stop> {
        let histories = setup.store.histories().await?;
        let now = Timestamp::now();
        let mut state = State::new(setup.concurrency, histories, now);
        state.drills(&book, now);
        let (sender, events) = mpsc::channel(QUEUE);
        let (view, watched) = watch::channel(Arc::new(state.view()));
        let handle = Handle { events: sender.clone(), view: watched };
        let dispatcher = Self {
            setup,
            state,
            sender,
            events,
            view,
            runs: JoinSet::new(),
            tasks: HashMap::new(),
            cancels: HashMap::new(),
            answers: HashMap::new(),
            book,
            patience: None,
            rang: Instant::now(),
        };
        Ok((dispatcher, handle))
    }

    /// Ends when a stop was asked for and no run goes on any more.
    pub async fn run(mut self) -> Result<(), Stop> {
        let mut bell = bell(self.sender.clone()).await?;
        // Looks whether the bell still rings, and rings where it does not.
        let mut own = tokio::time::interval(SILENT);
        own.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(BATCH);
        while !(self.state.is_stopping() && self.state.running() == 0) {
            let patience = self.patience;
            tokio::select! {
                _ = self.events.recv_many(&mut batch, BATCH) => {
                    for event in batch.drain(..) {
                        self.handle(event).await;
                    }
                }
                Some(joined) = self.runs.join_next_with_id() => self.joined(joined).await,
                _ = own.tick() => self.listen_for_bell().await,
                () = until(patience) => {
                    self.patience = None;
                    let actions = self.state.cancel_all();
                    self.act(actions).await;
                }
            }
            self.view.send_replace(Arc::new(self.state.view()));
        }
        let _ = bell.shutdown().await;
        Ok(())
    }

    async fn handle(&mut self, event: Event) {
        match event {
            Event::Tick => {
                self.rang = Instant::now();
                let actions = self.state.tick(Timestamp::now(), false);
                self.act(actions).await;
            }
            Event::Drills(book) => {
                self.setup.alarms.drill_files(&self.book.problems, &book.problems).await;
                self.state.drills(&book, Timestamp::now());
                self.book = book;
            }
            Event::Request(Request::Start { drill, by, answer }) => {
                match self.state.start(&drill, &by, Timestamp::now()) {
                    Ok(job) => {
                        self.answers.insert(drill, answer);
                        self.begin(job);
                    }
                    // Whoever asked may be gone.
                    Err(error) => drop(answer.send(Err(error))),
                }
            }
            Event::Request(Request::Cancel { run, by, answer }) => {
                let cancelled = self.state.cancel(&run);
                tracing::info!(run = run.as_str(), by, known = cancelled.is_ok(), "somebody cancels a run");
                drop(answer.send(match cancelled {
                    Ok(action) => {
                        self.act(vec![action]).await;
                        Ok(())
                    }
                    Err(error) => Err(error),
                }));
            }
            Event::RunBegun { drill, run } => {
                self.state.begun(&drill, run.clone());
                if let Some(answer) = self.answers.remove(&drill) {
                    drop(answer.send(Ok(run)));
                }
            }
            Event::Stop if self.state.is_stopping() => {
                let actions = self.state.cancel_all();
                self.act(actions).await;
            }
            Event::Stop => {
                self.state.stop();
                self.patience = Some(Instant::now() + self.setup.grace);
                tracing::info!(running = self.state.running(), "no new runs begin; those that go on may finish");
            }
        }
    }

    async fn listen_for_bell(&mut self) {
        let stalled = self.rang.elapsed() > SILENT;
        self.setup.alarms.stalled(stalled).await;
        if stalled {
            let actions = self.state.tick(Timestamp::now(), true);
            self.act(actions).await;
        }
    }

    async fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Begin(job) => self.begin(job),
                Action::Skip { drill, slot, why, count } => {
                    let written = self.setup.store.skip(&drill, slot.scheduled_for, why.as_str()).await;
                    if let Err(stop) = &written {
                        tracing::error!(drill = drill.as_str(), %stop, "a skipped slot could not be written down");
                    }
                    tracing::warn!(drill = drill.as_str(), slot = %slot.scheduled_for, why = why.as_str(), count, "not run");
                    self.setup.listeners.heard(&Happening::Skipped { drill, slot, why, count });
                }
                Action::Cancel(drill) => {
                    if let Some(cancel) = self.cancels.get(&drill) {
                        cancel.signal();
                    }
                }
            }
        }
    }

    fn begin(&mut self, job: Job) {
        let drill = job.name().clone();
        let cancel = Cancel::default();
        self.cancels.insert(drill.clone(), cancel.clone());
        let observer: Arc<dyn Observer> = Arc::new(Begun {
            rest: self.setup.listeners.observer(drill.clone()),
            drill: drill.clone(),
            dispatcher: self.sender.clone(),
            told: AtomicBool::new(false),
        });
        let runner = Arc::clone(&self.setup.runner);
        let task = self.runs.spawn(async move { runner.run(job, observer, cancel).await });
        self.tasks.insert(task.id(), drill);
    }

    async fn joined(&mut self, joined: Result<(tokio::task::Id, Result<Ended, Stop>), JoinError>) {
        let (id, result) = match joined {
            Ok(joined) => joined,
            Err(error) => (error.id(), Err(Stop::internal(format!("the run's own task ended: {error}")))),
        };
        let Some(drill) = self.tasks.remove(&id) else { return };
        self.cancels.remove(&drill);
        let answer = self.answers.remove(&drill);
        let outcome = match &result {
            Ok(ended) => Outcome::Ended(summary(ended)),
            Err(stop) if stop.reason == Reason::AlreadyRunning => Outcome::Taken,
            Err(_) => Outcome::NotBegun,
        };
        if let Err(stop) = &result {
            tracing::error!(drill = drill.as_str(), %stop, "a run was not begun");
            self.setup.listeners.heard(&Happening::NotBegun { drill: drill.clone(), why: stop.message.clone() });
            if let Some(answer) = answer {
                drop(answer.send(Err(StartError::Refused(stop.clone()))));
            }
        }
        self.setup.alarms.run_ended(&drill, &result).await;
        let gone = !self.book.drills.contains_key(&drill);
        self.state.ended(&drill, outcome, gone);
    }
}

/// Never, where there is no end.
async fn until(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

/// One job that rings each second, in UTC. What is due is not its business.
async fn bell(dispatcher: mpsc::Sender<Event>) -> Result<JobScheduler, Stop> {
    let tried = "starting the scheduler's bell";
    let scheduler = JobScheduler::new().await.or_stop(Reason::Internal, tried)?;
    let ring = Bell::new("* * * * * *", move |_, _| {
        // A dispatcher that is busy has a bell waiting already.
        let _ = dispatcher.try_send(Event::Tick);
    });
    scheduler.add(ring.or_stop(Reason::Internal, tried)?).await.or_stop(Reason::Internal, tried)?;
    scheduler.start().await.or_stop(Reason::Internal, tried)?;
    Ok(scheduler)
}

/// As the store sums it up.
fn summary(ended: &Ended) -> RunSummary {
    let started = &ended.state.started;
    RunSummary {
        run: started.run.clone(),
        drill: started.drill.clone(),
        started: started.at,
        ended: Some(Timestamp::now()),
        verdict: Some(ended.summary.verdict),
        reason: Some(ended.summary.reason),
        leftovers: ended.leftovers,
        recovery_time_milliseconds: ended.summary.recovery_time_milliseconds,
        evidence: ended.state.evidence.as_ref().map(|(path, ..)| path.clone()),
        trigger: started.trigger.clone(),
    }
}

/// Tells the dispatcher when the run is in the ledger, and everybody else the rest.
struct Begun {
    rest: Arc<dyn Observer>,
    drill: DrillName,
    dispatcher: mpsc::Sender<Event>,
    told: AtomicBool,
}

impl Observer for Begun {
    fn update(&self, update: Update<'_>) {
        if let Update::Event(stamped) = &update
            && let LedgerEvent::Started(started) = &stamped.event
            && !self.told.swap(true, Ordering::Relaxed)
        {
            let begun = Event::RunBegun { drill: self.drill.clone(), run: started.run.clone() };
            if self.dispatcher.try_send(begun).is_err() {
                tracing::warn!(run = started.run.as_str(), "the dispatcher is too busy to hear that a run began");
            }
        }
        self.rest.update(update);
    }
}
