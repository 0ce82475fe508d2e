use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use drill::conclude::deadline;
use drill::id::Sha256Digest;
use drill::ledger::{Event, PhaseOutcome, Resource};
use drill::manifest::Manifest;
use drill::phase::Phase;
use drill::port::{
    Credentials, EnginePlan, Lease, LeaseRequest, Opened, Programs, Quarantine, Sandbox, SandboxSpec, Server, Storage,
};
use drill::proof::IsolationProof;
use drill::spec::Isolation;
use drill::stop::{OrStop, Stop};
use drill::unit;
use drill::verdict::Reason;
use futures_util::future::OptionFuture;

use super::ahead::Ahead;
use super::baselines::Baselines;
use super::boundary::{self, Again};
use super::journal::Journal;
use super::lease::{WarmUp, lease, warm_up};
use super::run::Request;
use super::{Cancel, Ports, checks, opening, self_test};
use crate::agent::AgentLink;

/// How long a broken boundary may take to be noticed after it made something else fail.
const AFTERSHOCK: Duration = Duration::from_millis(300);

/// What every phase of one run shares.
pub(super) struct Context<'a> {
    pub(super) request: &'a Request,
    pub(super) ports: &'a Ports,
    pub(super) journal: &'a Journal,
    pub(super) live: &'a Live,
    pub(super) cancel: &'a Cancel,
    pub(super) begun: Instant,
}

/// What teardown needs of the objects that phases made; survives a panic in a phase.
#[derive(Default)]
pub(super) struct Live(Mutex<LiveParts>);

#[derive(Default)]
pub(super) struct LiveParts {
    pub(super) sandbox: Option<Arc<dyn Sandbox>>,
    pub(super) server: Option<Arc<dyn Server>>,
    pub(super) agent: Option<AgentLink>,
    pub(super) credentials: Option<Arc<dyn Credentials>>,
    pub(super) warm_up: Option<WarmUp>,
    pub(super) lease_request: Option<LeaseRequest>,
    pub(super) lease: Option<Lease>,
}

impl Live {
    pub(super) fn parts(&self) -> MutexGuard<'_, LiveParts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of a phase that comes after it was made.
    pub(super) fn sandbox(&self) -> Result<Arc<dyn Sandbox>, Stop> {
        self.parts().sandbox.clone().ok_or_else(|| Stop::internal("no sandbox was made"))
    }

