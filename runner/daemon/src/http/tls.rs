//! The certificate that the server shows, read anew when its files change.
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use drill::config::Tls;
use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);

pub(super) struct Certificate {
    files: Tls,
    current: RwLock<Arc<ServerConfig>>,
}

/// When a file was changed, and its size.
type Seen = [Option<(SystemTime, u64)>; 2];

impl Certificate {
    pub(super) fn load(files: &Tls) -> Result<Self, Stop> {
        Ok(Self { files: files.clone(), current: RwLock::new(Arc::new(read(files)?)) })
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)).into()
    }

    /// Follows the files and never ends. What cannot be used is said, and the last good certificate stays.
    pub(super) async fn follow(&self) {
        let mut seen = self.seen();
        loop {
            tokio::time::sleep(LOOK).await;
            let now = self.seen();
            if now == seen {
                continue;
            }
            seen = now;
            match read(&self.files) {
                Ok(config) => {
                    *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
                    tracing::info!(certificate = %self.files.certificate.display(), "a new certificate is in use");
                }
                Err(stop) => {
                    tracing::error!(%stop, "the certificate changed and cannot be used; the last good one stays");
                }
            }
        }
    }

    fn seen(&self) -> Seen {
        let seen = |path: &Path| path.metadata().and_then(|found| Ok((found.modified()?, found.len()))).ok();
        [seen(&self.files.certificate), seen(&self.files.key)]
    }
}

fn read(files: &Tls) -> Result<ServerConfig, Stop> {
    let tried = |what: &str, path: &Path| format!("reading the {what} of `http.tls` from {}", path.display());
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .or_stop(Reason::Internal, tried("certificate", &files.certificate))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).or_stop(Reason::Internal, tried("key", &files.key))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .or_stop(Reason::Internal, format!("using {} as the server's certificate", files.certificate.display()))
        .map_err(|stop| {
            stop.advise("`http.tls` names a PEM file with the certificates, the leaf first, and one with its key")
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
