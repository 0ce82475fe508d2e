//! Compiled code of the builtin checks, made or found while the backup is still being restored.
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use drill::manifest::Manifest;
use drill::spec::Plugin;
use drill::stop::chain;
use drill::unit;
use plugin_host::{Code, Compiler, HostError};
use tokio::task::JoinHandle;

use super::checks::{self, Loaded};
use super::observe::Update;
use super::phases::Context;

/// Code by the name of its builtin, and how long each took.
type Made = BTreeMap<String, (Code, Duration)>;

/// A run that ends sooner leaves it to its own end, which is near: the compiler takes no input of a backup's or a drill's.
pub(super) struct Ahead(Option<JoinHandle<Result<Made, HostError>>>);

/// What can be sent to the agent.
pub(super) struct Codes(Result<Made, String>);

impl Ahead {
    /// For the builtin checks of a run of this backup.
    pub(super) fn begin(context: &Context<'_>, manifest: &Manifest) -> Self {
        let names: BTreeSet<String> = checks::applicable(context.request, manifest)
            .filter_map(|loaded| match &loaded.check.plugin {
                Plugin::Builtin(name) => Some(name.clone()),
                Plugin::File { .. } => None,
            })
            .collect();
        let directory = context.ports.compiled.clone().filter(|_| !names.is_empty());
        Self(directory.map(|directory| tokio::task::spawn_blocking(move || make(&directory, names))))
    }

    /// Whatever went wrong is no reason to stop: the agent compiles what it is not given.
    pub(super) async fn codes(self) -> Codes {
        Codes(match self.0 {
            None => Ok(Made::default()),
            Some(making) => match making.await {
                Ok(made) => made.map_err(|error| chain(&error)),
                Err(_) => Err("the compiler panicked".to_owned()),
            },
        })
    }
}

fn make(directory: &Path, names: BTreeSet<String>) -> Result<Made, HostError> {
    let compiler = Compiler::open(directory)?;
    let mut made = Made::default();
    for name in names {
        let begun = Instant::now();
        if let Some(code) = compiler.builtin(&name) {
            made.insert(name, (code?, begun.elapsed()));
        }
    }
    Ok(made)
}

impl Codes {
    /// The code of a check, if there is any; it is said where it is from.
    pub(super) fn of(&self, context: &Context<'_>, loaded: &Loaded) -> Option<&[u8]> {
        let Plugin::Builtin(name) = &loaded.check.plugin else { return None };
        let say = |message: &str| context.journal.observer().update(Update::Log { check: &loaded.check.name, message });
        match &self.0 {
            Err(why) => {
                say(&format!("not compiled ahead: {why}"));
                None
            }
            Ok(made) => {
                let (code, took) = made.get(name)?;
                let from = if code.cached { "compiled code taken from the cache" } else { "compiled ahead" };
                say(&format!("{from} in {}", unit::duration(*took)));
                Some(&code.bytes)
            }
        }
    }
}
