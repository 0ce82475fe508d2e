//! The database role of a lease: made, locked, removed.
use drill::port::Server;
use drill::stop::Stop;

use super::{admin, stop};
use crate::engine::postgresql::MAINTENANCE_DATABASE;
use crate::engine::postgresql::text::{identifier, literal};

/// A few sessions for parallel scans, and no more.
const CONNECTIONS: u32 = 32;

/// `name` is an identifier in quotes, `until` a literal. Role settings beat what the backup sets for its databases and for all
/// roles: no library of its, no role, no deadline.
pub(in crate::credentials) fn make(name: &str, until: &str) -> Vec<String> {
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
             CONNECTION LIMIT {CONNECTIONS} PASSWORD NULL VALID UNTIL {until}"
        ),
        format!("GRANT pg_read_all_data TO {name}"),
    ];
    statements.extend(without_libraries(name));
    statements.push(without_event_triggers(name));
    statements.extend(settings.map(|(setting, value)| format!("ALTER ROLE {name} SET {setting} = {}", literal(value))));
    statements
}

/// An empty list cannot be written down: `SET … = ''` stores one library without a name. The administrator's session has both
/// empty.
pub(in crate::credentials) fn without_libraries(name: &str) -> [String; 2] {
    ["session_preload_libraries", "local_preload_libraries"]
        .map(|setting| format!("ALTER ROLE {name} SET {setting} FROM CURRENT"))
}

/// One at login would keep the lease out, or never end: the server has them off, and a database of the backup may turn them on. 16
/// and older know no such setting. One statement for Vault, too, which does not split where it holds an `END`.
pub(in crate::credentials) fn without_event_triggers(name: &str) -> String {
    format!(
        "DO $muster$ BEGIN \
         IF pg_catalog.current_setting('event_triggers', true) IS NOT NULL THEN \
         ALTER ROLE {name} SET event_triggers = off; \
         END IF; END $muster$"
    )
}

/// Databases that are closed to everybody else, opened to it.
pub(in crate::credentials) fn admit(name: &str, databases: &[String]) -> Vec<String> {
    let of_one = |database: &String| {
        let database = identifier(database);
        [
            format!("GRANT CONNECT ON DATABASE {database} TO {name}"),
            format!("ALTER DATABASE {database} CONNECTION LIMIT -1"),
        ]
    };
    databases.iter().flat_map(of_one).collect()
}

/// Locks it first, so that what is ended does not come back. A role that is not there is success.
pub(in crate::credentials) async fn remove(
    server: &dyn Server,
    role: &str,
    databases: &[String],
) -> Result<&'static str, Stop> {
    let there = format!("SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = {}", literal(role));
    if admin(server, "looking for the lease's role", &there).await?.is_empty() {
        return Ok("no such role");
    }
    for statement in lock(role) {
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
pub(in crate::credentials) fn lock(role: &str) -> [String; 2] {
    [
        format!("ALTER ROLE {} NOLOGIN PASSWORD NULL VALID UNTIL '-infinity'", identifier(role)),
        format!(
            "SELECT pg_catalog.pg_terminate_backend(pid, 5000) FROM pg_catalog.pg_stat_activity WHERE usename = {}",
            literal(role)
        ),
    ]
}
