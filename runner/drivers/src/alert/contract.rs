//! What every destination must do, run against each; and what only those that speak HTTP can get wrong. The other side is a
//! server of a few lines that does as a test says.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use drill::port::{Alert, Alerts, Delivery};
use drill::secret::Secret;
use jiff::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::alertmanager::Alertmanager;
use super::fake::{self, FakeAlerts};
use super::http::Destination;
use super::webhook::{self, Webhook};

const SECRET: &str = "canary-b3f0";
const PASSWORD: &str = "canary-77aa";

/// What the other side does with one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Hear,
    Refuse,
    Redirect,
    /// Reads, and never answers.
    Hang,
    /// Closes without an answer.
    Close,
    /// Promises a body and breaks off.
    Half,
    /// Refuses with an answer without end.
    Endless,
}

struct Heard {
    /// Lower-case names.
    head: String,
    body: Vec<u8>,
}

#[derive(Clone, Default)]
struct Other(Arc<Mutex<(VecDeque<Way>, Vec<Heard>)>>);

impl Other {
    async fn listen(&self) -> (String, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (me, mut server) = (self.clone(), JoinSet::new());
        server.spawn(async move {
            let mut open = Vec::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                open.extend(me.answer(stream).await);
            }
        });
        (address.to_string(), server)
    }

    async fn answer(&self, mut stream: TcpStream) -> Option<TcpStream> {
        let heard = read(&mut stream).await;
        let way = {
            let mut inner = self.0.lock().unwrap();
            inner.1.push(heard);
            inner.0.pop_front().unwrap_or(Way::Hear)
        };
        let begin = |status: &str, length: usize| {
            format!(
                "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\nlocation: /elsewhere\r\n\r\n"
            )
        };
        let answer = match way {
            Way::Hear => begin("200 OK", 0),
            Way::Refuse => begin("500 Internal Server Error", 4) + "busy",
            Way::Redirect => begin("307 Temporary Redirect", 0),
            Way::Half => begin("500 Internal Server Error", 1_000) + "half",
            Way::Close => return None,
            Way::Hang => return Some(stream),
            Way::Endless => begin("500 Internal Server Error", usize::MAX / 2),
        };
        let _ = stream.write_all(answer.as_bytes()).await;
        while way == Way::Endless && stream.write_all(&[b'x'; 4_096]).await.is_ok() {}
        let _ = stream.shutdown().await;
        None
    }

    fn ways(&self, ways: impl IntoIterator<Item = Way>) {
        self.0.lock().unwrap().0.extend(ways);
    }

    fn heard(&self) -> Vec<Heard> {
        std::mem::take(&mut self.0.lock().unwrap().1)
    }
}

async fn read(stream: &mut TcpStream) -> Heard {
    let mut bytes = Vec::new();
    loop {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = end {
            let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            if bytes.len() == end + 4 + length.parse::<usize>().unwrap() {
                return Heard { head, body: bytes.split_off(end + 4) };
            }
        }
        assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0, "a request without an end");
    }
}

fn delivery(id: u64, subject: &str, resolved: bool) -> Delivery {
    let at: Timestamp = "2026-11-22T02:15:00Z".parse().unwrap();
    Delivery {
        id,
        revision: 3,
        alert: Alert {
            kind: "artifact-refused".to_owned(),
            subject: subject.to_owned(),
            drill: Some("orders".parse().unwrap()),
            run: None,
            at,
            message: "byte 17 is not \"what\" was\nsigned \u{1b}[2J".to_owned(),
            advice: Some("look at it".to_owned()),
            details: serde_json::json!({ "digest": "sha256:00" }),
        },
        resolved: resolved.then(|| at + jiff::SignedDuration::from_secs(60)),
        attempts: 0,
        failing_since: None,
    }
}

/// A destination, and how to make it refuse.
struct World {
    alerts: Box<dyn Alerts>,
    refuse: Box<dyn Fn()>,
    /// Subjects, and whether they were resolved.
    heard: Box<dyn Fn() -> Vec<(String, bool)>>,
    _server: JoinSet<()>,
}

fn fake() -> World {
    let fake = FakeAlerts::new("fake", 10, None);
    let (refuses, hears) = (fake.clone(), fake.clone());
    World {
        alerts: Box::new(fake),
        refuse: Box::new(move || refuses.answer([fake::Answer::Refuse])),
        heard: Box::new(move || {
            hears.heard().into_iter().map(|of| (of.alert.subject, of.resolved.is_some())).collect()
        }),
        _server: JoinSet::new(),
    }
}

