//! The few system calls that no safe wrapper offers. Each takes plain numbers or nothing, so none can change our memory.
use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;

/// A fresh, empty session keyring for this process: the inherited one holds what the caller put there.
#[expect(unsafe_code, reason = "keyctl has no safe wrapper; the null name asks for an anonymous keyring")]
pub(super) fn join_new_session_keyring() -> io::Result<()> {
    // SAFETY: no pointer is passed but the null name.
    let answer = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, 0_usize) };
    let error = io::Error::last_os_error();
    // A kernel without keyrings has none that could be inherited.
    if answer < 0 && error.raw_os_error() != Some(libc::ENOSYS) { Err(error) } else { Ok(()) }
}

/// Marks every descriptor above standard error to be closed by the next `execve`.
#[expect(unsafe_code, reason = "close_range has no safe wrapper")]
pub(super) fn close_all_on_exec() -> io::Result<()> {
    // SAFETY: with CLOSE_RANGE_CLOEXEC nothing is closed now, so no owner of a descriptor is surprised.
    let answer = unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A sandbox is after throughput: whoever is woken in it waits for its turn. Otherwise each 8 KiB that the server sends would take
/// the processor from it, for the relay and then for the agent. A hint: where it is refused, all is as right and slower.
#[expect(unsafe_code, reason = "sched_setscheduler has no safe wrapper")]
pub(super) fn prefer_throughput() {
    // SAFETY: a sched_param is plain numbers, the kernel only reads it, and all zeros is the one that SCHED_BATCH takes.
    unsafe {
        let parameters: libc::sched_param = std::mem::zeroed();
        libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters);
    }
}

/// A system call that a probe expects to be refused. `arguments` must not be addresses: zero stands for each of them.
#[expect(unsafe_code, reason = "the probes call what no library offers, to see it refused")]
pub(super) fn try_syscall(number: libc::c_long, arguments: [libc::c_long; 4]) -> io::Result<libc::c_long> {
    let [a, b, c, d] = arguments;
    // SAFETY: callers pass numbers and null pointers only; the kernel answers EFAULT to those that it would follow.
    let answer = unsafe { libc::syscall(number, a, b, c, d, 0_usize, 0_usize) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

/// A descriptor that a task can wait for.
#[expect(unsafe_code, reason = "tokio wants the caller to promise that the descriptor stays the same one")]
pub(super) fn awaitable(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd names one open descriptor until it is dropped, and the AsyncFd owns it.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_call_is_an_error_with_its_number() {
        let error = try_syscall(libc::SYS_keyctl, [-1, 0, 0, 0]).expect_err("there is no such operation");
        assert!(matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EPERM | libc::ENOSYS | libc::EINVAL)));
    }

    #[test]
    fn a_new_session_keyring_can_be_joined() {
        std::thread::spawn(|| join_new_session_keyring().expect("keyrings")).join().expect("no panic");
    }
}
