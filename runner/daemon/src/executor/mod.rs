//! Executes one run: claim, phases, teardown, conclusion, evidence. What is decided is decided in `drill`; this does it.
//!
//! Start at [`execute`]. [`recover`] ends what another process of muster left behind, by the same teardown.
mod ahead;
mod baselines;
mod boundary;
mod cancel;
mod checks;
mod isolations;
mod journal;
mod last_run;
mod lease;
mod live;
mod observe;
mod opening;
mod phases;
mod recover;
mod run;
mod self_test;
mod teardown;
#[cfg(test)]
pub(crate) mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use drill::config::Production;
use drill::id::Sha256Digest;
use drill::port::{Artifacts, Engine, Store};

use drivers::key::EvidenceKey;

pub use cancel::Cancel;
pub use checks::{Loaded, load_checks};
pub use isolations::Isolations;
pub use lease::CredentialsFor;
pub use live::{LiveRun, LiveRuns};
pub use observe::{Observer, Silent, Update};
pub use recover::{Recovered, recover, recover_due};
pub use run::{Ended, Request, execute};

/// Everything outside that a run touches.
#[derive(Clone)]
pub struct Ports {
    pub artifacts: Arc<dyn Artifacts>,
    pub isolations: Isolations,
    pub engine: Arc<dyn Engine>,
    pub credentials: CredentialsFor,
    pub store: Arc<dyn Store>,
    /// Where the evidence key is, unless another is configured.
    pub state_directory: PathBuf,
    /// Where the compiled code of builtin checks is kept. None: agents compile it themselves.
    pub compiled: Option<PathBuf>,
    /// What signs evidence. None: the key of the state directory, which muster makes.
    pub evidence_key: Option<Arc<EvidenceKey>>,
    /// The rendered isolation template that drills may use. None: recorded, never compared.
    pub approved_template: Option<Sha256Digest>,
    /// What no run may touch. What runs already owe there is taken down nevertheless.
    pub production: Production,
    /// The runs that this process is busy with.
    pub live: LiveRuns,
}
