//! libpq's sslmodes on rustls. What is not supported is refused, never ignored.
use std::path::{Path, PathBuf};
use std::sync::Arc;

use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::conninfo::ConnInfo;

/// The mode for the connection, and how to do TLS where it does.
pub(super) fn of(info: &ConnInfo) -> Result<(SslMode, MakeRustlsConnect), Stop> {
    for unsupported in ["sslcrl", "sslcrldir"] {
        if info.get(unsupported).is_some() {
            return Err(refuse(format!("`{unsupported}` is not supported")));
        }
    }
    if info.get("gssencmode") == Some("require") {
        return Err(refuse("`gssencmode=require` is not supported: muster speaks TLS, not GSSAPI"));
    }
    let mode = info.get("sslmode").unwrap_or("prefer");
    let roots = info.file("sslrootcert", "root.crt");
    let (wire, verify) = match mode {
        "disable" => (SslMode::Disable, Verify::Nothing),
        "allow" | "prefer" => (SslMode::Prefer, Verify::Nothing),
        // With a root certificate, libpq makes `require` a `verify-ca`.
        "require" if roots.is_none() => (SslMode::Require, Verify::Nothing),
        "require" | "verify-ca" => (SslMode::Require, Verify::Chain),
        "verify-full" => (SslMode::Require, Verify::ChainAndName),
        other => return Err(refuse(format!("sslmode `{}` does not exist", other.escape_debug()))),
    };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match verify {
        Verify::Nothing => Arc::new(Lenient { provider: provider.clone(), chain: None }),
        Verify::Chain => Arc::new(Lenient { provider: provider.clone(), chain: Some(chain(roots, &provider)?) }),
        Verify::ChainAndName => chain(roots, &provider)?,
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .or_stop(Reason::Internal, "setting up TLS")?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let certificate = info.file("sslcert", "postgresql.crt");
    let key = info.file("sslkey", "postgresql.key");
    let config = match (certificate, key) {
        (Some(certificate), Some(key)) if mode != "disable" => {
            let chain = certificates(&certificate)?;
            let key = PrivateKeyDer::from_pem_file(&key).map_err(|error| {
                let problem = format!("reading the client key `{}`: {error}", key.display());
                refuse(problem).advise("an unencrypted PEM key is needed")
            })?;
            config.with_client_auth_cert(chain, key).or_stop(Reason::Internal, "using the client certificate")?
        }
        _ => config.with_no_client_auth(),
    };
    Ok((wire, MakeRustlsConnect::new(config)))
}

enum Verify {
    Nothing,
    Chain,
    ChainAndName,
}

fn refuse(why: impl Into<String>) -> Stop {
    Stop::new(Reason::Internal, why)
}

fn chain(roots: Option<PathBuf>, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, Stop> {
    let Some(path) = roots.filter(|path| path != Path::new("system")) else {
        return Err(refuse("the server's certificate is to be verified, and no root certificate is given")
            .advise("give a PEM file: sslrootcert=/etc/ssl/certs/ca-certificates.crt holds this system's"));
    };
    let mut store = RootCertStore::empty();
    let (added, _) = store.add_parsable_certificates(certificates(&path)?);
    if added == 0 {
        return Err(refuse(format!("`{}` holds no certificate", path.display())));
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider.clone())
        .build()
        .or_stop(Reason::Internal, "setting up TLS")
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Stop> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    read.map_err(|error| refuse(format!("reading certificates from `{}`: {error}", path.display())))
}

/// What libpq does below `verify-full`: the name is not looked at, and without a chain neither is who signed.
#[derive(Debug)]
struct Lenient {
    provider: Arc<CryptoProvider>,
    chain: Option<Arc<WebPkiServerVerifier>>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is the last thing that is checked, after the chain was found good.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
