//! Why a phase could not go on: the one error that crosses a port, because whoever decides needs the [`Reason`] and whoever
//! reads needs what was tried, what went wrong and what to do.
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::verdict::Reason;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    pub reason: Reason,
    /// What was tried and what is wrong, as one sentence without a full stop.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// What is wrong, as one of a few stable words of a driver's own, such as `sealed`: for metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

impl Stop {
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), advice: None, cause: None }
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Reason::Internal, message)
    }

    #[must_use]
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    #[must_use]
    pub fn because(mut self, cause: impl Into<String>) -> Self {
        self.cause = Some(cause.into());
        self
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Stop {}

/// Turns an error into a [`Stop`] that says what was being tried.
pub trait OrStop<T> {
    fn or_stop(self, reason: Reason, tried: impl fmt::Display) -> Result<T, Stop>;
}

impl<T, E: std::error::Error> OrStop<T> for Result<T, E> {
    fn or_stop(self, reason: Reason, tried: impl fmt::Display) -> Result<T, Stop> {
        self.map_err(|error| Stop::new(reason, format!("{tried}: {}", chain(&error))))
    }
}

/// An error and its causes on one line, each said once.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
