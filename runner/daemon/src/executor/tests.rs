//! The executor against fakes: a crash at every step, recovered twice, leaves nothing; and what went wrong is said.
mod boundary;
mod lease;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use drill::agent::{CheckOutcome, CheckUsage, FromAgent, ToAgent};
use drill::finding::Severity;
use drill::id::Sha256Digest;
use drill::ledger::{Damage, Event, Owner, Resource, State};
use drill::manifest::{DumpFormat, Kind, Locale, Manifest, Part};
use drill::phase::Phase;
use drill::port::{Artifact, Artifacts, DamagedCopy, LookedAt, Opened, Outbox, Progress, Store};
use drill::proof::{Expected, Probe};
use drill::spec::{
    Check, CheckLimits, Credentials, Deadlines, Drill, Enforcement, Fidelity, Isolation, Limits, Objectives, Plugin,
    Postgresql, Source,
};
use drill::stop::Stop;
use drill::verdict::{Leftovers, Reason, Verdict};
use drivers::credentials::fake::FakeCredentials;
use drivers::engine::fake::{FakeEngine, Script};
use drivers::isolation::fake::World;
use drivers::store::fake::{Cut, MemoryStore};
use tokio::io::DuplexStream;

use super::{Cancel, Ended, Isolations, LiveRuns, Loaded, Ports, Request, Silent, execute, recover};
use crate::agent::frame::{self, FrameReader, FrameWriter, Kind as FrameKind};

/// Everything outside of one run, and what of it survives the process.
pub(crate) struct Outside {
    pub(crate) world: World,
    pub(crate) store: Arc<MemoryStore>,
    script: Script,
    credentials: FakeCredentials,
    /// Whom the runs and their recoveries wanted to ask.
    asked: Arc<Mutex<Vec<Credentials>>>,
    wanted: Credentials,
    artifact: FakeArtifacts,
    directory: tempfile::TempDir,
    approved_template: Option<Sha256Digest>,
    live: LiveRuns,
}

impl Outside {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let world = World::new();
        world.stage_in(directory.path().to_owned());
        world.on_agent(Arc::new(|stream| {
            tokio::spawn(agent(stream, Severity::Info));
        }));
        let artifact = FakeArtifacts::default();
        Self {
            world,
            store: Arc::new(MemoryStore::new()),
            script: Script::default(),
            credentials: FakeCredentials::default(),
            asked: Arc::default(),
            wanted: Credentials::Embedded { ttl: Duration::from_mins(15) },
            artifact,
            directory,
            approved_template: None,
            live: LiveRuns::default(),
        }
    }

    pub(crate) fn ports(&self) -> Ports {
        Ports {
            artifacts: Arc::new(self.artifact.clone()),
            isolations: {
                let (world, past) = (self.world.clone(), Arc::new(self.world.isolation()));
                Isolations::local(Arc::new(self.world.isolation()))
                    .and_kubernetes(Arc::new(move |_| Arc::new(world.isolation())), past)
            },
            engine: Arc::new(FakeEngine::new(self.script.clone())),
            credentials: {
                let (asked, credentials) = (Arc::clone(&self.asked), self.credentials.clone());
                Arc::new(move |wanted| {
                    asked.lock().expect("nobody panics with it").push(wanted.clone());
                    Ok(Arc::new(credentials.clone()))
                })
            },
            store: Arc::clone(&self.store) as Arc<dyn Store>,
            state_directory: self.directory.path().to_owned(),
            evidence_key: None,
            approved_template: self.approved_template,
            production: drill::config::Production {
                vault: vec!["database-production".to_owned()],
                ..drill::config::Production::default()
            },
            live: self.live.clone(),
        }
    }

    pub(crate) async fn run(&self) -> Result<Ended, Stop> {
        self.run_with(Cancel::default()).await
    }

    async fn run_with(&self, cancel: Cancel) -> Result<Ended, Stop> {
        execute(self.request(), &self.ports(), Arc::new(Silent), cancel).await
    }

    fn request(&self) -> Request {
        Request {
            drill: Drill { credentials: self.wanted.clone(), ..drill() },
            drill_file: "/drills/orders.yaml".into(),
            checks: vec![loaded()],
            evidence_directory: self.directory.path().join("evidence"),
            owner: owner(1),
            trigger: drill::ledger::Trigger::Command,
            only: None,
        }
    }

    async fn self_test(&self, damage: Damage) -> Ended {
        let trigger = drill::ledger::Trigger::SelfTest { damage, scheduled_for: None };
        let request = Request { trigger, ..self.request() };
        execute(request, &self.ports(), Arc::new(Silent), Cancel::default()).await.expect("it was begun")
    }

    /// Ends what ends with the process, and starts another one.
    pub(crate) fn restart(&mut self) {
        self.world.revive();
        self.store = Arc::new(self.store.reopen());
        self.live = LiveRuns::default();
    }

    async fn recover(&self) -> super::Recovered {
        recover(&self.ports(), Arc::new(Silent), &owner(2), |_| false).await.expect("recovery can work")
    }

    pub(crate) async fn only_run(&self) -> State {
        let runs = self.store.runs(None, 10).await.expect("the store can be read");
        assert_eq!(runs.len(), 1);
        State::replay(&self.store.events(&runs[0].run).await.expect("it can be read")).expect("a legal ledger")
    }
}

