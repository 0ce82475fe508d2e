//! What the daemon does when it starts and each minute: ends what nobody else ends, removes what nobody owes, tells people what
//! stays, and forgets what is old enough. Start at [`Reconciler::reconcile`].
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use drill::config::Retention;
use drill::id::RunId;
use drill::ledger::{Event, Owner, Stamped, State};
use drill::port::{Alert, Store};
use drill::stop::Stop;
use drill::unit;
use drill::verdict::{Leftovers, Reason};
use jiff::Timestamp;
use tokio::time::MissedTickBehavior;

use crate::alarms::{Alarms, kind};
use crate::dispatcher::{Happening, Listener as _, Listeners};
use crate::evidence::{self, Forgotten};
use crate::executor::{Ports, Recovered, Silent, recover_due};
use crate::owner;

const EVERY: Duration = Duration::from_mins(1);
/// What cannot be removed is tried again after this, then after twice of it, and so on.
const FIRST_WAIT: Duration = Duration::from_mins(1);
const LONGEST_WAIT: Duration = Duration::from_hours(1);
/// How often old runs are looked for where there are none.
const FORGET: Duration = Duration::from_hours(1);
/// And where they could not be forgotten.
const FORGET_AGAIN: Duration = Duration::from_mins(10);

/// One a daemon; one call at a time.
pub struct Reconciler {
    ports: Ports,
    me: Owner,
    alarms: Alarms,
    retention: Retention,
    listeners: Listeners,
    /// What could not be settled or removed.
    waits: BTreeMap<RunId, Wait>,
    forget_at: Option<Timestamp>,
}

struct Wait {
    tries: u32,
    next: Timestamp,
}

#[derive(Debug, Default)]
pub struct Reconciled {
    /// What was ended and removed, and what lives on.
    pub recovered: Recovered,
    /// Runs of which something is still owed, or exists although nobody owes it.
    pub leftovers: u64,
    pub forgotten: Forgotten,
    /// What went wrong beside the runs, such as old runs that could not be forgotten.
    pub troubles: Vec<Stop>,
}

impl Reconciled {
    fn log(&self) {
        for (run, leftovers) in &self.recovered.settled {
            tracing::warn!(%run, ?leftovers, "a run had been cut off; it was ended and what it left removed");
        }
        for orphan in &self.recovered.orphans {
            tracing::warn!(run = %orphan.run, what = orphan.what, "removed, though no ledger owed it");
        }
        for (run, stop) in &self.recovered.troubles {
            tracing::error!(%run, %stop, "a run could not be settled");
        }
        for stop in &self.troubles {
            tracing::error!(%stop, advice = stop.advice, "old runs could not be forgotten");
        }
        for path in &self.forgotten.strange {
            tracing::warn!(path = %path.display(), "is not the evidence that muster wrote there, and stays");
        }
        if self.forgotten.runs > 0 {
            tracing::info!(runs = self.forgotten.runs, evidence = self.forgotten.evidence, "old runs were forgotten");
        }
    }
}

impl Reconciler {
    /// `ports` are those that the daemon's runs use: by them it knows which are its own.
    pub fn new(ports: Ports, me: Owner, alarms: Alarms, listeners: Listeners, retention: Retention) -> Self {
        Self { ports, me, alarms, retention, listeners, waits: BTreeMap::new(), forget_at: None }
    }

