//! Everything outside of one run, in memory: the fakes of its ports, a backup without files, and an agent.
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use drill::agent::{CheckOutcome, CheckUsage, FromAgent, ToAgent};
use drill::finding::Severity;
use drill::id::Sha256Digest;
use drill::ledger::{Damage, Owner, State};
use drill::manifest::{DumpFormat, Kind, Locale, Manifest, Part};
use drill::port::{Artifact, Artifacts, DamagedCopy, LookedAt, Opened, Progress, Store};
use drill::proof::{Expected, Probe};
use drill::spec::{
    Check, CheckLimits, Credentials, Deadlines, Drill, Enforcement, Fidelity, Isolation, Limits, Objectives, Plugin,
    Postgresql, Source,
};
use drill::stop::Stop;
use drill::verdict::Reason;
use drivers::credentials::fake::FakeCredentials;
use drivers::engine::fake::{FakeEngine, Script};
use drivers::isolation::fake::World;
use drivers::store::fake::MemoryStore;
use tokio::io::DuplexStream;

use crate::agent::frame::{self, FrameReader, FrameWriter, Kind as FrameKind};
use crate::executor::{
    Cancel, Ended, Isolations, LiveRuns, Loaded, Ports, Recovered, Request, Silent, execute, recover,
};

/// Everything outside of one run, and what of it survives the process.
pub(crate) struct Outside {
    pub(crate) world: World,
    pub(crate) store: Arc<MemoryStore>,
    pub(super) script: Script,
    pub(super) credentials: FakeCredentials,
    /// Whom the runs and their recoveries wanted to ask.
    pub(super) asked: Arc<Mutex<Vec<Credentials>>>,
    pub(super) wanted: Credentials,
    pub(super) artifact: FakeArtifacts,
    pub(super) directory: tempfile::TempDir,
    pub(super) approved_template: Option<Sha256Digest>,
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
            isolations: Isolations::local(Arc::new(self.world.isolation())),
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
            compiled: None,
            evidence_key: None,
            approved_template: self.approved_template,
            production: drill::config::Production {
                vault: vec!["database-production".to_owned()],
                ..drill::config::Production::default()
            },
            live: self.live.clone(),
        }
    }

    /// A cluster in place of this machine.
    pub(super) fn ports_in_a_cluster(&self) -> Ports {
        let (world, past) = (self.world.clone(), Arc::new(self.world.isolation()));
        let isolations = Isolations::local(Arc::new(World::new().isolation()))
            .and_kubernetes(Arc::new(move |_| Arc::new(world.isolation())), past);
        Ports { isolations, ..self.ports() }
    }

    pub(crate) async fn run(&self) -> Result<Ended, Stop> {
        self.run_with(Cancel::default()).await
    }

    pub(super) async fn run_with(&self, cancel: Cancel) -> Result<Ended, Stop> {
        execute(self.request(), &self.ports(), Arc::new(Silent), cancel).await
    }

    pub(super) fn request(&self) -> Request {
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

    pub(super) async fn self_test(&self, damage: Damage) -> Ended {
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

    pub(super) async fn recover(&self) -> Recovered {
        recover(&self.ports(), Arc::new(Silent), &owner(2), |_| false).await.expect("recovery can work")
    }

    pub(crate) async fn only_run(&self) -> State {
        let runs = self.store.runs(None, 10).await.expect("the store can be read");
        assert_eq!(runs.len(), 1);
        State::replay(&self.store.events(&runs[0].run).await.expect("it can be read")).expect("a legal ledger")
    }
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
pub(super) struct FakeArtifacts {
    pub(super) refuse: bool,
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

    async fn stage_baselines(&self, _staging: &Path, _progress: &dyn Progress) -> Result<(), Stop> {
        Ok(())
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
pub(super) async fn agent(stream: DuplexStream, severity: Severity) -> Option<()> {
    agent_after(stream, severity, std::future::ready(())).await
}

/// Its checks go on for as long as `patience` does.
pub(super) async fn agent_after(
    stream: DuplexStream,
    severity: Severity,
    patience: impl Future<Output = ()>,
) -> Option<()> {
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
                        let figure = |name: &str, value| FromAgent::Metric {
                            check: check.clone(),
                            database: database.clone(),
                            name: name.to_owned(),
                            labels: Vec::new(),
                            value,
                        };
                        let figures = [figure("tables", 37.0), figure("no word", 1.0), figure("tables", 38.0)];
                        let ended = FromAgent::CheckEnded { check, database, outcome, usage: CheckUsage::default() };
                        for message in [started, finding].into_iter().chain(figures).chain([ended]) {
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
