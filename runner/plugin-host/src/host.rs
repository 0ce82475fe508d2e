//! Loads components and runs them within their limits.
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use drill::agent::{CheckOutcome, CheckUsage};
use drill::id::Sha256Digest;
use drill::spec::{CheckLimits, Grant};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use wasmtime::component::{HasSelf, Linker};
use wasmtime::{Config, Engine, Store};

use crate::backend::Backend;
use crate::bindings::CheckPre;
use crate::bindings::muster::check::{baseline, catalog, context, digest, report, sql, values};
use crate::guest::Guest;
use crate::inspect::{Inspection, MAX_COMPONENT, inspect};
use crate::limits::{Limit, MAX_PAYLOAD, MAX_STACK};
use crate::meter::Ticker;
use crate::outcome;

/// What went wrong before a check could run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    #[error("failed to set up WebAssembly")]
    Setup(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("failed to open the plugin cache `{path}`")]
    Cache { path: PathBuf, source: std::io::Error },
    #[error("the component has {size} bytes, at most {MAX_COMPONENT} are taken")]
    TooLarge { size: usize },
    #[error("it is not a check plugin: {why}")]
    NotAPlugin { why: String },
    #[error("it imports what muster does not give to a plugin: {}", names.join(", "))]
    ForeignImports { names: Vec<String> },
    #[error("it was built for another contract than muster's `wit/check-1.0`: {why}")]
    OtherContract { why: String },
    #[error("the component does not compile: {why}")]
    Compile { why: String },
    #[error("the compiled code does not fit: {why}")]
    Incompatible { why: String },
    #[error("it does not describe itself: {why}")]
    Describe { why: String },
}

impl HostError {
    /// Of a component that the compiler refused, whoever ran it.
    pub(crate) fn compile(error: &wasmtime::Error) -> Self {
        Self::Compile { why: outcome::shown(&format!("{error:#}"), 1_000) }
    }
}

/// Runs components. One a process is enough; dropping it ends its thread.
pub struct Host {
    engine: Engine,
    /// What every component may have: the runtime's stubs, `context` and `report`.
    free: Linker<Guest>,
    ticker: Ticker,
}

/// A compiled check plugin, linked with what it imports and nothing else.
#[derive(Clone)]
pub struct Component {
    check: CheckPre<Guest>,
    digest: Sha256Digest,
    inspection: Inspection,
}

impl Component {
    /// SHA-256 of the bytes it was loaded from.
    pub fn digest(&self) -> &Sha256Digest {
        &self.digest
    }

    pub fn inspection(&self) -> &Inspection {
        &self.inspection
    }
}

/// What a plugin says of itself.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Description {
    pub name: String,
    pub version: String,
    /// One line for people.
    pub summary: String,
    /// The JSON Schema of the options.
    pub options: serde_json::Map<String, serde_json::Value>,
}

/// How one call of a check ended.
#[derive(Debug, Clone, PartialEq)]
pub struct RunOutcome {
    pub outcome: CheckOutcome,
    pub usage: CheckUsage,
}

impl Host {
    pub fn new() -> Result<Self, HostError> {
        let setup = |error: wasmtime::Error| HostError::Setup(error.into());
        let engine = Engine::new(&engine_config()).map_err(setup)?;
        let ticker = Ticker::start(engine.clone()).map_err(|error| HostError::Setup(Box::new(error)))?;
        let free = free_linker(&engine).map_err(setup)?;
        Ok(Self { engine, free, ticker })
    }

    /// What a component wants, read without compiling it. Names every import that no plugin is given.
    pub fn inspect(&self, bytes: &[u8]) -> Result<Inspection, HostError> {
        inspect(bytes)
    }

    /// Compiles at most [`MAX_COMPONENT`] bytes. Takes seconds for a large component, and how many is for the component to say:
    /// call it where the process, or at least the thread, can be given up.
    pub fn load(&self, bytes: &[u8]) -> Result<Component, HostError> {
        let inspection = inspect(bytes)?;
        let compiled = wasmtime::component::Component::from_binary(&self.engine, bytes)
            .map_err(|error| HostError::compile(&error))?;
        self.link(&compiled, bytes, inspection)
    }

