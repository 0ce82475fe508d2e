//! Who makes the login that checks use.
pub mod embedded;
pub mod fake;
mod readonly;
pub mod vault;

use std::time::Duration;

use drill::agent::LeaseGrant;
use drill::port::{LeaseRequest, Server};
use drill::stop::Stop;

/// The server's clock may be a little ahead; the login itself is locked on time.
const CLOCKS: Duration = Duration::from_mins(1);

/// Now and the time to live, and never beyond the run.
fn end_of_lease(request: &LeaseRequest) -> jiff::Timestamp {
    let ttl = jiff::SignedDuration::try_from(request.ttl).unwrap_or(jiff::SignedDuration::MAX);
    jiff::Timestamp::now().checked_add(ttl).unwrap_or(request.not_after).min(request.not_after)
}

/// With a certificate of its own, that ends soon after it.
fn grant(server: &dyn Server, role: &str, expires_at: jiff::Timestamp) -> Result<LeaseGrant, Stop> {
    let identity = server.identity(role, readonly::remaining(expires_at)? + CLOCKS)?;
    Ok(LeaseGrant { identity, expires_at })
}
