//! From the runner's socket to the database's port on the sandbox's own loopback.
//!
//! The runner bound and listens; we only accept. So nothing inside can plant a socket in its place.
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::MAX_CONNECTIONS;

const BUFFER: usize = 128 << 10;
const STACK: usize = 64 << 10;

pub(super) fn start(listener: OwnedFd, port: u16) -> io::Result<()> {
    let listener = UnixListener::from(listener);
    listener.set_nonblocking(false)?;
    let slots = Arc::new(Slots { free: Mutex::new(MAX_CONNECTIONS), freed: Condvar::new() });
    let accept = move || {
        loop {
            // Those beyond the limit wait in the listener's queue.
            let slot = Slots::take(&slots);
            match listener.accept() {
                Ok((stream, _)) => connect(stream, port, slot),
                Err(_) => std::thread::sleep(std::time::Duration::from_millis(10)),
            }
        }
    };
    std::thread::Builder::new().stack_size(STACK).spawn(accept).map(drop)
}

/// An end of file is the answer where the database does not listen, or a thread cannot be had.
fn connect(outside: UnixStream, port: u16, slot: Slot) {
    let relay = move || -> io::Result<()> {
        let inside = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        inside.set_nodelay(true)?;
        let slot = Arc::new(slot);
        let (from, to, kept) = (outside.try_clone()?, inside.try_clone()?, Arc::clone(&slot));
        let upward = move || {
            copy(from, &to);
            let _ = to.shutdown(Shutdown::Write);
            drop(kept);
        };
        std::thread::Builder::new().stack_size(STACK).spawn(upward)?;
        copy(inside, &outside);
        let _ = outside.shutdown(Shutdown::Write);
        Ok(())
    };
    let _ = std::thread::Builder::new().stack_size(STACK).spawn(move || drop(relay()));
}

fn copy(mut from: impl Read, mut to: impl Write) {
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
