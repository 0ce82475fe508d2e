//! Measures the time a guest really uses, and makes sure that it gives way.
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use wasmtime::Engine;

/// How long a guest computes before it gives way: what cancelling and the limits of time are exact to.
const TICK: Duration = Duration::from_millis(10);

/// Advances the engine's epoch while any guest runs. Owned by the host: dropping it ends the thread.
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    running: usize,
    /// The thread waits for a guest. A thread that counts is left alone: waking it costs more than a short call.
    asleep: bool,
    ended: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticker {
    pub(crate) fn start(engine: Engine) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new() });
        let seen = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("plugin-epoch".to_owned()).spawn(move || tick(&seen, &engine))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The epoch advances while the guard lives; with no guard the thread sleeps.
    pub(crate) fn guard(&self) -> TickGuard {
        let mut state = self.shared.lock();
        state.running += 1;
        let asleep = std::mem::take(&mut state.asleep);
        drop(state);
        if asleep {
            self.shared.changed.notify_all();
        }
        TickGuard(Arc::clone(&self.shared))
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub(crate) struct TickGuard(Arc<Shared>);

impl Drop for TickGuard {
    fn drop(&mut self) {
        self.0.lock().running -= 1;
    }
}

fn tick(shared: &Shared, engine: &Engine) {
    let mut state = shared.lock();
    while !state.ended {
        if state.running == 0 {
            state.asleep = true;
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        state = shared.changed.wait_timeout(state, TICK).unwrap_or_else(PoisonError::into_inner).0;
        engine.increment_epoch();
    }
}

/// CPU time of one guest. Shared by the future that runs the guest and the host functions that it calls.
#[derive(Debug, Clone, Default)]
pub(crate) struct CpuTime(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    spent: AtomicU64,
    excused: AtomicU64,
}

impl CpuTime {
    /// What the guest used: the time of the thread while it polled the guest, without what was excused.
    pub(crate) fn used(&self) -> Duration {
        let spent = self.0.spent.load(Ordering::Relaxed);
        Duration::from_nanos(spent.saturating_sub(self.0.excused.load(Ordering::Relaxed)))
    }

    /// Runs a guest: bills what polling it costs, and gives up, with `None`, once `allowed` is used.
    pub(crate) fn bill<F: Future>(&self, allowed: Duration, future: F) -> Bill<F> {
        Bill { cpu: self.clone(), allowed, future: Box::pin(future) }
    }

    /// Work of the host that the guest waits for, such as reading rows from a connection, is not the guest's.
    pub(crate) fn excuse<F: Future>(&self, future: F) -> Excuse<F> {
        Excuse { cpu: self.clone(), future: Box::pin(future) }
    }
}

pub(crate) struct Bill<F> {
    cpu: CpuTime,
    allowed: Duration,
    future: Pin<Box<F>>,
}

impl<F: Future> Future for Bill<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let before = thread_time();
        let polled = self.future.as_mut().poll(context);
        self.cpu.0.spent.fetch_add(thread_time().saturating_sub(before), Ordering::Relaxed);
        match polled {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if self.cpu.used() > self.allowed => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}

pub(crate) struct Excuse<F> {
    cpu: CpuTime,
    future: Pin<Box<F>>,
}

impl<F: Future> Future for Excuse<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let before = thread_time();
        let polled = self.future.as_mut().poll(context);
        self.cpu.0.excused.fetch_add(thread_time().saturating_sub(before), Ordering::Relaxed);
        polled
    }
}

/// CPU time of this thread in nanoseconds: unlike a clock on the wall it does not bill a busy machine to the guest.
#[expect(unsafe_code, reason = "the standard library has no CPU clock; the call writes one timespec that we own")]
fn thread_time() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec for the length of the call.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) } != 0;
    debug_assert!(!failed, "Linux always has the CPU clock of a thread");
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_nsec));
    seconds.unwrap_or_default() * 1_000_000_000 + nanos.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn burn(wanted: Duration) {
        let start = thread_time();
        while Duration::from_nanos(thread_time() - start) < wanted {
            std::hint::black_box(start);
        }
    }

    #[tokio::test]
    async fn waiting_and_excused_work_are_not_billed() {
        let cpu = CpuTime::default();
        let inner = cpu.clone();
        let done = cpu
            .bill(Duration::from_mins(1), async {
                burn(Duration::from_millis(20));
                inner.excuse(async { burn(Duration::from_millis(200)) }).await;
                tokio::time::sleep(Duration::from_millis(200)).await;
            })
            .await;
        assert_eq!(done, Some(()));
        assert!((20..100).contains(&cpu.used().as_millis()), "{:?}", cpu.used());
    }

    #[tokio::test]
    async fn a_future_that_uses_too_much_is_given_up() {
        let cpu = CpuTime::default();
        let done = cpu
            .bill(Duration::from_millis(5), async {
                loop {
                    burn(Duration::from_millis(2));
                    tokio::task::yield_now().await;
                }
            })
            .await;
        assert_eq!(done, None::<()>);
    }
}