    /// Takes the code that a [`crate::Compiler`] made of these bytes. Code of another wasmtime, another configuration or for a
    /// processor that can do more than this one is [`HostError::Incompatible`].
    ///
    /// # Safety
    ///
    /// `code` is executed as it is: it must have come from [`crate::Compiler`], through nobody who could have changed it.
    #[expect(
        unsafe_code,
        reason = "no check of compiled code could show that it does no harm: the caller vouches for it"
    )]
    pub unsafe fn load_compiled(&self, bytes: &[u8], code: &[u8]) -> Result<Component, HostError> {
        let inspection = inspect(bytes)?;
        // SAFETY: the caller's promise.
        let compiled = unsafe { wasmtime::component::Component::deserialize(&self.engine, code) }
            .map_err(|error| HostError::Incompatible { why: outcome::shown(&format!("{error:#}"), 1_000) })?;
        self.link(&compiled, bytes, inspection)
    }

    /// Once for all calls: it compares the type of every import.
    fn link(
        &self,
        compiled: &wasmtime::component::Component,
        bytes: &[u8],
        inspection: Inspection,
    ) -> Result<Component, HostError> {
        let linker = self.linker(&inspection.grants).map_err(|error| HostError::Setup(error.into()))?;
        let check = linker
            .instantiate_pre(compiled)
            .and_then(CheckPre::new)
            .map_err(|error| HostError::OtherContract { why: outcome::shown(&format!("{error:#}"), 1_000) })?;
        Ok(Component { check, digest: Sha256Digest::of(bytes), inspection })
    }

    /// Asks the plugin what it is: nothing is granted, and a second must do.
    pub async fn describe(&self, component: &Component) -> Result<Description, HostError> {
        let limits = CheckLimits {
            cpu_time: Duration::from_secs(1),
            wall_time: Duration::from_secs(10),
            ..CheckLimits::default()
        };
        let mut store = self.store(Guest::new(None, limits));
        let (ended, _) = self
            .within(&mut store, &limits, &CancellationToken::new(), async |store| {
                let check = component.check.instantiate_async(&mut *store).await?;
                check.muster_check_plugin().call_describe(store).await
            })
            .await;
        let text = ended.map_err(|outcome| HostError::Describe { why: why(outcome) })?;
        serde_json::from_str(&text).map_err(|error| HostError::Describe { why: error.to_string() })
    }

    /// Runs a check once on one database. Whatever the guest does ends in an outcome; findings made before it were reported.
    /// Needs a tokio runtime with time enabled; the guest computes on the thread that polls, in stretches of 10 ms.
    pub async fn run(
        &self,
        component: &Component,
        grants: &BTreeSet<Grant>,
        limits: &CheckLimits,
        options: &serde_json::Value,
        backend: Backend,
        cancel: &CancellationToken,
    ) -> RunOutcome {
        let refused = |why| RunOutcome { outcome: CheckOutcome::Refused { why }, usage: CheckUsage::default() };
        if let Some(why) = refusal(&component.inspection, grants) {
            return refused(why);
        }
        let options = match options {
            serde_json::Value::Null => "{}".to_owned(),
            serde_json::Value::Object(_) => options.to_string(),
            _ => return refused("options: must be a map, such as `options: {}`".to_owned()),
        };
        let mut store = self.store(Guest::new(Some(backend), *limits));
        let (ended, usage) = self
            .within(&mut store, limits, cancel, async |store| {
                let check = component.check.instantiate_async(&mut *store).await?;
                check.muster_check_plugin().call_run(store, &options).await
            })
            .await;
        store.data_mut().finish();
        RunOutcome { outcome: ended.map_or_else(|outcome| outcome, outcome::of_result), usage }
    }

    fn store(&self, guest: Guest) -> Store<Guest> {
        let mut store = Store::new(&self.engine, guest);
        store.limiter(|guest| &mut guest.growth);
        store.set_hostcall_fuel(MAX_PAYLOAD);
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        store
    }

    /// Runs guest code until it ends, is cancelled, or reaches a limit.
    async fn within<T>(
        &self,
        store: &mut Store<Guest>,
        limits: &CheckLimits,
        cancel: &CancellationToken,
        call: impl AsyncFnOnce(&mut Store<Guest>) -> wasmtime::Result<T>,
    ) -> (Result<T, CheckOutcome>, CheckUsage) {
        let started = Instant::now();
        let cpu = store.data().cpu.clone();
        let ended = {
            let _ticking = self.ticker.guard();
            tokio::select! {
                biased;
                () = cancel.cancelled() => Err(Stopped::Cancelled),
                () = tokio::time::sleep(limits.wall_time) => Err(Stopped::WallTime),
                ended = cpu.bill(limits.cpu_time, call(&mut *store)) => ended.ok_or(Stopped::CpuTime),
            }
        };
        let guest = store.data();
        let usage =
            CheckUsage { cpu_time: cpu.used(), wall_time: started.elapsed(), memory: guest.growth.memory as u64 };
        let ended = match ended {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(trap)) => Err(outcome::of_trap(&trap, &guest.log.tail())),
            Err(Stopped::Cancelled) => Err(CheckOutcome::Cancelled),
            Err(Stopped::WallTime) => Err(Limit::wall_time(usage.wall_time, limits).into_outcome()),
            Err(Stopped::CpuTime) => Err(Limit::cpu_time(usage.cpu_time, limits).into_outcome()),
        };
        (ended, usage)
    }

    /// Holds exactly what a component was seen to want, all of which a call must grant: what is not in the linker cannot be
    /// called, whatever else the component imports.
    fn linker(&self, wanted: &BTreeSet<Grant>) -> wasmtime::Result<Linker<Guest>> {
        let mut linker = self.free.clone();
        for grant in wanted {
            match grant {
                Grant::Sql => sql::add_to_linker::<_, HasSelf<Guest>>(&mut linker, |guest| guest)?,
                Grant::Baseline => baseline::add_to_linker::<_, HasSelf<Guest>>(&mut linker, |guest| guest)?,
                Grant::Catalog => catalog::add_to_linker::<_, HasSelf<Guest>>(&mut linker, |guest| guest)?,
                Grant::Digest => digest::add_to_linker::<_, HasSelf<Guest>>(&mut linker, |guest| guest)?,
            }
        }
        Ok(linker)
    }
}

