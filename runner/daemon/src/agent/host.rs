//! The plugin host as a [`CheckRunner`].
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use drill::agent::{CheckOutcome, CheckUsage};
use drill::id::Sha256Digest;
use plugin_host::backend::{Backend, Reporter};
use plugin_host::{Component, Host, HostError};
use tokio_util::sync::CancellationToken;

use super::checks::{CheckCall, CheckRunner, RunOutcome};

/// Of one component. What is still compiling then keeps a thread until the agent ends.
const COMPILE: Duration = Duration::from_mins(1);

pub struct PluginRunner {
    host: Arc<Host>,
    /// A component is loaded once, for all databases.
    loaded: Mutex<HashMap<Sha256Digest, Component>>,
}

impl PluginRunner {
    pub fn new() -> Result<Self, HostError> {
        Ok(Self { host: Arc::new(Host::new()?), loaded: Mutex::default() })
    }

    async fn component(&self, call: &CheckCall, reporter: &dyn Reporter) -> Result<Component, CheckOutcome> {
        let loaded = || self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = loaded().get(&call.digest) {
            return Ok(found.clone());
        }
        let (host, bytes, code) = (Arc::clone(&self.host), call.component.clone(), call.compiled.clone());
        let loading = tokio::task::spawn_blocking(move || load(&host, &bytes, code.as_deref()));
        let Loaded { component, note } = match tokio::time::timeout(COMPILE, loading).await {
            Ok(Ok(Ok(loaded))) => loaded,
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
        if let Some(note) = note {
            reporter.log(note);
        }
        loaded().insert(call.digest, component.clone());
        Ok(component)
    }
}

struct Loaded {
    component: Component,
    /// Of one that was compiled here.
    note: Option<String>,
}

/// Code that does not fit, as on another processor, is compiled as if none had come.
#[expect(unsafe_code, reason = "the runner's code is loaded as it is: whoever speaks for the runner is obeyed anyway")]
fn load(host: &Host, bytes: &[u8], code: Option<&[u8]>) -> Result<Loaded, HostError> {
    let mut unfit = String::new();
    if let Some(code) = code {
        // SAFETY: the only way in is standard input, by which the runner that started this process sends what its compiler
        // made of a builtin plugin; the digest that came with it shows that it arrived whole.
        match unsafe { host.load_compiled(bytes, code) } {
            Ok(component) => return Ok(Loaded { component, note: None }),
            Err(HostError::Incompatible { why }) => unfit = format!(", since the runner's code does not fit: {why}"),
            Err(error) => return Err(error),
        }
    }
    let begun = Instant::now();
    let component = host.load(bytes)?;
    let took = drill::unit::duration(begun.elapsed());
    Ok(Loaded { component, note: Some(format!("compiled by the agent in {took}{unfit}")) })
}

#[async_trait]
impl CheckRunner for PluginRunner {
    async fn run(&self, call: CheckCall, backend: Backend, cancel: CancellationToken) -> RunOutcome {
        let component = tokio::select! {
            component = self.component(&call, backend.reporter.as_ref()) => component,
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

#[cfg(test)]
mod tests {
    use plugin_host::Compiler;

    use super::*;

    #[test]
    fn code_that_fits_is_loaded_and_code_that_does_not_is_made_anew() {
        let directory = tempfile::tempdir().expect("a directory");
        let compiler = Compiler::open(&directory.path().join("plugins")).expect("a compiler");
        let component = plugin_host::builtin("checksum").expect("it is embedded");
        let code = compiler.builtin("checksum").expect("it is embedded").expect("it compiles").bytes;
        let host = Host::new().expect("a host");
        let note = |code: Option<&[u8]>| load(&host, component, code).expect("it is loaded").note;
        assert_eq!(note(Some(&code)), None);
        assert!(note(None).is_some_and(|note| note.starts_with("compiled by the agent in ")));
        // As from a wasmtime that is not this one: an ELF file without what wasmtime writes into it.
        let unfit = note(Some(&code[..64])).expect("it was compiled");
        assert!(unfit.contains("does not fit"), "{unfit}");
    }
}
