//! The one file that names a driver.
use std::path::Path;
use std::sync::Arc;

use drill::config;
use drill::port::Alerts;
use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;
use drivers::alert::alertmanager::Alertmanager;
use drivers::alert::webhook::Webhook;
use drivers::artifact::file::FileArtifacts;
use drivers::credentials::embedded::Embedded;
use drivers::engine::postgresql::PostgresqlEngine;
use drivers::isolation::kubernetes::KubernetesState;
use drivers::isolation::local::{LocalConfig, LocalIsolation};
use drivers::store::sqlite::{Mode, SqliteStore};

use crate::executor::{Isolations, LiveRuns, Ports};
use crate::secrets;

/// Everything on this machine: backups in its file system, bubblewrap, PostgreSQL, SQLite.
pub fn local(state_directory: &Path) -> Result<Ports, Stop> {
    let program = std::env::current_exe().or_stop(Reason::Internal, "finding muster's own program")?;
    let config = LocalConfig::new(state_directory.to_owned(), program);
    Ok(Ports {
        artifacts: Arc::new(FileArtifacts),
        isolations: isolations(config)?,
        engine: Arc::new(PostgresqlEngine::new()),
        credentials: Arc::new(Embedded::new()),
        store: Arc::new(SqliteStore::open(&state_directory.join("muster.db"), Mode::ReadWrite)?),
        state_directory: state_directory.to_owned(),
        evidence_key: None,
        approved_template: None,
        live: LiveRuns::default(),
    })
}

fn isolations(config: LocalConfig) -> Result<Isolations, Stop> {
    let clusters = KubernetesState::open(&config.state_root)?;
    let past = Arc::new(clusters.of_the_past());
    let local = Isolations::local(Arc::new(LocalIsolation::new(config)?));
    Ok(local.and_kubernetes(Arc::new(move |asked| Arc::new(clusters.isolation(asked))), past))
}

/// Where alerts go.
pub fn destinations(alerts: &config::Alerts) -> Result<Vec<Arc<dyn Alerts>>, Stop> {
    let mut destinations: Vec<Arc<dyn Alerts>> = Vec::new();
    for webhook in &alerts.webhooks {
        let secret = secrets::read(&webhook.secret, &format!("the secret of webhook `{}`", webhook.name))?;
        destinations.push(Arc::new(Webhook::new(&webhook.name, &webhook.url, secret)?));
    }
    for alertmanager in &alerts.alertmanagers {
        destinations.push(Arc::new(Alertmanager::new(&alertmanager.name, &alertmanager.url)?));
    }
    Ok(destinations)
}