/// Why a guest was stopped from outside.
enum Stopped {
    Cancelled,
    WallTime,
    CpuTime,
}

/// The same for whoever compiles and whoever runs.
pub(crate) fn engine_config() -> Config {
    let mut config = Config::new();
    config.epoch_interruption(true);
    config.max_wasm_stack(MAX_STACK);
    // The rest is for host functions, which run on the same stack.
    config.async_stack_size(MAX_STACK + (1 << 20));
    config
}

fn free_linker(engine: &Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    values::add_to_linker::<_, HasSelf<Guest>>(&mut linker, |guest| guest)?;
    context::add_to_linker::<_, HasSelf<Guest>>(&mut linker, |guest| guest)?;
    report::add_to_linker::<_, HasSelf<Guest>>(&mut linker, |guest| guest)?;
    Ok(linker)
}

/// Why a component may not run with these grants.
fn refusal(inspection: &Inspection, grants: &BTreeSet<Grant>) -> Option<String> {
    let missing: Vec<&str> = inspection.grants.difference(grants).map(|grant| grant.as_str()).collect();
    if missing.is_empty() {
        return None;
    }
    let wanted: Vec<String> =
        inspection.grants.union(grants).map(|grant| format!("{}: {{}}", grant.as_str())).collect();
    Some(format!(
        "the plugin needs {}, which the drill does not grant; to grant it, write `grants: {{ {} }}` in the check",
        missing.join(" and "),
        wanted.join(", ")
    ))
}

fn why(outcome: CheckOutcome) -> String {
    match outcome {
        CheckOutcome::LimitReached { limit, used, allowed, .. } => {
            format!("limit `{limit}` reached: {used} used, {allowed} allowed")
        }
        CheckOutcome::Inconclusive { why } | CheckOutcome::Trapped { why } | CheckOutcome::Refused { why } => why,
        CheckOutcome::Cancelled | CheckOutcome::Completed { .. } => "it was stopped".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_grant_is_answered_with_the_line_to_write() {
        let inspection = Inspection {
            grants: BTreeSet::from([Grant::Sql, Grant::Baseline]),
            imports: vec![],
            runtime_imports: vec![],
        };
        assert_eq!(refusal(&inspection, &inspection.grants), None);
        let why = refusal(&inspection, &BTreeSet::from([Grant::Baseline])).expect("refused");
        assert!(why.contains("needs sql,"), "{why}");
        assert!(why.contains("`grants: { sql: {}, baseline: {} }`"), "{why}");
    }
}
