//! What the lease must not be able to do, tried with its own login in every database, after it turned off what a login may
//! turn off. Only the server's refusal counts, by its SQLSTATE: a connection that breaks proves nothing.
//!
//! A backup can bring what answers before the server looks at a privilege: a rule on a table, an event trigger. What those would
//! answer is not tried, and said; the sweep of the catalog looks at every right that such an attempt needs.
use drill::agent::{ClientIdentity, SecretText};
use drill::port::{Rows, Server, Session, SqlError};
use drill::proof::{Attempt, Untried};
use drill::secret::Secret;
use drill::stop::Stop;
use drill::verdict::Reason;

use crate::engine::postgresql::text::literal;
use crate::engine::postgresql::{ADMIN_ROLE, MAINTENANCE_DATABASE};

const INSUFFICIENT_PRIVILEGE: &str = "42501";
/// What a login without a valid certificate is told.
const INVALID_AUTHORIZATION: &str = "28000";

/// `{table}`, `{column}` and `{schema}` stand for what was found; an attempt that needs what is not there is left out.
const REFUSED: &[(&str, &str)] = &[
    ("create a schema", "CREATE SCHEMA muster_attempt"),
    ("create a table", "CREATE TABLE {schema}.muster_attempt (x pg_catalog.int4)"),
    ("create a temporary table", "CREATE TEMPORARY TABLE muster_attempt (x pg_catalog.int4)"),
    (
        "create a function",
        "CREATE FUNCTION {schema}.muster_attempt() RETURNS pg_catalog.int4 LANGUAGE sql AS 'SELECT 1'",
    ),
    ("insert with read-only turned off", "INSERT INTO {table} DEFAULT VALUES"),
    ("update with read-only turned off", "UPDATE {table} SET {column} = {column} WHERE false"),
    ("delete with read-only turned off", "DELETE FROM {table} WHERE false"),
    ("truncate a table", "TRUNCATE {table}"),
    ("lock rows", "SELECT 1 FROM {table} FOR UPDATE"),
    ("lock a table against readers", "SELECT 1; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"),
    ("create a role", "CREATE ROLE muster_attempt"),
    ("create a database", "CREATE DATABASE muster_attempt"),
    ("become the administrator", "SET ROLE muster_sandbox"),
    ("take the administrator's session", "SET SESSION AUTHORIZATION muster_sandbox"),
    ("become a superuser", "ALTER ROLE CURRENT_USER SUPERUSER"),
    ("turn triggers off", "SET session_replication_role = replica"),
    ("change the server's settings", "ALTER SYSTEM SET work_mem = '64kB'"),
    ("create a large object", "SELECT pg_catalog.lo_create(0)"),
    ("create a large object from bytes", "SELECT pg_catalog.lo_from_bytea(0, 'x')"),
    ("import a file as a large object", "SELECT pg_catalog.lo_import('/etc/passwd')"),
    ("take an advisory lock", "SELECT pg_catalog.pg_advisory_lock(1)"),
    ("take a shared advisory lock", "SELECT pg_catalog.pg_try_advisory_xact_lock_shared(1)"),
    ("notify through a function", "SELECT pg_catalog.pg_notify('muster', '')"),
    ("write a message into the WAL", "SELECT pg_catalog.pg_logical_emit_message(false, 'muster', '')"),
    ("run a program", "COPY (SELECT 1) TO PROGRAM 'true'"),
    ("write a file", "COPY (SELECT 1) TO '/tmp/muster_attempt'"),
    ("read a file", "SELECT pg_catalog.pg_read_file('/etc/passwd')"),
    ("list a directory", "SELECT pg_catalog.pg_ls_dir('/')"),
    (
        "end the administrator's session",
        "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE usename = 'muster_sandbox'",
    ),
];

/// Production's secrets: each must be found and be blank.
const BLANK: &[(&str, &str)] = &[
    (
        "read password hashes",
        "SELECT count(*) FROM pg_catalog.pg_authid WHERE rolpassword IS NOT NULL AND rolname <> CURRENT_USER",
    ),
    ("read the secrets of subscriptions", "SELECT count(*) FROM pg_catalog.pg_subscription WHERE subconninfo <> ''"),
    (
        "read the secrets of user mappings",
        "SELECT count(*) FROM pg_catalog.pg_user_mapping WHERE umoptions IS NOT NULL",
    ),
];

