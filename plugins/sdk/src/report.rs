//! What the check tells. Needs no grant.
pub use crate::bindings::muster::check::report::{
    Finding, Severity, add_finding, set_metric, set_progress, write_log as log,
};

/// Something worth knowing.
pub fn info(subject: impl Into<String>, message: impl Into<String>) {
    add(Severity::Info, subject, message);
}

/// Something to look at, which does not fail the drill.
pub fn warning(subject: impl Into<String>, message: impl Into<String>) {
    add(Severity::Warning, subject, message);
}

/// What is wrong with the restored data: fails the drill.
pub fn failure(subject: impl Into<String>, message: impl Into<String>) {
    add(Severity::Failure, subject, message);
}

fn add(severity: Severity, subject: impl Into<String>, message: impl Into<String>) {
    add_finding(&Finding { severity, subject: subject.into(), message: message.into(), details: Vec::new() });
}
