//! Who may do what.
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use axum::http::{StatusCode, header};
use drill::config::{Http, Tls};
use drill::id::Sha256Digest;
use drill::port::{Quarantine, Store as _};
use rcgen::{CertificateParams, KeyPair};
use reqwest::{Client, Method, RequestBuilder};

use super::{OPERATOR, SOCKET, Server, VIEWER, World, client, config, with_tokens};

const START: &str = "/api/v1/drills/orders/runs";

fn post(world: &World) -> RequestBuilder {
    client().post(world.url(START)).header(header::CONTENT_TYPE, "application/json").body("{}")
}

async fn status(request: RequestBuilder) -> StatusCode {
    request.send().await.unwrap().status()
}

#[tokio::test]
async fn nothing_is_shown_beyond_this_machine_without_tls_and_tokens() {
    let place = tempfile::tempdir().unwrap();
    let open = Http { listen: "0.0.0.0:0".parse().unwrap(), ..config() };
    let tokens_alone = Http { tokens: with_tokens().tokens, ..open.clone() };
    let tls = Tls { certificate: place.path().join("c"), key: place.path().join("k") };
    let tls_alone = Http { tls: Some(tls), ..open.clone() };
    for config in [open, tokens_alone, tls_alone] {
        let stop = Server::bind(&config, &place.path().join(SOCKET)).map(|_| ()).unwrap_err();
        assert!(stop.message.contains("others can reach"), "{stop}");
        assert!(stop.advice.unwrap().contains("http.tokens"));
    }
    assert!(!place.path().join(SOCKET).exists());
}

#[tokio::test]
async fn without_tokens_tcp_looks_and_changes_nothing() {
    let world = World::new(&config());
    assert_eq!(world.get("/api/v1/drills").await.status(), StatusCode::OK);
    assert_eq!(status(post(&world)).await, StatusCode::FORBIDDEN);
    assert_eq!(status(post(&world).bearer_auth("a guess")).await, StatusCode::UNAUTHORIZED);
    for method in [Method::PUT, Method::DELETE, Method::PATCH] {
        let request = client().request(method, world.url("/api/v1/drills"));
        assert_eq!(status(request).await, StatusCode::FORBIDDEN);
    }
    assert!(world.asked.lock().unwrap().is_empty());
    world.end().await;
}

#[tokio::test]
async fn a_name_that_was_pointed_at_loopback_gets_nothing() {
    let world = World::new(&config());
    for (host, expected) in [
        ("evil.example", StatusCode::MISDIRECTED_REQUEST),
        ("127.0.0.1.evil.example:80", StatusCode::MISDIRECTED_REQUEST),
        ("", StatusCode::MISDIRECTED_REQUEST),
        ("localhost:1234", StatusCode::OK),
        ("[::1]:80", StatusCode::OK),
        ("127.0.0.1", StatusCode::OK),
    ] {
        let request = client().get(world.url("/api/v1/drills")).header(header::HOST, host);
        assert_eq!(status(request).await, expected, "{host}");
    }
    world.end().await;
}