#[tokio::test]
async fn a_whole_run_passes_and_leaves_nothing() {
    let outside = Outside::new();
    let ended = outside.run().await.expect("it was begun");
    assert_eq!((ended.summary.verdict, ended.leftovers), (Verdict::Passed, Leftovers::None), "{:?}", ended.summary);
    assert_eq!(outside.world.existing(), []);
    assert!(ended.state.evidence.is_some());
}

/// Invariants 3 and 5.
#[tokio::test]
async fn a_crash_at_every_write_of_the_ledger_is_recovered_twice_and_leaves_nothing() {
    let whole = Outside::new();
    whole.run().await.expect("it was begun");
    for nth in 1..=whole.store.writes() {
        for cut in [Cut::Before, Cut::After] {
            let mut outside = Outside::new();
            outside.store.crash_at(nth, cut);
            tokio::select! {
                ended = outside.run() => panic!("it ended before write {nth}: {:?}", ended.map(|ended| ended.summary)),
                () = outside.store.crashed() => {}
            }
            outside.restart();
            recovered_twice(&outside, &format!("{cut:?} write {nth}")).await;
        }
    }
}

/// A slot is run once, or nothing of it was begun: never claimed without a run, never run twice.
#[tokio::test]
async fn a_crash_around_the_claim_of_a_slot_keeps_slot_and_run_together() {
    let slot: jiff::Timestamp = "2026-11-22T02:15:00Z".parse().expect("a time");
    let begin = async |outside: &Outside| {
        let trigger = drill::ledger::Trigger::Schedule { scheduled_for: slot };
        let request = Request { trigger, ..outside.request() };
        execute(request, &outside.ports(), Arc::new(Silent), Cancel::default()).await
    };
    for cut in [Cut::Before, Cut::After] {
        let mut outside = Outside::new();
        outside.store.crash_at(1, cut);
        tokio::select! {
            _ = begin(&outside) => panic!("it ended"),
            () = outside.store.crashed() => {}
        }
        outside.restart();
        outside.recover().await;
        let claimed = outside.store.histories().await.expect("it can be read");
        let again = begin(&outside).await;
        match cut {
            Cut::Before => {
                assert!(claimed.is_empty(), "{claimed:?}");
                assert_eq!(again.expect("it was begun").summary.verdict, Verdict::Passed);
            }
            Cut::After => {
                assert_eq!(claimed[0].schedules[&None].last_slot, Some(slot));
                assert_eq!(claimed[0].last.as_ref().map(|run| run.reason), Some(Some(Reason::Interrupted)));
                assert!(again.is_err_and(|stop| stop.reason == Reason::AlreadyRunning));
            }
        }
        assert_eq!(outside.store.runs(None, 10).await.expect("it can be read").len(), 1);
        assert_eq!(outside.world.existing(), []);
    }
}

#[tokio::test]
async fn a_crash_at_every_effect_is_recovered_twice_and_leaves_nothing() {
    let whole = Outside::new();
    whole.run().await.expect("it was begun");
    for step in whole.world.steps() {
        let mut outside = Outside::new();
        let wanted = step.clone();
        outside.world.crash_when(Arc::new(move |step| step == wanted));
        tokio::select! {
            ended = outside.run() => panic!("it ended before {step}: {:?}", ended.map(|ended| ended.summary)),
            () = outside.world.crashed() => {}
        }
        outside.restart();
        recovered_twice(&outside, &step).await;
    }
}

