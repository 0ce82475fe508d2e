//! The real [`CheckRunner`]: the plugin host, in the agent's own process.
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use drill::agent::{CheckOutcome, CheckUsage};
use drill::id::Sha256Digest;
use drill::stop::chain;
use plugin_host::backend::Backend;
use plugin_host::{Component, Host, HostConfig, HostError};
use tokio_util::sync::CancellationToken;

use super::process;
use super::{CheckCall, CheckRunner, RunOutcome};

/// Where a sandbox shows the database to the agent.
const SOCKET: &str = "/db.sock";

/// `muster agent`, which only a sandbox calls: frames on standard input and output.
pub fn main() -> ExitCode {
    match Host::new(HostConfig { cache: None }) {
        Ok(host) => process::main(PathBuf::from(SOCKET), Arc::new(Plugins { host, compiled: Mutex::default() })),
        Err(error) => {
            use std::io::Write;
            // The runner reads this as the agent's last words.
            let _ = writeln!(std::io::stderr(), "the plugin host does not start: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

struct Plugins {
    host: Host,
    /// A check runs once for each database, and is compiled once.
    compiled: Mutex<BTreeMap<Sha256Digest, Component>>,
}

impl Plugins {
    /// Compiling may take seconds, and a hostile component decides how many: the runner's deadline ends the whole agent.
    fn compile(&self, call: &CheckCall) -> Result<Component, HostError> {
        let known = self.compiled.lock().unwrap_or_else(PoisonError::into_inner).get(&call.digest).cloned();
        if let Some(component) = known {
            return Ok(component);
        }
        let component = tokio::task::block_in_place(|| self.host.load(&call.component))?;
        self.compiled.lock().unwrap_or_else(PoisonError::into_inner).insert(call.digest, component.clone());
        Ok(component)
    }
}

#[async_trait]
impl CheckRunner for Plugins {
    async fn run(&self, call: CheckCall, backend: Backend, cancel: CancellationToken) -> RunOutcome {
        let component = match self.compile(&call) {
            Ok(component) => component,
            Err(error) => {
                let outcome = CheckOutcome::Refused { why: chain(&error) };
                return RunOutcome { outcome, usage: CheckUsage::default() };
            }
        };
        let ran = self.host.run(&component, &call.grants, &call.limits, &call.options, backend, &cancel).await;
        RunOutcome { outcome: ran.outcome, usage: ran.usage }
    }
}
