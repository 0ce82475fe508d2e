use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use drill::agent::{FromAgent, Job, JobCheck, JobDatabase};
use drill::finding::{Finding, Severity};
use drill::id::Sha256Digest;
use drill::ledger::{CheckEnded, Event, FIGURES, Figure, Plugin as PluginRecord};
use drill::manifest::Manifest;
use drill::phase::Phase;
use drill::port::{Lease, LeaseRequest, Server};
use drill::spec::{Check, Drill, Grant, Need, Plugin};
use drill::stop::{OrStop, Stop};
use drill::unit;
use drill::verdict::Reason;
use plugin_host::Host;
use tokio::time::Instant;

use super::ahead::{Ahead, Codes};
use super::baselines::Baselines;
use super::last_run;
use super::lease::renew;
use super::observe::Update;
use super::phases::{Context, interrupted, phase};
use super::run::Request;
use crate::agent::AgentLink;

/// Bytes that a component may have.
const MAX_COMPONENT: u64 = 16 << 20;
/// How long checks may take to say what they saw after a first signal.
const GRACE: Duration = Duration::from_secs(10);

/// A check whose component was read, whose digest is right and whose imports are granted.
pub struct Loaded {
    pub check: Check,
    pub component: Vec<u8>,
    pub digest: Sha256Digest,
    pub grants: BTreeSet<Grant>,
}

impl Loaded {
    pub(super) fn record(&self) -> PluginRecord {
        let from = match &self.check.plugin {
            Plugin::Builtin(name) => format!("builtin:{name}"),
            Plugin::File { path, .. } => path.clone(),
        };
        let grants = self.grants.iter().map(|grant| grant.as_str().to_owned()).collect();
        PluginRecord { check: self.check.name.clone(), from, digest: self.digest, grants }
    }
}

/// The checks of a run of this backup: default ones are left out where it has nothing that they compare with.
pub(super) fn applicable<'a>(request: &'a Request, manifest: &Manifest) -> impl Iterator<Item = &'a Loaded> {
    let is_met = |need: Need| manifest.parts.iter().any(|part| need.is_met(part));
    request.checks.iter().filter(move |loaded| loaded.check.needs.is_none_or(is_met))
}

/// The databases that a check looks at. Where a default one has nothing to compare with, that is told, and is no trouble.
async fn databases_of(
    context: &Context<'_>,
    check: &Check,
    manifest: &Manifest,
    names: &[String],
) -> Result<Vec<String>, Stop> {
    let Some(need) = check.needs else { return Ok(names.to_vec()) };
    let is_met = |name: &&String| manifest.parts.iter().any(|part| part.database == **name && need.is_met(part));
    let (looked_at, left_out): (Vec<&String>, Vec<&String>) = names.iter().partition(is_met);
    for database in left_out {
        let message = format!("the backup has no {} of this database to compare with", need.as_str());
        let finding = Finding {
            source: check.name.clone(),
            database: Some(database.clone()),
            severity: Severity::Info,
            subject: "baseline".to_owned(),
            message,
            details: Vec::new(),
        };
        context.journal.append(Event::Finding(finding)).await?;
    }
    Ok(looked_at.into_iter().cloned().collect())
}

/// Reads every component of a drill before anything is begun. `base` is the drill file's directory.
pub fn load_checks(drill: &Drill, base: &Path) -> Result<Vec<Loaded>, Stop> {
    let host = Host::new().or_stop(Reason::Internal, "starting the plugin host")?;
    drill.checks.iter().map(|check| load(check, base, &host)).collect()
}

fn load(check: &Check, base: &Path, host: &Host) -> Result<Loaded, Stop> {
    let name = &check.name;
    let component = match &check.plugin {
        Plugin::Builtin(builtin) => plugin_host::builtin(builtin)
            .ok_or_else(|| Stop::internal(format!("check `{name}`: there is no builtin plugin `{builtin}`")))?
            .to_vec(),
        Plugin::File { path, sha256 } => {
            let path = base.join(path);
            let bytes = read_bounded(&path, MAX_COMPONENT)
                .or_stop(Reason::Internal, format!("check `{name}`: reading the plugin {}", path.display()))?;
            let found = Sha256Digest::of(&bytes);
            if found != *sha256 {
                return Err(Stop::internal(format!(
                    "check `{name}`: {} is not the plugin that the drill pins: its digest is {found}",
                    path.display()
                ))
                .advise("if this plugin is the one you mean, put that digest into the drill file"));
            }
            bytes
        }
    };
    let inspection = host.inspect(&component).or_stop(Reason::Internal, format!("check `{name}`"))?;
    let grants = match &check.plugin {
        Plugin::Builtin(_) => inspection.grants,
        Plugin::File { .. } => {
            let missing: Vec<&str> = inspection.grants.difference(&check.grants).map(|grant| grant.as_str()).collect();
            if !missing.is_empty() {
                let line = missing.iter().map(|grant| format!("{grant}: {{}}")).collect::<Vec<_>>().join(", ");
                return Err(Stop::internal(format!(
                    "check `{name}` imports what the drill does not grant: {}",
                    missing.join(", ")
                ))
                .advise(format!("if it may have that, add to the check: grants: {{ {line} }}")));
            }
            check.grants.clone()
        }
    };
    Ok(Loaded { check: check.clone(), digest: Sha256Digest::of(&component), component, grants })
}