async fn recovered_twice(outside: &Outside, place: &str) {
    outside.recover().await;
    assert_eq!(outside.world.existing(), [], "{place}");
    let second = outside.recover().await;
    assert!(second.settled.is_empty() && second.orphans.is_empty(), "{place}: {second:?}");
    assert_eq!(outside.world.existing(), [], "{place}");
    if outside.store.runs(None, 1).await.expect("it can be read").is_empty() {
        return;
    }
    let state = outside.only_run().await;
    assert_eq!(state.ended, Some(Leftovers::None), "{place}");
    assert!(state.evidence.is_some(), "{place}");
    let summary = state.summary.expect("it is concluded");
    assert_ne!(summary.verdict, Verdict::Failed, "{place}: a crash is no verdict on the backup");
}

/// Invariant 8, and teardown on the path of every failure.
#[tokio::test]
async fn whatever_an_effect_answers_the_run_is_torn_down() {
    let whole = Outside::new();
    whole.run().await.expect("it was begun");
    let effects: BTreeSet<String> =
        whole.world.steps().iter().filter_map(|step| step.strip_prefix("before ")).map(str::to_owned).collect();
    assert!(effects.len() > 5, "{effects:?}");
    for effect in effects {
        let outside = Outside::new();
        outside.world.fail(&effect, Stop::internal("as the test wants"));
        let ended = outside.run().await.expect("it was begun");
        assert_eq!(outside.world.existing(), [], "{effect}");
        assert_ne!(ended.summary.verdict, Verdict::Failed, "{effect}");
        assert_eq!(ended.leftovers, Leftovers::None, "{effect}: a second try removes it");
    }
}

#[tokio::test]
async fn what_cannot_be_removed_stays_owed_and_is_removed_later() {
    let outside = Outside::new();
    for _ in 0..2 {
        outside.world.fail("release storage", Stop::internal("as the test wants"));
    }
    let ended = outside.run().await.expect("it was begun");
    assert_eq!((ended.summary.verdict, ended.leftovers), (Verdict::Passed, Leftovers::Some));
    assert!(ended.state.evidence.is_some(), "evidence says what is left");
    let recovered = outside.recover().await;
    assert_eq!(recovered.settled.len(), 1);
    assert_eq!(outside.world.existing(), []);
    assert_eq!(outside.only_run().await.leftovers(), Leftovers::None);
}

#[tokio::test]
async fn a_panic_in_any_phase_is_torn_down_and_inconclusive() {
    for phase in Phase::ALL.into_iter().filter(|phase| *phase < Phase::Teardown) {
        let outside = Outside::new();
        outside.store.observe(move |_, event| {
            if let Event::PhaseEnded { phase: ended, .. } = event
                && *ended == phase
            {
                panic!("as the test wants");
            }
        });
        let ended = outside.run().await.expect("it was begun");
        assert_eq!(outside.world.existing(), [], "{phase}");
        assert_eq!((ended.summary.verdict, ended.summary.reason), (Verdict::Inconclusive, Reason::Internal), "{phase}");
        assert!(ended.summary.message.contains("as the test wants"), "{}", ended.summary.message);
    }
}

/// Invariant 1.
#[tokio::test]
async fn a_refused_artifact_is_never_delivered_and_is_quarantined() {
    let mut outside = Outside::new();
    outside.artifact.refuse = true;
    let ended = outside.run().await.expect("it was begun");
    assert_eq!((ended.summary.verdict, ended.summary.reason), (Verdict::Failed, Reason::ArtifactRefused));
    assert!(!outside.world.steps().iter().any(|step| step.contains("deliver")), "{:?}", outside.world.steps());
    assert_eq!(outside.store.quarantined().await.expect("it can be read").len(), 1);
    assert_eq!(outside.store.open_alerts().await.expect("it can be read").len(), 1);
    let again = outside.run().await.expect("it was begun");
    assert_eq!((again.summary.verdict, again.summary.reason), (Verdict::Inconclusive, Reason::Quarantined));
}

