//! What one who asks may take of the daemon, and what another user of the machine gets.
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use axum::http::{StatusCode, header};
use drill::port::Store as _;
use drivers::store::fake::Cut;
use rustix::process::Uid;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Bounds, World, client, config, with_tokens};

const PATIENCE: Duration = Duration::from_secs(20);

/// What comes until the other side closes.
async fn rest(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it stays open");
    // A reset is an end as well.
    let _ = read;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn headers_that_never_end_are_not_waited_for() {
    let bounds = Bounds { headers: Duration::from_millis(300), ..Bounds::default() };
    let world = World::within(bounds, &config());
    let mut slow = TcpStream::connect(world.address).await.unwrap();
    slow.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ").await.unwrap();
    let answer = rest(slow).await;
    assert!(!answer.contains("200"), "{answer}");
    // One that asks nothing, and one that was answered and asks nothing more.
    assert_eq!(rest(TcpStream::connect(world.address).await.unwrap()).await, "");
    let mut idle = TcpStream::connect(world.address).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    assert!(rest(idle).await.ends_with("alive\n"));
    world.end().await;
}

#[tokio::test]
async fn there_is_room_for_so_many_connections_and_the_socket_has_room_of_its_own() {
    let bounds = Bounds { connections: 2, local_connections: 1, ..Bounds::default() };
    let world = World::within(bounds, &config());
    let ask = async |held: &mut TcpStream| {
        held.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        held.read(&mut [0; 1_024]).await.unwrap_or(0) > 0
    };
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        assert!(ask(&mut stream).await);
        held.push(stream);
    }
    assert_eq!(rest(TcpStream::connect(world.address).await.unwrap()).await, "", "a third one");
    let daemon = crate::client::Client::at(&world.socket()).unwrap().unwrap();
    daemon.get::<serde_json::Value>("/api/v1/drills").await.unwrap();
    drop(held.pop());
    let again = async {
        loop {
            let mut stream = TcpStream::connect(world.address).await.unwrap();
            if ask(&mut stream).await {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, again).await.expect("the room of one that left is given to the next");
    drop((held, daemon));
    world.end().await;
}

#[tokio::test]
async fn a_body_of_any_length_is_not_read() {
    let world = World::new(&config());
    let daemon = reqwest::Client::builder().unix_socket(world.socket()).timeout(PATIENCE).build().unwrap();
    let post = |body: String| {
        let request = daemon.post("http://localhost/api/v1/drills/orders/runs");
        request.header(header::CONTENT_TYPE, "application/json").body(body).send()
    };
    let refused = post(" ".repeat(65_537)).await.unwrap();
    assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(refused.headers()[header::CONTENT_TYPE], "application/problem+json");
    assert!(world.asked.lock().unwrap().is_empty());
    assert_eq!(post(" ".repeat(65_536)).await.unwrap().status(), StatusCode::ACCEPTED);
    // One that does not say how long it is.
    let mut endless = TcpStream::connect(world.address).await.unwrap();
    let head = "POST /api/v1/drills/orders/runs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    endless.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("1000\r\n{}\r\n", " ".repeat(0x1000));
    let mut sent = 0_u64;
    while endless.write_all(chunk.as_bytes()).await.is_ok() {
        sent += 0x1000;
        assert!(sent < 1 << 30, "it is read for ever");
    }
    world.end().await;
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_given_up() {
    let bounds = Bounds { answer: Duration::from_millis(200), ..Bounds::default() };
    let world = World::within(bounds, &config());
    // From now on the store says nothing more.
    world.daemons.crash_at(world.daemons.writes() + 1, Cut::Before);
    tokio::select! {
        _ = world.daemons.try_write() => panic!("it answers"),
        () = world.daemons.crashed() => {}
    }
    let slow = client().get(world.url("/api/v1/runs")).send().await.unwrap();
    assert_eq!(slow.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(slow.text().await.unwrap().contains("there is no answer after"));
    assert_eq!(world.get("/healthz").await.status(), StatusCode::OK);
    world.end().await;
}

/// Asks over the socket as another user of this machine. The identity is this thread's alone, and ends with it.
fn ask_as(uid: u32, socket: &Path, request: &str) -> std::io::Result<String> {
    let (socket, request) = (socket.to_owned(), request.to_owned());
    let asked = std::thread::spawn(move || {
        let uid = Uid::from_raw(uid);
        rustix::thread::set_thread_res_uid(uid, uid, uid)?;
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    });
    asked.join().unwrap()
}

#[tokio::test]
async fn another_user_of_this_machine_is_refused_at_the_socket() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not tried: only root can be another user");
        return;
    }
    let world = World::new(&with_tokens());
    let ask = async |uid, request: &'static str| {
        let socket = world.socket();
        tokio::task::spawn_blocking(move || ask_as(uid, &socket, request)).await.unwrap()
    };
    let look = "GET /api/v1/drills HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let start = "POST /api/v1/drills/orders/runs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                 Content-Length: 2\r\nConnection: close\r\n\r\n{}";
    let kept_out = ask(65_534, look).await.unwrap_err();
    assert_eq!(kept_out.kind(), std::io::ErrorKind::PermissionDenied, "{kept_out}");
    // Somebody opened what must be closed: the daemon asks the kernel who it is.
    for (path, mode) in [(world.place.path().to_owned(), 0o755), (world.socket(), 0o666)] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }
    for request in [look, start] {
        let refused = ask(65_534, request).await.unwrap();
        assert!(refused.starts_with("HTTP/1.1 403"), "{refused}");
        assert!(refused.contains("user 65534 is not the one that runs this daemon"), "{refused}");
    }
    assert!(world.asked.lock().unwrap().is_empty());
    assert!(ask(0, look).await.unwrap().starts_with("HTTP/1.1 200"));
    world.end().await;
}
