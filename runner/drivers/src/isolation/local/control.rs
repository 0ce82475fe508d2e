//! The runner's end of the socket to the init inside. What comes from there is hostile: bounded, strictly parsed, and never
//! waited for without a deadline.
use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use drill::stop::Stop;
use drill::verdict::Reason;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::inside::{FromInit, MAX_MESSAGE, ToInit};
use super::sys;

const SEND: Duration = Duration::from_secs(10);
const READY: Duration = Duration::from_secs(30);
const MAX_ANSWER: usize = 4096;

/// None once the socket has ended: nobody will answer any more.
type Waiting = Arc<Mutex<Option<HashMap<u64, oneshot::Sender<FromInit>>>>>;

pub(super) struct Control {
    socket: Arc<AsyncFd<OwnedFd>>,
    waiting: Waiting,
    next: AtomicU64,
    ready: watch::Receiver<bool>,
    reader: JoinHandle<()>,
}

impl Drop for Control {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// The two ends: ours, and the one that the sandbox inherits.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((ours, theirs))
}

impl Control {
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        let socket = Arc::new(sys::awaitable(socket, Interest::READABLE | Interest::WRITABLE)?);
        let waiting: Waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        let (sender, ready) = watch::channel(false);
        let reader = tokio::spawn(read(Arc::clone(&socket), Arc::clone(&waiting), sender));
        Ok(Self { socket, waiting, next: AtomicU64::new(1), ready, reader })
    }

    pub(super) async fn ready(&self) -> Result<(), Stop> {
        let mut ready = self.ready.clone();
        match tokio::time::timeout(READY, ready.wait_for(|ready| *ready)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(gone()),
            Err(_) => Err(Stop::new(Reason::SandboxUnfit, "the sandbox did not answer within 30 s")),
        }
    }

    /// Starts a command; its end comes through the receiver, or the receiver fails with the sandbox.
    pub(super) async fn start(
        &self,
        argv: Vec<String>,
        env: Vec<(String, String)>,
        pipes: [OwnedFd; 3],
    ) -> Result<Command, Stop> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let message = serde_json::to_vec(&ToInit::Exec { id, argv, env });
        let message = message.map_err(|error| Stop::internal(format!("writing a command: {error}")))?;
        if message.len() >= MAX_MESSAGE {
            return Err(Stop::internal(format!("a command of {} bytes is too long for the sandbox", message.len())));
        }
        let (sender, end) = oneshot::channel();
        lock(&self.waiting).as_mut().ok_or_else(gone)?.insert(id, sender);
        let socket = Arc::clone(&self.socket);
        let command = Command { id, end, socket: Arc::clone(&socket), waiting: Arc::clone(&self.waiting) };
        let fds = [pipes[0].as_fd(), pipes[1].as_fd(), pipes[2].as_fd()];
        match tokio::time::timeout(SEND, send(&socket, &message, &fds)).await {
            Ok(Ok(())) => Ok(command),
            Ok(Err(_)) => Err(gone()),
            Err(_) => Err(Stop::new(Reason::LimitReached, "the sandbox took no command for 10 s")),
        }
    }
}

/// A command that was asked for. Dropping it ends the command's process group.
pub(super) struct Command {
    id: u64,
    end: oneshot::Receiver<FromInit>,
    socket: Arc<AsyncFd<OwnedFd>>,
    waiting: Waiting,
}

impl Command {
    pub(super) async fn ended(&mut self) -> Result<FromInit, Stop> {
        (&mut self.end).await.map_err(|_| gone())
    }

    pub(super) fn kill(&self) {
        if let Ok(message) = serde_json::to_vec(&ToInit::Kill { id: self.id }) {
            // A full buffer belongs to an init that was stopped; then the sandbox's own end does it.
            let _ = send_now(self.socket.get_ref(), &message, &[]);
        }
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        if lock(&self.waiting).as_mut().is_some_and(|waiting| waiting.remove(&self.id).is_some()) {
            self.kill();
        }
    }
}

pub(super) fn gone() -> Stop {
    Stop::new(Reason::Internal, "the sandbox ended while it was in use")
}

async fn send(socket: &AsyncFd<OwnedFd>, message: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    loop {
        let mut guard = socket.writable().await?;
        match guard.try_io(|socket| Ok(send_now(socket.get_ref(), message, fds)?)) {
            Ok(result) => return result,
            Err(_would_block) => {}
        }
    }
}

fn send_now(socket: &OwnedFd, message: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::INVAL);
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(message)], &mut ancillary, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
    Ok(())
}

async fn read(socket: Arc<AsyncFd<OwnedFd>>, waiting: Waiting, ready: watch::Sender<bool>) {
    let mut buffer = vec![0; MAX_ANSWER];
    while let Ok(length @ 1..) = receive(&socket, &mut buffer).await {
        // Descriptors sent along are never taken: without room for them the kernel closes them.
        let Ok(message) = serde_json::from_slice::<FromInit>(&buffer[..length]) else { break };
        match message {
            FromInit::Ready => _ = ready.send_replace(true),
            FromInit::Started { .. } => {}
            FromInit::Exited { id, .. } | FromInit::Signaled { id, .. } | FromInit::Refused { id, .. } => {
                if let Some(sender) = lock(&waiting).as_mut().and_then(|waiting| waiting.remove(&id)) {
                    let _ = sender.send(message);
                }
            }
        }
    }
    *lock(&waiting) = None;
}

async fn receive(socket: &AsyncFd<OwnedFd>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        let mut guard = socket.readable().await?;
        let read = guard.try_io(|socket| {
            let (bytes, _) = rustix::net::recv(socket.get_ref(), &mut *buffer, RecvFlags::DONTWAIT)?;
            Ok(bytes)
        });
        match read {
            Ok(result) => return result,
            Err(_would_block) => {}
        }
    }
}

fn lock(waiting: &Waiting) -> std::sync::MutexGuard<'_, Option<HashMap<u64, oneshot::Sender<FromInit>>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}
