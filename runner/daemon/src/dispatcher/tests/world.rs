//! A dispatcher whose clock, bell and runs a test holds in its hands. The store keeps the rules of the real one.
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use drill::config::Concurrency;
use drill::file::Options;
use drill::id::{DrillName, RunId};
use drill::ledger::{Damage, Event as LedgerEvent, Stamped, State as LedgerState, Trigger};
use drill::port::{Alert, Delivery, Outbox, Store as _};
use drill::spec::Enforcement;
use drill::stop::Stop;
use drill::verdict::{Leftovers, Reason};
use drivers::store::fake::MemoryStore;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::alarms::Alarms;
use crate::book::{Book, Entry};
use crate::dispatcher::bell::Bell;
use crate::dispatcher::{Dispatcher, Handle, Happening, Job, Listener, Listeners, Runner, Setup};
use crate::executor::{Cancel, Ended, Observer, Update};
use crate::sample;

/// A Monday's midnight.
pub(super) const BEGIN: &str = "2026-01-05T00:00:00Z";

#[derive(Clone)]
pub(super) struct Clock {
    since: Instant,
    /// Milliseconds by which somebody set it.
    set: Arc<AtomicI64>,
}

impl Clock {
    pub(super) fn now(&self) -> Timestamp {
        let begin: Timestamp = BEGIN.parse().unwrap();
        begin
            + SignedDuration::try_from(self.since.elapsed()).unwrap()
            + SignedDuration::from_millis(self.set.load(Ordering::Relaxed))
    }

    pub(super) fn set_by(&self, seconds: i64) {
        self.set.fetch_add(seconds * 1_000, Ordering::Relaxed);
    }
}

/// What a run was like, as the runner saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ran {
    pub drill: String,
    pub slot: Option<Timestamp>,
    pub self_test: Option<(Damage, Option<Timestamp>)>,
    pub labels: BTreeMap<String, String>,
    pub file: std::path::PathBuf,
    pub at: Timestamp,
    pub cancelled: bool,
}

pub(super) struct FakeRunner {
    store: Arc<MemoryStore>,
    clock: Clock,
    pub takes: Duration,
    entropy: AtomicU8,
    pub ran: Mutex<Vec<Ran>>,
    pub going_on: Mutex<Vec<String>>,
    /// The most that went on at one time: all, and of one first letter.
    pub most: Mutex<(usize, usize)>,
    pub refuses: Mutex<Option<Stop>>,
}

#[async_trait]
impl Runner for FakeRunner {
    async fn run(&self, job: Job, observer: Arc<dyn Observer>, cancel: Cancel) -> Result<Ended, Stop> {
        if let Some(stop) = self.refuses.lock().unwrap().clone() {
            return Err(stop);
        }
        let mut started = sample::started(job.name().as_str(), Path::new("/nowhere"));
        let entropy = self.entropy.fetch_add(1, Ordering::Relaxed);
        started.at = self.clock.now();
        started.run = RunId::new(job.name(), started.at, [entropy % 32, entropy / 32, 0, 0]);
        started.trigger = job.trigger.clone();
        self.store.claim(&started).await?;
        self.begin(job.name().as_str());
        observer.update(Update::Event(&Stamped {
            sequence: 1,
            at: started.at,
            event: LedgerEvent::Started(started.clone()),
        }));
        let cancelled = tokio::select! {
            () = tokio::time::sleep(self.takes), if !self.takes.is_zero() => false,
            () = cancel.asked() => true,
            () = std::future::ready(()), if self.takes.is_zero() => false,
        };
        self.going_on.lock().unwrap().retain(|name| name != job.name().as_str());
        let slot = match &job.trigger {
            Trigger::Schedule { scheduled_for } => Some(*scheduled_for),
            _ => None,
        };
        self.ran.lock().unwrap().push(Ran {
            drill: job.name().as_str().to_owned(),
            slot,
            self_test: match &job.trigger {
                Trigger::SelfTest { damage, scheduled_for } => Some((*damage, *scheduled_for)),
                _ => None,
            },
            labels: job.drill.labels.clone(),
            file: job.file.clone(),
            at: started.at,
            cancelled,
        });
        let reason = if cancelled { Reason::Interrupted } else { Reason::Proven };
        let summary = sample::summary(reason, "it ended");
        self.store.append(&started.run, &LedgerEvent::Concluded(summary.clone())).await.unwrap();
        self.store.append(&started.run, &LedgerEvent::Ended { leftovers: Leftovers::None }).await.unwrap();
        Ok(Ended { state: LedgerState::new(started), summary, leftovers: Leftovers::None, trouble: None })
    }
}

