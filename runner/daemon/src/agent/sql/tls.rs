//! The way to the database: a Unix socket, and TLS over it in which both sides show a certificate of the run's own authority.
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use drill::agent::ClientIdentity;
use plugin_host::backend::Error;
use postgres_protocol::message::frontend;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::fault::host;

pub(super) const CONNECT: Duration = Duration::from_secs(10);
/// Read from the socket at once; by itself, rustls asks for 4 KiB each time.
const READ: usize = 128 << 10;

pub(super) type Stream = TlsStream<BufReader<UnixStream>>;

/// Where the database is, and what both sides must prove.
#[derive(Clone)]
pub(in crate::agent) struct Door {
    socket: PathBuf,
    role: String,
    server: ServerName<'static>,
    config: Arc<ClientConfig>,
}

impl Door {
    pub(in crate::agent) fn new(socket: &Path, identity: &ClientIdentity) -> Result<Self, Error> {
        let bad = |what: &str| host(format!("the lease's {what} cannot be used"));
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(identity.ca.as_bytes()) {
            roots.add(authority.map_err(|_| bad("authority"))?).map_err(|_| bad("authority"))?;
        }
        let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| bad("certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(identity.key.0.expose().as_bytes()).map_err(|_| bad("key"))?;
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|_| bad("TLS settings"))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|_| bad("certificate or key"))?;
        let server = ServerName::try_from(identity.server_name.clone()).map_err(|_| bad("server name"))?;
        Ok(Self { socket: socket.to_owned(), role: identity.role.clone(), server, config: Arc::new(config) })
    }

    pub(super) fn role(&self) -> &str {
        &self.role
    }

    /// Connects and shakes hands; nothing of the database's own protocol but the request for TLS has been sent.
    pub(super) async fn enter(&self) -> Result<Stream, Error> {
        tokio::time::timeout(CONNECT, self.knock()).await.map_err(|_| {
            host(format!("the database did not answer the TLS handshake within {} s", CONNECT.as_secs()))
        })?
    }

    async fn knock(&self) -> Result<Stream, Error> {
        let failed = |what: &str, error: &dyn std::fmt::Display| host(format!("{what}: {error}"));
        let mut stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|error| failed("failed to connect to the database's socket", &error))?;
        let mut request = BytesMut::new();
        frontend::ssl_request(&mut request);
        stream.write_all(&request).await.map_err(|error| failed("failed to ask the database for TLS", &error))?;
        // Exactly one byte: whatever came with it would have been sent by somebody who has not shown a certificate.
        let answer = stream.read_u8().await.map_err(|error| failed("the database did not answer", &error))?;
        if answer != b'S' {
            return Err(host("the database offers no TLS"));
        }
        TlsConnector::from(Arc::clone(&self.config))
            .connect(self.server.clone(), BufReader::with_capacity(READ, stream))
            .await
            .map_err(|error| failed("the TLS handshake with the database failed", &error))
    }

    /// Asks the server to cancel what the connection with this key is doing, and waits until the request was taken.
    pub(super) async fn cancel(&self, (process, secret): (i32, i32)) -> Result<(), Error> {
        let mut stream = self.enter().await?;
        let mut request = BytesMut::new();
        frontend::cancel_request(process, secret, &mut request);
        let sent = async {
            stream.write_all(&request).await?;
            stream.flush().await?;
            // The server closes without a word when the signal is on its way.
            stream.read(&mut [0; 1]).await
        };
        match tokio::time::timeout(CONNECT, sent).await {
            Ok(_) => Ok(()),
            Err(_) => Err(host("the database did not take the request to cancel")),
        }
    }
}
