//! Sandboxes in memory, for the tests of whoever drives the port: what exists is a list, every effect can be made to fail, and a
//! run can be cut off before or after any of them.
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use drill::agent::ProbeTargets;
use drill::id::RunId;
use drill::ledger::Resource;
use drill::manifest::Manifest;
use drill::port::{
    AgentProcess, ByteStream, Doorway, Exec, ExecOutput, ExitStatus, Isolation, Leftover, Progress, Sandbox,
    SandboxSpec, Storage, Survey,
};
use drill::proof::{Expected, LimitInForce, Probe, ReleaseProof};
use drill::spec::Limits;
use drill::stop::Stop;
use tokio::io::{DuplexStream, duplex};
use tokio::sync::{Notify, watch};
use tokio_util::compat::{TokioAsyncReadCompatExt, TokioAsyncWriteCompatExt};

const BUFFER: usize = 64 << 10;

/// Told each step, such as `before provision` or `after release storage`; true cuts the run off there.
pub type CrashHook = Arc<dyn Fn(&str) -> bool + Send + Sync>;
/// Answers a command.
pub type OnExec = Arc<dyn Fn(&Exec) -> Result<ExecOutput, Stop> + Send + Sync>;
/// Is given the other end of a stream: the agent's, or the database's.
pub type OnStream = Arc<dyn Fn(DuplexStream) + Send + Sync>;

/// What exists, shared by every [`FakeIsolation`] and [`FakeSandbox`] made of it: what a crash does not end.
#[derive(Clone, Default)]
pub struct World {
    state: Arc<Mutex<State>>,
    crashed: Arc<Notify>,
}

#[derive(Default)]
struct State {
    exists: BTreeSet<(RunId, Resource)>,
    steps: Vec<String>,
    failures: BTreeMap<String, Vec<Stop>>,
    crash: Option<CrashHook>,
    has_crashed: bool,
    staging: Option<PathBuf>,
    exec: Option<OnExec>,
    agent: Option<OnStream>,
    database: Option<OnStream>,
    probes: Option<Vec<Probe>>,
    breach: watch::Sender<Option<Stop>>,
}

impl World {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn isolation(&self) -> FakeIsolation {
        FakeIsolation { world: self.clone() }
    }

    /// The next time that `effect` is asked for, such as `provision` or `release sandbox`, it fails. Several are used in turn.
    pub fn fail(&self, effect: &str, stop: Stop) {
        self.state().failures.entry(effect.to_owned()).or_default().push(stop);
    }

    pub fn crash_when(&self, hook: CrashHook) {
        self.state().crash = Some(hook);
    }

    /// Waits for the crash. The cut-off future never ends: drop it, then [`revive`](Self::revive) and recover.
    pub async fn crashed(&self) {
        loop {
            let notified = self.crashed.notified();
            if self.state().has_crashed {
                return;
            }
            notified.await;
        }
    }

    /// The next process: the same world, and nobody to cut it off.
    pub fn revive(&self) {
        let mut state = self.state();
        state.has_crashed = false;
        state.crash = None;
    }

    /// Where [`Isolation::prepare`] says that the artifact is staged; none is made.
    pub fn stage_in(&self, directory: PathBuf) {
        self.state().staging = Some(directory);
    }

    /// Without it every command succeeds and says nothing.
    pub fn on_exec(&self, answer: OnExec) {
        self.state().exec = Some(answer);
    }

    /// Without it the agent's streams end at once.
    pub fn on_agent(&self, agent: OnStream) {
        self.state().agent = Some(agent);
    }

    /// Without it a connection ends at once.
    pub fn on_dial(&self, database: OnStream) {
        self.state().database = Some(database);
    }

    /// Without it isolation is proven by two probes.
    pub fn answer_probes(&self, probes: Vec<Probe>) {
        self.state().probes = Some(probes);
    }

    /// As if the watchdog of every sandbox had seen it.
    pub fn breach(&self, stop: Stop) {
        self.state().breach.send_replace(Some(stop));
    }

    /// Every step that was begun or done, in order.
    pub fn steps(&self) -> Vec<String> {
        self.state().steps.clone()
    }