    pub(super) fn into_parts(self) -> LiveParts {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every phase before teardown, in order. The first that stops ends the work.
pub(super) async fn phases(context: &Context<'_>) -> Result<(), Stop> {
    let (opened, opening) = opening::open(context).await?;
    let plan = preflight(context, &opened).await?;
    let ahead = Ahead::begin(context, &opened.manifest);
    let storage = acquire_storage(context).await?;
    let verifying = verify(context, &opened, &storage, opening);
    let making = sandbox(context, plan.as_ref());
    let (verified, provisioned) = match context.request.drill.isolation.volume() {
        None => tokio::join!(verifying, making),
        // The sandbox has it from the beginning, so it is verified before there is one.
        Some(_) => (Ok(verifying.await?), making.await),
    };
    let (baselines, damaged) = verified?;
    // Of a self-test with a damaged baseline, the copy's own: it is what the checks must compare with.
    let manifest = damaged.unwrap_or(opened.manifest);
    let server = provisioned?;
    probe(context, server.as_ref()).await?;
    let databases = restore(context, &manifest, server.as_ref()).await?;
    let request = lease(context, server.as_ref(), databases).await?;
    // Boxed: it holds what every check of the run may send.
    Box::pin(checks::validate(context, &manifest, &baselines, ahead, server.as_ref(), &request)).await
}

/// Runs one phase between its two events, under its deadline. A signal, a broken boundary or a dead server end it too.
pub(super) async fn phase<T>(
    context: &Context<'_>,
    phase: Phase,
    allowed: Duration,
    work: impl Future<Output = Result<(T, String), Stop>>,
) -> Result<T, Stop> {
    phase_begun_before(context, phase, Duration::ZERO, allowed, work).await
}

/// `spent` counts as the phase's, too.
async fn phase_begun_before<T>(
    context: &Context<'_>,
    phase: Phase,
    spent: Duration,
    allowed: Duration,
    work: impl Future<Output = Result<(T, String), Stop>>,
) -> Result<T, Stop> {
    context.journal.append(Event::PhaseStarted { phase }).await?;
    let begun = Instant::now();
    let again = Again::default();
    let result = tokio::select! {
        // A signal wins over a phase that ends at the same time.
        biased;
        () = context.cancel.asked(), if phase != Phase::Validate => Err(interrupted(phase)),
        // Checks may say what they saw; a second signal does not wait for them.
        () = context.cancel.insisted() => Err(interrupted(phase)),
        stop = broken(context.live) => Err(stop),
        stop = again.broken(context, phase) => Err(stop),
        result = tokio::time::timeout(allowed.saturating_sub(spent), work) => match result {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(stop)) => Err(first_cause(context.live, stop).await),
            Err(_) => Err(deadline(phase, allowed, context.begun.elapsed(), &context.journal.state())),
        },
    };
    let (outcome, result) = match result {
        Ok((value, note)) => (PhaseOutcome::Done { note }, Ok(value)),
        Err(stop) => (PhaseOutcome::Stopped(stop.clone()), Err(stop)),
    };
    again.write_down(context, phase).await?;
    context.journal.phase_ended(phase, spent + begun.elapsed(), outcome).await?;
    if let Err(stop) = &result
        && boundary::is_breach(stop)
    {
        boundary::tell(context, phase, stop).await?;
    }
    result
}

pub(super) fn interrupted(phase: Phase) -> Stop {
    Stop::new(Reason::Interrupted, format!("interrupted by a signal during {phase}"))
}

/// Resolves when the sandbox or its server is gone or has hit a limit, or when there will be no lease.
async fn broken(live: &Live) -> Stop {
    let (sandbox, server, warm_up) = {
        let parts = live.parts();
        (parts.sandbox.clone(), parts.server.clone(), parts.warm_up.clone())
    };
    let breach = OptionFuture::from(sandbox.as_ref().map(|sandbox| sandbox.breach()));
    let gone = OptionFuture::from(server.as_ref().map(|server| server.gone()));
    let no_lease = OptionFuture::from(warm_up.map(WarmUp::failed));
    tokio::select! {
        biased;
        Some(stop) = breach => stop,
        Some(stop) = gone => stop,
        Some(stop) = no_lease => stop,
        else => std::future::pending().await,
    }
}

/// A phase that fails because the sandbox ran out of something, or was opened, says so, and not what followed from it.
async fn first_cause(live: &Live, stop: Stop) -> Stop {
    let sandbox = live.parts().sandbox.clone();
    let Some(sandbox) = sandbox else { return stop };
    match tokio::time::timeout(AFTERSHOCK, sandbox.breach()).await {
        Ok(breach) if matches!(breach.reason, Reason::LimitReached | Reason::IsolationBreached) => breach,
        Ok(_) | Err(_) => stop,
    }
}

/// Compares before anything is made.
async fn preflight(context: &Context<'_>, opened: &Opened) -> Result<Box<dyn EnginePlan>, Stop> {
    let drill = &context.request.drill;
    let work = async {
        refuse_quarantined(context, opened).await?;
        boundary::lets_no_production_in(&drill.isolation)?;
        let programs = match drill.isolation {
            Isolation::Local(_) => Programs::Here,
            Isolation::Kubernetes(_) => Programs::OfImage,
        };
        let plan = context.ports.engine.plan(&opened.manifest, &drill.engine, programs).await?;
        let limits = drill.isolation.limits();
        let isolation = context.ports.isolations.of(&drill.isolation)?;
        let template = isolation.template(&limits)?;
        let digest = Sha256Digest::of(template.as_bytes());
        let name = isolation.name().to_owned();
        context.journal.append(Event::Template { isolation: name, digest }).await?;
        approved(digest, context.ports.approved_template)?;

        let survey = isolation.survey(&limits).await?;
        context.journal.append(Event::Limits { limits: survey.limits }).await?;
        for warning in survey.warnings {
            context.journal.warn("preflight", "limits", warning).await?;
        }
        for finding in plan.findings() {
            context.journal.append(Event::Finding(finding)).await?;
        }
        // A self-test copies what it damages, and stages that copy.
        let copies = match (drill.isolation.volume(), self_test::damage(context)) {
            (Some(_), _) => 0,
            (None, Some(_)) => 2,
            (None, None) => 1,
        };
        let needed = plan.disk_estimate().saturating_add(opened.manifest.total_size().saturating_mul(copies));
        if needed > survey.free_disk {
            let (needed, free) = (unit::size(needed), unit::size(survey.free_disk));
            return Err(Stop::new(
                Reason::SandboxUnfit,
                format!("the restore is expected to need {needed} of disk and {free} is free"),
            )
            .advise("free some space, or point MUSTER_STATE_DIR at a larger file system"));
        }
        for check in checks::applicable(context.request, &opened.manifest) {
            context.journal.append(Event::Plugin(check.record())).await?;
        }
        warm_up(context).await?;
        let note = format!("{}, {} free", plan.note(), unit::size(survey.free_disk));
        Ok((plan, note))
    };
    phase(context, Phase::Preflight, drill.deadlines.preflight, work).await
}

fn approved(rendered: Sha256Digest, approved: Option<Sha256Digest>) -> Result<(), Stop> {
    match approved {
        Some(approved) if approved != rendered => Err(Stop::new(
            Reason::TemplateDrift,
            format!("the rendered isolation template is {rendered}, and the approved one is {approved}"),
        )
        .advise(
            "look at what changed it (muster itself, this machine, or the drill's limits), then approve the new digest",
        )),
        Some(_) | None => Ok(()),
    }
}

/// The same manifest at another place is another copy.
async fn refuse_quarantined(context: &Context<'_>, opened: &Opened) -> Result<(), Stop> {
    let entries = context.ports.store.quarantined().await?;
    let hit = entries.iter().find(|entry| entry.digest == opened.digest && entry.location == opened.location);
    match hit {
        None => Ok(()),
        Some(entry) => {
            Err(Stop::new(Reason::Quarantined, format!("this backup was quarantined by {}: {}", entry.run, entry.why))
                .advise(format!(
                    "once the copy at {} is right again: muster quarantine release {}",
                    entry.location, entry.digest
                )))
        }
    }
}

async fn acquire_storage(context: &Context<'_>) -> Result<Storage, Stop> {
    context.journal.append(Event::Intended { resource: Resource::Storage }).await?;
    let run = context.journal.run();
    let drill = &context.request.drill;
    let isolation = context.ports.isolations.of(&drill.isolation)?;
    let preparing = tokio::time::timeout(drill.deadlines.sandbox, isolation.prepare(&run));
    // Not cut off by a signal: what a thread is making would appear after teardown had looked.
    let storage = preparing.await.or_stop(Reason::Deadline, "making the run's directory")??;
    let handle = storage.handle.clone();
    context.journal.append(Event::Acquired { resource: Resource::Storage, handle }).await?;
    if context.cancel.is_asked() {
        return Err(interrupted(Phase::Sandbox));
    }
    Ok(storage)
}

/// Stages what it hashes. Runs beside the sandbox's start; nothing is delivered before it has ended well. Of a self-test, a copy
/// is staged, and its manifest comes back.
async fn verify(
    context: &Context<'_>,
    opened: &Opened,
    storage: &Storage,
    opening: Duration,
) -> Result<(Baselines, Option<Manifest>), Stop> {
    let drill = &context.request.drill;
    let work = async {
        // The manifest was read and its signature checked before preflight: that time is verify's.
        let progress = context.journal.progress(Phase::Verify);
        let copy = match self_test::damage(context) {
            Some(damage) => Some(self_test::damaged(context, opened, storage, damage).await?),
            None => None,
        };
        let verified = copy.as_ref().unwrap_or(opened);
        let on_a_volume = drill.isolation.volume().is_some();
        if on_a_volume {
            verified.artifact.stage_baselines(&storage.staging, &progress).await?;
        } else {
            verified.artifact.stage(&storage.staging, &progress).await?;
        }
        let baselines = Baselines::take(&verified.manifest, &storage.staging)?;
        if on_a_volume {
            let run = context.journal.run();
            // What looks at the volume is made in the sandbox's place, and goes with it.
            context.journal.append(Event::Intended { resource: Resource::Sandbox }).await?;
            context.ports.isolations.of(&drill.isolation)?.verify(&run, &verified.manifest, &progress).await?;
        }
        if copy.is_some() {
            self_test::remove_copy(storage)?;
        }
        let size = unit::size(verified.manifest.total_size());
        let note = format!("{size}, {}, {}, {}", verified.digest.short(), verified.vouched, taken(&verified.manifest));
        Ok(((baselines, copy.map(|copy| copy.manifest)), note))
    };
    let result = phase_begun_before(context, Phase::Verify, opening, drill.deadlines.verify, work).await;
    if self_test::damage(context).is_some() {
        // What was refused is a copy that this run damaged: nobody need be told, and no place is condemned.
        return self_test::must_be_refused(context, result);
    }
    if let Err(stop) = &result
        && stop.reason == Reason::ArtifactRefused
    {
        quarantine(context, opened, stop).await?;
    }
    result
}

/// When the backup was taken, and who says so.
fn taken(manifest: &Manifest) -> String {
    let note = manifest.snapshot_time_from.note();
    let Some(time) = manifest.snapshot_time else { return note.to_owned() };
    let age = Duration::try_from(jiff::Timestamp::now().duration_since(time)).unwrap_or_default();
    let age = unit::duration(age);
    if note.is_empty() { format!("taken {age} ago") } else { format!("taken {age} ago {note}") }
}

async fn quarantine(context: &Context<'_>, opened: &Opened, stop: &Stop) -> Result<(), Stop> {
    let entry = Quarantine {
        digest: opened.digest,
        location: opened.location.clone(),
        run: context.journal.run(),
        why: stop.message.clone(),
        at: jiff::Timestamp::now(),
    };
    context.ports.store.quarantine(&entry).await?;
    context.journal.append(Event::Quarantined { digest: opened.digest }).await?;
    let release = format!("muster quarantine release {}", &opened.digest.hex()[..12]);
    let details = serde_json::json!({
        "digest": opened.digest,
        "source": opened.location,
        "reason": stop.reason,
        "release": release,
    });
    let advice = format!("runs refuse this copy from now on; once it is right again: {release}");
    let stop = Stop { advice: stop.advice.clone().or(Some(advice)), ..stop.clone() };
    context.journal.raise("artifact-refused", &stop, details).await
}

/// An isolated place with an empty server in it, and the agent beside it.
async fn sandbox(context: &Context<'_>, plan: &dyn EnginePlan) -> Result<Arc<dyn Server>, Stop> {
    let drill = &context.request.drill;
    let journal = context.journal;
    let work = async {
        if drill.isolation.volume().is_none() {
            journal.append(Event::Intended { resource: Resource::Sandbox }).await?;
        }
        let spec = SandboxSpec { run: journal.run(), limits: drill.isolation.limits(), inputs: plan.inputs() };
        let sandbox = context.ports.isolations.of(&drill.isolation)?.provision(spec).await?;
        context.live.parts().sandbox = Some(Arc::clone(&sandbox));
        journal.append(Event::Acquired { resource: Resource::Sandbox, handle: sandbox.handle() }).await?;

        journal.append(Event::Intended { resource: Resource::Agent }).await?;
        let process = sandbox.run_agent().await?;
        journal.append(Event::Acquired { resource: Resource::Agent, handle: process.handle.clone() }).await?;
        let (agent, server) = tokio::try_join!(AgentLink::start(process), plan.serve(Arc::clone(&sandbox)))?;
        let mut parts = context.live.parts();
        parts.agent = Some(agent);
        parts.server = Some(Arc::clone(&server));
        Ok((server, "an empty server, the agent beside it".to_owned()))
    };
    phase(context, Phase::Sandbox, drill.deadlines.sandbox, work).await
}

/// Proves isolation before the first backup byte is loaded.
async fn probe(context: &Context<'_>, server: &dyn Server) -> Result<(), Stop> {
    let work = async {
        let (sandbox, mut agent) = {
            let mut parts = context.live.parts();
            (parts.sandbox.clone(), parts.agent.take())
        };
        let (Some(sandbox), Some(link)) = (sandbox, agent.as_mut()) else {
            return Err(Stop::internal("the probe has no sandbox to prove"));
        };
        let targets = sandbox.probe_targets();
        let identity = server.probe_identity().await?;
        let probed = tokio::try_join!(sandbox.probe(), server.probe(), link.probe(targets, identity));
        context.live.parts().agent = agent;
        let (inside, database, beside) = probed?;
        let proof = IsolationProof { probes: [inside, database, beside].concat() };
        context.journal.append(Event::Isolation(proof.clone())).await?;
        proof.judge()?;
        let (closed, controls) = (proof.closed(), proof.controls());
        Ok(((), format!("isolated: {closed} probes closed, {controls} controls open")))
    };
    phase(context, Phase::Probe, context.request.drill.deadlines.sandbox, work).await
}

/// Delivers what was verified and restores it. Ends when the databases serve.
async fn restore(context: &Context<'_>, manifest: &Manifest, server: &dyn Server) -> Result<Vec<String>, Stop> {
    let work = async {
        let sandbox = context.live.sandbox()?;
        sandbox.deliver().await?;
        let progress = context.journal.progress(Phase::Restore);
        let restored = match server.restore(manifest, &progress).await {
            // Whoever wrote to the backup meanwhile may be the cause.
            Err(stop) if stop.reason == Reason::RestoreFailed => {
                sandbox.verify_again(manifest).await?;
                return Err(stop);
            }
            restored => restored?,
        };
        for finding in restored.findings {
            context.journal.append(Event::Finding(finding)).await?;
        }
        Ok((restored.databases, restored.note))
    };
    phase(context, Phase::Restore, context.request.drill.deadlines.restore, work).await
}
