//! What the server writes to its log, in bounded memory: its connections, and its last words.
use std::collections::VecDeque;
use std::sync::Mutex;

use tokio::sync::Notify;

use super::ADMIN_ROLE;
use super::text::plain;

/// Connections kept; a dump that floods the log does not fill the runner.
const CONNECTIONS: usize = 200;
const LAST_WORDS: usize = 20;
const LINE: usize = 400;

#[derive(Default)]
pub(super) struct ServerLog {
    state: Mutex<State>,
    ready: Notify,
}

#[derive(Default)]
struct State {
    connections: Vec<String>,
    dropped: u64,
    last: VecDeque<String>,
    worst: VecDeque<String>,
    was_ready: bool,
}

impl ServerLog {
    pub(super) fn line(&self, line: &str) {
        let line = plain(line, LINE);
        let Ok(mut state) = self.state.lock() else { return };
        if line.contains("connection authorized:") {
            if !line.contains(&format!("user={ADMIN_ROLE} ")) {
                if state.connections.len() < CONNECTIONS {
                    state.connections.push(line);
                } else {
                    state.dropped += 1;
                }
            }
            return;
        }
        if line.contains("connection received:") || line.contains("connection authenticated:") {
            return;
        }
        if line.contains("FATAL:") || line.contains("PANIC:") || line.contains("terminated by signal") {
            push(&mut state.worst, line.clone());
        }
        // Once: who repeats it makes nobody try again and again.
        if !state.was_ready && line.contains("ready to accept connections") {
            state.was_ready = true;
            self.ready.notify_one();
        }
        push(&mut state.last, line);
    }

    /// When the server says that it takes connections: worth another try, and no proof.
    pub(super) async fn ready(&self) {
        self.ready.notified().await;
    }

    /// Who logged in besides the runner, as the server tells it.
    pub(super) fn connections(&self) -> Vec<String> {
        let Ok(state) = self.state.lock() else { return Vec::new() };
        let mut lines = state.connections.clone();
        if state.dropped > 0 {
            lines.push(format!("and {} more", state.dropped));
        }
        lines
    }

    /// Whether any of the last lines says so.
    pub(super) fn says(&self, text: &str) -> bool {
        self.state.lock().is_ok_and(|state| state.last.iter().chain(&state.worst).any(|line| line.contains(text)))
    }

    /// What it said before it went: the fatal lines, else the last ones.
    pub(super) fn last_words(&self) -> String {
        let Ok(state) = self.state.lock() else { return String::new() };
        let lines = if state.worst.is_empty() { &state.last } else { &state.worst };
        let words: Vec<&str> = lines.iter().rev().take(3).rev().map(String::as_str).collect();
        words.join("; ")
    }
}

fn push(lines: &mut VecDeque<String>, line: String) {
    if lines.len() == LAST_WORDS {
        lines.pop_front();
    }
    lines.push_back(line);
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn the_runners_own_logins_are_left_out_and_a_flood_is_counted() {
        let log = ServerLog::default();
        log.line(
            "2026 [7] LOG:  connection authorized: user=muster_sandbox database=x application_name=muster SSL enabled",
        );
        for _ in 0..CONNECTIONS + 5 {
            log.line("2026 [7] LOG:  connection authorized: user=muster-run database=x");
        }
        assert_eq!(log.connections().len(), CONNECTIONS + 1);
        assert_eq!(log.connections().last().map(String::as_str), Some("and 5 more"));
    }

    #[test]
    fn a_server_that_is_ready_is_not_waited_for() {
        let log = ServerLog::default();
        let wakes = || log.ready().now_or_never().is_some();
        log.line("2026 [1] LOG:  starting PostgreSQL 15.18");
        assert!(!wakes(), "not yet");
        let ready = "2026 [1] LOG:  database system is ready to accept connections";
        log.line(ready);
        assert!(wakes(), "as soon as it says so");
        log.line(ready);
        assert!(!wakes(), "once");
    }

    #[test]
    fn last_words_prefer_what_was_fatal() {
        let log = ServerLog::default();
        log.line("FATAL:  configuration file \"/conf/postgresql.conf\" contains errors");
        for _ in 0..50 {
            log.line("LOG:  chatter");
        }
        assert_eq!(log.last_words(), "FATAL:  configuration file \"/conf/postgresql.conf\" contains errors");
    }
}