/// A gate that lets a damaged copy pass, and a check that is blind to it: the loudest alert, and no byte of it restored.
#[tokio::test]
async fn a_self_test_that_is_not_refused_is_the_loudest_alert() {
    for damage in [Damage::Byte, Damage::BaselineRows] {
        let outside = Outside::new();
        let ended = outside.self_test(damage).await;
        let summary = &ended.summary;
        assert_eq!(
            (summary.verdict, summary.reason),
            (Verdict::Failed, Reason::DamageUnnoticed),
            "{damage}: {summary:?}"
        );
        let delivered = outside.world.steps().iter().any(|step| step.contains("deliver"));
        assert_eq!(delivered, damage == Damage::BaselineRows, "{damage}: {:?}", outside.world.steps());
        let alerts = outside.store.open_alerts().await.expect("it can be read");
        assert_eq!(alerts.iter().map(|alert| alert.kind.as_str()).collect::<Vec<_>>(), ["self-test-passed"]);
        assert_eq!(outside.world.existing(), []);
    }
}

#[tokio::test]
async fn a_self_test_that_is_refused_passes_and_condemns_nothing() {
    for damage in [Damage::Byte, Damage::BaselineRows] {
        let mut outside = Outside::new();
        outside.artifact.refuse = damage == Damage::Byte;
        outside.world.on_agent(Arc::new(|stream| {
            tokio::spawn(agent(stream, Severity::Failure));
        }));
        let ended = outside.self_test(damage).await;
        assert_eq!(ended.summary.reason, Reason::Proven, "{damage}: {:?}", ended.summary);
        assert!(outside.store.quarantined().await.expect("it can be read").is_empty());
        assert!(outside.store.open_alerts().await.expect("it can be read").is_empty());
        assert_eq!(outside.world.existing(), []);
    }
}

/// Invariant 2.
#[tokio::test]
async fn without_a_proof_of_isolation_nothing_is_delivered() {
    let open = Probe {
        name: "sandbox: TCP".to_owned(),
        expected: Expected::Closed,
        observed: Expected::Open,
        detail: "connected".to_owned(),
    };
    for probes in [vec![open]] {
        let outside = Outside::new();
        outside.world.answer_probes(probes);
        let ended = outside.run().await.expect("it was begun");
        assert_eq!((ended.summary.verdict, ended.summary.reason), (Verdict::Inconclusive, Reason::IsolationUnproven));
        assert!(!outside.world.steps().iter().any(|step| step.contains("deliver")), "{:?}", outside.world.steps());
    }
}

#[tokio::test]
async fn a_breach_ends_the_run_with_its_own_reason() {
    let outside = Outside::new();
    let world = outside.world.clone();
    outside.store.observe(move |_, event| {
        if matches!(event, Event::PhaseStarted { phase: Phase::Restore }) {
            world.breach(Stop::new(Reason::LimitReached, "the sandbox ran out of memory"));
        }
    });
    let ended = outside.run().await.expect("it was begun");
    assert_eq!(ended.summary.reason, Reason::LimitReached);
    assert_eq!(outside.world.existing(), []);
}

#[tokio::test]
async fn a_signal_in_any_phase_is_inconclusive_and_torn_down() {
    for phase in Phase::ALL.into_iter().filter(|phase| *phase < Phase::Teardown) {
        let outside = Outside::new();
        let cancel = Cancel::default();
        let signal = cancel.clone();
        outside.store.observe(move |_, event| {
            if matches!(event, Event::PhaseStarted { phase: started } if *started == phase) {
                signal.signal();
            }
        });
        let ended = outside.run_with(cancel).await.expect("it was begun");
        assert_eq!(ended.summary.reason, Reason::Interrupted, "{phase}: {:?}", ended.summary);
        assert_eq!(outside.world.existing(), [], "{phase}");
    }
}

#[tokio::test]
async fn what_a_check_finds_fails_the_drill() {
    let outside = Outside::new();
    outside.world.on_agent(Arc::new(|stream| {
        tokio::spawn(agent(stream, Severity::Failure));
    }));
    let ended = outside.run().await.expect("it was begun");
    assert_eq!((ended.summary.verdict, ended.summary.reason), (Verdict::Failed, Reason::CheckFailed));
}

