//! The one file that names a driver.
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use drill::config::{self, ClusterLease, Production};
use drill::port::{Alerts, Credentials, Guard};
use drill::spec;
use drill::stop::{OrStop, Stop};
use drill::unit;
use drill::verdict::Reason;
use drivers::alert::alertmanager::Alertmanager;
use drivers::alert::webhook::Webhook;
use drivers::artifact::file::FileArtifacts;
use drivers::credentials::embedded::Embedded;
use drivers::credentials::vault::VaultCredentials;
use drivers::engine::postgresql::PostgresqlEngine;
use drivers::guard::kubernetes::KubernetesGuard;
use drivers::isolation::kubernetes::KubernetesState;
use drivers::isolation::local::{LocalConfig, LocalIsolation};
use drivers::store::sqlite::{Mode, SqliteStore};

use crate::executor::{CredentialsFor, Isolations, LiveRuns, Ports};
use crate::secrets;

/// Everything on this machine: backups in its file system, bubblewrap, PostgreSQL, SQLite.
pub fn local(state_directory: &Path) -> Result<Ports, Stop> {
    let program = std::env::current_exe().or_stop(Reason::Internal, "finding muster's own program")?;
    let config = LocalConfig::new(state_directory.to_owned(), program);
    Ok(Ports {
        artifacts: Arc::new(FileArtifacts),
        isolations: isolations(config)?,
        engine: Arc::new(PostgresqlEngine::new()),
        credentials: credentials(),
        store: Arc::new(SqliteStore::open(&state_directory.join("muster.db"), Mode::ReadWrite)?),
        state_directory: state_directory.to_owned(),
        compiled: Some(state_directory.join("plugins")),
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
            let mut vault = (**vault).clone();
            for file in vault.files() {
                *file = secrets::expand(file)?;
            }
            Ok(Arc::new(VaultCredentials::new(vault)?) as Arc<dyn Credentials>)
        }
    })
}

fn isolations(config: LocalConfig) -> Result<Isolations, Stop> {
    let clusters = KubernetesState::open(&config.state_root)?;
    let past = Arc::new(clusters.of_the_past());
    let local = Isolations::local(Arc::new(LocalIsolation::new(config)?));
    Ok(local.and_kubernetes(Arc::new(move |asked| Arc::new(clusters.isolation(asked))), past))
}

/// The record that lets one muster at a time work.
pub async fn guard(lease: &ClusterLease) -> Result<Arc<dyn Guard>, Stop> {
    Ok(Arc::new(KubernetesGuard::new(lease).await?))
}

/// Bytes of a file of authorities: more than a whole bundle of public ones has.
const MAX_CA: u64 = 1 << 20;

/// Where alerts go.
pub fn destinations(alerts: &config::Alerts) -> Result<Vec<Arc<dyn Alerts>>, Stop> {
    let mut destinations: Vec<Arc<dyn Alerts>> = Vec::new();
    for webhook in &alerts.webhooks {
        let secret = secrets::read(&webhook.secret, &format!("the secret of webhook `{}`", webhook.name))?;
        let ca = ca(&webhook.name, webhook.ca.as_deref())?;
        destinations.push(Arc::new(Webhook::new(&webhook.name, &webhook.url, secret, ca.as_deref())?));
    }
    for alertmanager in &alerts.alertmanagers {
        let ca = ca(&alertmanager.name, alertmanager.ca.as_deref())?;
        destinations.push(Arc::new(Alertmanager::new(&alertmanager.name, &alertmanager.url, ca.as_deref())?));
    }
    Ok(destinations)
}

/// The authorities that a destination names.
pub fn ca(destination: &str, file: Option<&Path>) -> Result<Option<Vec<u8>>, Stop> {
    let Some(file) = file else { return Ok(None) };
    let file = secrets::expand(file)?;
    let tried = format!("alerts to `{destination}`: reading {}", file.display());
    let mut bytes = Vec::new();
    let read = File::open(&file).and_then(|file| file.take(MAX_CA + 1).read_to_end(&mut bytes));
    let read = match read.or_stop(Reason::Internal, &tried) {
        Ok(_) if bytes.len() as u64 > MAX_CA => {
            Err(Stop::internal(format!("{tried}: it has more than {}", unit::size(MAX_CA))))
        }
        Ok(_) => Ok(Some(bytes)),
        Err(stop) => Err(stop),
    };
    read.map_err(|stop| stop.advise("name a file of PEM certificates in `ca: { file: … }`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_authorities_has_a_bound() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("ca.pem");
        let write = |bytes: u64| {
            std::fs::write(&path, vec![b'x'; usize::try_from(bytes).expect("few")]).expect("written");
            ca("pager", Some(&path))
        };
        assert_eq!(write(MAX_CA).expect("read").map(|bytes| bytes.len() as u64), Some(MAX_CA));
        let stop = write(MAX_CA + 1).expect_err("too long");
        assert!(stop.message.contains("pager") && stop.message.contains("more than"), "{stop:?}");
        // What never ends is read no further.
        let stop = ca("pager", Some(Path::new("/dev/zero"))).expect_err("endless");
        assert!(stop.message.contains("more than") && stop.advice.is_some(), "{stop:?}");
    }
}