/// What was tried, and what could not be.
#[derive(Default)]
pub(in crate::credentials) struct Tried {
    pub(in crate::credentials) attempts: Vec<Attempt>,
    pub(in crate::credentials) untried: Vec<Untried>,
}

pub(super) async fn try_all(
    server: &dyn Server,
    identity: &ClientIdentity,
    databases: &[String],
) -> Result<Tried, Stop> {
    let mut tried = Tried::default();
    for database in databases {
        let session = server.login(identity, database).await.map_err(|error| {
            Stop::new(Reason::Credentials, format!("logging in with the lease to database {database}: {error}"))
        })?;
        in_database(session.as_ref(), database, &mut tried).await?;
        tried.attempts.push(sweep(server, &identity.role, database).await?);
        tried.attempts.extend(changed_password(server, session.as_ref(), identity, database).await);
    }
    let elsewhere = server.login(identity, MAINTENANCE_DATABASE).await.map(drop);
    tried.attempts.push(refused(
        "log in to a database that is not closed",
        MAINTENANCE_DATABASE,
        elsewhere,
        INSUFFICIENT_PRIVILEGE,
    ));
    Ok(tried)
}

async fn in_database(session: &dyn Session, database: &str, tried: &mut Tried) -> Result<(), Stop> {
    let found = Found::look(session).await.map_err(|error| {
        Stop::new(Reason::Credentials, format!("reading with the lease in database {database}: {error}"))
    })?;
    let attempts = &mut tried.attempts;
    for (what, statement) in REFUSED {
        match found.fill(statement) {
            Filled::Statement(statement) => {
                let answer = session.run(&statement).await.map(drop);
                attempts.push(refused(what, database, answer, INSUFFICIENT_PRIVILEGE));
            }
            Filled::Nothing => {}
            Filled::AnsweredByTheBackup(why) => {
                tried.untried.push(Untried {
                    what: (*what).to_owned(),
                    database: database.to_owned(),
                    why: why.to_owned(),
                });
            }
        }
    }
    for (what, query) in BLANK {
        let answer = session.run(query).await;
        attempts.push(judged(what, database, answer, |rows| cell(rows) == Some("0")));
    }
    if let Some(table) = &found.table_with_policies {
        // With row_security off a query that a policy would thin out is an error.
        let all_rows = format!("SET row_security = off; SELECT 1 FROM {table} LIMIT 1");
        attempts
            .push(judged("see rows that policies hide (it must)", database, session.run(&all_rows).await, |_| true));
    }
    Ok(())
}

/// PostgreSQL lets every role change its own password. It must be good for nothing: a login without a certificate is refused.
async fn changed_password(
    server: &dyn Server,
    session: &dyn Session,
    identity: &ClientIdentity,
    database: &str,
) -> Option<Attempt> {
    let what = "log in with a password of its own making";
    match session.run("ALTER ROLE CURRENT_USER PASSWORD 'muster_attempt'").await {
        Ok(_) => {
            let without = ClientIdentity {
                certificate: String::new(),
                key: SecretText(Secret::new(String::new())),
                ..identity.clone()
            };
            let answer = server.login(&without, database).await.map(drop);
            Some(refused(what, database, answer, INVALID_AUTHORIZATION))
        }
        Err(error) => Some(refused(what, database, Err(error), INSUFFICIENT_PRIVILEGE)),
    }
}

