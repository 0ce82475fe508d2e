//! Listens: on TCP, with TLS or on loopback, and on the socket that the command line talks to.
use std::future::Future;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Extension;
use axum::middleware::AddExtension;
use axum_server::accept::Accept;
use axum_server::{Address, Handle};
use drill::config::Http;
use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;
use hyper_util::rt::TokioTimer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower::Layer as _;

use super::guard::{self, Guard, Peer};
use super::tls::Certificate;
use super::{App, Shared, router};

/// The name of the socket in the state directory.
pub const SOCKET: &str = "muster.sock";

const HEADER_BYTES: usize = 32 * 1_024;
/// What goes on when a stop is asked for may take so long to end.
const DRAIN: Duration = Duration::from_secs(5);

/// What one who asks may take of the daemon.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Connections at one time.
    pub(super) connections: usize,
    /// Those of the socket are counted apart, so that the command line gets through.
    pub(super) local_connections: usize,
    pub(super) handshake: Duration,
    /// Until a request's headers are there, and between two requests.
    pub(super) headers: Duration,
    /// Until an answer begins; a stream may go on.
    pub(super) answer: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 512,
            local_connections: 64,
            handshake: Duration::from_secs(10),
            headers: Duration::from_secs(15),
            answer: Duration::from_secs(30),
        }
    }
}

/// Bound, and not listening to anybody yet.
pub struct Server {
    tcp: std::net::TcpListener,
    address: SocketAddr,
    socket: Socket,
    certificate: Option<Certificate>,
    guard: Guard,
    bounds: Bounds,
}

impl Server {
    /// Binds both; `socket` is where the command line looks. Refuses to show anything beyond this machine without TLS and tokens.
    pub fn bind(config: &Http, socket: &Path) -> Result<Self, Stop> {
        Self::within(Bounds::default(), config, socket)
    }

    pub(super) fn within(bounds: Bounds, config: &Http, socket: &Path) -> Result<Self, Stop> {
        if !config.listen.ip().is_loopback() && (config.tls.is_none() || config.tokens.is_empty()) {
            return Err(Stop::internal(format!("`http.listen` is {}, which others can reach", config.listen))
                .advise("name a certificate in `http.tls` and at least one of `http.tokens`, or listen on 127.0.0.1"));
        }
        let certificate = config.tls.as_ref().map(Certificate::load).transpose()?;
        let tried = || format!("listening on {}", config.listen);
        let tcp = std::net::TcpListener::bind(config.listen)
            .or_stop(Reason::Internal, tried())
            .map_err(|stop| stop.advise("name another address in `http.listen`, or end what listens there"))?;
        tcp.set_nonblocking(true).or_stop(Reason::Internal, tried())?;
        let address = tcp.local_addr().or_stop(Reason::Internal, tried())?;
        let guard = Guard::new(config, bounds.answer);
        Ok(Self { tcp, address, socket: Socket::bind(socket)?, certificate, guard, bounds })
    }

    /// Where it listens: a port of 0 has become one.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop`; then streams end, and what goes on has a few seconds.
    pub async fn serve(self, app: App, stop: CancellationToken) -> Result<(), Stop> {
        let guard = Arc::new(self.guard);
        let routes = guard::around(router(Shared::new(app, stop.clone())), Arc::clone(&guard));
        let certificate = self.certificate.map(Arc::new);
        let Bounds { connections, local_connections, handshake, headers, .. } = self.bounds;
        let slots = |count| Arc::new(Semaphore::new(count));
        let door = Door { slots: slots(connections), certificate: certificate.clone(), handshake };
        let local = Door { slots: slots(local_connections), certificate: None, handshake };
        let failed = |what: String| Stop::internal(what).advise("the daemon's log says more");

        let tcp = axum_server::from_tcp(self.tcp).or_stop(Reason::Internal, "listening on TCP")?;
        let (tcp_handle, unix_handle) = (Handle::new(), Handle::new());
        let tcp = listen(tcp.acceptor(door), tcp_handle.clone(), routes.clone(), headers);
        let unix = self.socket.listener.try_clone().and_then(axum_server::from_unix);
        let unix = unix.or_stop(Reason::Internal, "listening on the socket")?;
        let unix = listen(unix.acceptor(local), unix_handle.clone(), routes, headers);
        let follow = async {
            match &certificate {
                Some(certificate) => certificate.follow().await,
                None => std::future::pending().await,
            }
        };
        let stopped = async {
            stop.cancelled().await;
            tcp_handle.graceful_shutdown(Some(DRAIN));
            unix_handle.graceful_shutdown(Some(DRAIN));
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = async { tokio::try_join!(tcp, unix) } => ended.map(|_| ()).map_err(|error| failed(format!("HTTP: {error}"))),
            () = follow => Ok(()),
            () = stopped => Ok(()),
        }
    }
}