fn read_bounded(path: &Path, limit: u64) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let file = std::fs::File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limit {
        return Err(std::io::Error::other(format!("it is larger than {}", unit::size(limit))));
    }
    Ok(bytes)
}

/// Hands the lease and the plugins to the agent and writes down what it sees.
pub(super) async fn validate(
    context: &Context<'_>,
    manifest: &Manifest,
    baselines: &Baselines,
    ahead: Ahead,
    server: &dyn Server,
    request: &LeaseRequest,
) -> Result<(), Stop> {
    let work = async {
        // Here, because a recovery would not wait for it: it is no part of its time.
        context.live.sandbox()?.verify_again(manifest).await?;
        let mut agent = context.live.parts().agent.take().ok_or_else(|| Stop::internal("there is no agent"))?;
        let seen = run_checks(context, &mut agent, manifest, baselines, ahead, server, request).await;
        context.live.parts().agent = Some(agent);
        context.journal.append(Event::Connections { lines: server.connections() }).await?;
        seen?;
        let note = note(context);
        Ok(((), note))
    };
    phase(context, Phase::Validate, context.request.drill.deadlines.validate, work).await
}

fn note(context: &Context<'_>) -> String {
    let state = context.journal.state();
    let number = |count: usize, what: &str| unit::plural(u64::try_from(count).unwrap_or(u64::MAX), what);
    let of = |severity| state.findings.iter().filter(|finding| finding.severity == severity).count();
    let mut words = vec![number(state.checks.len(), "check")];
    let counts = [(of(Severity::Failure), "failure"), (of(Severity::Warning), "warning")];
    words.extend(counts.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| number(count, what)));
    words.join(", ")
}

async fn run_checks(
    context: &Context<'_>,
    agent: &mut AgentLink,
    manifest: &Manifest,
    baselines: &Baselines,
    ahead: Ahead,
    server: &dyn Server,
    request: &LeaseRequest,
) -> Result<(), Stop> {
    let lease = context.live.parts().lease.clone().ok_or_else(|| Stop::internal("there is no lease"))?;
    let (databases, checks) = tokio::select! {
        biased;
        () = context.cancel.asked() => return Err(interrupted(Phase::Validate)),
        sent = async {
            let databases = send_baselines(agent, manifest, baselines, server, &lease, &request.databases).await?;
            let codes = ahead.codes().await;
            Ok::<_, Stop>((databases, send_checks(context, agent, manifest, baselines, &codes, &request.databases).await?))
        } => sent?,
    };
    let started_at = context.journal.state().started.at;
    let drill = &context.request.drill;
    let job = Job {
        run: context.journal.run(),
        drill: drill.name.clone(),
        engine: context.ports.engine.name().to_owned(),
        started_at,
        snapshot_time: manifest.snapshot_time,
        recovery_point_objective_ms: drill
            .objectives
            .recovery_point
            .map(|objective| u64::try_from(objective.as_millis()).unwrap_or(u64::MAX)),
        databases,
        checks,
        deadline: drill.deadlines.validate,
    };
    agent.lease(lease.grant).await?;
    drive(context, agent, job, baselines, server, request).await
}

/// What each database is compared with, named in the job by its digest.
async fn send_baselines(
    agent: &mut AgentLink,
    manifest: &Manifest,
    baselines: &Baselines,
    server: &dyn Server,
    lease: &Lease,
    names: &[String],
) -> Result<Vec<JobDatabase>, Stop> {
    let mut databases = Vec::new();
    for name in names {
        let known = baselines.get(name);
        let baseline = send_some(agent, known.and_then(|known| known.tables.as_deref())).await?;
        let schema = match known.and_then(|known| known.schema.as_deref()) {
            None => None,
            Some(file) => {
                let taken = lease.taken.get(name).cloned().unwrap_or_default();
                Some(server.expected_schema(manifest, name, file, taken).await?)
            }
        };
        let schema = send_some(agent, schema.as_deref()).await?;
        databases.push(JobDatabase { name: name.clone(), baseline, schema });
    }
    Ok(databases)
}

