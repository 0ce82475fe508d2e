//! Namespaces are Vault Enterprise's and `OpenBao`'s, which cannot be built here: a listener that only listens says what was sent.
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;

use drill::port::Credentials as _;
use drill::spec::Vault;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use super::place::{Place, credentials_of};
use super::request;
use crate::{TestFn, test};

pub(super) fn tests() -> Vec<(&'static str, TestFn)> {
    vec![test!(the_namespace_goes_with_every_request)]
}

struct Heard {
    request: String,
    namespace: Option<String>,
}

async fn the_namespace_goes_with_every_request() {
    let (place, run) = (Place::new().await, request("name").run);
    let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("a certificate");
    let ca = place.put("listener.pem", &certified.cert.pem());
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).expect("a key");
    let config = ServerConfig::builder().with_no_client_auth();
    let config = Arc::new(config.with_single_cert(vec![certified.cert.der().clone()], key).expect("they fit"));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = format!("https://{}", listener.local_addr().expect("bound"));
    // Login, policy, engine, logout.
    let listening = std::thread::spawn(move || [(); 4].map(|()| answer(&listener, &config)));

    let vault = credentials_of(Vault { address, ca, namespace: Some("drills/eu".to_owned()), ..place.config() });
    vault.warm_up(&run).await.expect("what is answered is what a Vault answers");
    vault.cool_down(&run).await;
    let heard = listening.join().expect("it heard four requests");
    let requests: Vec<&str> = heard.iter().map(|heard| heard.request.as_str()).collect();
    let mount = format!("GET /v1/sys/internal/ui/mounts/{}", place.name);
    assert_eq!(
        requests,
        ["POST /v1/auth/approle/login", "POST /v1/sys/capabilities-self", &mount, "POST /v1/auth/token/revoke-self"]
    );
    assert!(heard.iter().all(|heard| heard.namespace.as_deref() == Some("drills/eu")));
    place.assert_clean_after(&[], &run).await;
}

fn answer(listener: &TcpListener, config: &Arc<ServerConfig>) -> Heard {
    let (stream, _) = listener.accept().expect("somebody asks");
    let connection = ServerConnection::new(Arc::clone(config)).expect("TLS");
    let mut stream = BufReader::new(StreamOwned::new(connection, stream));
    let (heard, body) = hear(&mut stream);
    let said = if heard.request.ends_with("/login") {
        json!({ "auth": { "client_token": "a-token", "lease_duration": 0, "renewable": false } })
    } else if heard.request.ends_with("/capabilities-self") {
        let everything = |path: &Value| (path.as_str().expect("a path").to_owned(), json!(["root"]));
        json!({ "data": body["paths"].as_array().expect("paths").iter().map(everything).collect::<serde_json::Map<_, _>>() })
    } else {
        json!({ "data": { "type": "database" } })
    };
    let said = said.to_string();
    let stream = stream.get_mut();
    write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{said}", said.len())
        .expect("told");
    stream.conn.send_close_notify();
    stream.flush().expect("told");
    heard
}

fn hear(stream: &mut BufReader<StreamOwned<ServerConnection, TcpStream>>) -> (Heard, Value) {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(stream.read_line(&mut head).expect("text") > 0, "cut off: {head}");
    }
    let header = |name: &str| {
        head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then(|| value.to_owned())
        })
    };
    let length = header("content-length").map_or(0, |length| length.parse().expect("a number"));
    let mut body = vec![0; length];
    stream.read_exact(&mut body).expect("a body");
    let request = head.split(" HTTP/").next().expect("a line").to_owned();
    (Heard { request, namespace: header("x-vault-namespace") }, serde_json::from_slice(&body).unwrap_or_default())
}
