//! Slows down who guesses tokens. What is remembered is bounded, whoever knocks.
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bad tokens from one address within [`WINDOW`].
const ALLOWED: u32 = 10;
const WINDOW: Duration = Duration::from_mins(1);
/// Addresses that are remembered.
const REMEMBERED: usize = 1_024;

#[derive(Debug, Default)]
pub(super) struct Throttle(Mutex<HashMap<IpAddr, Tries>>);

#[derive(Debug, Clone, Copy)]
struct Tries {
    since: Instant,
    count: u32,
}

impl Throttle {
    /// How long this peer must wait; None where it may try.
    pub(super) fn wait(&self, peer: IpAddr, now: Instant) -> Option<Duration> {
        let tries = *self.lock().get(&network(peer))?;
        let left = (tries.since + WINDOW).saturating_duration_since(now);
        (tries.count >= ALLOWED && !left.is_zero()).then_some(left)
    }

    pub(super) fn bad_token(&self, peer: IpAddr, now: Instant) {
        let mut known = self.lock();
        let peer = network(peer);
        if known.len() >= REMEMBERED && !known.contains_key(&peer) {
            known.retain(|_, tries| tries.since + WINDOW > now);
            // Whoever tried least makes room: who is refused stays refused.
            let least = known.iter().min_by_key(|(_, tries)| (tries.count, tries.since)).map(|(peer, _)| *peer);
            if let (true, Some(least)) = (known.len() >= REMEMBERED, least) {
                known.remove(&least);
            }
        }
        let tries = known.entry(peer).or_insert(Tries { since: now, count: 0 });
        if tries.since + WINDOW <= now {
            *tries = Tries { since: now, count: 0 };
        }
        tries.count = tries.count.saturating_add(1);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Tries>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever has one address of IPv6 has a /64 of them.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & !u128::from(u64::MAX)).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_guesses_waits_and_nobody_else() {
        let (throttle, start) = (Throttle::default(), Instant::now());
        let peers = ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"];
        let [guesser, other, first, neighbour] = peers.map(|text| text.parse::<IpAddr>().expect("an address"));
        for _ in 0..ALLOWED {
            assert_eq!(throttle.wait(guesser, start), None);
            throttle.bad_token(guesser, start);
            throttle.bad_token(first, start);
        }
        assert_eq!(throttle.wait(guesser, start), Some(WINDOW));
        assert_eq!(throttle.wait(neighbour, start), Some(WINDOW));
        assert_eq!(throttle.wait(other, start), None);
        assert_eq!(throttle.wait(guesser, start + WINDOW), None);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_who_is_refused_stays_so() {
        let (throttle, start) = (Throttle::default(), Instant::now());
        let guesser = IpAddr::from([192, 0, 2, 1]);
        for _ in 0..ALLOWED {
            throttle.bad_token(guesser, start);
        }
        for number in 0..5_000_u32 {
            throttle.bad_token(IpAddr::from((0x0a00_0000 + number).to_be_bytes()), start);
        }
        assert!(throttle.lock().len() <= REMEMBERED);
        assert!(throttle.wait(guesser, start).is_some());
    }
}
