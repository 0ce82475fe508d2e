//! A real Alertmanager: an alert is seen firing, and then it is not.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use drill::port::{Alert, Alerts, Delivery};
use drivers::alert::alertmanager::Alertmanager;
use jiff::Timestamp;

struct Server {
    process: Child,
    url: String,
    _place: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Answers when it is ready.
async fn start() -> Server {
    let place = tempfile::tempdir().unwrap();
    let config = place.path().join("alertmanager.yml");
    std::fs::write(&config, "route: { receiver: nobody }\nreceivers: [{ name: nobody }]\n").unwrap();
    // Nobody else may get the port between here and there, and where somebody did, it says so.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let process = Command::new("prometheus-alertmanager")
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.path={}", place.path().join("data").display()))
        .arg(format!("--web.listen-address={free}"))
        .arg("--cluster.listen-address=")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let process = process.expect("prometheus-alertmanager is installed: make setup");
    let mut server = Server { process, url: format!("http://{free}"), _place: place };
    for _ in 0..600 {
        assert!(server.process.try_wait().unwrap().is_none(), "it ended");
        if reqwest::get(format!("{}/-/ready", server.url)).await.is_ok_and(|answer| answer.status().is_success()) {
            return server;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it is not ready after half a minute");
}

async fn active(server: &Server) -> Vec<serde_json::Value> {
    reqwest::get(format!("{}/api/v2/alerts?active=true", server.url)).await.unwrap().json().await.unwrap()
}

#[tokio::test]
async fn an_alert_fires_there_and_is_resolved_there() {
    rustls::crypto::aws_lc_rs::default_provider().install_default().unwrap();
    let server = start().await;
    let alertmanager = Alertmanager::new("main", &server.url, None).unwrap();
    let mut delivery = Delivery {
        id: 1,
        revision: 1,
        alert: Alert {
            kind: "artifact-refused".to_owned(),
            subject: "orders \u{1b}[2J\"{}".to_owned(),
            drill: Some("orders".parse().unwrap()),
            run: None,
            at: Timestamp::now() - jiff::SignedDuration::from_hours(30),
            message: "byte 17 is not what was signed".to_owned(),
            advice: Some("look at it".to_owned()),
            details: serde_json::json!({}),
        },
        resolved: None,
        attempts: 0,
        failing_since: None,
    };
    // Twice is once.
    alertmanager.send(std::slice::from_ref(&delivery)).await.unwrap();
    alertmanager.send(std::slice::from_ref(&delivery)).await.unwrap();
    let seen = active(&server).await;
    assert_eq!(seen.len(), 1, "{seen:?}");
    let expected = serde_json::json!({
        "alertname": "MusterArtifactRefused", "severity": "critical", "drill": "orders", "subject": "orders \u{fffd}[2J\"{}",
    });
    assert_eq!(seen[0]["labels"], expected);
    assert_eq!(seen[0]["annotations"]["description"], "byte 17 is not what was signed");
    assert_eq!(seen[0]["status"]["state"], "active");

    delivery.resolved = Some(Timestamp::now());
    alertmanager.send(&[delivery]).await.unwrap();
    for _ in 0..600 {
        if active(&server).await.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it is still active");
}
