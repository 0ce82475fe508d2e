//! The job: every check on every database, in order. Databases and checks are independent of each other here, so that several
//! at a time need no more than another loop.
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drill::agent::{CheckOutcome, CheckUsage, FromAgent, Job, JobCheck, JobDatabase};
use drill::id::Sha256Digest;
use drill::ledger::Resource;
use plugin_host::backend::{Backend, Context};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::baseline::Baseline;
use super::blobs::{Blobs, MAX_COMPONENT};
use super::checks::{CheckCall, CheckRunner, RunOutcome};
use super::digest::Contents;
use super::pieces::{Pieces, Waiting};
use super::report::{CheckReporter, Outbox};
use super::sql::{Database, SharedIdentity};
use super::{baseline, text};

/// What a check may take to end after it was cancelled.
const CANCEL_GRACE: Duration = Duration::from_secs(10);
/// Beyond the check's own wall time, which the host keeps: muster's own guard.
const WALL_GRACE: Duration = Duration::from_secs(15);

pub(super) struct Worker {
    pub(super) job: Job,
    pub(super) blobs: Blobs,
    pub(super) identity: Option<SharedIdentity>,
    pub(super) socket: PathBuf,
    pub(super) runner: Arc<dyn CheckRunner>,
    pub(super) outbox: Outbox,
    pub(super) waiting: Waiting,
    pub(super) cancel: CancellationToken,
}

/// One database while its checks run.
struct Opened {
    database: Database,
    /// None where the backup has none.
    baseline: Option<Arc<Baseline>>,
    schema: Option<Bytes>,
}

impl Worker {
    /// Runs to the end of the job, which is `Done`.
    pub(super) async fn run(self) {
        let deadline = Instant::now() + self.job.deadline;
        let cancel = self.cancel.clone();
        let alarm = tokio::spawn(async move {
            tokio::time::sleep_until(deadline).await;
            cancel.cancel();
        });
        for database in &self.job.databases {
            // Boxed: opening a database holds large buffers.
            Box::pin(self.database(database, deadline)).await;
        }
        alarm.abort();
        self.outbox.done().await;
    }

    async fn database(&self, target: &JobDatabase, deadline: Instant) {
        if self.cancel.is_cancelled() {
            return self.all_end(target, &CheckOutcome::Cancelled).await;
        }
        let opened = tokio::select! {
            opened = self.open(target, deadline) => opened,
            () = self.cancel.cancelled() => return self.all_end(target, &CheckOutcome::Cancelled).await,
        };
        match opened {
            Err(why) => self.all_end(target, &CheckOutcome::Inconclusive { why: text::clean(&why) }).await,
            Ok(opened) => {
                for check in &self.job.checks {
                    self.start(target, check).await;
                    let ended = self.check(target, check, &opened, deadline).await;
                    self.end(target, check, ended).await;
                }
                opened.database.close().await;
            }
        }
    }

    async fn open(&self, target: &JobDatabase, deadline: Instant) -> Result<Opened, String> {
        let blob = |digest: &Option<Sha256Digest>| match digest {
            None => Ok(None),
            Some(digest) => self.blobs.get(digest).map(Some).ok_or("the baseline was not sent to the agent"),
        };
        let read = |blob: Bytes| {
            baseline::read(&blob, &target.name).map_err(|why| format!("the baseline cannot be read: {why}"))
        };
        let baseline = blob(&target.baseline)?.map(read).transpose()?;
        let schema = blob(&target.schema)?;
        let identity = self.identity.clone().ok_or("the agent was given no lease")?;
        let lease = Resource::lease_role(&self.job.run);
        let database = Database::open(Path::new(&self.socket), identity, &lease, &target.name, deadline)
            .await
            .map_err(|error| format!("failed to open database `{}`: {}", target.name, error.message))?;
        Ok(Opened { database, baseline: baseline.map(Arc::new), schema })
    }