/// Components, and the code of those that were compiled here.
async fn send_checks(
    context: &Context<'_>,
    agent: &mut AgentLink,
    manifest: &Manifest,
    baselines: &Baselines,
    codes: &Codes,
    names: &[String],
) -> Result<Vec<JobCheck>, Stop> {
    let mut checks = Vec::new();
    let mut sent = HashSet::new();
    for loaded in applicable(context.request, manifest) {
        let compiled = match codes.of(context, loaded) {
            Some(code) => Some(send_once(agent, &mut sent, code).await?),
            None => None,
        };
        checks.push(JobCheck {
            name: loaded.check.name.clone(),
            databases: databases_of(context, &loaded.check, manifest, names).await?,
            component: send_once(agent, &mut sent, &loaded.component).await?,
            compiled,
            grants: loaded.grants.iter().copied().collect(),
            limits: loaded.check.limits,
            options: options(context, loaded, baselines, names).await?,
        });
    }
    Ok(checks)
}

/// Of many checks by one plugin, the first brings it.
async fn send_once(
    agent: &mut AgentLink,
    sent: &mut HashSet<Sha256Digest>,
    bytes: &[u8],
) -> Result<Sha256Digest, Stop> {
    let digest = Sha256Digest::of(bytes);
    if sent.insert(digest) {
        agent.send_blob(bytes).await?;
    }
    Ok(digest)
}

async fn send_some(agent: &mut AgentLink, bytes: Option<&[u8]>) -> Result<Option<Sha256Digest>, Stop> {
    match bytes {
        Some(bytes) => agent.send_blob(bytes).await.map(Some),
        None => Ok(None),
    }
}

/// Where a database has no baseline, counting compares with what the last passed run counted.
async fn options(
    context: &Context<'_>,
    loaded: &Loaded,
    baselines: &Baselines,
    names: &[String],
) -> Result<serde_json::Value, Stop> {
    let mut options = loaded.check.options.clone();
    let counts = matches!(&loaded.check.plugin, Plugin::Builtin(name) if name == "row-count");
    if !counts || names.iter().all(|name| baselines.has_tables(name)) {
        return Ok(options);
    }
    let started = context.journal.state().started.clone();
    let last = last_run::counts(context.ports.store.as_ref(), &started, &loaded.check.name).await?;
    if let (Some(last), Some(options)) = (last, options.as_object_mut()) {
        options.insert("lastRun".to_owned(), last);
    }
    Ok(options)
}

/// Something that is being said to the agent.
type Saying<'a> = Pin<Box<dyn Future<Output = Result<(), Stop>> + Send + 'a>>;

/// Runs the job to its end, renews the lease while it lasts, and lets checks say what they saw after a first signal.
async fn drive(
    context: &Context<'_>,
    agent: &mut AgentLink,
    job: Job,
    baselines: &Baselines,
    server: &dyn Server,
    request: &LeaseRequest,
) -> Result<(), Stop> {
    let control = agent.control();
    let (events, mut heard) = tokio::sync::mpsc::channel(64);
    let job = agent.run_job(job, baselines, events);
    let mut job = std::pin::pin!(job);
    let mut renewal = renewals(context, request);
    let mut reported = Reported::default();
    // Polled beside the job: it may have to write a piece of the baseline to its end before anything else can be said.
    let mut saying: Option<Saying<'_>> = None;
    let mut grace = None;
    loop {
        let patience = grace.unwrap_or_else(|| Instant::now() + Duration::from_hours(24));
        tokio::select! {
            Some(event) = heard.recv() => record(context, event, &mut reported).await?,
            ended = &mut job => {
                while let Ok(event) = heard.try_recv() {
                    record(context, event, &mut reported).await?;
                }
                return if grace.is_some() { Err(interrupted(Phase::Validate)) } else { ended };
            }
            () = context.cancel.asked(), if grace.is_none() => {
                grace = Some(Instant::now() + GRACE);
                let (before, control) = (saying.take(), &control);
                saying = Some(Box::pin(async move {
                    // Half a message would be the agent's last. One that cannot be told ends with its sandbox.
                    if let Some(before) = before {
                        before.await?;
                    }
                    let _ = control.cancel().await;
                    Ok(())
                }));
            }
            said = async { saying.as_mut().expect("the branch is off without it").await }, if saying.is_some() => {
                saying = None;
                said?;
            }
            () = tokio::time::sleep_until(patience), if grace.is_some() => return Err(interrupted(Phase::Validate)),
            _ = renewal.tick(), if grace.is_none() && saying.is_none() => {
                let control = &control;
                saying = Some(Box::pin(async move { control.lease(renew(context, server, request).await?).await }));
            }
        }
    }
}

