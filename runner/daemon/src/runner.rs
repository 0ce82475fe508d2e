//! What the dispatcher runs drills with: the executor, on this daemon's ports.
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use drill::ledger::{Owner, Trigger};
use drill::spec::{Drill, Place};
use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;

use crate::dispatcher::{Job, Runner};
use crate::executor::{Cancel, Ended, Observer, Ports, Request, execute, load_checks};
use crate::guard::Guarded;

pub struct DrillRunner {
    pub ports: Ports,
    pub evidence_directory: PathBuf,
    pub owner: Owner,
    /// Asked before each claim.
    pub guarded: Guarded,
}

#[async_trait]
impl Runner for DrillRunner {
    /// Of a drill that exercises each source: one run after the other, of which the worst counts.
    async fn run(&self, job: Job, observer: Arc<dyn Observer>, cancel: Cancel) -> Result<Ended, Stop> {
        let places = match job.trigger {
            Trigger::SelfTest { .. } => vec![None],
            Trigger::Command | Trigger::Schedule { .. } | Trigger::Operator { .. } => job.drill.runs(),
        };
        let mut worst: Option<Ended> = None;
        for place in places {
            if cancel.is_asked() && worst.is_some() {
                break;
            }
            // The slot of a schedule is claimed once.
            let trigger = match &worst {
                None => job.trigger.clone(),
                Some(_) => Trigger::Operator { by: "the drill itself, which exercises each source".to_owned() },
            };
            let ended = self.run_one(&job, trigger, place, Arc::clone(&observer), cancel.clone()).await;
            worst = match (worst, ended) {
                (None, ended) => Some(ended?),
                (Some(worst), Ok(ended)) if ended.summary.verdict > worst.summary.verdict => Some(ended),
                (Some(worst), Ok(_)) => Some(worst),
                (Some(worst), Err(stop)) => {
                    tracing::error!(drill = job.name().as_str(), %stop, "a further source was not drilled");
                    Some(worst)
                }
            };
        }
        worst.ok_or_else(|| Stop::internal("the drill has no source"))
    }
}

impl DrillRunner {
    async fn run_one(
        &self,
        job: &Job,
        trigger: Trigger,
        only: Option<Place>,
        observer: Arc<dyn Observer>,
        cancel: Cancel,
    ) -> Result<Ended, Stop> {
        self.guarded.may_begin()?;
        let drill = Drill::clone(&job.drill);
        let directory = job.file.parent().unwrap_or(Path::new("/")).to_owned();
        // Plugins are read anew for each run: their digests are pinned by the drill file.
        let loading = tokio::task::spawn_blocking(move || load_checks(&drill, &directory));
        let checks = loading.await.or_stop(Reason::Internal, "reading the drill's plugins")??;
        let request = Request {
            drill: Drill::clone(&job.drill),
            drill_file: job.file.clone(),
            checks,
            evidence_directory: self.evidence_directory.clone(),
            owner: self.owner.clone(),
            trigger,
            only,
        };
        Box::pin(execute(request, &self.ports, observer, cancel)).await
    }
}
