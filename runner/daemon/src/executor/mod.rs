//! Executes one run: claim, phases, teardown, conclusion, evidence. What is decided is decided in `drill`; this does it.
//!
//! Start at [`execute`]. [`recover`] ends what another process of muster left behind, by the same teardown.
mod baselines;
mod cancel;
mod checks;
mod journal;
mod last_run;
mod observe;
mod phases;
mod recover;
mod run;
mod teardown;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use drill::port::{Artifacts, Credentials, Engine, Isolation, Store};

pub use cancel::Cancel;
pub use checks::{Loaded, load_checks};
pub use observe::{Observer, Silent, Update};
pub use recover::{Recovered, recover};
pub use run::{Ended, Request, execute};

/// Everything outside that a run touches.
#[derive(Clone)]
pub struct Ports {
    pub artifacts: Arc<dyn Artifacts>,
    pub isolation: Arc<dyn Isolation>,
    pub engine: Arc<dyn Engine>,
    pub credentials: Arc<dyn Credentials>,
    pub store: Arc<dyn Store>,
    /// Where the evidence key is.
    pub state_directory: PathBuf,
}
