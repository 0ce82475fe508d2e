//! A certificate authority for one run: the only root that either side trusts. Its key never leaves the runner's memory.
//!
//! ECDSA P-256, because PostgreSQL on OpenSSL 3.0 does not load rcgen's Ed25519 keys. Logins use the `cert` method: there is no
//! password and no SCRAM exchange, so SCRAM's channel binding does not apply; the client's signature over the TLS 1.3
//! handshake binds the login to the channel.
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use drill::agent::{ClientIdentity, SecretText};
use drill::secret::Secret;
use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use time::OffsetDateTime;

/// No run takes longer.
const LIFE: Duration = Duration::from_hours(14 * 24);
/// For clocks that are set back a little.
const BACKDATED: i64 = 60;

pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    server_name: String,
}

/// A certificate and its key, as PEM.
pub struct Certified {
    pub certificate: String,
    pub key: Secret,
}

impl Authority {
    pub fn new(server_name: &str) -> Result<Self, Stop> {
        let mut params = params("muster run CA", LIFE)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, key()?).or_stop(Reason::Internal, "making the run's CA")?;
        Ok(Self { issuer, server_name: server_name.to_owned() })
    }

    pub fn ca(&self) -> String {
        self.issuer.pem()
    }

    /// For the server itself, also where it is reached by this address.
    pub fn server(&self, address: Option<IpAddr>) -> Result<Certified, Stop> {
        let mut params = params(&self.server_name, LIFE)?;
        let name = self.server_name.as_str().try_into().or_stop(Reason::Internal, "naming the server's certificate")?;
        // Loopback is where a doorway of the local sandbox is.
        params.subject_alt_names =
            vec![rcgen::SanType::DnsName(name), rcgen::SanType::IpAddress(Ipv4Addr::LOCALHOST.into())];
        params.subject_alt_names.extend(address.map(rcgen::SanType::IpAddress));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params)
    }

    /// For whoever logs in as `role`; of no use `ttl` from now.
    pub fn client(&self, role: &str, ttl: Duration) -> Result<ClientIdentity, Stop> {
        let mut params = params(role, ttl)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certified = self.sign(params)?;
        Ok(ClientIdentity {
            role: role.to_owned(),
            server_name: self.server_name.clone(),
            ca: self.ca(),
            certificate: certified.certificate,
            key: SecretText(certified.key),
        })
    }

    fn sign(&self, mut params: CertificateParams) -> Result<Certified, Stop> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = key()?;
        let certificate = params.signed_by(&key, &self.issuer).or_stop(Reason::Internal, "signing a certificate")?;
        Ok(Certified { certificate: certificate.pem(), key: Secret::new(key.serialize_pem()) })
    }
}

fn key() -> Result<KeyPair, Stop> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).or_stop(Reason::Internal, "making a key")
}

/// rcgen's own default is valid until 4096.
fn params(common_name: &str, life: Duration) -> Result<CertificateParams, Stop> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let now = jiff::Timestamp::now().as_second();
    let seconds = i64::try_from(life.as_secs()).or_stop(Reason::Internal, "dating a certificate")?.max(1);
    let at =
        |second: i64| OffsetDateTime::from_unix_timestamp(second).or_stop(Reason::Internal, "dating a certificate");
    params.not_before = at(now - BACKDATED)?;
    params.not_after = at(now.saturating_add(seconds))?;
    Ok(params)
}

/// What a client needs to talk TLS 1.3 to the sandbox's server and to nobody else. An identity without a certificate logs in
/// without one.
pub fn client_config(identity: &ClientIdentity) -> Result<rustls::ClientConfig, String> {
    let mut roots = rustls::RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(identity.ca.as_bytes()).map_err(|error| format!("the CA: {error}"))?;
    roots.add(ca).map_err(|error| format!("the CA: {error}"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    let mut config = if identity.certificate.is_empty() {
        builder.with_no_client_auth()
    } else {
        let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| format!("the certificate: {error}"))?;
        let key = PrivateKeyDer::from_pem_slice(identity.key.0.expose().as_bytes())
            .map_err(|_| "the certificate's key is no PEM".to_owned())?;
        builder.with_client_auth_cert(chain, key).map_err(|error| error.to_string())?
    };
    // A resumed session would not show its certificate again.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_for_its_role_and_holds_its_authority() {
        let authority = Authority::new("db.sandbox.muster").expect("a CA");
        let role = format!("muster-{}", "r".repeat(52));
        let identity = authority.client(&role, Duration::from_mins(15)).expect("a certificate");
        assert_eq!((identity.role.as_str(), identity.server_name.as_str()), (role.as_str(), "db.sandbox.muster"));
        assert_eq!(identity.ca, authority.ca());
        client_config(&identity).expect("rustls takes what rcgen made");
        assert!(!format!("{identity:?}").contains("PRIVATE"));
    }
}
