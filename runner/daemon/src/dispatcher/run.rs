//! Does what the state decides: the loop, the runs, and what is written of slots that are not run.
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use drill::config::Concurrency;
use drill::id::{DrillName, RunId};
use drill::ledger::{Damage, Event as LedgerEvent};
use drill::port::{RunSummary, SeenSchedule, Store};
use drill::schedule::Slot;
use drill::stop::Stop;
use drill::verdict::Reason;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use super::bell::Bell;
use super::event::{Event, Handle, Request, StartError};
use super::happening::{Happening, Listener, Listeners, Skip};
use super::state::{Action, Outcome, State};
use super::view::View;
use super::{Job, Runner};
use crate::alarms::Alarms;
use crate::book::Book;
use crate::executor::{Cancel, Ended, Observer, Update};

/// Events that wait for the dispatcher; whoever has more waits.
const QUEUE: usize = 1_024;
/// How many events are dealt with, or skipped slots written, before it is looked at what else there is.
const BATCH: usize = 64;
/// A bell that has not rung for so long has stopped.
const SILENT: Duration = Duration::from_secs(5);
/// Others see what changed at most so often: each time costs something for every drill.
const VIEWS: Duration = Duration::from_millis(50);
/// A store that refuses is tried again after this.
const RETRY: Duration = Duration::from_secs(1);

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
    clock: Box<dyn Fn() -> Timestamp + Send>,
    /// Kept, so that the queue is open for as long as the dispatcher is.
    _open: mpsc::Sender<Event>,
    events: mpsc::Receiver<Event>,
    view: watch::Sender<Arc<View>>,
    /// When a view is published that was too early to publish.
    publish: Option<Instant>,
    published: Instant,
    runs: JoinSet<Result<Ended, Stop>>,
    /// By the task that runs it: a panic does not say which drill it was.
    tasks: HashMap<tokio::task::Id, DrillName>,
    cancels: HashMap<DrillName, Cancel>,
    answers: HashMap<DrillName, oneshot::Sender<Result<RunId, StartError>>>,
    /// Runs that are in the ledger now. Each run says it once, so that there is room for all that go on.
    begun: mpsc::Receiver<(DrillName, RunId)>,
    begins: mpsc::Sender<(DrillName, RunId)>,
    /// Slots that were not run, and are not written down yet: the newest, and how many.
    unwritten: BTreeMap<(DrillName, Option<Damage>, Skip), (Slot, u64)>,
    /// Schedules that are new, and not written down yet.
    seen: Vec<SeenSchedule>,
    /// When both are written.
    write: Option<Instant>,
    /// The drills of the newest book: one that is gone is forgotten when its run ends.
    book: Arc<Book>,
    /// When patience with runs ends, once a stop was asked for.
    patience: Option<Instant>,
}

impl Dispatcher {
    /// Learns from the store where schedules stand.
    pub async fn new(setup: Setup, book: Arc<Book>) -> Result<(Self, Handle), Stop> {
        Self::with_clock(setup, book, Box::new(Timestamp::now)).await
    }

    pub(super) async fn with_clock(
        setup: Setup,
        book: Arc<Book>,
        clock: Box<dyn Fn() -> Timestamp + Send>,
    ) -> Result<(Self, Handle), Stop> {
        let histories = setup.store.histories().await?;
        let now = clock();
        let mut state = State::new(setup.concurrency, histories, now);
        let seen = state.drills(&book, now);
        let (sender, events) = mpsc::channel(QUEUE);
        let (view, watched) = watch::channel(Arc::new(state.view()));
        let handle = Handle { events: sender.clone(), view: watched };
        let (begins, begun) = mpsc::channel(usize::try_from(setup.concurrency.total).unwrap_or(QUEUE).max(1));
        let dispatcher = Self {
            begun,
            begins,
            setup,
            state,
            clock,
            _open: sender,
            events,
            view,
            publish: None,
            published: Instant::now(),
            runs: JoinSet::new(),
            tasks: HashMap::new(),
            cancels: HashMap::new(),
            answers: HashMap::new(),
            unwritten: BTreeMap::new(),
            write: Some(Instant::now()),
            seen,
            book,
            patience: None,
        };
        Ok((dispatcher, handle))
    }

    /// Ends when a stop was asked for and no run goes on any more.
    pub async fn run(self) -> Result<(), Stop> {
        let bell = Bell::start().await?;
        self.listen(bell).await;
        Ok(())
    }