async fn http(make: impl Fn(&str) -> Box<dyn Alerts>, read: fn(&Heard) -> Vec<(String, bool)>) -> World {
    install_provider();
    let other = Other::default();
    let (address, server) = other.listen().await;
    let refuses = other.clone();
    World {
        alerts: make(&format!("http://muster:{PASSWORD}@{address}/base/?token={PASSWORD}")),
        refuse: Box::new(move || refuses.ways([Way::Refuse])),
        heard: Box::new(move || {
            let heard = other.heard();
            let counted = heard.iter().filter(|heard| !heard.head.contains("refused"));
            counted.flat_map(read).collect()
        }),
        _server: server,
    }
}

fn install_provider() {
    // Another test of this process may have been first.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

fn webhook(url: &str) -> Box<dyn Alerts> {
    Box::new(Webhook::new("pager", url, Secret::new(SECRET.to_owned()), None).unwrap())
}

fn of_webhook(heard: &Heard) -> Vec<(String, bool)> {
    let body: serde_json::Value = serde_json::from_slice(&heard.body).unwrap();
    vec![(body["subject"].as_str().unwrap().to_owned(), body["status"] == "resolved")]
}

fn of_alertmanager(heard: &Heard) -> Vec<(String, bool)> {
    let body: serde_json::Value = serde_json::from_slice(&heard.body).unwrap();
    let ends = |alert: &serde_json::Value| alert["endsAt"].as_str().unwrap().parse::<Timestamp>().unwrap();
    let told = |alert: &serde_json::Value| {
        (alert["labels"]["subject"].as_str().unwrap().to_owned(), ends(alert) < Timestamp::now())
    };
    body.as_array().unwrap().iter().map(told).collect()
}

async fn each(test: impl AsyncFn(World)) {
    test(fake()).await;
    test(http(webhook, of_webhook).await).await;
    test(http(|url| Box::new(Alertmanager::new("am", url, None).unwrap()), of_alertmanager).await).await;
}

#[tokio::test]
async fn what_was_sent_is_heard() {
    each(async |world| {
        let size = world.alerts.batch().min(2) as usize;
        for portion in [delivery(1, "orders", false), delivery(2, "users", true)].chunks(size) {
            world.alerts.send(portion).await.unwrap();
        }
        assert_eq!((world.heard)(), [("orders".to_owned(), false), ("users".to_owned(), true)]);
    })
    .await;
}

#[tokio::test]
async fn a_refusal_is_an_error_that_names_the_destination_and_no_secret() {
    each(async |world| {
        (world.refuse)();
        let one = [delivery(1, "orders", false)];
        let stop = world.alerts.send(&one).await.unwrap_err();
        assert!(stop.message.contains(&format!("`{}`", world.alerts.name())), "{stop}");
        assert!(!format!("{stop:?}").contains("canary"), "{stop:?}");
        world.alerts.send(&one).await.unwrap();
        assert_eq!((world.heard)().last().unwrap().0, "orders");
    })
    .await;
}

#[tokio::test]
async fn a_receiver_can_check_who_sent_it_and_whether_it_is_new() {
    install_provider();
    let other = Other::default();
    let (address, _server) = other.listen().await;
    let hook = webhook(&format!("http://{address}/hook"));
    hook.send(&[delivery(7, "orders", false)]).await.unwrap();
    let heard = other.heard().remove(0);
    assert!(heard.head.starts_with("post /hook http/1.1"), "{}", heard.head);
    let header = |name: &str| {
        let line = heard.head.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_start_matches(": ").to_owned()
    };
    let timestamp = header(webhook::TIMESTAMP);
    let signature = webhook::sign(&Secret::new(SECRET.to_owned()), &timestamp, &heard.body);
    assert_eq!(header(webhook::SIGNATURE), format!("sha256={signature}"));
    assert_eq!(header(webhook::DELIVERY), "7-3");
    let body: serde_json::Value = serde_json::from_slice(&heard.body).unwrap();
    let expected = serde_json::json!({
        "version": 1, "kind": "artifact-refused", "severity": "critical", "status": "firing", "subject": "orders",
        "drill": "orders", "run": null, "at": "2026-11-22T02:15:00Z", "resolvedAt": null,
        "message": "byte 17 is not \"what\" was\nsigned \u{1b}[2J", "advice": "look at it",
        "details": { "digest": "sha256:00" },
    });
    assert_eq!(body, expected);
}

#[tokio::test]
async fn whatever_the_other_side_does_it_was_heard_or_it_is_an_error() {
    install_provider();
    let other = Other::default();
    let (address, _server) = other.listen().await;
    let hook = webhook(&format!("http://muster:{PASSWORD}@{address}/{PASSWORD}?t={PASSWORD}"));
    let cases = [
        (Way::Refuse, "500 Internal Server Error: busy"),
        (Way::Redirect, "307 Temporary Redirect"),
        (Way::Close, "error sending request"),
        (Way::Half, "500 Internal Server Error"),
        (Way::Endless, "500 Internal Server Error: xxxx"),
    ];
    for (way, said) in cases {
        other.ways([way]);
        let stop = hook.send(&[delivery(1, "orders", false)]).await.unwrap_err();
        if way != Way::Half {
            assert!(stop.message.contains(said), "{way:?}: {stop}");
        }
        assert!(!format!("{stop:?}").contains("canary") && stop.message.len() < 500, "{stop:?}");
        // Not twice, and nowhere else.
        assert_eq!(other.heard().len(), 1, "{way:?}");
    }
    hook.send(&[delivery(1, "orders", false)]).await.unwrap();
}

#[tokio::test]
async fn who_never_answers_is_not_waited_for() {
    install_provider();
    let other = Other::default();
    let (address, _server) = other.listen().await;
    other.ways([Way::Hang]);
    let url = format!("http://{address}/");
    let hook = Destination::within("pager", &url, "", None, std::time::Duration::from_millis(100)).unwrap();
    let stop = hook.send(hook.post(b"{}".to_vec())).await.unwrap_err();
    assert!(stop.message.ends_with("no answer in time"), "{stop}");
}

#[tokio::test]
async fn nobody_there_is_an_error_without_secrets() {
    install_provider();
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let hook = webhook(&format!("http://muster:{PASSWORD}@{free}/{PASSWORD}?t={PASSWORD}"));
    let stop = hook.send(&[delivery(1, "orders", false)]).await.unwrap_err();
    assert!(stop.message.contains("refused") && !format!("{stop:?}").contains("canary"), "{stop:?}");
}

/// Answers one request, if its certificate is good enough for whoever asks.
async fn over_tls(own: &rcgen::CertifiedKey<rcgen::KeyPair>) -> (String, JoinSet<bool>) {
    let key = rustls::pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    let config = Arc::new(config.with_single_cert(vec![own.cert.der().clone()], key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    let mut server = JoinSet::new();
    server.spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = stream.into_std().unwrap();
        stream.set_nonblocking(false).unwrap();
        let work = move || {
            let mut session = rustls::ServerConnection::new(config).unwrap();
            let mut stream = rustls::Stream::new(&mut session, &mut stream);
            let heard = std::io::Read::read(&mut stream, &mut [0; 1_024]).is_ok_and(|bytes| bytes > 0);
            let _ = std::io::Write::write_all(&mut stream, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
            heard
        };
        tokio::task::spawn_blocking(work).await.unwrap()
    });
    (url, server)
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_refused() {
    install_provider();
    let own = || rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (certified, other) = (own(), own());
    let vouched = certified.cert.pem();
    for (ca, good) in [(None, false), (Some(other.cert.pem()), false), (Some(vouched), true)] {
        let (url, mut server) = over_tls(&certified).await;
        let ca = ca.as_ref().map(String::as_bytes);
        let hook = Webhook::new("pager", &url, Secret::new(SECRET.to_owned()), ca).unwrap();
        let sent = hook.send(&[delivery(1, "orders", false)]).await;
        assert_eq!(server.join_next().await.unwrap().unwrap(), good, "it was told something");
        match sent {
            Ok(()) => assert!(good, "anybody was trusted"),
            Err(stop) => assert!(!good && stop.message.contains("invalid peer certificate"), "{stop}"),
        }
    }
}

#[test]
fn what_is_no_certificate_is_no_authority() {
    install_provider();
    for (ca, said) in [("", "no certificate"), ("-----BEGIN CERTIFICATE-----\nx\n", "`ca`")] {
        let stop = Alertmanager::new("am", "https://127.0.0.1/", Some(ca.as_bytes())).err().unwrap();
        assert!(stop.message.contains(said), "{stop}");
    }
}

#[test]
fn a_url_that_is_none_is_refused_without_its_secrets() {
    install_provider();
    for url in ["", "no url canary", "ftp://canary@host/", "unix:/canary", "http://user:canary@:99999/"] {
        let stop = Alertmanager::new("am", url, None).err().unwrap();
        assert!(stop.message.contains("`am`") && !format!("{stop:?}").contains("canary"), "{url}: {stop:?}");
    }
}