#[tokio::test]
async fn a_token_does_what_its_role_says() {
    let world = World::new(&with_tokens());
    let look = || client().get(world.url("/api/v1/drills"));
    let without = look().send().await.unwrap();
    assert_eq!(without.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(without.headers().get_all(header::WWW_AUTHENTICATE).iter().count(), 2);
    assert_eq!(status(look().bearer_auth(VIEWER)).await, StatusCode::OK);
    assert_eq!(status(look().basic_auth("me", Some(VIEWER))).await, StatusCode::OK);
    assert_eq!(status(client().get(world.url("/")).basic_auth("me", Some(VIEWER))).await, StatusCode::OK);
    for open in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(world.get(open).await.status(), StatusCode::OK, "{open}");
    }
    assert_eq!(status(post(&world).bearer_auth(VIEWER)).await, StatusCode::FORBIDDEN);
    // What a browser remembers and sends along with a forged request.
    assert_eq!(status(post(&world).basic_auth("me", Some(OPERATOR))).await, StatusCode::FORBIDDEN);
    let form = client().post(world.url(START)).bearer_auth(OPERATOR).header(header::CONTENT_TYPE, "text/plain");
    assert_eq!(status(form).await, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert!(world.asked.lock().unwrap().is_empty());
    assert_eq!(status(post(&world).bearer_auth(OPERATOR)).await, StatusCode::ACCEPTED);
    assert_eq!(*world.asked.lock().unwrap(), ["start orders by token ops"]);
    world.end().await;
}

#[tokio::test]
async fn who_guesses_is_told_to_wait() {
    let world = World::new(&with_tokens());
    let look = |token: &str| client().get(world.url("/api/v1/drills")).bearer_auth(token);
    for guess in 0..10 {
        assert_eq!(status(look(&format!("guess {guess}"))).await, StatusCode::UNAUTHORIZED);
    }
    let refused = look(VIEWER).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    let wait: u64 = refused.headers()[header::RETRY_AFTER].to_str().unwrap().parse().unwrap();
    assert!((1..=61).contains(&wait), "{wait}");
    world.end().await;
}

#[tokio::test]
async fn the_socket_is_the_operators_own() {
    let world = World::new(&with_tokens());
    assert_eq!(world.socket().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let again = Server::bind(&config(), &world.socket()).map(|_| ()).unwrap_err();
    assert!(again.message.contains("another muster answers"), "{again}");

    let daemon = crate::client::Client::at(&world.socket()).unwrap().unwrap();
    let started: serde_json::Value = daemon.post(START).await.unwrap();
    assert_eq!(started["run"], "orders-20261122t021500z-j8y2");
    let unknown = daemon.post::<serde_json::Value>("/api/v1/drills/unknown/runs").await.unwrap_err();
    assert!(unknown.message.contains("no drill `unknown`"), "{unknown}");
    assert!(unknown.advice.unwrap().contains("muster run FILE"));
    let run = "orders-20261122t021500z-j8y2";
    daemon.post::<serde_json::Value>(&format!("/api/v1/runs/{run}/cancel")).await.unwrap();
    let other = daemon.post::<serde_json::Value>("/api/v1/runs/stock-20261122t021500z-j8y2/cancel").await;
    assert!(other.unwrap_err().message.contains("is not going on"));
    let digest = Sha256Digest::of(b"manifest");
    let entry = Quarantine {
        digest,
        location: "/backups/orders".to_owned(),
        run: run.parse().unwrap(),
        why: "a byte differs".to_owned(),
        at: "2026-11-22T02:15:01Z".parse().unwrap(),
    };
    world.store.quarantine(&entry).await.unwrap();
    let released: serde_json::Value = daemon.post(&format!("/api/v1/quarantine/{digest}/release")).await.unwrap();
    assert_eq!(released["released"], 1);
    assert!(world.store.quarantined().await.unwrap().is_empty());

    let uid = rustix::process::geteuid().as_raw();
    let asked = world.asked.lock().unwrap().clone();
    assert_eq!(asked[0], format!("start orders by user {uid}"));
    assert_eq!(asked[2], format!("cancel {run} by user {uid}"));
    world.end().await;
}

#[tokio::test]
async fn a_socket_that_a_killed_daemon_left_is_no_hindrance_and_a_file_is() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join(SOCKET);
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    assert!(crate::client::Client::at(&path).unwrap().is_none());
    drop(Server::bind(&config(), &path).unwrap());
    assert!(!path.exists());
    std::fs::write(&path, "precious").unwrap();
    assert!(Server::bind(&config(), &path).is_err());
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

fn certificate(files: &Tls) -> reqwest::Certificate {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2100, 1, 1);
    let certificate = params.self_signed(&key).unwrap();
    std::fs::write(&files.key, key.serialize_pem()).unwrap();
    std::fs::write(&files.certificate, certificate.pem()).unwrap();
    reqwest::Certificate::from_pem(certificate.pem().as_bytes()).unwrap()
}

#[tokio::test]
async fn a_new_certificate_is_used_without_a_restart_and_a_bad_one_is_not() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let place = tempfile::tempdir().unwrap();
    let files = Tls { certificate: place.path().join("c.pem"), key: place.path().join("k.pem") };
    let first = certificate(&files);
    let world = World::new(&Http { tls: Some(files.clone()), ..with_tokens() });
    let trusting = |certificate: &reqwest::Certificate| {
        let builder = Client::builder().no_proxy().tls_certs_only([certificate.clone()]);
        builder.resolve("localhost", world.address).timeout(Duration::from_secs(10)).build().unwrap()
    };
    let url = format!("https://localhost:{}/api/v1/drills", world.address.port());
    let ask = |client: Client| client.get(&url).bearer_auth(VIEWER).send();
    assert_eq!(ask(trusting(&first)).await.unwrap().status(), StatusCode::OK);
    std::fs::write(&files.key, "no key").unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(ask(trusting(&first)).await.unwrap().status(), StatusCode::OK);
    let second = certificate(&files);
    let patience = Instant::now() + Duration::from_secs(30);
    while ask(trusting(&second)).await.is_err() {
        assert!(Instant::now() < patience, "the new certificate is not in use");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    world.end().await;
}
