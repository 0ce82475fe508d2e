//! A webhook: one signed POST for each change of an alert.
//!
//! The signature is over `TIMESTAMP.BODY`, so that who records a request cannot send it again later. A receiver checks it in
//! constant time, refuses an old timestamp, and knows what it has heard already by `X-Muster-Delivery`.
use std::time::Duration;

use async_trait::async_trait;
use drill::port::{Alerts, Delivery, Severity};
use drill::secret::Secret;
use drill::stop::Stop;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use reqwest::header::{HeaderMap, HeaderValue};
use serde::Serialize;
use sha2::Sha256;

use super::http::Destination;

pub const SIGNATURE: &str = "x-muster-signature";
pub const TIMESTAMP: &str = "x-muster-timestamp";
pub const DELIVERY: &str = "x-muster-delivery";

pub struct Webhook {
    destination: Destination,
    secret: Secret,
}

impl Webhook {
    /// `ca` is PEM: these authorities may vouch for it, and nobody else.
    pub fn new(name: &str, url: &str, secret: Secret, ca: Option<&[u8]>) -> Result<Self, Stop> {
        Ok(Self { destination: Destination::new(name, url, "", ca)?, secret })
    }

    async fn send_one(&self, delivery: &Delivery) -> Result<(), Stop> {
        let body = serde_json::to_vec(&Body::of(delivery))
            .map_err(|error| Stop::internal(format!("an alert cannot be written as JSON: {error}")))?;
        let timestamp = Timestamp::now().as_second().to_string();
        let signature = sign(&self.secret, &timestamp, &body);
        let mut request = self.destination.post(body);
        set(request.headers_mut(), SIGNATURE, &format!("sha256={signature}"))?;
        set(request.headers_mut(), TIMESTAMP, &timestamp)?;
        set(request.headers_mut(), DELIVERY, &delivery.key())?;
        self.destination.send(request).await
    }
}

#[async_trait]
impl Alerts for Webhook {
    fn name(&self) -> &str {
        self.destination.name()
    }

    fn batch(&self) -> u32 {
        1
    }

    fn repeat(&self) -> Option<Duration> {
        None
    }

    async fn send(&self, deliveries: &[Delivery]) -> Result<(), Stop> {
        for delivery in deliveries {
            self.send_one(delivery).await?;
        }
        Ok(())
    }
}

/// Hex of HMAC-SHA-256 over `TIMESTAMP.BODY`.
pub fn sign(secret: &Secret, timestamp: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()).expect("HMAC takes a key of any length");
    mac.update(timestamp.as_bytes());
    mac.update(b".");
    mac.update(body);
    hex::encode(mac.finalize().into_bytes())
}

fn set(headers: &mut HeaderMap, name: &'static str, value: &str) -> Result<(), Stop> {
    let value = HeaderValue::from_str(value).map_err(|_| Stop::internal(format!("{name} is no header")))?;
    headers.insert(name, value);
    Ok(())
}

/// What a receiver reads. Fields are added, never changed, within a version.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    version: u32,
    kind: &'a str,
    severity: Severity,
    status: &'static str,
    subject: &'a str,
    drill: Option<&'a str>,
    run: Option<&'a str>,
    at: Timestamp,
    resolved_at: Option<Timestamp>,
    message: &'a str,
    advice: Option<&'a str>,
    details: &'a serde_json::Value,
}

impl<'a> Body<'a> {
    fn of(delivery: &'a Delivery) -> Self {
        let alert = &delivery.alert;
        Self {
            version: 1,
            kind: &alert.kind,
            severity: Severity::of(&alert.kind),
            status: if delivery.resolved.is_some() { "resolved" } else { "firing" },
            subject: &alert.subject,
            drill: alert.drill.as_ref().map(drill::id::DrillName::as_str),
            run: alert.run.as_ref().map(drill::id::RunId::as_str),
            at: alert.at,
            resolved_at: delivery.resolved,
            message: &alert.message,
            advice: alert.advice.as_deref(),
            details: &alert.details,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_hmac_sha_256() {
        let mac = sign(&Secret::new("key".to_owned()), "1", b"{}");
        // printf '1.{}' | openssl dgst -sha256 -hmac key
        assert_eq!(mac, "1ba6b8171186efc613e8bcc0cbdab2748f24984d7c5a84faa2637afa0e40d224");
    }
}
