//! The daemon's one decider: a single task owns which runs are due, wait and go on. Everything that can happen to it is one
//! closed [`Event`]; what others may know of it is the [`View`] that it publishes after each change.
//!
//! Whoever wants something of it holds a [`Handle`]. Whoever wants to hear of things as they happen is a [`Listener`].
mod bell;
mod event;
mod files;
mod happening;
mod known;
mod run;
mod self_tests;
mod state;
#[cfg(test)]
mod tests;
mod view;

pub use event::{CancelError, Event, Handle, Request, StartError};
pub use happening::{Happening, Listener, Listeners, RunUpdate, Skip};
pub use run::{Dispatcher, Setup};
pub use view::{DrillView, FileView, Running, View};

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use drill::id::DrillName;
use drill::ledger::Trigger;
use drill::spec::Drill;
use drill::stop::Stop;

use crate::executor::{Cancel, Ended, Observer};

/// What runs a drill: the executor, or something instant in a benchmark.
#[async_trait]
pub trait Runner: Send + Sync {
    /// An error means that nothing was begun. Ends, whatever happens, with the teardown tried.
    async fn run(&self, job: Job, observer: Arc<dyn Observer>, cancel: Cancel) -> Result<Ended, Stop>;
}

/// One run that the dispatcher wants. It keeps the drill as it was read, whatever happens to the file meanwhile.
#[derive(Debug, Clone)]
pub struct Job {
    pub drill: Arc<Drill>,
    /// Absolute.
    pub file: PathBuf,
    pub trigger: Trigger,
}

impl Job {
    pub fn name(&self) -> &DrillName {
        &self.drill.name
    }
}