impl FakeRunner {
    fn begin(&self, drill: &str) {
        let mut going_on = self.going_on.lock().unwrap();
        assert!(!going_on.iter().any(|name| name == drill), "{drill} overlaps itself");
        going_on.push(drill.to_owned());
        let of_letter = going_on.iter().filter(|name| name[..1] == drill[..1]).count();
        let mut most = self.most.lock().unwrap();
        *most = (most.0.max(going_on.len()), most.1.max(of_letter));
    }

    /// The self-tests that ran, and their slots as times of the day.
    pub(super) fn self_tests(&self, drill: &str) -> Vec<String> {
        let ran = self.ran.lock().unwrap();
        let of_drill = ran.iter().filter(|ran| ran.drill == drill).filter_map(|ran| ran.self_test);
        let shown = |at: Option<Timestamp>| at.map_or("by hand".to_owned(), |at| at.strftime("%H:%M").to_string());
        of_drill.map(|(damage, at)| format!("{damage} {}", shown(at))).collect()
    }

    /// The slots that ran, as times of the day.
    pub(super) fn slots(&self, drill: &str) -> Vec<String> {
        let ran = self.ran.lock().unwrap();
        let of_drill = ran.iter().filter(|ran| ran.drill == drill).filter_map(|ran| ran.slot);
        of_drill.map(|slot| slot.strftime("%H:%M:%S").to_string()).collect()
    }
}

/// Alerts that are open; full where a test says so.
#[derive(Default)]
pub(super) struct FakeOutbox {
    pub open: Mutex<Vec<Alert>>,
    pub full: AtomicBool,
    /// How many were opened, all in all.
    pub raised: Mutex<Vec<String>>,
}

#[async_trait]
impl Outbox for FakeOutbox {
    async fn raise(&self, alert: &Alert) -> Result<(), Stop> {
        if self.full.load(Ordering::Relaxed) {
            return Err(Stop::internal("the disk is full"));
        }
        let mut open = self.open.lock().unwrap();
        if !open.iter().any(|old| (&old.kind, &old.subject) == (&alert.kind, &alert.subject)) {
            open.push(alert.clone());
            self.raised.lock().unwrap().push(alert.kind.clone());
        }
        Ok(())
    }

    async fn resolve(&self, kind: &str, subject: &str, _at: Timestamp) -> Result<bool, Stop> {
        let mut open = self.open.lock().unwrap();
        let before = open.len();
        open.retain(|alert| alert.kind != kind || alert.subject != subject);
        Ok(open.len() < before)
    }

    async fn open_alerts(&self) -> Result<Vec<Alert>, Stop> {
        Ok(self.open.lock().unwrap().clone())
    }

    async fn due(&self, _: &str, _: Option<Duration>, _: Timestamp, _: u32) -> Result<Vec<Delivery>, Stop> {
        unreachable!("the dispatcher sends nothing")
    }

    async fn delivered(&self, _: &[Delivery], _: &str, _: Timestamp) -> Result<(), Stop> {
        unreachable!("the dispatcher sends nothing")
    }

    async fn undelivered(
        &self,
        _: &[Delivery],
        _: &str,
        _: Timestamp,
        _: Option<Timestamp>,
        _: &str,
    ) -> Result<(), Stop> {
        unreachable!("the dispatcher sends nothing")
    }

    async fn hurry(&self, _: &str) -> Result<(), Stop> {
        unreachable!("the dispatcher sends nothing")
    }

    async fn tidy(&self, _: &[String], _: Timestamp) -> Result<u64, Stop> {
        unreachable!("the dispatcher sends nothing")
    }
}

