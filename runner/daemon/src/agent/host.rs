//! The plugin host as a [`CheckRunner`].
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use drill::agent::{CheckOutcome, CheckUsage};
use drill::id::Sha256Digest;
use plugin_host::backend::Backend;
use plugin_host::{Component, Host, HostConfig, HostError};
use tokio_util::sync::CancellationToken;

use super::checks::{CheckCall, CheckRunner, RunOutcome};

/// Of one component. What is still compiling then keeps a thread until the agent ends.
const COMPILE: Duration = Duration::from_mins(1);

pub struct PluginRunner {
    host: Arc<Host>,
    /// A component is compiled once, for all databases.
    compiled: Mutex<HashMap<Sha256Digest, Component>>,
}

impl PluginRunner {
    pub fn new() -> Result<Self, HostError> {
        // The agent has no files: no cache.
        Ok(Self { host: Arc::new(Host::new(HostConfig { cache: None })?), compiled: Mutex::default() })
    }

    async fn component(&self, call: &CheckCall) -> Result<Component, CheckOutcome> {
        let compiled = || self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = compiled().get(&call.digest) {
            return Ok(found.clone());
        }
        let (host, bytes) = (Arc::clone(&self.host), call.component.clone());
        let compiling = tokio::task::spawn_blocking(move || host.load(&bytes));
        let component = match tokio::time::timeout(COMPILE, compiling).await {
            Ok(Ok(Ok(component))) => component,
            Ok(Ok(Err(error))) => return Err(CheckOutcome::Refused { why: drill::stop::chain(&error) }),
            Ok(Err(_)) => return Err(CheckOutcome::Trapped { why: "the compiler panicked".to_owned() }),
            Err(_) => {
                return Err(CheckOutcome::LimitReached {
                    limit: "compile time".to_owned(),
                    used: drill::unit::duration(COMPILE),
                    allowed: drill::unit::duration(COMPILE),
                    advice: "make the component smaller".to_owned(),
                });
            }
        };
        compiled().insert(call.digest, component.clone());
        Ok(component)
    }
}

#[async_trait]
impl CheckRunner for PluginRunner {
    async fn run(&self, call: CheckCall, backend: Backend, cancel: CancellationToken) -> RunOutcome {
        let component = tokio::select! {
            component = self.component(&call) => component,
            () = cancel.cancelled() => Err(CheckOutcome::Cancelled),
        };
        match component {
            Err(outcome) => RunOutcome { outcome, usage: CheckUsage::default() },
            Ok(component) => {
                let ran = self.host.run(&component, &call.grants, &call.limits, &call.options, backend, &cancel).await;
                RunOutcome { outcome: ran.outcome, usage: ran.usage }
            }
        }
    }
}
