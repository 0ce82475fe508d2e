//! bubblewrap on this machine: a sandbox that needs no root, and as root drops to a user id that nobody has.
//!
//! [`LocalIsolation`] makes and removes; `bwrap` is what a sandbox sees, `seccomp` what it may not call, `spawn` how it starts,
//! `inside` what muster runs in it, `control` and `exec` how the runner talks to that, `doorway` how it and a visitor reach
//! the database, `probe` how isolation is proven, `watch`
//! what ends it early and `release` how it goes. Everything that comes out of a sandbox is hostile, and so is what lies in `data/`.
pub(super) mod bwrap;
mod cgroup;
mod control;
mod directory;
mod doctor;
mod doorway;
pub(super) mod exec;
pub mod inside;
mod limits;
mod probe;
mod process;
mod release;
mod sandbox;
mod seccomp;
mod spawn;
mod sys;
mod template;
pub(super) mod tree;
mod unlinked;
mod watch;

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use drill::id::RunId;
use drill::ledger::Resource;
use drill::port::{Isolation, Leftover, Sandbox, SandboxSpec, Storage, Survey};
use drill::proof::ReleaseProof;
use drill::spec::Limits;
use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;
use tokio::sync::RwLock;

use cgroup::Cgroups;
use directory::Root;
pub use doctor::{Fact, doctor};
use sandbox::LocalSandbox;

#[derive(Debug, Clone)]
pub struct LocalConfig {
    pub state_root: PathBuf,
    /// muster itself: runs inside as init, probe and agent.
    pub program: PathBuf,
    /// Found in the usual places where it is a bare name.
    pub bwrap: PathBuf,
    /// User ids for sandboxes where muster runs as root. Never holds 0.
    pub uids: RangeInclusive<u32>,
}

impl LocalConfig {
    pub fn new(state_root: impl Into<PathBuf>, program: impl Into<PathBuf>) -> Self {
        Self { state_root: state_root.into(), program: program.into(), bwrap: "bwrap".into(), uids: 61184..=65519 }
    }
}

/// How long something may be in the making.
const MADE: Duration = Duration::from_mins(1);

/// What everything here shares.
#[derive(Debug)]
struct Shared {
    root: Root,
    program: PathBuf,
    bwrap: PathBuf,
    cgroups: Cgroups,
    /// Read while a directory, a template or a sandbox is being made, which goes on although nobody may await it any more.
    /// Whoever releases waits for it: what appears later than the look is not seen.
    making: Arc<RwLock<()>>,
}

impl Shared {
    /// `kind` is `sandbox` or `agent`.
    fn group_name(&self, kind: &str, run: &RunId) -> String {
        format!("{run}.{}.{kind}", self.root.tag())
    }
}

/// Sandboxes of one state directory.
#[derive(Debug, Clone)]
pub struct LocalIsolation {
    shared: Arc<Shared>,
}

impl LocalIsolation {
    /// Makes the state directory where there is none, and sees which cgroups may be used.
    pub fn new(config: LocalConfig) -> Result<Self, Stop> {
        let root = Root::open(&config)?;
        let bwrap = doctor::resolve(&config.bwrap);
        let shared =
            Shared { root, program: config.program, bwrap, cgroups: Cgroups::detect(), making: Arc::default() };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Returns when whatever is being made is there to be seen.
    async fn made(&self) -> Result<(), Stop> {
        let made = tokio::time::timeout(MADE, self.shared.making.write()).await;
        made.or_stop(Reason::Internal, "waiting for what is being made of a sandbox").map(drop)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, Stop> + Send + 'static,
    ) -> Result<T, Stop> {
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || work(&shared)).await.or_stop(Reason::Internal, "working on a sandbox")?
    }
}

#[async_trait]
impl Isolation for LocalIsolation {
    fn name(&self) -> &'static str {
        "local"
    }

    fn template(&self, limits: &Limits) -> Result<String, Stop> {
        Ok(bwrap::template(limits))
    }

    async fn survey(&self, limits: &Limits) -> Result<Survey, Stop> {
        limits::survey(limits, &self.shared.cgroups, self.shared.root.path())
    }

    async fn prepare(&self, run: &RunId) -> Result<Storage, Stop> {
        let run = run.clone();
        let making = Arc::clone(&self.shared.making).read_owned().await;
        self.blocking(move |shared| {
            let _making = making;
            let (directory, uid) = shared.root.make_run(&run)?;
            let staging = directory.join("staging");
            Ok(Storage { handle: serde_json::json!({ "path": directory.path, "uid": uid }), staging })
        })
        .await
    }

    async fn provision(&self, spec: SandboxSpec) -> Result<Arc<dyn Sandbox>, Stop> {
        Ok(Arc::new(LocalSandbox::provision(Arc::clone(&self.shared), spec).await?))
    }

    async fn release(
        &self,
        run: &RunId,
        resource: Resource,
        handle: Option<&serde_json::Value>,
    ) -> Result<ReleaseProof, Stop> {
        let (run, handle) = (run.clone(), handle.cloned());
        self.made().await?;
        let wanted = Wanted::default();
        let go_on = wanted.0.clone();
        self.blocking(move |shared| match resource {
            Resource::Sandbox => release::processes(shared, &run, "sandbox", handle.as_ref()),
            Resource::Agent => release::processes(shared, &run, "agent", handle.as_ref()),
            Resource::Storage => release::storage(shared, &run, &|| !go_on.load(Ordering::Relaxed)),
            Resource::Lease => Err(Stop::internal("a lease is not the sandbox's to release")),
        })
        .await
    }

    async fn leftovers(&self) -> Result<Vec<Leftover>, Stop> {
        self.blocking(release::leftovers).await
    }
}

/// Tells blocking work that nobody waits for it any more.
#[derive(Default)]
struct Wanted(Arc<AtomicBool>);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
