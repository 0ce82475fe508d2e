//! What every login of a lease has in common, whoever makes it: what is taken from everybody before ([`close`]), what it may do
//! ([`role`]), who ends it when nobody renews it ([`guard`]), what is tried with it ([`attempts`]), and what is seen after it.
//!
//! What makes a login read-only is grants, not settings: `default_transaction_read_only` can be turned off by whoever it hinders.
mod attempts;
mod close;
mod guard;
pub(super) mod role;

use std::collections::BTreeMap;
use std::time::Duration;

use drill::agent::ClientIdentity;
use drill::port::{Rows, Server, SqlError};
use drill::schema::Taken;
use drill::stop::Stop;
use drill::verdict::Reason;

use crate::engine::postgresql::MAINTENANCE_DATABASE;
use crate::engine::postgresql::text::identifier;

pub(super) use attempts::Tried;
pub(super) use guard::Guards;

const A_MOMENT: Duration = Duration::from_mins(1);

/// Invalid authorization, invalid password: what a login is refused with whose role is gone or may not log in.
const REFUSED: [&str; 2] = ["28000", "28P01"];

/// Blanks production's secrets, and takes from everybody what would let any login write, block or run as somebody else. By
/// database, what was taken.
pub(super) async fn close(server: &dyn Server, databases: &[String]) -> Result<BTreeMap<String, Vec<Taken>>, Stop> {
    close::blank_secrets(server, databases).await?;
    let mut taken = BTreeMap::new();
    for database in databases {
        taken.insert(database.clone(), close::close_database(server, database).await?);
    }
    let of_cluster = close::close_cluster(server).await?;
    for taken in taken.values_mut() {
        taken.extend_from_slice(&of_cluster);
    }
    Ok(taken)
}

/// Tries what it must not be able to do. One of the attempts gives it a password, which is cleared.
pub(super) async fn prove(server: &dyn Server, identity: &ClientIdentity, databases: &[String]) -> Result<Tried, Stop> {
    let tried = attempts::try_all(server, identity, databases).await?;
    let clear_password = format!("ALTER ROLE {} PASSWORD NULL", identifier(&identity.role));
    admin(server, "clearing the lease's password", &clear_password).await?;
    Ok(tried)
}

/// Tries to log in as whom was revoked, with a good certificate, and then as the administrator: a server that refuses everybody
/// proves nothing.
pub(super) async fn see_refused(server: &dyn Server, role: &str, databases: &[String]) -> Result<String, Stop> {
    let identity = server.identity(role, A_MOMENT)?;
    let database = databases.first().map_or(MAINTENANCE_DATABASE, String::as_str);
    match server.login(&identity, database).await {
        Ok(_) => Err(Stop::new(Reason::Credentials, format!("the login of {role} still works after its revocation"))),
        Err(SqlError { sqlstate: Some(state), .. }) if REFUSED.contains(&state.as_str()) => {
            admin(server, "logging in beside the refused lease", "SELECT 1").await?;
            Ok(format!("login refused with {state}"))
        }
        Err(error) => Err(Stop::new(
            Reason::Credentials,
            format!("whether the login of {role} is refused could not be seen: {error}"),
        )),
    }
}

/// Until the run's own end.
pub(super) fn remaining(not_after: jiff::Timestamp) -> Result<Duration, Stop> {
    let left = not_after.duration_since(jiff::Timestamp::now());
    Duration::try_from(left)
        .ok()
        .filter(|left| !left.is_zero())
        .ok_or_else(|| Stop::new(Reason::Deadline, "making the lease: the run's deadline has passed"))
}

pub(super) async fn admin(server: &dyn Server, doing: &str, statements: &str) -> Result<Rows, Stop> {
    server.admin(MAINTENANCE_DATABASE, statements).await.map_err(|error| stop(doing, &error))
}

pub(super) fn stop(doing: &str, error: &SqlError) -> Stop {
    Stop::new(Reason::Credentials, format!("{doing}: {error}"))
}
