//! The engine and the embedded credentials against real servers.
#![expect(clippy::unimplemented, reason = "the sandbox of these tests isolates nothing")]
mod contract;
mod credentials;
mod host;
mod restore;
mod source;

use std::sync::Arc;
use std::time::Duration;

use drill::id::RunId;
use drill::port::{Engine as _, LeaseRequest, Progress, Restored, Server};
use drill::spec::{Fidelity, Postgresql};
use drill::stop::Stop;
use drivers::engine::postgresql::PostgresqlEngine;

use crate::host::HostSandbox;
use crate::source::Backup;

/// A server inside a sandbox, before the restore.
pub(crate) struct Running {
    pub(crate) server: Arc<dyn Server>,
}

pub(crate) async fn serve(backup: &Backup, jobs: u32) -> Running {
    let wanted = Postgresql { major: None, jobs, fidelity: Fidelity::Fast, settings: [].into() };
    let plan = PostgresqlEngine::new().plan(&backup.manifest, &wanted).await.expect("the backup fits");
    let sandbox = HostSandbox::prepare(&plan.inputs()).await;
    for (path, contents) in &backup.files {
        sandbox.put(&format!("backup/{path}"), contents);
    }
    let server = plan.serve(sandbox.clone()).await.expect("the server starts");
    Running { server }
}

pub(crate) async fn restored(backup: &Backup, jobs: u32) -> (Running, Restored) {
    let running = serve(backup, jobs).await;
    let restored = running.server.restore(&backup.manifest, &Silent).await.expect("the restore works");
    (running, restored)
}

pub(crate) async fn refused(backup: &Backup, jobs: u32) -> Stop {
    let running = serve(backup, jobs).await;
    let stop = running.server.restore(&backup.manifest, &Silent).await.expect_err("the restore fails");
    running.server.stop().await.expect("it stops");
    stop
}

pub(crate) struct Silent;

impl Progress for Silent {
    fn set(&self, _: u64, _: Option<u64>, _: &str) {}
}

pub(crate) fn request(run: &str, databases: &[&str], ttl: Duration) -> LeaseRequest {
    let run: RunId = run.parse().expect("a run");
    let not_after = jiff::Timestamp::now() + jiff::SignedDuration::from_mins(10);
    LeaseRequest { run, databases: databases.iter().map(|name| (*name).to_owned()).collect(), ttl, not_after }
}

/// One cell.
pub(crate) async fn ask(server: &dyn Server, database: &str, query: &str) -> String {
    let rows = server.admin(database, query).await.expect("an answer");
    rows.first().and_then(|row| row[0].clone()).unwrap_or_else(|| "NULL".to_owned())
}