/// Asks the catalog, as the administrator, for any right that the attempts above could have missed.
async fn sweep(server: &dyn Server, role: &str, database: &str) -> Result<Attempt, Stop> {
    let role = literal(role);
    let query = format!(
        "SELECT count(*) FROM (\
         SELECT 1 FROM pg_catalog.pg_class c WHERE c.relkind IN ('r','p','v','m','f') \
           AND c.oid <> 'pg_catalog.pg_settings'::pg_catalog.regclass \
           AND (pg_catalog.has_table_privilege({role}, c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER') \
             OR pg_catalog.has_any_column_privilege({role}, c.oid, 'INSERT, UPDATE, REFERENCES')) \
         UNION ALL SELECT 1 FROM pg_catalog.pg_class c WHERE CASE WHEN c.relkind = 'S' \
           THEN pg_catalog.has_sequence_privilege({role}, c.oid, 'USAGE, UPDATE') END \
         UNION ALL SELECT 1 FROM pg_catalog.pg_namespace n WHERE pg_catalog.has_schema_privilege({role}, n.oid, 'CREATE') \
         UNION ALL SELECT 1 WHERE pg_catalog.has_database_privilege({role}, pg_catalog.current_database(), 'CREATE, TEMPORARY') \
         UNION ALL SELECT 1 FROM pg_catalog.pg_proc p WHERE p.prosecdef \
           AND pg_catalog.has_function_privilege({role}, p.oid, 'EXECUTE') \
         UNION ALL SELECT 1 FROM pg_catalog.pg_foreign_server s WHERE pg_catalog.has_server_privilege({role}, s.oid, 'USAGE') \
         UNION ALL SELECT 1 FROM pg_catalog.pg_roles r WHERE r.rolname NOT IN ({role}, 'pg_read_all_data') \
           AND pg_catalog.pg_has_role({role}, r.oid, 'MEMBER')) AS held"
    );
    let answer = server.admin(database, &query).await;
    if let Err(error) = &answer {
        return Err(Stop::new(
            Reason::Credentials,
            format!("reading the rights of the lease in database {database}: {error}"),
        ));
    }
    Ok(judged("hold any right to write that the catalog knows of", database, answer, |rows| cell(rows) == Some("0")))
}

/// What a database offers to attempts.
#[derive(Default)]
struct Found {
    schema: Option<String>,
    /// One without rules, where there is one.
    table: Option<(String, String)>,
    table_has_rules: bool,
    has_event_triggers: bool,
    table_with_policies: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
enum Filled {
    Statement(String),
    /// What it needs is not there.
    Nothing,
    AnsweredByTheBackup(&'static str),
}

/// On what begins so, event triggers fire: none does on roles, databases, settings, TRUNCATE and LOCK, says PostgreSQL's "Event
/// Trigger Firing Matrix".
const FIRES: &[&str] = &["CREATE SCHEMA ", "CREATE TABLE ", "CREATE TEMPORARY TABLE ", "CREATE FUNCTION "];
/// What rules rewrite.
const REWRITTEN: &[&str] = &["INSERT ", "UPDATE ", "DELETE "];

impl Found {
    async fn look(session: &dyn Session) -> Result<Self, SqlError> {
        const OWN: &str = "n.nspname OPERATOR(pg_catalog.!~) '^pg_' AND n.nspname <> 'information_schema'";
        // Not `relhasrules`, which stays behind when the last rule goes, until the next vacuum.
        const RULES: &str = "EXISTS (SELECT 1 FROM pg_catalog.pg_rewrite w WHERE w.ev_class = c.oid)";
        // The other events come after what they tell of, and so after the refusal.
        const EVENT_TRIGGERS: &str = "SELECT 1 FROM pg_catalog.pg_event_trigger \
             WHERE evtevent = 'ddl_command_start' AND evtenabled IN ('O', 'A') LIMIT 1";
        let name = "pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname)";
        let tables = "pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace";
        session.run("SET default_transaction_read_only = off").await?;
        let schema = format!(
            "SELECT pg_catalog.quote_ident(n.nspname) FROM pg_catalog.pg_namespace n WHERE {OWN} ORDER BY n.oid LIMIT 1"
        );
        let table = format!(
            "SELECT {name}, pg_catalog.quote_ident(a.attname), {RULES} FROM {tables} \
             JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
             AND a.attgenerated = '' AND a.attidentity <> 'a' \
             WHERE c.relkind IN ('r', 'p') AND {OWN} ORDER BY {RULES}, c.oid, a.attnum LIMIT 1"
        );
        let with_policies = format!(
            "SELECT {name} FROM {tables} WHERE c.relkind IN ('r', 'p') AND c.relrowsecurity AND {OWN} ORDER BY c.oid LIMIT 1"
        );
        let schema = session.run(&schema).await?;
        let table = session.run(&table).await?;
        let event_triggers = session.run(EVENT_TRIGGERS).await?;
        let with_policies = session.run(&with_policies).await?;
        let (table, table_has_rules) = match table.first().map(Vec::as_slice) {
            Some([Some(table), Some(column), rules]) => {
                (Some((table.clone(), column.clone())), rules.as_deref() != Some("f"))
            }
            _ => (None, false),
        };
        Ok(Self {
            schema: cell(&schema).map(str::to_owned),
            table,
            table_has_rules,
            has_event_triggers: !event_triggers.is_empty(),
            table_with_policies: cell(&with_policies).map(str::to_owned),
        })
    }

