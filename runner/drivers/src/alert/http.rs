//! One request to a destination: bounded in time and size, no redirects, certificates checked, and no secret in an error.
use std::time::Duration;

use drill::stop::{Stop, chain};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Method, Request, Url};

/// To a connection, TLS included.
const CONNECT: Duration = Duration::from_secs(5);
/// From the first byte sent to the last one that is read.
const WHOLE: Duration = Duration::from_secs(15);
/// Bytes of an answer that are read; what it says beyond them nobody needs.
const MAX_ANSWER: usize = 4_096;

pub(super) struct Destination {
    name: String,
    url: Url,
    client: Client,
}

impl Destination {
    /// `beneath` is added to the path of the URL. With `ca` (PEM) only those authorities may vouch for it.
    pub(super) fn new(name: &str, url: &str, beneath: &str, ca: Option<&[u8]>) -> Result<Self, Stop> {
        Self::within(name, url, beneath, ca, WHOLE)
    }

    pub(super) fn within(
        name: &str,
        url: &str,
        beneath: &str,
        ca: Option<&[u8]>,
        whole: Duration,
    ) -> Result<Self, Stop> {
        let refused = |why: String| {
            let advice = "an alert's destination is an `http` or `https` URL with a host";
            Stop::internal(format!("alerts cannot be sent to `{name}`: {why}")).advise(advice)
        };
        // The parser's own words do not repeat the URL, which may hold a password.
        let mut url = Url::parse(url).map_err(|error| refused(format!("its URL cannot be read: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(refused("its URL has another form".to_owned()));
        }
        if !beneath.is_empty() {
            url.set_path(&format!("{}{beneath}", url.path().trim_end_matches('/')));
        }
        let builder = Client::builder()
            .redirect(Policy::none())
            .connect_timeout(CONNECT)
            .timeout(whole)
            .user_agent(concat!("muster/", env!("CARGO_PKG_VERSION")));
        // Without TLS the system's certificates are not needed, and some machines have none.
        let builder = match ca {
            Some(ca) => builder.tls_certs_only(authorities(ca).map_err(refused)?),
            None if url.scheme() == "http" => builder.tls_certs_only([]),
            None => builder,
        };
        let client = builder.build().map_err(|error| {
            refused(format!("no TLS client can be made: {}", chain(&error)))
                .advise("install the system's certificates, or name a file of them in SSL_CERT_FILE")
        })?;
        Ok(Self { name: name.to_owned(), url, client })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// JSON that may wait for its headers.
    pub(super) fn post(&self, body: Vec<u8>) -> Request {
        let mut request = Request::new(Method::POST, self.url.clone());
        request.headers_mut().insert("content-type", reqwest::header::HeaderValue::from_static("application/json"));
        *request.body_mut() = Some(body.into());
        request
    }

    /// Whatever is not a success is an error, with the beginning of what the other side says about it.
    pub(super) async fn send(&self, request: Request) -> Result<(), Stop> {
        let failed = |error: reqwest::Error| {
            // The URL may hold a password or a token.
            let error = error.without_url();
            let what = if error.is_timeout() { "no answer in time".to_owned() } else { chain(&error) };
            self.stop(&what)
        };
        let mut answer = self.client.execute(request).await.map_err(failed)?;
        let status = answer.status();
        let mut body = Vec::new();
        // An answer that breaks off after its status has said all that counts, if that was a success.
        while body.len() < MAX_ANSWER {
            match answer.chunk().await {
                Ok(Some(chunk)) => body.extend_from_slice(&chunk[..chunk.len().min(MAX_ANSWER - body.len())]),
                Ok(None) => break,
                Err(_) if status.is_success() => break,
                Err(error) => return Err(failed(error)),
            }
        }
        if status.is_success() {
            return Ok(());
        }
        let said: String = String::from_utf8_lossy(&body).chars().take(200).collect();
        let said = said.trim();
        Err(self.stop(&if said.is_empty() { format!("{status}") } else { format!("{status}: {said}") }))
    }

    fn stop(&self, what: &str) -> Stop {
        let scheme_and_host = (self.url.scheme(), self.url.host_str().unwrap_or_default());
        let port = self.url.port().map(|port| format!(":{port}")).unwrap_or_default();
        let (scheme, host) = scheme_and_host;
        Stop::internal(format!("alerts to `{}` ({scheme}://{host}{port}): {what}", self.name))
    }
}

fn authorities(pem: &[u8]) -> Result<Vec<Certificate>, String> {
    match Certificate::from_pem_bundle(pem) {
        Ok(found) if found.is_empty() => Err("its `ca` holds no certificate".to_owned()),
        Ok(found) => Ok(found),
        Err(error) => Err(format!("its `ca` cannot be read: {}", chain(&error))),
    }
}
