//! A role made over the administrator's connection, for one run, that can read everything and change nothing.
//!
//! What makes it read-only is grants, not settings: `default_transaction_read_only` can be turned off by whoever it hinders.
//! So before the role exists, [`close`] takes from PUBLIC what would let any login write, block or run as somebody else, and
//! blanks production's secrets, which `pg_read_all_data` would show. Then [`attempts`] tries each of these with the new login.
//!
//! The login is by certificate. PostgreSQL's `VALID UNTIL` binds passwords only, so it is set for people who look, and two
//! other things end the lease: the certificate is worth nothing after the run's own deadline, and a guard, holding a session
//! that was opened before, locks the role and ends its sessions when the time to live passes without a renewal. A runner
//! that is killed takes the sandbox, and so the role, with it.
mod attempts;
mod close;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use drill::agent::LeaseGrant;
use drill::id::RunId;
use drill::ledger::Resource;
use drill::port::{Credentials, Inside, Lease, LeaseRequest, Server, Session, SqlError};
use drill::proof::{LeaseProof, ReleaseProof};
use drill::stop::Stop;
use drill::verdict::Reason;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::engine::postgresql::text::{identifier, literal};
use crate::engine::postgresql::{ADMIN_ROLE, MAINTENANCE_DATABASE};

use super::end_of_lease;

/// Invalid authorization, invalid password: what a login is refused with whose role is gone or may not log in.
const REFUSED: [&str; 2] = ["28000", "28P01"];
/// A few sessions for parallel scans, and no more.
const CONNECTIONS: u32 = 32;

#[derive(Default)]
pub struct Embedded {
    guards: Mutex<BTreeMap<RunId, Guard>>,
}

/// Locks the role at the end of its lease. Dropping it ends the watch.
struct Guard {
    until: watch::Sender<Instant>,
    _task: AbortOnDropHandle<()>,
}

impl Embedded {
    pub fn new() -> Self {
        Self::default()
    }

    fn guards(&self) -> std::sync::MutexGuard<'_, BTreeMap<RunId, Guard>> {
        self.guards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Credentials for Embedded {
    fn name(&self) -> &'static str {
        "embedded"
    }

    fn opens_doorway(&self) -> bool {
        false
    }

    /// Everything it needs is in the database.
    async fn warm_up(&self, _run: &RunId) -> Result<(), Stop> {
        Ok(())
    }

    async fn issue(&self, request: &LeaseRequest, inside: Inside<'_>) -> Result<Lease, Stop> {
        let server = inside.server;
        let role = Resource::lease_role(&request.run);
        close::blank_secrets(server, &request.databases).await?;
        let mut taken = BTreeMap::new();
        for database in &request.databases {
            taken.insert(database.clone(), close::close_database(server, database).await?);
        }
        let of_cluster = close::close_cluster(server).await?;
        for taken in taken.values_mut() {
            taken.extend_from_slice(&of_cluster);
        }
        remove_role(server, &role, &request.databases).await?;
        let expires_at = end_of_lease(request);
        let remaining = remaining(request.not_after)?;
        admin(server, "making the lease's role", &make_role(&role, &request.databases, expires_at)).await?;
        let identity = server.identity(&role, remaining)?;
        let guard = guard(server, &role, expires_at).await?;
        self.guards().insert(request.run.clone(), guard);
        let attempts = attempts::try_all(server, &identity, &request.databases).await?;
        let clear_password = format!("ALTER ROLE {} PASSWORD NULL", identifier(&role));
        admin(server, "clearing the lease's password", &clear_password).await?;
        let handle = serde_json::json!({ "role": role });
        let proof = LeaseProof { role, ttl: request.ttl, attempts, leases: Vec::new() };
        proof.judge()?;
        Ok(Lease { grant: LeaseGrant { identity, expires_at }, proof, handle, taken })
    }

    async fn renew(&self, request: &LeaseRequest, lease: &Lease, inside: Inside<'_>) -> Result<Lease, Stop> {
        let expires_at = end_of_lease(request);
        {
            let guards = self.guards();
            let guard = guards.get(&request.run).ok_or_else(|| {
                Stop::new(Reason::Credentials, "renewing the lease: this runner holds none for the run")
            })?;
            if *guard.until.borrow() <= Instant::now() {
                return Err(Stop::new(Reason::Credentials, "renewing the lease: it has expired"));
            }
            guard.until.send_replace(instant(expires_at));
        }
        let role = Resource::lease_role(&request.run);
        let statement = format!("ALTER ROLE {} VALID UNTIL {}", identifier(&role), literal(&expires_at.to_string()));
        admin(inside.server, "renewing the lease", &statement).await?;
        let grant = LeaseGrant { expires_at, ..lease.grant.clone() };
        Ok(Lease { grant, ..lease.clone() })
    }

    async fn revoke(
        &self,
        request: &LeaseRequest,
        lease: Option<&Lease>,
        inside: Option<Inside<'_>>,
    ) -> Result<ReleaseProof, Stop> {
        let Some(Inside { server, .. }) = inside else {
            return Ok(ReleaseProof::of("the only database that knew the login went with its sandbox"));
        };
        let role = Resource::lease_role(&request.run);
        let removed = remove_role(server, &role, &request.databases).await?;
        self.guards().remove(&request.run);
        let identity = match lease {
            Some(lease) => lease.grant.identity.clone(),
            None => server.identity(&role, Duration::from_mins(1))?,
        };
        let database = request.databases.first().map_or(MAINTENANCE_DATABASE, String::as_str);
        match server.login(&identity, database).await {
            Ok(_) => {
                Err(Stop::new(Reason::Credentials, format!("the login of {role} still works after its revocation")))
            }
            Err(SqlError { sqlstate: Some(state), .. }) if REFUSED.contains(&state.as_str()) => {
                // The control: a server that refuses everybody proves nothing.
                admin(server, "logging in beside the refused lease", "SELECT 1").await?;
                Ok(ReleaseProof { observed: vec![removed.to_owned(), format!("login refused with {state}")] })
            }
            Err(error) => Err(Stop::new(
                Reason::Credentials,
                format!("whether the login of {role} is refused could not be seen: {error}"),
            )),
        }
    }
}

