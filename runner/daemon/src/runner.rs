//! What the dispatcher runs drills with: the executor, on this daemon's ports.
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use drill::ledger::Owner;
use drill::spec::Drill;
use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;

use crate::dispatcher::{Job, Runner};
use crate::executor::{Cancel, Ended, Observer, Ports, Request, execute, load_checks};

pub struct DrillRunner {
    pub ports: Ports,
    pub evidence_directory: PathBuf,
    pub owner: Owner,
}

#[async_trait]
impl Runner for DrillRunner {
    async fn run(&self, job: Job, observer: Arc<dyn Observer>, cancel: Cancel) -> Result<Ended, Stop> {
        let drill = Drill::clone(&job.drill);
        let directory = job.file.parent().unwrap_or(Path::new("/")).to_owned();
        // Plugins are read anew for each run: their digests are pinned by the drill file.
        let loading = tokio::task::spawn_blocking(move || load_checks(&drill, &directory));
        let checks = loading.await.or_stop(Reason::Internal, "reading the drill's plugins")??;
        let request = Request {
            drill: Drill::clone(&job.drill),
            drill_file: job.file,
            checks,
            evidence_directory: self.evidence_directory.clone(),
            owner: self.owner.clone(),
            trigger: job.trigger,
            only: None,
        };
        Box::pin(execute(request, &self.ports, observer, cancel)).await
    }
}