    /// Reconciles each minute, and never ends. What went wrong is in the log, and in alerts as far as the store takes them.
    pub async fn each_minute(mut self) -> Result<(), Stop> {
        let mut minutes = tokio::time::interval(EVERY);
        minutes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            minutes.tick().await;
            match self.reconcile(Timestamp::now()).await {
                Ok(reconciled) => reconciled.log(),
                Err(stop) => tracing::error!(%stop, advice = stop.advice, "what runs left could not be looked at"),
            }
        }
    }

    /// An error where the store or the machine cannot be looked at. Runs that this process is busy with, and those of a process
    /// that lives, are left alone.
    pub async fn reconcile(&mut self, now: Timestamp) -> Result<Reconciled, Stop> {
        // Looked at first: what is raised while we work is about something that we may not have seen.
        let open = self.ports.store.open_alerts().await?;
        let state_directory = &self.ports.state_directory;
        let alive = |owner: &Owner| owner::is_alive(state_directory, owner);
        let due = |run: &RunId| self.waits.get(run).is_none_or(|wait| wait.next <= now);
        let since = Timestamp::now();
        let recovered = recover_due(&self.ports, Arc::new(Silent), &self.me, alive, due).await?;
        tell(&recovered, since, self.ports.store.as_ref(), &self.listeners).await;

        let failed = self.failed(&recovered).await;
        // What was due and did not fail is settled, or somebody else's by now.
        self.waits.retain(|run, wait| wait.next > now || failed.contains_key(run));
        for (run, why) in failed {
            let wait = self.wait(&run, now);
            self.alarms.raise(leftovers(&run, &why, wait, now)).await;
        }
        let owed: BTreeSet<&str> =
            self.waits.keys().chain(&recovered.alive).chain(&recovered.waiting).map(RunId::as_str).collect();
        for alert in open.iter().filter(|alert| alert.kind == kind::LEFTOVERS) {
            if !owed.contains(alert.subject.as_str()) {
                self.alarms.resolve(kind::LEFTOVERS, &alert.subject).await;
            }
        }
        let leftovers = u64::try_from(self.waits.len()).unwrap_or(u64::MAX);
        let mut reconciled = Reconciled { recovered, leftovers, ..Reconciled::default() };
        match self.forget(now).await {
            Ok(forgotten) => reconciled.forgotten = forgotten,
            Err(stop) => reconciled.troubles.push(stop),
        }
        Ok(reconciled)
    }

    /// What is left of each run, and why.
    async fn failed(&self, recovered: &Recovered) -> BTreeMap<RunId, String> {
        let mut failed: BTreeMap<RunId, String> = BTreeMap::new();
        for (run, stop) in &recovered.troubles {
            failed.insert(run.clone(), stop.message.clone());
        }
        for (run, leftovers) in &recovered.settled {
            if *leftovers == Leftovers::Some {
                failed.insert(run.clone(), self.why(run).await);
            }
        }
        failed
    }

    async fn why(&self, run: &RunId) -> String {
        let events = self.ports.store.events(run).await.unwrap_or_default();
        let owed = State::replay(&events).ok().and_then(|state| state.what_is_owed());
        owed.unwrap_or_else(|| "the ledger does not say why".to_owned())
    }

    fn wait(&mut self, run: &RunId, now: Timestamp) -> Duration {
        let wait = self.waits.entry(run.clone()).or_insert(Wait { tries: 0, next: now });
        let length = FIRST_WAIT.saturating_mul(1 << wait.tries.min(10)).min(LONGEST_WAIT);
        wait.tries += 1;
        wait.next = now + length;
        length
    }

    async fn forget(&mut self, now: Timestamp) -> Result<Forgotten, Stop> {
        let Retention { age, runs } = self.retention;
        if (age.is_none() && runs.is_none()) || self.forget_at.is_some_and(|at| at > now) {
            return Ok(Forgotten::default());
        }
        let before = age.map(|age| now.checked_sub(age).unwrap_or(Timestamp::MIN));
        let key = self.ports.evidence_key.as_deref();
        let forgotten =
            evidence::prune(self.ports.store.as_ref(), &self.ports.state_directory, key, before, runs).await;
        self.forget_at = match &forgotten {
            Ok(forgotten) if forgotten.more => None,
            Ok(_) => Some(now + FORGET),
            Err(_) => Some(now + FORGET_AGAIN),
        };
        match forgotten {
            Err(stop) if stop.reason == Reason::AlreadyRunning => Ok(Forgotten::default()),
            forgotten => forgotten,
        }
    }
}

/// Runs that a recovery ended count as those do that ended by themselves. What had ended before `since` was counted then.
pub(crate) async fn tell(recovered: &Recovered, since: Timestamp, store: &dyn Store, listeners: &Listeners) {
    for (run, _) in &recovered.settled {
        let state = match store.events(run).await {
            Ok(events) => State::replay(&events).ok().filter(|_| ended_since(&events, since)),
            Err(stop) => {
                tracing::error!(%run, %stop, "a run that was recovered cannot be counted");
                None
            }
        };
        if let Some(State { started, summary: Some(summary), .. }) = state {
            let (drill, run, trigger) = (started.drill, started.run, started.trigger);
            listeners.heard(&Happening::Recovered { drill, run, trigger, summary });
        }
    }
}