#[tokio::test]
async fn an_agent_that_ends_before_it_is_done_is_inconclusive() {
    let outside = Outside::new();
    outside.world.on_agent(Arc::new(|stream| {
        tokio::spawn(async move {
            let cut = tokio::time::timeout(Duration::from_millis(50), agent(stream, Severity::Info));
            let _ = cut.await;
        });
    }));
    outside.store.observe(|_, event| {
        if matches!(event, Event::PhaseStarted { phase: Phase::Restore }) {
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let ended = outside.run().await.expect("it was begun");
    assert_eq!(ended.summary.verdict, Verdict::Inconclusive, "{:?}", ended.summary);
    assert_eq!(outside.world.existing(), []);
}

#[tokio::test]
async fn a_template_that_was_not_approved_stops_before_anything_is_made() {
    let mut outside = Outside::new();
    outside.approved_template = Some(Sha256Digest::of(b"another"));
    let ended = outside.run().await.expect("it was begun");
    assert_eq!((ended.summary.verdict, ended.summary.reason), (Verdict::Inconclusive, Reason::TemplateDrift));
    let rendered = ended.state.template.as_ref().expect("it is recorded").1;
    for digest in [rendered, Sha256Digest::of(b"another")] {
        assert!(ended.summary.message.contains(&digest.to_string()), "{}", ended.summary.message);
    }
    assert!(!outside.world.steps().iter().any(|step| step.contains("prepare")), "{:?}", outside.world.steps());
    outside.approved_template = Some(rendered);
    assert_eq!(outside.run().await.expect("it was begun").summary.verdict, Verdict::Passed);
}

/// Invariant 10, for the executor's own waits.
#[tokio::test]
async fn a_ledger_that_cannot_be_written_stops_the_next_effect() {
    let outside = Outside::new();
    // The claim, then the artifact, then the start of preflight.
    outside.store.fail_at(3, Stop::internal("the disk is full"));
    let ended = outside.run().await.expect("it was begun");
    assert_eq!(ended.summary.reason, Reason::Internal);
    let made = |resource: Resource| outside.world.steps().iter().any(|step| step.contains(resource.as_str()));
    assert!(!made(Resource::Sandbox), "{:?}", outside.world.steps());
}

pub(crate) fn owner(pid: u32) -> Owner {
    Owner { pid, start_ticks: 1, boot_id: "boot".to_owned() }
}

fn loaded() -> Loaded {
    let check = Check {
        name: "rows".to_owned(),
        plugin: Plugin::Builtin("row-count".to_owned()),
        grants: BTreeSet::new(),
        limits: CheckLimits::default(),
        options: serde_json::json!({}),
        needs: None,
    };
    Loaded { check, component: b"component".to_vec(), digest: Sha256Digest::of(b"component"), grants: BTreeSet::new() }
}

fn drill() -> Drill {
    Drill {
        name: "orders".parse().expect("a name"),
        labels: BTreeMap::new(),
        digest: Sha256Digest::of(b"drill"),
        schedule: None,
        objectives: Objectives::default(),
        source: Source::Manifest {
            path: "/backups/manifest.json".to_owned(),
            trusted_keys: Vec::new(),
            fallbacks: Vec::new(),
            exercise: drill::spec::Exercise::First,
        },
        engine: Postgresql { major: None, jobs: 1, fidelity: Fidelity::Production, settings: BTreeMap::new() },
        isolation: Isolation::Local(Limits {
            memory: None,
            disk: None,
            processes: 200,
            enforcement: Enforcement::BestEffort,
        }),
        credentials: Credentials::Embedded { ttl: Duration::from_mins(15) },
        checks: Arc::default(),
        deadlines: Deadlines::default(),
        self_test: None,
    }
}

/// A backup without files.
#[derive(Clone, Default)]
struct FakeArtifacts {
    refuse: bool,
}

#[async_trait]
impl Artifacts for FakeArtifacts {
    async fn open(&self, _source: &Source, _base: &Path) -> Result<Opened, Stop> {
        let locale = Locale {
            encoding: "UTF8".to_owned(),
            collate: "C".to_owned(),
            ctype: "C".to_owned(),
            provider: "libc".to_owned(),
            icu_locale: None,
        };
        let part = Part {
            database: "orders".to_owned(),
            format: DumpFormat::Custom,
            files: Vec::new(),
            baseline: None,
            schema: None,
            blocks: None,
            row_digests: None,
            locale: Some(locale),
            extensions: Vec::new(),
        };
        let manifest = Manifest {
            version: 1,
            kind: Kind::Logical,
            name: "orders".to_owned(),
            snapshot_time: Some(jiff::Timestamp::now()),
            snapshot_time_from: drill::manifest::SnapshotTimeFrom::Capture,
            source: drill::manifest::Source {
                engine: "postgresql".to_owned(),
                version: "15.18".to_owned(),
                version_number: 150_018,
                tool: "pg_dump".to_owned(),
            },
            globals: None,
            parts: vec![part],
        };
        Ok(Opened {
            artifact: Box::new(self.clone()),
            manifest,
            digest: Sha256Digest::of(b"manifest"),
            location: "/backups".to_owned(),
            vouched: drill::ledger::Vouched::Signature { key: "backup".to_owned() },
        })
    }

    async fn is_there(&self, _source: &Source, _base: &Path) -> bool {
        true
    }
}

#[async_trait]
impl Artifact for FakeArtifacts {
    async fn stage(&self, _staging: &Path, _progress: &dyn Progress) -> Result<(), Stop> {
        if self.refuse { Err(Stop::new(Reason::ArtifactRefused, "a byte is wrong")) } else { Ok(()) }
    }

    async fn damaged_copy(&self, damage: Damage, copy: &Path, _looked_at: &LookedAt) -> Result<DamagedCopy, Stop> {
        let answer = match damage {
            Damage::BaselineRows => drill::ledger::Answer::Finding {
                plugin: "row-count".to_owned(),
                database: "orders".to_owned(),
                subject: "public.orders".to_owned(),
            },
            _ => drill::ledger::Answer::Refused { file: "a byte".to_owned() },
        };
        let damaged = drill::ledger::Damaged { what: "nothing".to_owned(), answer };
        Ok(DamagedCopy { damaged, manifest: copy.join("manifest.json"), trusted_keys: None })
    }
}

/// Says what an agent says; each check finds one thing.
async fn agent(stream: DuplexStream, severity: Severity) -> Option<()> {
    agent_after(stream, severity, std::future::ready(())).await
}

/// Its checks go on for as long as `patience` does.
async fn agent_after(stream: DuplexStream, severity: Severity, patience: impl Future<Output = ()>) -> Option<()> {
    let mut patience = std::pin::pin!(Some(patience));
    let (source, sink) = tokio::io::split(stream);
    let (mut reader, mut writer) = (FrameReader::new(source), FrameWriter::new(sink));
    reader.hello().await.ok()?;
    writer.hello().await.ok()?;
    writer.message(&FromAgent::Ready).await.ok()?;
    loop {
        let heard = reader.next().await.ok()??;
        if heard.kind == FrameKind::Raw {
            continue;
        }
        match frame::message::<ToAgent>(&heard).ok()? {
            ToAgent::Probe { .. } => {
                let probe = |name: &str, seen| Probe {
                    name: name.to_owned(),
                    expected: seen,
                    observed: seen,
                    detail: "fake".to_owned(),
                };
                let probes = vec![probe("TCP", Expected::Closed), probe("login", Expected::Open)];
                writer.message(&FromAgent::Probed { probes }).await.ok()?;
            }
            ToAgent::Job(job) => {
                if let Some(patience) = patience.as_mut().as_pin_mut() {
                    patience.await;
                }
                let mut events = 0;
                for check in &job.checks {
                    for database in &job.databases {
                        let (check, database) = (check.name.clone(), database.name.clone());
                        let started = FromAgent::CheckStarted { check: check.clone(), database: database.clone() };
                        let finding = FromAgent::Finding {
                            check: check.clone(),
                            database: database.clone(),
                            severity,
                            subject: "public.orders".to_owned(),
                            message: "seen".to_owned(),
                            details: Vec::new(),
                        };
                        let outcome = CheckOutcome::Completed { summary: None };
                        let ended = FromAgent::CheckEnded { check, database, outcome, usage: CheckUsage::default() };
                        for message in [started, finding, ended] {
                            writer.message(&message).await.ok()?;
                            events += 1;
                        }
                    }
                }
                writer.message(&FromAgent::Done { events }).await.ok()?;
            }
            ToAgent::Blob { .. } | ToAgent::Given { .. } | ToAgent::Lease(_) | ToAgent::Cancel => {}
        }
    }
}