    fn fill(&self, statement: &str) -> Filled {
        let is_one_of = |commands: &[&str]| commands.iter().any(|command| statement.starts_with(command));
        if self.has_event_triggers && is_one_of(FIRES) {
            return Filled::AnsweredByTheBackup("an event trigger of the backup would answer");
        }
        if self.table_has_rules && is_one_of(REWRITTEN) {
            return Filled::AnsweredByTheBackup("every table has rules, which would answer");
        }
        let mut filled = statement.replace("muster_sandbox", ADMIN_ROLE);
        if statement.contains("{schema}") {
            let Some(schema) = &self.schema else { return Filled::Nothing };
            filled = filled.replace("{schema}", schema);
        }
        if statement.contains("{table}") {
            let Some((table, column)) = &self.table else { return Filled::Nothing };
            filled = filled.replace("{column}", column).replace("{table}", table);
        }
        Filled::Statement(filled)
    }
}

fn cell(rows: &Rows) -> Option<&str> {
    rows.first().and_then(|row| row.first()).and_then(Option::as_deref)
}

fn refused(what: &str, database: &str, answer: Result<(), SqlError>, expected: &str) -> Attempt {
    let sqlstate = answer.err().and_then(|error| error.sqlstate);
    let held = sqlstate.as_deref() == Some(expected);
    Attempt { what: what.to_owned(), database: database.to_owned(), held, sqlstate }
}

fn judged(what: &str, database: &str, answer: Result<Rows, SqlError>, good: impl Fn(&Rows) -> bool) -> Attempt {
    let (held, sqlstate) = match answer {
        Ok(rows) => (good(&rows), None),
        Err(error) => (false, error.sqlstate),
    };
    Attempt { what: what.to_owned(), database: database.to_owned(), held, sqlstate }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_refusal_holds() {
        let error =
            |state: Option<&str>| Err(SqlError { sqlstate: state.map(str::to_owned), message: "no".to_owned() });
        assert!(refused("x", "d", error(Some("42501")), INSUFFICIENT_PRIVILEGE).held);
        assert!(!refused("x", "d", error(Some("25006")), INSUFFICIENT_PRIVILEGE).held);
        assert!(!refused("x", "d", error(None), INSUFFICIENT_PRIVILEGE).held);
        assert!(!refused("x", "d", Ok(()), INSUFFICIENT_PRIVILEGE).held);
    }

    #[test]
    fn attempts_on_what_is_not_there_are_left_out() {
        let found = Found { schema: Some("s".to_owned()), ..Found::default() };
        assert_eq!(found.fill("CREATE TABLE {schema}.x ()"), Filled::Statement("CREATE TABLE s.x ()".to_owned()));
        assert_eq!(found.fill("DELETE FROM {table}"), Filled::Nothing);
    }

    #[test]
    fn what_the_backup_would_answer_is_not_tried() {
        let found = Found {
            schema: Some("s".to_owned()),
            table: Some(("s.t".to_owned(), "c".to_owned())),
            table_has_rules: true,
            has_event_triggers: true,
            ..Found::default()
        };
        let left_out = |what: &str| {
            let (_, statement) = REFUSED.iter().find(|(name, _)| *name == what).expect("it is tried");
            matches!(found.fill(statement), Filled::AnsweredByTheBackup(_))
        };
        for what in [
            "create a schema",
            "create a temporary table",
            "create a function",
            "insert with read-only turned off",
            "update with read-only turned off",
            "delete with read-only turned off",
        ] {
            assert!(left_out(what), "{what}");
        }
        for what in ["create a role", "lock rows", "truncate a table", "take an advisory lock", "write a file"] {
            assert!(!left_out(what), "{what}");
        }
    }
}