    pub(super) async fn listen(mut self, mut bell: Bell) {
        self.setup.alarms.first_drill_files(&self.book.problems).await;
        // Looks whether the bell still rings, and rings where it does not.
        let mut own = tokio::time::interval(SILENT);
        own.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(BATCH);
        while !(self.state.is_stopping() && self.state.running() == 0) {
            let (patience, publish, write) = (self.patience, self.publish, self.write);
            tokio::select! {
                _ = self.events.recv_many(&mut batch, BATCH) => {
                    for event in batch.drain(..) {
                        self.handle(event).await;
                    }
                }
                () = bell.rung() => self.handle(Event::Tick).await,
                Some((drill, run)) = self.begun.recv() => self.handle(Event::RunBegun { drill, run }).await,
                Some(joined) = self.runs.join_next_with_id() => self.joined(joined).await,
                _ = own.tick() => self.listen_for_bell(bell.silent_for() > SILENT).await,
                () = until(write) => self.write().await,
                () = until(publish) => {}
                () = until(patience) => {
                    self.patience = None;
                    let actions = self.state.cancel_all();
                    self.act(actions);
                }
            }
            self.publish();
        }
        while !self.unwritten.is_empty() && !self.state.is_held() {
            self.write().await;
        }
        self.view.send_replace(Arc::new(self.state.view()));
        bell.stop().await;
    }