    pub fn existing(&self) -> Vec<(RunId, Resource)> {
        self.state().exists.iter().cloned().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Never returns where the run is cut off.
    async fn step(&self, step: String) {
        let (hook, dead) = {
            let state = self.state();
            (state.crash.clone(), state.has_crashed)
        };
        if !dead {
            self.state().steps.push(step.clone());
        }
        if dead || hook.is_some_and(|hook| hook(&step)) {
            self.state().has_crashed = true;
            self.crashed.notify_waiters();
            std::future::pending::<()>().await;
        }
    }

    /// One effect: may fail as scripted, and may be cut off before and after it.
    async fn effect<T>(&self, name: &str, effect: impl FnOnce(&mut State) -> T + Send) -> Result<T, Stop> {
        self.step(format!("before {name}")).await;
        let done = {
            let mut state = self.state();
            let scripted = state.failures.get_mut(name).filter(|stops| !stops.is_empty()).map(|stops| stops.remove(0));
            match scripted {
                Some(stop) => Err(stop),
                None => Ok(effect(&mut state)),
            }
        };
        self.step(format!("after {name}")).await;
        done
    }
}

#[derive(Clone)]
pub struct FakeIsolation {
    world: World,
}

#[async_trait]
impl Isolation for FakeIsolation {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn template(&self, limits: &Limits) -> Result<String, Stop> {
        Ok(format!("fake isolation, {} processes", limits.processes))
    }

    async fn survey(&self, limits: &Limits) -> Result<Survey, Stop> {
        let processes = LimitInForce {
            what: "processes".to_owned(),
            value: limits.processes.into(),
            enforced_by: "fake".to_owned(),
            total: true,
        };
        let survey = Survey { limits: vec![processes], free_disk: 1 << 40, free_memory: 1 << 36, warnings: Vec::new() };
        self.world.effect("survey", |_| survey).await
    }

    async fn prepare(&self, run: &RunId) -> Result<Storage, Stop> {
        let prepared = |state: &mut State| {
            state.exists.insert((run.clone(), Resource::Storage));
            let staging = state.staging.clone().unwrap_or_else(|| PathBuf::from("/nonexistent"));
            Storage { handle: serde_json::json!({ "fake": "storage" }), staging }
        };
        self.world.effect("prepare", prepared).await
    }

    async fn verify(&self, run: &RunId, _manifest: &Manifest, _progress: &dyn Progress) -> Result<(), Stop> {
        let made = |state: &mut State| {
            state.exists.insert((run.clone(), Resource::Sandbox));
        };
        self.world.effect("verify", made).await
    }

    async fn provision(&self, spec: SandboxSpec) -> Result<Arc<dyn Sandbox>, Stop> {
        let run = spec.run.clone();
        let made = |state: &mut State| state.exists.insert((spec.run, Resource::Sandbox));
        if !self.world.state().exists.contains(&(run.clone(), Resource::Storage)) {
            return Err(Stop::internal("provisioned before it was prepared"));
        }
        self.world.effect("provision", made).await?;
        Ok(Arc::new(FakeSandbox { world: self.world.clone(), run }))
    }

    async fn release(
        &self,
        run: &RunId,
        resource: Resource,
        _handle: Option<&serde_json::Value>,
    ) -> Result<ReleaseProof, Stop> {
        if resource == Resource::Lease {
            return Err(Stop::internal("a lease is not the sandbox's to release"));
        }
        let removed = |state: &mut State| {
            // The agent ends with its sandbox.
            if resource == Resource::Sandbox {
                state.exists.remove(&(run.clone(), Resource::Agent));
            }
            state.exists.remove(&(run.clone(), resource))
        };
        let existed = self.world.effect(&format!("release {resource}"), removed).await?;
        Ok(ReleaseProof::of(if existed { format!("{resource} removed") } else { format!("no {resource} was found") }))
    }

    async fn leftovers(&self) -> Result<Vec<Leftover>, Stop> {
        let all = |state: &mut State| {
            let leftover = |(run, resource): &(RunId, Resource)| Leftover {
                run: run.clone(),
                resource: *resource,
                what: format!("fake {resource}"),
            };
            state.exists.iter().map(leftover).collect()
        };
        self.world.effect("leftovers", all).await
    }
}

pub struct FakeSandbox {
    world: World,
    run: RunId,
}

#[async_trait]
impl Sandbox for FakeSandbox {
    fn handle(&self) -> serde_json::Value {
        serde_json::json!({ "fake": "sandbox" })
    }

