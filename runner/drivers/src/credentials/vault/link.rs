//! One connection to a Vault: the drill's CA is the only root, every request has an end, and the token is in no text.
use std::path::Path;
use std::time::Duration;

use drill::secret::Secret;
use drill::spec::{Vault, VaultAuth};
use drill::stop::chain;
use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Identity, Url};
use rustify::endpoint::Endpoint;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::fault::Fault;

const CONNECT: Duration = Duration::from_secs(5);
/// A list of a run's leases is far below it.
const MAX_ANSWER: usize = 1 << 20;
const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");
const TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
const REQUEST: HeaderName = HeaderName::from_static("x-vault-request");

pub(super) struct Link {
    http: reqwest::Client,
    base: String,
    namespace: Option<HeaderValue>,
}

/// What stands around every answer.
#[derive(Debug, Deserialize)]
pub(super) struct Answer<T> {
    #[serde(default = "Option::default")]
    pub data: Option<T>,
    #[serde(default)]
    pub auth: Option<Auth>,
    #[serde(default)]
    pub lease_id: String,
    /// Seconds.
    #[serde(default)]
    pub lease_duration: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Auth {
    pub client_token: drill::agent::SecretText,
    /// Seconds; 0 is without end.
    pub lease_duration: u64,
    pub renewable: bool,
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<String>,
}

impl<T> Default for Answer<T> {
    fn default() -> Self {
        Self { data: None, auth: None, lease_id: String::new(), lease_duration: 0 }
    }
}

impl Link {
    /// Reads the CA, and the client's certificate where there is one.
    pub(super) async fn new(vault: &Vault) -> Result<Self, Fault> {
        let unprepared = |what: &str, error: &dyn std::error::Error| {
            Fault::Unprepared(format!("{what} cannot be used: {}", chain(error)))
        };
        let roots = Certificate::from_pem_bundle(&read("ca", &vault.ca).await?);
        let roots = roots.map_err(|error| unprepared("credentials.vault.ca", &error))?;
        if roots.is_empty() {
            return Err(Fault::Unprepared(format!("{} holds no certificate", vault.ca.display())));
        }
        let mut builder = reqwest::Client::builder()
            .tls_certs_only(roots)
            .https_only(true)
            // A standby that redirects would have the token sent to whomever it names.
            .redirect(Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT)
            .user_agent(concat!("muster/", env!("CARGO_PKG_VERSION")));
        if let VaultAuth::Certificate { certificate, key, .. } = &vault.auth {
            let mut pem = read("certificate", certificate).await?;
            pem.push(b'\n');
            pem.extend_from_slice(&read("key", key).await?);
            let identity = Identity::from_pem(&pem);
            builder = builder.identity(identity.map_err(|error| unprepared("the client certificate", &error))?);
        }
        let http = builder.build().map_err(|error| unprepared("TLS", &error))?;
        let namespace = vault.namespace.as_deref().map(HeaderValue::from_str).transpose();
        let namespace = namespace.map_err(|error| unprepared("credentials.vault.namespace", &error))?;
        Ok(Self { http, base: vault.address.clone(), namespace })
    }

    /// One try.
    pub(super) async fn send<E: Endpoint>(
        &self,
        endpoint: &E,
        token: Option<&Secret>,
        patience: Duration,
    ) -> Result<Answer<E::Response>, Fault> {
        let request = self.request(endpoint, token)?;
        let (status, body) =
            tokio::time::timeout(patience, self.exchange(request)).await.map_err(|_| Fault::TimedOut)??;
        if !(200..=208).contains(&status) {
            let said = serde_json::from_slice::<Errors>(&body).map(|body| body.errors);
            return Err(Fault::of(status, &said.unwrap_or_default()));
        }
        if body.is_empty() {
            return Ok(Answer::default());
        }
        // The error's own text would repeat what it read.
        serde_json::from_slice(&body)
            .map_err(|error| Fault::Garbled(format!("JSON of another form, at byte {}", error.column())))
    }

    fn request<E: Endpoint>(&self, endpoint: &E, token: Option<&Secret>) -> Result<reqwest::Request, Fault> {
        let unfit = |error: String| Fault::Unprepared(format!("the request cannot be made: {error}"));
        let request = endpoint.request(&self.base).map_err(|error| unfit(error.to_string()))?;
        let mut request = reqwest::Request::try_from(request).map_err(|error| unfit(error.to_string()))?;
        let path = format!("/v1{}", request.url().path());
        request.url_mut().set_path(&path);
        let headers = request.headers_mut();
        headers.insert(REQUEST, HeaderValue::from_static("true"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(namespace) = &self.namespace {
            headers.insert(NAMESPACE, namespace.clone());
        }
        if let Some(token) = token {
            let token = HeaderValue::from_str(token.expose());
            let mut token = token.map_err(|_| Fault::Unprepared("the token holds what no token holds".to_owned()))?;
            token.set_sensitive(true);
            headers.insert(TOKEN, token);
        }
        Ok(request)
    }

    /// What came back may hold a password or a token, and is zeroed.
    async fn exchange(&self, request: reqwest::Request) -> Result<(u16, Zeroizing<Vec<u8>>), Fault> {
        let failed = |error: reqwest::Error| {
            if error.is_timeout() { Fault::TimedOut } else { Fault::Unreachable(chain(&error.without_url())) }
        };
        let mut answer = self.http.execute(request).await.map_err(failed)?;
        let status = answer.status().as_u16();
        let mut body = Zeroizing::new(Vec::with_capacity(16 << 10));
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(Fault::Garbled("it is longer than 1 MiB".to_owned()));
            }
            body.extend_from_slice(&chunk);
        }
        Ok((status, body))
    }
}

/// Such as `PUT sys/leases/renew/…`, for people.
pub(super) fn told<E: Endpoint>(endpoint: &E) -> String {
    format!("{:?} {}", endpoint.method(), endpoint.path())
}

pub(super) async fn read(what: &str, path: &Path) -> Result<Zeroizing<Vec<u8>>, Fault> {
    let read = tokio::fs::read(path).await.map(Zeroizing::new);
    read.map_err(|error| Fault::Unprepared(format!("the {what} in {} cannot be read: {error}", path.display())))
}

/// Whether `address` is one that requests can be made for.
pub(super) fn check_address(address: &str) -> Result<(), Fault> {
    match Url::parse(address) {
        Ok(url) if url.scheme() == "https" && url.host_str().is_some() => Ok(()),
        _ => Err(Fault::Unprepared(format!("`{address}` is no https address"))),
    }
}