    async fn handle(&mut self, event: Event) {
        match event {
            Event::Tick => self.tick(false).await,
            Event::Drills(book) => {
                self.setup.alarms.drill_files(&self.book.problems, &book.problems).await;
                self.seen.extend(self.state.drills(&book, (self.clock)()));
                self.write.get_or_insert_with(Instant::now);
                self.book = book;
            }
            Event::Request(Request::Start { drill, self_test, by, answer }) => {
                match self.state.start(&drill, self_test, &by, (self.clock)()) {
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
                drop(answer.send(cancelled.map(|action| self.act(vec![action]))));
            }
            Event::RunBegun { drill, run } => {
                self.store_took().await;
                self.state.begun(&drill, run.clone());
                if let Some(answer) = self.answers.remove(&drill) {
                    drop(answer.send(Ok(run)));
                }
            }
            Event::Stop if self.state.is_stopping() => {
                let actions = self.state.cancel_all();
                self.act(actions);
            }
            Event::Stop => {
                self.state.stop();
                self.patience = Some(Instant::now() + self.setup.grace);
                tracing::info!(running = self.state.running(), "no new runs begin; those that go on may finish");
            }
        }
    }

    async fn tick(&mut self, stalled: bool) {
        if self.state.is_held() && self.setup.alarms.store_unwritable().await {
            // It takes an alert. What follows shows whether it takes more.
            self.state.hold(false);
        }
        let actions = self.state.tick((self.clock)(), stalled);
        self.act(actions);
    }

    async fn listen_for_bell(&mut self, stalled: bool) {
        self.setup.alarms.stalled(stalled).await;
        if stalled {
            self.tick(true).await;
        }
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Begin(job) => self.begin(job),
                Action::Skip { drill, self_test, slot, why, count } => {
                    let (newest, all) = self.unwritten.entry((drill, self_test, why)).or_insert((slot, 0));
                    (*newest, *all) = ((*newest).max(slot), all.saturating_add(count));
                    self.write.get_or_insert_with(Instant::now);
                }
                Action::Cancel(drill) => {
                    if let Some(cancel) = self.cancels.get(&drill) {
                        cancel.signal();
                    }
                }
            }
        }
    }

    /// Writes schedules that are new and some of the slots that were not run, and tells of the latter.
    async fn write(&mut self) {
        if !self.seen.is_empty() {
            if let Err(stop) = self.setup.store.seen(&self.seen).await {
                tracing::error!(%stop, "that drills are known could not be written down");
                self.write_later().await;
                return;
            }
            self.seen = Vec::new();
            self.store_took().await;
        }
        for _ in 0..BATCH {
            let Some(((drill, self_test, why), (slot, count))) = self.unwritten.pop_first() else { break };
            match self.setup.store.skip(&drill, self_test, slot.scheduled_for, why.as_str()).await {
                // The slot was dealt with before: the clock was set back, or another daemon was here.
                Ok(false) => {}
                Ok(true) => {
                    self.setup.listeners.heard(&Happening::Skipped { drill, self_test, slot, why, count });
                }
                Err(stop) => {
                    tracing::error!(drill = drill.as_str(), %stop, "a skipped slot could not be written down");
                    self.unwritten.insert((drill, self_test, why), (slot, count));
                    self.write_later().await;
                    return;
                }
            }
            self.store_took().await;
        }
        self.write = (!self.unwritten.is_empty()).then(Instant::now);
    }

    async fn write_later(&mut self) {
        self.store_refused().await;
        self.write = Some(Instant::now() + RETRY);
    }

    /// Nothing new begins until it takes something again.
    async fn store_refused(&mut self) {
        if !self.state.is_held() {
            self.state.hold(true);
            self.setup.alarms.store_unwritable().await;
        }
    }

    async fn store_took(&mut self) {
        self.state.hold(false);
        self.setup.alarms.store_writable().await;
    }

    fn begin(&mut self, job: Job) {
        let drill = job.name().clone();
        let cancel = Cancel::default();
        self.cancels.insert(drill.clone(), cancel.clone());
        let observer: Arc<dyn Observer> = Arc::new(Begun {
            rest: self.setup.listeners.observer(drill.clone()),
            drill: drill.clone(),
            dispatcher: self.begins.clone(),
        });
        let runner = Arc::clone(&self.setup.runner);
        let task = self.runs.spawn(async move { runner.run(job, observer, cancel).await });
        self.tasks.insert(task.id(), drill);
    }

    async fn joined(&mut self, joined: Result<(tokio::task::Id, Result<Ended, Stop>), JoinError>) {
        // A run says that it began before it ends, and must not be taken for the drill's next.
        while let Ok((drill, run)) = self.begun.try_recv() {
            self.handle(Event::RunBegun { drill, run }).await;
        }
        let (id, result) = match joined {
            Ok(joined) => joined,
            Err(error) => (error.id(), Err(Stop::internal(format!("the run's own task ended: {error}")))),
        };
        let Some(drill) = self.tasks.remove(&id) else { return };
        self.cancels.remove(&drill);
        if let Some(answer) = self.answers.remove(&drill) {
            let begun = result.as_ref().map(|ended| ended.state.started.run.clone());
            drop(answer.send(begun.map_err(|stop| StartError::Refused(stop.clone()))));
        }
        let outcome = match &result {
            Ok(ended) => Outcome::Ended(summary(ended, (self.clock)())),
            Err(stop) if stop.reason == Reason::AlreadyRunning => Outcome::Taken,
            Err(stop) => {
                tracing::error!(drill = drill.as_str(), %stop, "a run was not begun");
                self.setup.listeners.heard(&Happening::NotBegun { drill: drill.clone(), why: stop.message.clone() });
                Outcome::NotBegun
            }
        };
        if !self.setup.alarms.run_ended(&drill, &result).await {
            self.store_refused().await;
        }
        let gone = !self.book.drills.contains_key(&drill);
        let actions = self.state.ended(&drill, outcome, gone, (self.clock)());
        self.act(actions);
    }

    /// At once where nothing was published lately, and soon otherwise.
    fn publish(&mut self) {
        let now = Instant::now();
        let due = self.publish.get_or_insert_with(|| now.max(self.published + VIEWS));
        if *due <= now {
            (self.publish, self.published) = (None, now);
            self.view.send_replace(Arc::new(self.state.view()));
        }
    }
}

/// Never, where there is no end.
async fn until(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

/// As the store sums it up.
fn summary(ended: &Ended, now: Timestamp) -> RunSummary {
    let started = &ended.state.started;
    RunSummary {
        run: started.run.clone(),
        drill: started.drill.clone(),
        started: started.at,
        ended: Some(now),
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
    dispatcher: mpsc::Sender<(DrillName, RunId)>,
}

impl Observer for Begun {
    fn update(&self, update: Update<'_>) {
        if let Update::Event(stamped) = &update
            && let LedgerEvent::Started(started) = &stamped.event
            && self.dispatcher.try_send((self.drill.clone(), started.run.clone())).is_err()
        {
            tracing::error!(run = started.run.as_str(), "the dispatcher does not hear that a run began");
        }
        self.rest.update(update);
    }
}