fn ended_since(events: &[Stamped], since: Timestamp) -> bool {
    events.iter().any(|stamped| matches!(stamped.event, Event::Ended { .. }) && stamped.at >= since)
}

fn leftovers(run: &RunId, why: &str, wait: Duration, now: Timestamp) -> Alert {
    Alert {
        kind: kind::LEFTOVERS.to_owned(),
        subject: run.to_string(),
        drill: None,
        run: Some(run.clone()),
        at: now,
        message: format!("something is left of {run}: {why}"),
        advice: Some(format!(
            "muster tries again in {}; `muster report {run}` says what is left, and `muster reap` tries at once",
            unit::duration(wait)
        )),
        details: serde_json::json!({}),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use drill::port::{Isolation as _, Outbox as _, Store as _};
    use drivers::store::fake::Cut;

    use super::*;
    use crate::executor::tests::{Outside, owner};

    const NOTHING: Retention = Retention { age: None, runs: None };

    fn reconciler(outside: &Outside, retention: Retention) -> Reconciler {
        let alarms = Alarms::new(Arc::clone(&outside.store) as Arc<dyn drill::port::Outbox>);
        Reconciler::new(outside.ports(), owner(2), alarms, Listeners::default(), retention)
    }

    fn at(minute: i64) -> Timestamp {
        "2026-11-22T02:00:00Z".parse::<Timestamp>().unwrap() + jiff::SignedDuration::from_mins(minute)
    }

    async fn subjects(outside: &Outside) -> Vec<String> {
        outside.store.open_alerts().await.unwrap().into_iter().map(|alert| alert.subject).collect()
    }

    /// Cut off after its nth write.
    async fn crashed(nth: u64) -> Outside {
        let mut outside = Outside::new();
        outside.store.crash_at(nth, Cut::After);
        tokio::select! {
            _ = outside.run() => panic!("it ended before write {nth}"),
            () = outside.store.crashed() => {}
        }
        outside.restart();
        outside
    }

    #[tokio::test]
    async fn a_crashed_run_is_ended_and_the_next_minute_finds_nothing() {
        let outside = crashed(12).await;
        let mut reconciler = reconciler(&outside, NOTHING);
        let first = reconciler.reconcile(at(0)).await.unwrap();
        assert_eq!((first.recovered.settled.len(), first.leftovers), (1, 0));
        assert_eq!(outside.world.existing(), []);
        let second = reconciler.reconcile(at(1)).await.unwrap();
        assert!(second.recovered.settled.is_empty() && second.recovered.orphans.is_empty());
        assert!(outside.only_run().await.evidence.is_some());
    }

    /// While a run of this process goes on, at each of its events.
    #[tokio::test]
    async fn a_live_run_of_this_process_is_never_touched() {
        let outside = Arc::new(Outside::new());
        // The daemon itself owns what it runs.
        let alarms = Alarms::new(Arc::clone(&outside.store) as Arc<dyn drill::port::Outbox>);
        let mut reconciler = Reconciler::new(outside.ports(), owner(1), alarms, Listeners::default(), NOTHING);
        let run = outside.run();
        tokio::pin!(run);
        let mut looks = 0;
        let ended = loop {
            tokio::select! {
                biased;
                ended = &mut run => break ended.unwrap(),
                did = reconciler.reconcile(at(looks)) => {
                    let recovered = did.unwrap().recovered;
                    assert!(recovered.settled.is_empty() && recovered.orphans.is_empty(), "{recovered:?}");
                    looks += 1;
                    tokio::task::yield_now().await;
                }
            }
        };
        assert!(looks > 3, "{looks}");
        assert_eq!(ended.summary.verdict, drill::verdict::Verdict::Passed, "{:?}", ended.summary);
    }

    #[tokio::test]
    async fn what_cannot_be_removed_is_tried_ever_less_often_and_is_an_alert_until_it_is_gone() {
        let outside = crashed(12).await;
        for _ in 0..8 {
            outside.world.fail("release storage", Stop::internal("the disk is busy"));
        }
        let mut reconciler = reconciler(&outside, NOTHING);
        let first = reconciler.reconcile(at(0)).await.unwrap();
        assert_eq!(first.leftovers, 1);
        let run = outside.store.runs(None, 1).await.unwrap()[0].run.clone();
        let alerts = outside.store.open_alerts().await.unwrap();
        let alert = alerts.iter().find(|alert| alert.kind == kind::LEFTOVERS).unwrap();
        assert_eq!((&alert.subject, alert.run.as_ref()), (&run.to_string(), Some(&run)));
        assert!(alert.message.contains("storage: the disk is busy"), "{}", alert.message);

        let tries = || outside.world.steps().iter().filter(|step| *step == "before release storage").count();
        let mut minutes = Vec::new();
        for minute in 1..200 {
            let before = tries();
            reconciler.reconcile(at(minute)).await.unwrap();
            if tries() > before {
                minutes.push(minute);
            }
            if outside.world.existing().is_empty() {
                break;
            }
        }
        // Two tries of the teardown at the end of the run, and two each time.
        assert_eq!(minutes, [1, 3, 7, 15]);
        let after = reconciler.reconcile(at(200)).await.unwrap();
        assert_eq!(after.leftovers, 0);
        assert!(subjects(&outside).await.is_empty(), "it is resolved");
    }

    #[tokio::test]
    async fn an_alert_of_an_earlier_process_is_resolved_once_nothing_is_left() {
        let outside = Outside::new();
        let ended = outside.run().await.unwrap();
        let run = ended.state.started.run;
        outside.store.raise(&leftovers(&run, "busy", FIRST_WAIT, at(0))).await.unwrap();
        reconciler(&outside, NOTHING).reconcile(at(0)).await.unwrap();
        assert!(subjects(&outside).await.is_empty());
    }

    #[tokio::test]
    async fn what_no_ledger_knows_is_removed_and_what_stays_is_an_alert() {
        let outside = Outside::new();
        let stray: RunId = "orders-20261122t021500z-k7x2".parse().unwrap();
        outside.world.isolation().prepare(&stray).await.unwrap();
        outside.world.fail("release storage", Stop::internal("busy"));
        let mut reconciler = reconciler(&outside, NOTHING);
        assert_eq!(reconciler.reconcile(at(0)).await.unwrap().leftovers, 1);
        assert_eq!(subjects(&outside).await, [stray.to_string()]);
        let second = reconciler.reconcile(at(1)).await.unwrap();
        assert_eq!((second.recovered.orphans.len(), second.leftovers), (1, 0));
        assert_eq!(outside.world.existing(), []);
        reconciler.reconcile(at(2)).await.unwrap();
        assert!(subjects(&outside).await.is_empty());
    }

    #[tokio::test]
    async fn old_runs_are_forgotten_once_an_hour_and_their_evidence_with_them() {
        let outside = Outside::new();
        for _ in 0..3 {
            outside.run().await.unwrap();
        }
        let mut reconciler = reconciler(&outside, Retention { age: None, runs: Some(1) });
        let first = reconciler.reconcile(at(0)).await.unwrap();
        assert_eq!((first.forgotten.runs, first.forgotten.evidence), (2, 2), "{:?}", first.troubles);
        outside.run().await.unwrap();
        assert_eq!(reconciler.reconcile(at(59)).await.unwrap().forgotten.runs, 0);
        assert_eq!(reconciler.reconcile(at(60)).await.unwrap().forgotten.runs, 1);
        let state = outside.only_run().await;
        assert!(state.evidence.is_some());
    }

    #[tokio::test]
    async fn a_run_whose_ledger_cannot_be_written_is_tried_again() {
        let outside = crashed(12).await;
        // Taking it over works; the first event of the teardown does not, and neither does the conclusion.
        for nth in 2..12 {
            outside.store.fail_at(nth, Stop::internal("its file system is full"));
        }
        let mut reconciler = reconciler(&outside, NOTHING);
        let first = reconciler.reconcile(at(0)).await.unwrap();
        assert_eq!((first.recovered.troubles.len(), first.leftovers), (1, 1));
        assert!(first.recovered.troubles[0].1.message.contains("full"));
        for minute in 1..600 {
            reconciler.reconcile(at(minute)).await.unwrap();
        }
        assert_eq!(outside.only_run().await.ended, Some(Leftovers::None));
        let ends = outside.store.events(&outside.store.runs(None, 1).await.unwrap()[0].run).await.unwrap();
        assert!(matches!(ends.last().unwrap().event, Event::Ended { .. }));
        assert_eq!(outside.world.existing(), []);
    }
}
