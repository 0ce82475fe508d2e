//! What people must be told, as it happens: each alarm opens an alert in the outbox, or closes it when things are right again.
//! Who sends them is another's work.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use drill::id::{DrillName, RunId};
use drill::ledger::{State, Trigger};
use drill::port::{Alert, Outbox};
use drill::stop::Stop;
use drill::verdict::{Reason, Verdict};
use jiff::Timestamp;
use tokio::sync::watch;

use crate::dispatcher::FileView;
use crate::executor::Ended;

/// Every kind of alert, and what it means.
pub mod kind {
    /// A backup is not what was signed; it is in quarantine.
    pub const ARTIFACT_REFUSED: &str = "artifact-refused";
    /// The last run of a drill failed.
    pub const DRILL_FAILED: &str = "drill-failed";
    /// The last run of a drill could not tell.
    pub const DRILL_INCONCLUSIVE: &str = "drill-inconclusive";
    /// A run that was due could not begin.
    pub const RUN_NOT_BEGUN: &str = "run-not-begun";
    /// The isolation of a sandbox was changed or opened while a run went on.
    pub const ISOLATION_BREACHED: &str = "isolation-breached";
    /// A run could not remove all that it made.
    pub const LEFTOVERS: &str = "leftovers";
    /// A drill file cannot be used as it is.
    pub const DRILL_FILE_BAD: &str = "drill-file-bad";
    /// A damaged copy of a backup was not noticed.
    pub const SELF_TEST_PASSED: &str = "self-test-passed";
    /// The scheduler's bell stopped; the dispatcher rings for itself.
    pub const SCHEDULE_STALLED: &str = "schedule-stalled";
    /// The store refuses to be written: no new run begins.
    pub const STORE_UNWRITABLE: &str = "store-unwritable";
}

/// Opens and closes alerts. Cheap to clone.
#[derive(Clone)]
pub struct Alarms {
    outbox: Arc<dyn Outbox>,
    /// What is known to be open, so that a quiet tick writes nothing.
    stalled: Arc<AtomicBool>,
    /// Whoever sends alerts listens.
    changed: watch::Sender<()>,
    unwritable: Arc<AtomicBool>,
}

impl Alarms {
    pub fn new(outbox: Arc<dyn Outbox>) -> Self {
        // Open until it is seen to ring: what an earlier process raised is closed by the first look.
        let changed = watch::Sender::new(());
        Self { outbox, stalled: Arc::new(AtomicBool::new(true)), changed, unwritable: Arc::new(AtomicBool::new(true)) }
    }

    /// Changes when something was raised or resolved.
    pub fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// False where the store did not take it: that is said in the log, which may be the only place that is left.
    pub async fn raise(&self, alert: Alert) -> bool {
        tracing::error!(kind = alert.kind, subject = alert.subject, message = alert.message, "alert");
        let raised = self.outbox.raise(&alert).await;
        if let Err(stop) = &raised {
            tracing::error!(kind = alert.kind, subject = alert.subject, %stop, "an alert could not be written down");
        }
        self.changed.send_replace(());
        raised.is_ok()
    }

    pub async fn resolve(&self, kind: &str, subject: &str) {
        match self.outbox.resolve(kind, subject, Timestamp::now()).await {
            Ok(true) => {
                tracing::info!(kind, subject, "resolved");
                self.changed.send_replace(());
            }
            Ok(false) => {}
            Err(stop) => tracing::error!(kind, subject, %stop, "an alert could not be resolved"),
        }
    }

    pub(crate) async fn stalled(&self, now: bool) {
        if self.stalled.swap(now, Ordering::Relaxed) == now {
            return;
        }
        if now {
            let message = "the scheduler's bell fell silent; the dispatcher rings for itself every few seconds";
            let advice = "drills go on, up to five seconds late; restart muster when none is running";
            self.raise(alert(kind::SCHEDULE_STALLED, "scheduler", None, None, message, Some(advice))).await;
        } else {
            self.resolve(kind::SCHEDULE_STALLED, "scheduler").await;
        }
    }

    /// Whether the store takes this at least.
    pub(crate) async fn store_unwritable(&self) -> bool {
        self.unwritable.store(true, Ordering::Relaxed);
        let message = "the store refused to be written; no new run begins before it takes something";
        let advice = "see that the state directory's disk has room and can be written, and that no other process holds \
                      the store; muster tries again each second";
        self.raise(alert(kind::STORE_UNWRITABLE, "store", None, None, message, Some(advice))).await
    }

    /// It was seen to take more than an alert.
    pub(crate) async fn store_writable(&self) {
        if self.unwritable.swap(false, Ordering::Relaxed) {
            self.resolve(kind::STORE_UNWRITABLE, "store").await;
        }
    }

    /// What an earlier process said of files that are mended is closed.
    pub(crate) async fn first_drill_files(&self, now: &[FileView]) {
        match self.outbox.open_alerts().await {
            Ok(open) => {
                let bad = |path: &str| now.iter().any(|file| file.path.display().to_string() == path);
                for old in open.iter().filter(|old| old.kind == kind::DRILL_FILE_BAD && !bad(&old.subject)) {
                    self.resolve(kind::DRILL_FILE_BAD, &old.subject).await;
                }
            }
            Err(stop) => tracing::error!(%stop, "open alerts could not be read"),
        }
        self.drill_files(&[], now).await;
    }

