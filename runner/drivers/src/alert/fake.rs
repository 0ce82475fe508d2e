//! A destination in memory, for tests of whoever sends: it refuses, hangs and forgets where a test says.
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use drill::port::{Alerts, Delivery};
use drill::stop::Stop;

/// Cheap to clone; all clones are the same destination.
#[derive(Clone)]
pub struct FakeAlerts {
    name: String,
    batch: u32,
    repeat: Option<Duration>,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    heard: Vec<Delivery>,
    answers: VecDeque<Answer>,
}

/// What becomes of one call of `send`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Refused, and not heard.
    Refuse,
    /// Heard, and the answer is lost.
    Lose,
    /// Never answers.
    Hang,
}

impl FakeAlerts {
    pub fn new(name: &str, batch: u32, repeat: Option<Duration>) -> Self {
        Self { name: name.to_owned(), batch, repeat, inner: Arc::default() }
    }

    /// For the next calls, in order; afterwards it hears everything.
    pub fn answer(&self, answers: impl IntoIterator<Item = Answer>) {
        self.lock().answers.extend(answers);
    }

    pub fn heard(&self) -> Vec<Delivery> {
        self.lock().heard.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Alerts for FakeAlerts {
    fn name(&self) -> &str {
        &self.name
    }

    fn batch(&self) -> u32 {
        self.batch
    }

    fn repeat(&self) -> Option<Duration> {
        self.repeat
    }

    async fn send(&self, deliveries: &[Delivery]) -> Result<(), Stop> {
        let answer = {
            let mut inner = self.lock();
            let answer = inner.answers.pop_front();
            if matches!(answer, None | Some(Answer::Lose)) {
                inner.heard.extend_from_slice(deliveries);
            }
            answer
        };
        match answer {
            None => Ok(()),
            Some(Answer::Refuse | Answer::Lose) => {
                Err(Stop::internal(format!("alerts to `{}`: it would not listen", self.name)))
            }
            Some(Answer::Hang) => std::future::pending().await,
        }
    }
}
