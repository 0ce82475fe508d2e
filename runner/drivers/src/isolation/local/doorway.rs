//! The ways to the database in the sandbox: the runner's own, and a loopback port for a visitor who needs one.
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use drill::port::Doorway;
use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

const DIAL: Duration = Duration::from_secs(10);
/// A visitor's pool of connections, and no more.
const VISITORS: usize = 16;

/// The socket that the sandbox's init listens on, through the descriptor of its directory: a socket's path has room for 107
/// bytes only.
#[derive(Debug, Clone)]
pub(super) struct WayIn {
    directory: Arc<OwnedFd>,
    socket: &'static str,
}

impl WayIn {
    pub(super) fn new(directory: OwnedFd, socket: &'static str) -> Self {
        Self { directory: Arc::new(directory), socket }
    }

    pub(super) async fn dial(&self) -> Result<UnixStream, Stop> {
        let path = format!("/proc/self/fd/{}/{}", self.directory.as_raw_fd(), self.socket);
        let connect = async {
            loop {
                match UnixStream::connect(&path).await {
                    // The relay's queue is full.
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    other => return other,
                }
            }
        };
        let tried = "connecting to the sandbox's database";
        let stream = tokio::time::timeout(DIAL, connect).await;
        let stream = stream.map_err(|_| Stop::new(Reason::LimitReached, format!("{tried}: no room for 10 s")))?;
        stream.or_stop(Reason::Internal, tried)
    }
}

/// Whoever on this machine finds the port gets as far as the server's demand for a certificate.
pub(super) struct LoopbackDoorway {
    address: SocketAddr,
    closing: CancellationToken,
    door: AbortOnDropHandle<()>,
}

impl LoopbackDoorway {
    pub(super) async fn open(way_in: WayIn) -> Result<Self, Stop> {
        let tried = "opening a doorway to the sandbox's database";
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.or_stop(Reason::Internal, tried)?;
        let address = listener.local_addr().or_stop(Reason::Internal, tried)?;
        let closing = CancellationToken::new();
        let door = AbortOnDropHandle::new(tokio::spawn(keep(listener, way_in, closing.clone())));
        Ok(Self { address, closing, door })
    }
}

#[async_trait]
impl Doorway for LoopbackDoorway {
    fn host(&self) -> String {
        self.address.ip().to_string()
    }

    fn port(&self) -> u16 {
        self.address.port()
    }

    async fn close(self: Box<Self>) -> Result<(), Stop> {
        self.closing.cancel();
        // A door that ended in a panic is closed, too.
        let _ = self.door.await;
        Ok(())
    }
}

/// Ends with the listener dropped and every visitor's connection with it.
async fn keep(listener: TcpListener, way_in: WayIn, closing: CancellationToken) {
    let mut visitors = JoinSet::new();
    loop {
        tokio::select! {
            () = closing.cancelled() => break,
            Some(_) = visitors.join_next() => {}
            accepted = listener.accept(), if visitors.len() < VISITORS => match accepted {
                Ok((visitor, _)) => {
                    visitors.spawn(relay(visitor, way_in.clone()));
                }
                // Out of descriptors: what is open goes on, and the next look comes a little later.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
        }
    }
    drop(listener);
    visitors.shutdown().await;
}

/// An error on either side ends the connection; the visitor sees that for itself.
async fn relay(mut visitor: TcpStream, way_in: WayIn) {
    if let Ok(mut database) = way_in.dial().await {
        let _ = tokio::io::copy_bidirectional(&mut visitor, &mut database).await;
    }
}