    /// By what changed between two books.
    pub(crate) async fn drill_files(&self, before: &[FileView], now: &[FileView]) {
        for file in now.iter().filter(|file| !before.contains(file)) {
            let path = file.path.display().to_string();
            let advice = match &file.keeps {
                Some(drill) => format!("mend the file; until then {drill} goes on as it was read last"),
                None => "mend the file; until then it drills nothing".to_owned(),
            };
            self.raise(alert(kind::DRILL_FILE_BAD, &path, file.keeps.clone(), None, &file.problem, Some(&advice)))
                .await;
        }
        for file in before.iter().filter(|file| !now.iter().any(|bad| bad.path == file.path)) {
            self.resolve(kind::DRILL_FILE_BAD, &file.path.display().to_string()).await;
        }
    }

    /// What the end of a run means for the alerts of its drill.
    /// False where one that says that a run was not begun could not be written down.
    pub(crate) async fn run_ended(&self, drill: &DrillName, result: &Result<Ended, Stop>) -> bool {
        let subject = drill.as_str();
        let ended = match result {
            Ok(ended) => ended,
            Err(stop) if stop.reason == Reason::AlreadyRunning => return true,
            Err(stop) => {
                let raised = self.raise(alert(
                    kind::RUN_NOT_BEGUN,
                    subject,
                    Some(drill.clone()),
                    None,
                    &stop.message,
                    stop.advice.as_deref(),
                ));
                return raised.await;
            }
        };
        self.resolve(kind::RUN_NOT_BEGUN, subject).await;
        let (run, summary) = (ended.state.started.run.clone(), &ended.summary);
        if let Trigger::SelfTest { damage, .. } = &ended.state.started.trigger {
            // It says nothing of the backup: no alert of the drill's own runs is opened or closed by it. The run itself raised
            // what nobody noticed.
            if summary.reason == Reason::Proven {
                self.resolve(kind::SELF_TEST_PASSED, &format!("{drill}: {damage}")).await;
            }
            self.leftovers(&ended.state).await;
            return true;
        }
        let of_run = |kind| {
            alert(kind, subject, Some(drill.clone()), Some(run.clone()), &summary.message, summary.advice.as_deref())
        };
        match summary.verdict {
            Verdict::Passed => {
                self.resolve(kind::DRILL_FAILED, subject).await;
                self.resolve(kind::DRILL_INCONCLUSIVE, subject).await;
                self.resolve(kind::ARTIFACT_REFUSED, subject).await;
                self.resolve(kind::ISOLATION_BREACHED, subject).await;
            }
            Verdict::Failed => {
                self.raise(of_run(kind::DRILL_FAILED)).await;
                self.resolve(kind::DRILL_INCONCLUSIVE, subject).await;
            }
            Verdict::Inconclusive => drop(self.raise(of_run(kind::DRILL_INCONCLUSIVE)).await),
        }
        self.leftovers(&ended.state).await;
        true
    }

    async fn leftovers(&self, state: &State) {
        let Some(owed) = state.what_is_owed() else { return };
        let (drill, run) = (&state.started.drill, &state.started.run);
        let message = format!("{run} could not remove all that it made: {owed}");
        let advice = format!("muster tries again; `muster report {run}` says what is left and why");
        let raised =
            alert(kind::LEFTOVERS, run.as_str(), Some(drill.clone()), Some(run.clone()), &message, Some(&advice));
        self.raise(raised).await;
    }
}

fn alert(
    kind: &str,
    subject: &str,
    drill: Option<DrillName>,
    run: Option<RunId>,
    message: &str,
    advice: Option<&str>,
) -> Alert {
    Alert {
        kind: kind.to_owned(),
        subject: subject.to_owned(),
        drill,
        run,
        at: Timestamp::now(),
        message: message.to_owned(),
        advice: advice.map(str::to_owned),
        details: serde_json::json!({}),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use drill::ledger::State;
    use drill::port::{KINDS, Outbox};
    use drill::verdict::{Leftovers, Reason};
    use drivers::store::fake::MemoryStore;

    use super::{Alarms, alert, kind};
    use crate::executor::Ended;
    use crate::sample;

    /// It stays open while runs show nothing, and while they fail: only a run that went well in a sandbox that held closes it.
    #[tokio::test]
    async fn a_breach_is_open_until_a_run_of_the_drill_passes() {
        let store = Arc::new(MemoryStore::new());
        let alarms = Alarms::new(Arc::clone(&store) as Arc<dyn Outbox>);
        let started = sample::started("orders", Path::new("/evidence"));
        let drill = started.drill.clone();
        alarms.raise(alert(kind::ISOLATION_BREACHED, "orders", Some(drill.clone()), None, "opened", None)).await;
        let ends = [
            (Reason::IsolationBreached, true),
            (Reason::Interrupted, true),
            (Reason::CheckFailed, true),
            (Reason::Proven, false),
        ];
        for (reason, open) in ends {
            let summary = sample::summary(reason, "what happened");
            let state = State::new(started.clone());
            let ended = Ended { state, summary, leftovers: Leftovers::None, trouble: None };
            alarms.run_ended(&drill, &Ok(ended)).await;
            let alerts = store.open_alerts().await.expect("it can be read");
            assert_eq!(alerts.iter().any(|alert| alert.kind == kind::ISOLATION_BREACHED), open, "{reason:?}");
        }
    }

    #[test]
    fn every_kind_is_listed_with_what_it_means_and_none_is_that_nobody_raises() {
        let source = include_str!("alarms.rs");
        let constants = source.lines().filter_map(|line| line.trim().strip_prefix("pub const ")?.split('"').nth(1));
        let mut raised: Vec<&str> = constants.collect();
        raised.sort_unstable();
        let listed: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
        assert_eq!(raised, listed);
    }
}