async fn listen<A, S>(
    mut server: axum_server::Server<A, Door>,
    handle: Handle<A>,
    routes: Router,
    headers: Duration,
) -> io::Result<()>
where
    A: Address<Stream = S> + Send + Sync + 'static,
    S: Incoming,
{
    server = server.http1_only().handle(handle);
    server
        .http_builder()
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(headers)
        .max_headers(64)
        .max_buf_size(HEADER_BYTES);
    server.serve(tower::make::Shared::new(routes)).await
}

/// The socket's file, for as long as the server is there.
struct Socket {
    path: PathBuf,
    listener: UnixListener,
}

impl Socket {
    fn bind(path: &Path) -> Result<Self, Stop> {
        let tried = || format!("listening on {}", path.display());
        match path.symlink_metadata() {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(Stop::internal(format!("{} is there and is no socket", path.display()))
                    .advise("move it away, or name another path in `http.socket`"));
            }
            Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
                return Err(Stop::internal(format!("another muster answers at {}", path.display()))
                    .advise("one daemon serves a state directory; stop the other one first"));
            }
            // A daemon that was killed left it.
            Ok(_) => std::fs::remove_file(path).or_stop(Reason::Internal, tried())?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).or_stop(Reason::Internal, tried()),
        }
        let listener = UnixListener::bind(path).or_stop(Reason::Internal, tried()).map_err(|stop| {
            stop.advise("name a path of fewer than 108 bytes, in a directory of muster's, in `http.socket`")
        })?;
        // Who connects before this is asked who they are all the same.
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).or_stop(Reason::Internal, tried())?;
        listener.set_nonblocking(true).or_stop(Reason::Internal, tried())?;
        Ok(Self { path: path.to_owned(), listener })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // The next daemon removes what could not be removed.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Lets connections in while there is room, and tells the routes who it is.
#[derive(Clone)]
struct Door {
    slots: Arc<Semaphore>,
    certificate: Option<Arc<Certificate>>,
    handshake: Duration,
}

trait Incoming: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    fn peer(&self) -> io::Result<Peer>;
}

impl Incoming for TcpStream {
    fn peer(&self) -> io::Result<Peer> {
        Ok(Peer::Network(self.peer_addr()?.ip()))
    }
}

impl Incoming for UnixStream {
    fn peer(&self) -> io::Result<Peer> {
        Ok(Peer::Local { uid: self.peer_cred()?.uid() })
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

type Accepted = io::Result<(Held, AddExtension<Router, Peer>)>;

impl<S: Incoming> Accept<S, Router> for Door {
    type Stream = Held;
    type Service = AddExtension<Router, Peer>;
    type Future = Pin<Box<dyn Future<Output = Accepted> + Send>>;

    fn accept(&self, stream: S, routes: Router) -> Self::Future {
        let slot = Arc::clone(&self.slots).try_acquire_owned();
        let handshake = self.handshake;
        let acceptor = self.certificate.as_ref().map(|certificate| certificate.acceptor());
        Box::pin(async move {
            let slot = slot.map_err(|_| io::Error::other("as many connections as may be are open"))?;
            let service = Extension(stream.peer()?).layer(routes);
            let stream: Box<dyn Stream> = match acceptor {
                Some(acceptor) => Box::new(tokio::time::timeout(handshake, acceptor.accept(stream)).await??),
                None => Box::new(stream),
            };
            Ok((Held { stream, _slot: slot }, service))
        })
    }
}

/// A connection and its place among those that may be open.
struct Held {
    stream: Box<dyn Stream>,
    _slot: OwnedSemaphorePermit,
}

impl AsyncRead for Held {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Held {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
