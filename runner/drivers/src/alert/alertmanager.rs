//! Prometheus' Alertmanager, <https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml>: what is open is told
//! again each minute, and ends by itself a few minutes after muster fell silent.
use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use drill::port::{Alerts, Delivery, Severity};
use drill::stop::Stop;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::http::Destination;

/// So that neither a lost request nor a slow one ends an alert that is still open.
const REPEAT: Duration = Duration::from_mins(1);
const ENDS_AFTER: SignedDuration = SignedDuration::from_mins(5);
/// Characters of a label: it is an index.
const MAX_LABEL: usize = 200;

pub struct Alertmanager {
    destination: Destination,
}

impl Alertmanager {
    /// `url` is its base; `ca` is PEM: these authorities may vouch for it, and nobody else.
    pub fn new(name: &str, url: &str, ca: Option<&[u8]>) -> Result<Self, Stop> {
        Ok(Self { destination: Destination::new(name, url, "/api/v2/alerts", ca)? })
    }
}

#[async_trait]
impl Alerts for Alertmanager {
    fn name(&self) -> &str {
        self.destination.name()
    }

    fn batch(&self) -> u32 {
        200
    }

    fn repeat(&self) -> Option<Duration> {
        Some(REPEAT)
    }

    async fn send(&self, deliveries: &[Delivery]) -> Result<(), Stop> {
        let now = Timestamp::now();
        let told: Vec<_> = deliveries.iter().map(|delivery| Posted::of(delivery, now)).collect();
        let body = serde_json::to_vec(&told)
            .map_err(|error| Stop::internal(format!("an alert cannot be written as JSON: {error}")))?;
        self.destination.send(self.destination.post(body)).await
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Posted {
    labels: BTreeMap<&'static str, String>,
    annotations: BTreeMap<&'static str, String>,
    starts_at: Timestamp,
    ends_at: Timestamp,
}

impl Posted {
    fn of(delivery: &Delivery, now: Timestamp) -> Self {
        let alert = &delivery.alert;
        let drill = alert.drill.as_ref().map_or("", drill::id::DrillName::as_str);
        let labels = [
            ("alertname", name_of(&alert.kind)),
            ("severity", Severity::of(&alert.kind).as_str().to_owned()),
            ("drill", drill.to_owned()),
            ("subject", alert.subject.clone()),
        ];
        let annotations = [
            ("summary", format!("{}: {}", alert.kind, alert.subject)),
            ("description", alert.message.clone()),
            ("advice", alert.advice.clone().unwrap_or_default()),
            ("run", alert.run.as_ref().map(ToString::to_string).unwrap_or_default()),
        ];
        Self {
            labels: kept(labels).map(|(name, text)| (name, label(&text))).collect(),
            annotations: kept(annotations).map(|(name, text)| (name, harmless(&text))).collect(),
            // It takes no alert that ends before it starts, which a clock that was set back makes of one.
            starts_at: delivery.resolved.map_or(alert.at, |resolved| alert.at.min(resolved)),
            ends_at: delivery.resolved.unwrap_or(now + ENDS_AFTER),
        }
    }
}

fn kept<const N: usize>(of: [(&'static str, String); N]) -> impl Iterator<Item = (&'static str, String)> {
    of.into_iter().filter(|(_, text)| !text.is_empty())
}

/// `artifact-refused` is `MusterArtifactRefused`, as alerts are called there.
fn name_of(kind: &str) -> String {
    let mut name = "Muster".to_owned();
    for word in kind.split('-') {
        let mut letters = word.chars().filter(char::is_ascii_alphanumeric);
        name.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        name.extend(letters);
    }
    name
}

fn label(text: &str) -> String {
    let text = harmless(text);
    if text.chars().count() <= MAX_LABEL {
        return text;
    }
    // The end of a path says more than its beginning, and both keep two long ones apart.
    let digest = drill::id::Sha256Digest::of(text.as_bytes()).to_string();
    let short: String = digest.chars().rev().take(8).collect();
    let skipped = text.chars().count() - (MAX_LABEL - 10);
    format!("{short}…{}", text.chars().skip(skipped).collect::<String>())
}

/// It is shown in mails and on pages: without control characters.
fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_becomes_a_name_and_a_label_is_bounded() {
        assert_eq!(name_of("artifact-refused"), "MusterArtifactRefused");
        assert_eq!(name_of("store"), "MusterStore");
        let (one, other) = ("x".repeat(500), format!("y{}", "x".repeat(499)));
        assert!(label(&one).chars().count() <= MAX_LABEL);
        assert_ne!(label(&one), label(&other));
        assert_eq!(label("/etc/\u{1b}[2Jx"), "/etc/\u{fffd}[2Jx");
    }
}