fn remaining(not_after: jiff::Timestamp) -> Result<Duration, Stop> {
    let left = not_after.duration_since(jiff::Timestamp::now());
    Duration::try_from(left)
        .ok()
        .filter(|left| !left.is_zero())
        .ok_or_else(|| Stop::new(Reason::Deadline, "making the lease: the run's deadline has passed"))
}

fn instant(at: jiff::Timestamp) -> Instant {
    let left = at.duration_since(jiff::Timestamp::now());
    Instant::now() + Duration::try_from(left).unwrap_or(Duration::ZERO)
}

/// Role settings beat what the backup sets for its databases and for all roles: no library of its, no role, no deadline.
fn make_role(role: &str, databases: &[String], expires_at: jiff::Timestamp) -> String {
    let name = identifier(role);
    let settings = [
        ("default_transaction_read_only", "on"),
        ("search_path", "pg_catalog"),
        ("role", "none"),
        ("statement_timeout", "1h"),
        ("lock_timeout", "60s"),
        ("temp_file_limit", "4GB"),
    ];
    let mut statements = vec![
        format!(
            "CREATE ROLE {name} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION INHERIT BYPASSRLS \
             CONNECTION LIMIT {CONNECTIONS} PASSWORD NULL VALID UNTIL {}",
            literal(&expires_at.to_string())
        ),
        format!("GRANT pg_read_all_data TO {name}"),
        // An empty list cannot be written down: `SET … = ''` stores one library without a name. The administrator's session has
        // both empty.
        format!("ALTER ROLE {name} SET session_preload_libraries FROM CURRENT"),
        format!("ALTER ROLE {name} SET local_preload_libraries FROM CURRENT"),
    ];
    statements.extend(settings.map(|(setting, value)| format!("ALTER ROLE {name} SET {setting} = {}", literal(value))));
    for database in databases {
        statements.push(format!("GRANT CONNECT ON DATABASE {} TO {name}", identifier(database)));
        statements.push(format!("ALTER DATABASE {} CONNECTION LIMIT -1", identifier(database)));
    }
    statements.join(";\n")
}

/// Locks it first, so that what is ended does not come back. A role that is not there is success.
async fn remove_role(server: &dyn Server, role: &str, databases: &[String]) -> Result<&'static str, Stop> {
    let there = format!("SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = {}", literal(role));
    if admin(server, "looking for the lease's role", &there).await?.is_empty() {
        return Ok("no such role");
    }
    for statement in lock_role(role) {
        admin(server, "locking the lease", &statement).await?;
    }
    let name = identifier(role);
    // Rights on databases are shared, so one place serves for them; what it owns, if it could make anything, is anywhere.
    let drop_owned = format!("DROP OWNED BY {name}");
    admin(server, "removing the lease's rights", &drop_owned).await?;
    let drop_role = format!("DROP ROLE IF EXISTS {name}");
    if let Err(error) = server.admin(MAINTENANCE_DATABASE, &drop_role).await {
        if error.sqlstate.as_deref() != Some("2BP01") {
            return Err(stop("dropping the lease's role", &error));
        }
        for database in databases {
            let dropped = server.admin(database, &drop_owned).await;
            dropped.map_err(|error| stop("removing what the lease owns", &error))?;
        }
        admin(server, "dropping the lease's role", &drop_role).await?;
    }
    Ok("role dropped")
}

/// No new logins; and once that is so, no sessions.
fn lock_role(role: &str) -> [String; 2] {
    [
        format!("ALTER ROLE {} NOLOGIN PASSWORD NULL VALID UNTIL '-infinity'", identifier(role)),
        format!(
            "SELECT pg_catalog.pg_terminate_backend(pid, 5000) FROM pg_catalog.pg_stat_activity WHERE usename = {}",
            literal(role)
        ),
    ]
}

/// Its session is opened before the lease can be used, so that nobody can keep it out.
async fn guard(server: &dyn Server, role: &str, expires_at: jiff::Timestamp) -> Result<Guard, Stop> {
    let identity = server.identity(ADMIN_ROLE, Duration::from_mins(5))?;
    let session = server.login(&identity, MAINTENANCE_DATABASE).await;
    let session = session.map_err(|error| stop("opening the guard of the lease", &error))?;
    let (until, watched) = watch::channel(instant(expires_at));
    let task = tokio::spawn(watch_over(session, role.to_owned(), watched));
    Ok(Guard { until, _task: AbortOnDropHandle::new(task) })
}

async fn watch_over(session: Box<dyn Session>, role: String, mut until: watch::Receiver<Instant>) {
    loop {
        let end = *until.borrow_and_update();
        tokio::select! {
            () = tokio::time::sleep_until(end) => break,
            changed = until.changed() => if changed.is_err() {
                return;
            },
        }
    }
    // Where it fails, revocation is still owed and will tell.
    for statement in lock_role(&role) {
        let _ = session.run(&statement).await;
    }
}

async fn admin(server: &dyn Server, doing: &str, statements: &str) -> Result<drill::port::Rows, Stop> {
    server.admin(MAINTENANCE_DATABASE, statements).await.map_err(|error| stop(doing, &error))
}

fn stop(doing: &str, error: &SqlError) -> Stop {
    Stop::new(Reason::Credentials, format!("{doing}: {error}"))
}