    async fn check(&self, target: &JobDatabase, check: &JobCheck, opened: &Opened, deadline: Instant) -> RunOutcome {
        let database = &opened.database;
        let usage = CheckUsage::default();
        if !check.databases.contains(&target.name) {
            let summary = Some("left out, as there is nothing to compare with".to_owned());
            return RunOutcome { outcome: CheckOutcome::Completed { summary }, usage };
        }
        if self.cancel.is_cancelled() {
            return RunOutcome { outcome: CheckOutcome::Cancelled, usage };
        }
        let Some(component) = self.blobs.get(&check.component).filter(|blob| blob.len() as u64 <= MAX_COMPONENT) else {
            let why = "the check's component was not sent to the agent, or is larger than 16 MiB".to_owned();
            return RunOutcome { outcome: CheckOutcome::Inconclusive { why }, usage };
        };
        let ends = deadline.min(Instant::now() + check.limits.wall_time);
        let reporter = Arc::new(CheckReporter::new(&check.name, &target.name, self.outbox.clone()));
        let pieces = Pieces::new(&target.name, self.waiting.clone(), self.outbox.clone());
        let contents = Arc::new(Contents::new(opened.baseline.clone(), pieces, database.scans(ends)));
        let backend = Backend {
            context: self.context(target, database),
            sql: Arc::new(database.sql(ends)),
            baseline: opened.baseline.as_ref().map(|baseline| baseline.tables.clone()),
            catalog: Arc::new(database.schemas(opened.schema.clone(), ends)),
            digest: Arc::<Contents>::clone(&contents),
            reporter: Arc::<CheckReporter>::clone(&reporter),
        };
        let call = CheckCall {
            digest: check.component,
            component,
            compiled: check.compiled.and_then(|code| self.blobs.get(&code)),
            grants: check.grants.iter().copied().collect(),
            limits: check.limits,
            options: check.options.clone(),
        };
        let cancel = self.cancel.child_token();
        let outcome = match tokio::time::timeout_at(ends + WALL_GRACE, self.watch(call, backend, &cancel)).await {
            Ok(outcome) => outcome,
            Err(_) => stuck(),
        };
        contents.ended().await;
        reporter.finish().await;
        outcome
    }

    async fn watch(&self, call: CheckCall, backend: Backend, cancel: &CancellationToken) -> RunOutcome {
        let run = self.runner.run(call, backend, cancel.clone());
        tokio::pin!(run);
        tokio::select! {
            outcome = &mut run => return outcome,
            () = cancel.cancelled() => {}
        }
        tokio::time::timeout(CANCEL_GRACE, run).await.unwrap_or_else(|_| stuck())
    }

    fn context(&self, target: &JobDatabase, database: &Database) -> Context {
        let job = &self.job;
        Context {
            drill: job.drill.to_string(),
            run: job.run.to_string(),
            engine: job.engine.clone(),
            server_version: database.server_version().to_owned(),
            database: target.name.clone(),
            databases: job.databases.iter().map(|database| database.name.clone()).collect(),
            started_at: job.started_at,
            snapshot_time: job.snapshot_time,
            recovery_point_objective: job.recovery_point_objective_ms.map(Duration::from_millis),
            tables: database.tables().to_vec(),
        }
    }

    async fn all_end(&self, target: &JobDatabase, outcome: &CheckOutcome) {
        for check in &self.job.checks {
            self.start(target, check).await;
            self.end(target, check, RunOutcome { outcome: outcome.clone(), usage: CheckUsage::default() }).await;
        }
    }

    async fn start(&self, target: &JobDatabase, check: &JobCheck) {
        let (check, database) = (check.name.clone(), target.name.clone());
        self.outbox.send(FromAgent::CheckStarted { check, database }).await;
    }

    async fn end(&self, target: &JobDatabase, check: &JobCheck, RunOutcome { outcome, usage }: RunOutcome) {
        let (check, database) = (check.name.clone(), target.name.clone());
        self.outbox.send(FromAgent::CheckEnded { check, database, outcome: clean(outcome), usage }).await;
    }
}

fn stuck() -> RunOutcome {
    let why = "the plugin host did not stop the check in time".to_owned();
    RunOutcome { outcome: CheckOutcome::Trapped { why }, usage: CheckUsage::default() }
}

/// Texts of an outcome come from the guest.
pub(super) fn clean(outcome: CheckOutcome) -> CheckOutcome {
    let clean = |text: String| text::clean(&text);
    match outcome {
        CheckOutcome::Completed { summary } => CheckOutcome::Completed { summary: summary.map(clean) },
        CheckOutcome::Inconclusive { why } => CheckOutcome::Inconclusive { why: clean(why) },
        CheckOutcome::LimitReached { limit, used, allowed, advice } => CheckOutcome::LimitReached {
            limit: clean(limit),
            used: clean(used),
            allowed: clean(allowed),
            advice: clean(advice),
        },
        CheckOutcome::Trapped { why } => CheckOutcome::Trapped { why: clean(why) },
        CheckOutcome::Refused { why } => CheckOutcome::Refused { why: clean(why) },
        CheckOutcome::Cancelled => CheckOutcome::Cancelled,
    }
}