/// Each time that two thirds of the lease's life are over; the first counts from when it was issued.
fn renewals(context: &Context<'_>, request: &LeaseRequest) -> tokio::time::Interval {
    let expires_at = context.live.parts().lease.as_ref().map(|lease| lease.grant.expires_at);
    let left = expires_at.and_then(|end| Duration::try_from(end.duration_since(jiff::Timestamp::now())).ok());
    let first = left.unwrap_or_default().saturating_sub(request.ttl / 3);
    tokio::time::interval_at(Instant::now() + first, request.ttl * 2 / 3)
}

/// What checks report, until they end and the ledger has it.
#[derive(Default)]
struct Reported {
    /// By check and database: several run at one time.
    figures: BTreeMap<(String, String), Vec<Figure>>,
    /// Of the run until now.
    count: usize,
}

impl Reported {
    /// The last value of a figure counts. What is too much is left out.
    fn add(&mut self, check: String, database: String, figure: Figure) {
        let figures = self.figures.entry((check, database)).or_default();
        if let Some(known) = figures.iter_mut().find(|known| known.is_same(&figure)) {
            *known = figure;
        } else if self.count < FIGURES {
            self.count += 1;
            figures.push(figure);
        }
    }

    fn take(&mut self, check: &str, database: &str) -> Vec<Figure> {
        self.figures.remove(&(check.to_owned(), database.to_owned())).unwrap_or_default()
    }
}

async fn record(context: &Context<'_>, event: FromAgent, reported: &mut Reported) -> Result<(), Stop> {
    let journal = context.journal;
    match event {
        FromAgent::Finding { check, database, severity, subject, message, details } => {
            let finding = Finding { source: check, database: Some(database), severity, subject, message, details };
            journal.append(Event::Finding(finding)).await
        }
        FromAgent::CheckEnded { check, database, outcome, usage } => {
            let figures = reported.take(&check, &database);
            journal.append(Event::CheckEnded(CheckEnded { check, database, outcome, usage, figures })).await
        }
        FromAgent::Progress { check, database, done, total, unit } => {
            journal.observer().update(Update::Check { name: &check, database: &database, done, total, unit: &unit });
            Ok(())
        }
        FromAgent::Log { check, message, .. } => {
            journal.observer().update(Update::Log { check: &check, message: &message });
            Ok(())
        }
        FromAgent::CheckStarted { check, database } => {
            journal.observer().update(Update::Check {
                name: &check,
                database: &database,
                done: 0,
                total: None,
                unit: "",
            });
            Ok(())
        }
        // For who watches the drill over time; the evidence holds findings only.
        FromAgent::Metric { check, database, name, labels, value } => {
            if let Some(figure) = Figure::new(name, labels, value) {
                reported.add(check, database, figure);
            }
            Ok(())
        }
        FromAgent::Ready | FromAgent::Probed { .. } | FromAgent::Want { .. } | FromAgent::Done { .. } => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(name: &str, value: f64) -> Figure {
        Figure::new(name.to_owned(), Vec::new(), value).expect("a figure")
    }

    #[test]
    fn a_run_keeps_the_last_value_of_a_bounded_number_of_figures() {
        let mut reported = Reported::default();
        let mut add = |check: &str, figure| reported.add(check.to_owned(), "shop".to_owned(), figure);
        for n in 0..FIGURES {
            add("rows", figure(&format!("m{n}"), 1.0));
        }
        add("rows", figure("one_more", 1.0));
        add("other", figure("one_more", 1.0));
        add("rows", figure("m0", 2.0));
        let of_rows = reported.take("rows", "shop");
        assert_eq!((of_rows.len(), &of_rows[0]), (FIGURES, &figure("m0", 2.0)));
        assert_eq!((reported.take("rows", "shop"), reported.take("other", "shop")), (vec![], vec![]));
    }
}
