//! What the service manager hears: <https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html>. Without one, nobody
//! listens and nothing is sent.
use std::time::Duration;

use drill::stop::Stop;
use jiff::{SignedDuration, Timestamp};
use sd_notify::NotifyState;

use crate::dispatcher::Handle;

/// A dispatcher that has not heard the bell for so long does not answer.
const STALE: SignedDuration = SignedDuration::from_secs(20);

pub(super) fn ready(drills: usize) {
    let status = format!("{drills} drills");
    say(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

pub(super) fn stopping() {
    say(&[NotifyState::Stopping]);
}

/// Tells the service manager that muster lives for as long as the dispatcher does. Never ends.
pub(super) async fn watchdog(dispatcher: Handle) -> Result<(), Stop> {
    let Some(patience) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    let mut bell = tokio::time::interval((patience / 3).max(Duration::from_millis(100)));
    loop {
        bell.tick().await;
        if answers(dispatcher.view().ticked, Timestamp::now()) {
            say(&[NotifyState::Watchdog]);
        }
    }
}

/// A clock that was set back makes a bell that rang in the future: it rang.
fn answers(ticked: Option<Timestamp>, now: Timestamp) -> bool {
    ticked.is_none_or(|ticked| now.duration_since(ticked) < STALE)
}

fn say(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bell_that_fell_silent_is_no_life() {
        let now: Timestamp = "2026-11-22T02:15:00Z".parse().expect("a time");
        let ago = |seconds| Some(now - SignedDuration::from_secs(seconds));
        assert!(answers(None, now), "it has just begun");
        assert!(answers(ago(1), now) && answers(ago(-3_600), now));
        assert!(!answers(ago(21), now));
    }
}
