//! From a listener to an address. In the local sandbox: from the runner's socket to the database's port on the sandbox's own
//! loopback. The runner bound and listens; we only accept, so nothing inside can plant a socket in its place.
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::MAX_CONNECTIONS;

const BUFFER: usize = 128 << 10;
const STACK: usize = 64 << 10;

pub(super) fn start(listener: OwnedFd, port: u16) -> io::Result<()> {
    let listener = UnixListener::from(listener);
    listener.set_nonblocking(false)?;
    serve(move || Ok(listener.accept()?.0), SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

/// Relays every connection that `accept` gives to `target`, for as long as this process lives.
pub(in crate::isolation) fn serve<S: Stream>(
    accept: impl Fn() -> io::Result<S> + Send + 'static,
    target: SocketAddr,
) -> io::Result<()> {
    let slots = Arc::new(Slots { free: Mutex::new(MAX_CONNECTIONS), freed: Condvar::new() });
    let accept = move || {
        loop {
            // Those beyond the limit wait in the listener's queue.
            let slot = Slots::take(&slots);
            match accept() {
                Ok(stream) => connect(stream, target, slot),
                Err(_) => std::thread::sleep(std::time::Duration::from_millis(10)),
            }
        }
    };
    std::thread::Builder::new().stack_size(STACK).spawn(accept).map(drop)
}

/// One connection, whatever it is made of.
pub(in crate::isolation) trait Stream: Read + Write + Sized + Send + 'static {
    fn another(&self) -> io::Result<Self>;
    fn finish_writing(&self);
}

impl Stream for UnixStream {
    fn another(&self) -> io::Result<Self> {
        self.try_clone()
    }

    fn finish_writing(&self) {
        let _ = self.shutdown(Shutdown::Write);
    }
}

impl Stream for TcpStream {
    fn another(&self) -> io::Result<Self> {
        self.set_nodelay(true)?;
        self.try_clone()
    }

    fn finish_writing(&self) {
        let _ = self.shutdown(Shutdown::Write);
    }
}

/// An end of file is the answer where the target does not listen, or a thread cannot be had.
fn connect<S: Stream>(mut outside: S, target: SocketAddr, slot: Slot) {
    let relay = move || -> io::Result<()> {
        let mut inside = TcpStream::connect(target)?;
        let slot = Arc::new(slot);
        let (mut from, mut to, kept) = (outside.another()?, inside.another()?, Arc::clone(&slot));
        let upward = move || {
            copy(&mut from, &mut to);
            to.finish_writing();
            drop(kept);
        };
        std::thread::Builder::new().stack_size(STACK).spawn(upward)?;
        copy(&mut inside, &mut outside);
        outside.finish_writing();
        Ok(())
    };
    let _ = std::thread::Builder::new().stack_size(STACK).spawn(move || drop(relay()));
}

fn copy(from: &mut impl Read, to: &mut impl Write) {
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => return,
            Ok(read) => {
                if to.write_all(&buffer[..read]).is_err() {
                    return;
                }
            }
        }
    }
}

struct Slots {
    free: Mutex<usize>,
    freed: Condvar,
}

impl Slots {
    fn take(slots: &Arc<Self>) -> Slot {
        let mut free = slots.free.lock().unwrap_or_else(PoisonError::into_inner);
        while *free == 0 {
            free = slots.freed.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= 1;
        Slot(Arc::clone(slots))
    }
}

/// One relayed connection; free again when both directions have ended.
struct Slot(Arc<Slots>);

impl Drop for Slot {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}
