//! The one file that names a driver.
use std::path::Path;
use std::sync::Arc;

use drill::config::{self, Production};
use drill::port::{Alerts, Credentials};
use drill::spec;
use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;
use drivers::alert::alertmanager::Alertmanager;
use drivers::alert::webhook::Webhook;
use drivers::artifact::file::FileArtifacts;
use drivers::credentials::embedded::Embedded;
use drivers::credentials::vault::VaultCredentials;
use drivers::engine::postgresql::PostgresqlEngine;
use drivers::isolation::local::{LocalConfig, LocalIsolation};
use drivers::store::sqlite::{Mode, SqliteStore};

use crate::executor::{CredentialsFor, LiveRuns, Ports};
use crate::secrets;

/// Everything on this machine: backups in its file system, bubblewrap, PostgreSQL, SQLite.
pub fn local(state_directory: &Path) -> Result<Ports, Stop> {
    let program = std::env::current_exe().or_stop(Reason::Internal, "finding muster's own program")?;
    let config = LocalConfig::new(state_directory.to_owned(), program);
    Ok(Ports {
        artifacts: Arc::new(FileArtifacts),
        isolation: Arc::new(LocalIsolation::new(config)?),
        engine: Arc::new(PostgresqlEngine::new()),
        credentials: credentials(),
        store: Arc::new(SqliteStore::open(&state_directory.join("muster.db"), Mode::ReadWrite)?),
        state_directory: state_directory.to_owned(),
        evidence_key: None,
        approved_template: None,
        production: Production::default(),
        live: LiveRuns::default(),
    })
}

fn credentials() -> CredentialsFor {
    let embedded = Arc::new(Embedded::new());
    Arc::new(move |wanted| match wanted {
        spec::Credentials::Embedded { .. } => Ok(Arc::clone(&embedded) as Arc<dyn Credentials>),
        spec::Credentials::Vault(vault) => {
            Ok(Arc::new(VaultCredentials::new((**vault).clone())?) as Arc<dyn Credentials>)
        }
    })
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