#[derive(Default)]
pub(super) struct Ears(pub Mutex<Vec<(String, &'static str, u64)>>);

impl Listener for Ears {
    fn heard(&self, happening: &Happening) {
        match happening {
            Happening::Skipped { drill, why, count, .. } => {
                self.0.lock().unwrap().push((drill.as_str().to_owned(), why.as_str(), *count));
            }
            Happening::NotBegun { drill, .. } => {
                self.0.lock().unwrap().push((drill.as_str().to_owned(), "not begun", 1));
            }
            Happening::Run { .. } | Happening::Recovered { .. } => {}
        }
    }
}

pub(super) struct World {
    pub store: Arc<MemoryStore>,
    pub runner: Arc<FakeRunner>,
    pub outbox: Arc<FakeOutbox>,
    pub ears: Arc<Ears>,
    pub clock: Clock,
    pub dispatcher: Handle,
    ring: watch::Sender<Instant>,
    rings: JoinSet<()>,
    runs: Option<JoinHandle<()>>,
}

pub(super) struct Wanted {
    pub concurrency: (u32, u32),
    pub grace: u64,
    pub takes: u64,
}

impl Default for Wanted {
    fn default() -> Self {
        Self { concurrency: (4, 4), grace: 60, takes: 1 }
    }
}

impl World {
    pub(super) async fn new(wanted: Wanted, book: Book) -> Self {
        let clock = Clock { since: Instant::now(), set: Arc::default() };
        Self::of(wanted, book, (Arc::new(MemoryStore::new()), Arc::default()), clock).await
    }

    async fn of(
        wanted: Wanted,
        book: Book,
        (store, outbox): (Arc<MemoryStore>, Arc<FakeOutbox>),
        clock: Clock,
    ) -> Self {
        let runner = Arc::new(FakeRunner {
            store: Arc::clone(&store),
            clock: clock.clone(),
            takes: Duration::from_secs(wanted.takes),
            entropy: AtomicU8::new(0),
            ran: Mutex::default(),
            going_on: Mutex::default(),
            most: Mutex::default(),
            refuses: Mutex::default(),
        });
        let ears = Arc::new(Ears::default());
        let setup = Setup {
            concurrency: Concurrency { total: wanted.concurrency.0, per_target: wanted.concurrency.1 },
            grace: Duration::from_secs(wanted.grace),
            store: Arc::clone(&store) as _,
            runner: Arc::clone(&runner) as _,
            listeners: Listeners::new(vec![Arc::clone(&ears) as _]),
            alarms: Alarms::new(Arc::clone(&outbox) as _),
        };
        let of_dispatcher = clock.clone();
        let made = Dispatcher::with_clock(setup, Arc::new(book), Box::new(move || of_dispatcher.now())).await;
        let (dispatcher, handle) = made.unwrap();
        let (ring, bell) = Bell::by_hand();
        let runs = tokio::spawn(dispatcher.listen(bell));
        let mut world = Self {
            store,
            runner,
            outbox,
            ears,
            clock,
            dispatcher: handle,
            ring,
            rings: JoinSet::new(),
            runs: Some(runs),
        };
        world.ring();
        world
    }

    /// Each second from now on.
    pub(super) fn ring(&mut self) {
        let ring = self.ring.clone();
        self.rings.spawn(async move {
            loop {
                ring.send_replace(Instant::now());
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
    }

    pub(super) fn silence(&mut self) {
        self.rings.abort_all();
    }

    /// Time goes by.
    pub(super) async fn pass(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    /// Waits for a dispatcher that was told to stop.
    pub(super) async fn ended(&mut self) {
        let runs = self.runs.take().unwrap();
        tokio::time::timeout(Duration::from_hours(1), runs).await.unwrap().unwrap();
    }

    /// The process is killed, and after some time there is another.
    pub(super) async fn again(mut self, wanted: Wanted, book: Book, after: u64) -> Self {
        self.silence();
        if let Some(runs) = self.runs.take() {
            runs.abort();
            let _ = runs.await;
        }
        tokio::time::sleep(Duration::from_secs(after)).await;
        let durable = (Arc::new(self.store.reopen()), Arc::clone(&self.outbox));
        Self::of(wanted, book, durable, self.clock.clone()).await
    }

    pub(super) fn skipped(&self, drill: &str) -> Vec<(&'static str, u64)> {
        let ears = self.ears.0.lock().unwrap();
        ears.iter().filter(|(of, ..)| of == drill).map(|(_, why, count)| (*why, *count)).collect()
    }

    /// Those that are open.
    pub(super) fn alerts(&self) -> Vec<String> {
        self.outbox.open.lock().unwrap().iter().map(|alert| alert.kind.clone()).collect()
    }

    pub(super) fn subjects(&self) -> Vec<String> {
        self.outbox.open.lock().unwrap().iter().map(|alert| alert.subject.clone()).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(runs) = &self.runs {
            runs.abort();
        }
    }
}

/// A drill of this name; its backup is that of all drills with the same first letter.
pub(super) fn entry(name: &str, label: &str, schedule: &str) -> Entry {
    of_spec(name, label, &format!("  schedule: {{ {schedule} }}\n"))
}

/// The same, with these lines of its `spec`.
pub(super) fn of_spec(name: &str, label: &str, lines: &str) -> Entry {
    let text = format!(
        "apiVersion: muster.dev/v1\nkind: Drill\nmetadata: {{ name: {name}, labels: {{ version: {label} }} }}\nspec:\n  \
         source: {{ manifest: {}/manifest.json, trustedKeys: [{{ file: k.pub }}] }}\n{lines}",
        &name[..1]
    );
    let options = Options { enforcement: Enforcement::BestEffort };
    let drill = drill::file::parse(&text, options).unwrap_or_else(|problems| panic!("{problems:?}"));
    Entry { drill: Arc::new(drill), file: format!("/drills/{name}.yaml").into() }
}

pub(super) fn book(entries: impl IntoIterator<Item = Entry>) -> Book {
    let drills = entries.into_iter().map(|entry| (entry.drill.name.clone(), entry)).collect();
    Book { drills, problems: Vec::new() }
}

pub(super) fn name(text: &str) -> DrillName {
    text.parse().unwrap()
}
