//! Who makes the login that checks use.
pub mod embedded;
pub mod fake;
mod readonly;
pub mod vault;

use drill::port::LeaseRequest;

/// Now and the time to live, and never beyond the run.
fn end_of_lease(request: &LeaseRequest) -> jiff::Timestamp {
    let ttl = jiff::SignedDuration::try_from(request.ttl).unwrap_or(jiff::SignedDuration::MAX);
    jiff::Timestamp::now().checked_add(ttl).unwrap_or(request.not_after).min(request.not_after)
}