    async fn deliver(&self) -> Result<(), Stop> {
        self.world.effect("deliver", |_| ()).await
    }

    async fn verify_again(&self, _manifest: &Manifest) -> Result<(), Stop> {
        self.world.effect("verify again", |_| ()).await
    }

    async fn exec(&self, exec: Exec) -> Result<ExecOutput, Stop> {
        let answer = self.world.effect("exec", |state| state.exec.clone()).await?;
        let nothing =
            ExecOutput { status: ExitStatus::Code(0), stdout: Vec::new(), stderr: Vec::new(), truncated: false };
        answer.map_or(Ok(nothing), |answer| answer(&exec))
    }

    async fn dial(&self) -> Result<Box<dyn ByteStream>, Stop> {
        let database = self.world.effect("dial", |state| state.database.clone()).await?;
        let (ours, theirs) = duplex(BUFFER);
        if let Some(database) = database {
            database(theirs);
        }
        Ok(Box::new(ours.compat()))
    }

    async fn open_doorway(&self) -> Result<Box<dyn Doorway>, Stop> {
        self.world.effect("open doorway", |_| ()).await?;
        Ok(Box::new(FakeDoorway { world: self.world.clone() }))
    }

    fn probe_targets(&self) -> ProbeTargets {
        ProbeTargets {
            tcp: "127.0.0.1:9".to_owned(),
            abstract_socket: format!("fake-{}", self.run),
            dns: "127.0.0.1:9".to_owned(),
        }
    }

    async fn probe(&self) -> Result<Vec<Probe>, Stop> {
        let probe = |name: &str, seen| Probe {
            name: name.to_owned(),
            expected: seen,
            observed: seen,
            detail: "fake".to_owned(),
        };
        let proven = vec![probe("sandbox: a way out", Expected::Closed), probe("runner: a way out", Expected::Open)];
        let probes = self.world.effect("probe", |state| state.probes.clone()).await?;
        Ok(probes.unwrap_or(proven))
    }

    async fn run_agent(&self) -> Result<AgentProcess, Stop> {
        let run = self.run.clone();
        let started = |state: &mut State| {
            state.exists.insert((run, Resource::Agent));
            state.agent.clone()
        };
        let agent = self.world.effect("run agent", started).await?;
        let (ours, theirs) = duplex(BUFFER);
        if let Some(agent) = agent {
            agent(theirs);
        }
        let (stdout, stdin) = tokio::io::split(ours);
        Ok(AgentProcess {
            handle: serde_json::json!({ "fake": "agent" }),
            stdin: Box::pin(stdin.compat_write()),
            stdout: Box::pin(stdout.compat()),
            stderr: Arc::new(String::new),
        })
    }

    async fn breach(&self) -> Stop {
        let mut breach = self.world.state().breach.subscribe();
        match breach.wait_for(Option::is_some).await {
            Ok(stop) => stop.clone().unwrap_or_else(|| Stop::internal("the sandbox ended")),
            Err(_) => Stop::internal("the sandbox is gone"),
        }
    }
}

/// Nobody can come through it: what it is for is to be seen opened and closed.
struct FakeDoorway {
    world: World,
}

#[async_trait]
impl Doorway for FakeDoorway {
    fn host(&self) -> String {
        "127.0.0.1".to_owned()
    }

    fn port(&self) -> u16 {
        9
    }

    async fn close(self: Box<Self>) -> Result<(), Stop> {
        self.world.effect("close doorway", |_| ()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isolation::contract;

    #[tokio::test]
    async fn the_fake_keeps_the_contract() {
        contract::all(&World::new().isolation()).await;
    }

    #[tokio::test]
    async fn a_crash_ends_the_run_and_not_the_world() {
        let world = World::new();
        world.crash_when(Arc::new(|step| step == "after prepare"));
        let isolation = world.isolation();
        let run = contract::run_id("crash");
        tokio::select! {
            _ = isolation.prepare(&run) => panic!("it was cut off"),
            () = world.crashed() => {}
        }
        world.revive();
        assert_eq!(world.existing(), [(run.clone(), Resource::Storage)]);
        isolation.release(&run, Resource::Storage, None).await.expect("released");
        assert_eq!(world.existing(), []);
    }
}
