use std::sync::Arc;

use drill::ledger::State;
use drill::port::Isolation;
use drill::spec;
use drill::stop::Stop;

type ForDrill = Arc<dyn Fn(&spec::Kubernetes) -> Arc<dyn Isolation> + Send + Sync>;

/// Every isolation of this muster: the one that a drill names, the one that a run in the ledger was made in, and all of them.
#[derive(Clone)]
pub struct Isolations {
    local: Arc<dyn Isolation>,
    /// None: this muster has no cluster to ask.
    kubernetes: Option<(ForDrill, Arc<dyn Isolation>)>,
}

impl Isolations {
    pub fn local(local: Arc<dyn Isolation>) -> Self {
        Self { local, kubernetes: None }
    }

    /// `for_drill` makes the one that a drill names, `past` releases what earlier runs made in whatever cluster.
    #[must_use]
    pub fn and_kubernetes(self, for_drill: ForDrill, past: Arc<dyn Isolation>) -> Self {
        Self { kubernetes: Some((for_drill, past)), ..self }
    }

    pub fn of(&self, asked: &spec::Isolation) -> Result<Arc<dyn Isolation>, Stop> {
        match (asked, &self.kubernetes) {
            (spec::Isolation::Local(_), _) => Ok(Arc::clone(&self.local)),
            (spec::Isolation::Kubernetes(asked), Some((for_drill, _))) => Ok(for_drill(asked)),
            (spec::Isolation::Kubernetes(_), None) => Err(Stop::internal("this muster knows no cluster")),
        }
    }

    /// Preflight writes its name before anything is made.
    pub(super) fn of_run(&self, state: &State) -> Arc<dyn Isolation> {
        let name = state.template.as_ref().map(|(name, _)| name.as_str());
        match &self.kubernetes {
            Some((_, past)) if name == Some(past.name()) => Arc::clone(past),
            Some(_) | None => Arc::clone(&self.local),
        }
    }

    pub(super) fn all(&self) -> Vec<Arc<dyn Isolation>> {
        let past = self.kubernetes.iter().map(|(_, past)| Arc::clone(past));
        std::iter::once(Arc::clone(&self.local)).chain(past).collect()
    }
}
