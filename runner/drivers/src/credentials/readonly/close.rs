//! What is taken from PUBLIC before the lease's role exists, and what is blanked. All of it runs as the administrator, whose
//! sessions see `pg_catalog` alone; every function is named with its schema even so.
//!
//! What cannot be taken: `NOTIFY` asks no privilege of anybody. It changes no data; its queue is bounded from 17 on by
//! `max_notify_queue_pages`, and before that by the sandbox's disk limit.
use drill::port::{Rows, Server, SqlError};
use drill::schema::Taken;
use drill::stop::Stop;
use drill::verdict::Reason;

use crate::engine::postgresql::MAINTENANCE_DATABASE;
use crate::engine::postgresql::schema::SYSTEM;
use crate::engine::postgresql::text::plain;

/// Functions of PostgreSQL itself that write or block and that everybody may call: makers and changers of large objects,
/// notifications, advisory locks, messages in the WAL.
const WRITES_OR_BLOCKS: &str = "(p.proname OPERATOR(pg_catalog.~) \
     '^(lo_creat|lo_create|lo_from_bytea|lo_put|lo_import|lo_export|lo_unlink|lo_truncate|lo_truncate64|lowrite|pg_notify|pg_logical_emit_message|pg_(try_)?advisory_.*lock.*)$')";

/// Beyond PostgreSQL's own: what runs as its owner, what the language does not confine, and what is written in C and admits
/// side effects (such as `dblink_exec`). Operators and casts of extensions stay, because checks need them.
const RUNS_BEYOND_ITS_CALLER: &str = "(p.prosecdef OR (NOT l.lanpltrusted \
     AND (l.lanname NOT IN ('c', 'internal') OR p.provolatile = 'v')))";

/// What `initdb` or an extension keeps from PUBLIC and somebody gave to it.
const GIVEN_AGAINST_THE_DEFAULT: &str = "EXISTS (SELECT 1 FROM pg_catalog.pg_init_privs i \
     WHERE i.classoid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND i.objoid = p.oid \
     AND NOT EXISTS (SELECT 1 FROM pg_catalog.aclexplode(i.initprivs) x WHERE x.grantee = 0 AND x.privilege_type = 'EXECUTE'))";

/// The lease has what PUBLIC has and what `pg_read_all_data` has. A backup can have given something to either.
const GRANTEE: &str = "a.grantee IN (0, 'pg_read_all_data'::pg_catalog.regrole)";

/// Roles that `pg_read_all_data` was made a member of, and with it the lease.
const MEMBERSHIPS: &str = "SELECT pg_catalog.quote_ident(r.rolname), NULL, \
     'pg_read_all_data GRANTED BY ' || pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(m.grantor)), NULL, false, NULL \
     FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles r ON r.oid = m.roleid \
     WHERE m.member = 'pg_read_all_data'::pg_catalog.regrole";

/// Production's secrets that `pg_read_all_data` would show.
pub(super) async fn blank_secrets(server: &dyn Server, databases: &[String]) -> Result<(), Stop> {
    const SHARED: &str = "UPDATE pg_catalog.pg_authid SET rolpassword = NULL WHERE rolpassword IS NOT NULL;\n\
         UPDATE pg_catalog.pg_subscription SET subconninfo = '' WHERE subconninfo <> ''";
    const OF_A_DATABASE: &str = "UPDATE pg_catalog.pg_user_mapping SET umoptions = NULL WHERE umoptions IS NOT NULL";
    run(server, MAINTENANCE_DATABASE, "blanking production's secrets", SHARED).await?;
    for database in databases {
        run(server, database, "blanking production's secrets", OF_A_DATABASE).await?;
    }
    Ok(())
}

/// Databases, settings and tablespaces. Nobody but the lease's role will get into a database: in one that is not closed it
/// could write.
pub(super) async fn close_cluster(server: &dyn Server) -> Result<Vec<Taken>, Stop> {
    let has_parameters = "SELECT 1 WHERE pg_catalog.to_regclass('pg_catalog.pg_parameter_acl') IS NOT NULL";
    let parameters = run(server, MAINTENANCE_DATABASE, "closing the server", has_parameters).await?;
    let mut parts = vec![
        granted(
            "'DATABASE ' || pg_catalog.quote_ident(o.datname)",
            "pg_database o",
            "datacl",
            "'d'",
            "datdba",
            "true",
            "'database'",
        ),
        granted(
            "'TABLESPACE ' || pg_catalog.quote_ident(o.spcname)",
            "pg_tablespace o",
            "spcacl",
            "'t'",
            "spcowner",
            "true",
            "NULL",
        ),
        MEMBERSHIPS.to_owned(),
    ];
    if !parameters.is_empty() {
        parts.push(format!(
            "SELECT 'PARAMETER ' || o.parname, a.privilege_type, {}, a.is_grantable, NULL \
             FROM pg_catalog.pg_parameter_acl o, LATERAL pg_catalog.aclexplode(o.paracl) a WHERE {GRANTEE}",
            parties("10")
        ));
    }
    revoke(server, MAINTENANCE_DATABASE, &parts.join(" UNION ALL ")).await
}

/// Everything in one database that lets any login write, block, or run code as somebody else.
pub(super) async fn close_database(server: &dyn Server, database: &str) -> Result<Vec<Taken>, Stop> {
    let name = "pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(o.relname)";
    let relations = "pg_class o JOIN pg_catalog.pg_namespace n ON n.oid = o.relnamespace";
    // Writing to the view pg_settings sets a setting of one's own session.
    let tables = "o.relkind IN ('r','p','v','m','f') AND a.privilege_type <> 'SELECT' \
         AND o.oid <> 'pg_catalog.pg_settings'::pg_catalog.regclass";
    let columns = format!(
        "SELECT 'TABLE ' || {name}, a.privilege_type || ' (' || pg_catalog.quote_ident(t.attname) || ')', {}, \
         a.is_grantable, {} FROM pg_catalog.pg_attribute t JOIN pg_catalog.pg_class o ON o.oid = t.attrelid \
         JOIN pg_catalog.pg_namespace n ON n.oid = o.relnamespace, LATERAL pg_catalog.aclexplode(t.attacl) a \
         WHERE {GRANTEE} AND a.privilege_type <> 'SELECT' AND NOT t.attisdropped",
        parties("o.relowner"),
        kind("pg_class", "o.oid", "'relation column'")
    );
    let routines = format!(
        "SELECT 'ROUTINE ' || p.oid::pg_catalog.regprocedure::pg_catalog.text, a.privilege_type, {}, a.is_grantable, {} \
         FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang, \
         LATERAL pg_catalog.aclexplode(COALESCE(p.proacl, pg_catalog.acldefault('f', p.proowner))) a \
         WHERE {GRANTEE} AND p.prokind <> 'a' AND (CASE WHEN p.oid < 16384 THEN {WRITES_OR_BLOCKS} \
         ELSE {RUNS_BEYOND_ITS_CALLER} END OR {GIVEN_AGAINST_THE_DEFAULT})",
        parties("p.proowner"),
        kind("pg_proc", "p.oid", "CASE p.prokind WHEN 'p' THEN 'procedure' ELSE 'function' END")
    );
    let of_class = |ours: &str| kind("pg_class", "o.oid", ours);
    let parts = [
        granted(
            &format!("'TABLE ' || {name}"),
            relations,
            "relacl",
            "'r'",
            "relowner",
            tables,
            &of_class("'relation'"),
        ),
        granted(
            &format!("'SEQUENCE ' || {name}"),
            relations,
            "relacl",
            "'s'",
            "relowner",
            "o.relkind = 'S' AND a.privilege_type <> 'SELECT'",
            &of_class("'sequence'"),
        ),
        columns,
        granted(
            "'SCHEMA ' || pg_catalog.quote_ident(o.nspname)",
            "pg_namespace o",
            "nspacl",
            "'n'",
            "nspowner",
            "a.privilege_type = 'CREATE'",
            &kind("pg_namespace", "o.oid", "'schema'"),
        ),
        granted(
            "'FOREIGN DATA WRAPPER ' || pg_catalog.quote_ident(o.fdwname)",
            "pg_foreign_data_wrapper o",
            "fdwacl",
            "'F'",
            "fdwowner",
            "true",
            &kind("pg_foreign_data_wrapper", "o.oid", "'foreign data wrapper'"),
        ),
        granted(
            "'FOREIGN SERVER ' || pg_catalog.quote_ident(o.srvname)",
            "pg_foreign_server o",
            "srvacl",
            "'S'",
            "srvowner",
            "true",
            "'foreign server'",
        ),
        granted(
            "'LARGE OBJECT ' || o.oid::pg_catalog.text",
            "pg_largeobject_metadata o",
            "lomacl",
            "'L'",
            "lomowner",
            "a.privilege_type = 'UPDATE'",
            "'large object'",
        ),
        routines,
    ];
    revoke(server, database, &parts.join(" UNION ALL ")).await
}

/// What the lease would have on a kind of object: the object, the privilege, to whom, by whom, whether they may pass it on, and
/// as what the object is compared.
fn granted(object: &str, from: &str, acl: &str, kind: &str, owner: &str, condition: &str, compared: &str) -> String {
    format!(
        "SELECT {object}, a.privilege_type, {}, a.is_grantable, {compared} FROM pg_catalog.{from}, \
         LATERAL pg_catalog.aclexplode(COALESCE(o.{acl}, pg_catalog.acldefault({kind}, o.{owner}))) a \
         WHERE {GRANTEE} AND {condition}",
        parties(&format!("o.{owner}"))
    )
}

/// The kind of object in a schema that is compared: PostgreSQL's own objects and those of extensions are a kind of theirs.
fn kind(catalog: &str, oid: &str, ours: &str) -> String {
    format!(
        "CASE WHEN {oid} < 16384 OR EXISTS (SELECT 1 FROM pg_catalog.pg_depend e WHERE e.deptype = 'e' \
         AND e.classid = 'pg_catalog.{catalog}'::pg_catalog.regclass AND e.objid = {oid}) THEN '{SYSTEM}' ELSE {ours} END"
    )
}

/// To whom, and by whom where that is not the owner: a superuser revokes as the owner, and what another role granted, that
/// role must revoke.
fn parties(owner: &str) -> String {
    format!(
        "CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE 'pg_read_all_data' END, \
         CASE WHEN a.grantor = {owner} THEN NULL ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantor)) END"
    )
}

/// In one transaction, with the backup's event triggers asleep: one that is ENABLE ALWAYS would run its own code for each
/// statement. They are as they were when it ends.
async fn revoke(server: &dyn Server, database: &str, query: &str) -> Result<Vec<Taken>, Stop> {
    const TRIGGERS: &str = "SELECT pg_catalog.quote_ident(evtname), evtenabled FROM pg_catalog.pg_event_trigger \
         WHERE evtenabled <> 'D' ORDER BY oid";
    let granted = run(server, database, "reading what everybody may do", query).await?;
    if granted.is_empty() {
        return Ok(Vec::new());
    }
    let triggers = run(server, database, "reading the event triggers", TRIGGERS).await?;
    run(server, database, "closing the database to writers", &revocation(&granted, &triggers)).await?;
    Ok(granted.iter().filter_map(|right| taken(right)).collect())
}

/// In the words of the schema's objects. None where the object or the privilege is not compared.
fn taken(right: &[Option<String>]) -> Option<Taken> {
    let [Some(object), Some(privilege), Some(to), by, grantable, Some(kind)] = right else { return None };
    let (privilege, column) = match privilege.split_once(" (") {
        Some((privilege, column)) => (privilege, column.strip_suffix(')')),
        None => (privilege.as_str(), None),
    };
    if privilege == "MAINTAIN" {
        return None;
    }
    let words = [
        "FOREIGN DATA WRAPPER ",
        "FOREIGN SERVER ",
        "LARGE OBJECT ",
        "DATABASE ",
        "SEQUENCE ",
        "ROUTINE ",
        "SCHEMA ",
        "TABLE ",
    ];
    let (word, name) = words.iter().find_map(|word| Some((word.to_ascii_lowercase(), object.strip_prefix(word)?)))?;
    let (word, name) = match column {
        Some(column) => ("column ".to_owned(), format!("{name}.{column}")),
        None => (word, name.to_owned()),
    };
    let identity = if kind == SYSTEM { format!("{word}{name}") } else { name };
    let option = if grantable.as_deref() == Some("t") { " with grant option" } else { "" };
    let by = by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
    Some(Taken { kind: kind.clone(), identity, entry: format!("{privilege} to {to}{option}{by}") })
}

fn revocation(rights: &Rows, triggers: &Rows) -> String {
    let mut statements = vec!["BEGIN".to_owned()];
    for trigger in triggers {
        if let [Some(name), Some(_)] = trigger.as_slice() {
            statements.push(format!("ALTER EVENT TRIGGER {name} DISABLE"));
        }
    }
    for right in rights {
        let [Some(object), privilege, Some(to), by, ..] = right.as_slice() else { continue };
        let what = privilege.as_ref().map_or_else(|| object.clone(), |privilege| format!("{privilege} ON {object}"));
        statements.extend(by.iter().map(|by| format!("SET LOCAL ROLE {by}")));
        statements.push(format!("REVOKE {what} FROM {to}"));
        statements.extend(by.iter().map(|_| "SET LOCAL ROLE NONE".to_owned()));
    }
    for trigger in triggers {
        let [Some(name), Some(enabled)] = trigger.as_slice() else { continue };
        let how = match enabled.as_str() {
            "A" => "ENABLE ALWAYS",
            "R" => "ENABLE REPLICA",
            _ => "ENABLE",
        };
        statements.push(format!("ALTER EVENT TRIGGER {name} {how}"));
    }
    statements.push("COMMIT".to_owned());
    statements.join(";\n")
}

async fn run(server: &dyn Server, database: &str, doing: &str, statements: &str) -> Result<Rows, Stop> {
    server.admin(database, statements).await.map_err(|error: SqlError| {
        Stop::new(Reason::Credentials, format!("{doing} in database {}: {error}", plain(database, 63)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: &[Option<&str>]) -> Vec<Option<String>> {
        cells.iter().map(|cell| cell.map(str::to_owned)).collect()
    }

    #[test]
    fn event_triggers_sleep_while_privileges_are_revoked_and_wake_as_they_were() {
        let granted = vec![
            row(&[Some("TABLE public.t"), Some("INSERT"), Some("PUBLIC"), None, Some("f"), Some("relation")]),
            row(&[
                Some("TABLE public.t"),
                Some("UPDATE (a)"),
                Some("PUBLIC"),
                Some("app"),
                Some("f"),
                Some("relation column"),
            ]),
            row(&[Some("app"), None, Some("pg_read_all_data GRANTED BY postgres"), None, Some("f"), None]),
        ];
        let triggers = vec![row(&[Some("spy"), Some("A")]), row(&[Some("plain"), Some("O")])];
        let expected = "BEGIN;\n\
             ALTER EVENT TRIGGER spy DISABLE;\n\
             ALTER EVENT TRIGGER plain DISABLE;\n\
             REVOKE INSERT ON TABLE public.t FROM PUBLIC;\n\
             SET LOCAL ROLE app;\n\
             REVOKE UPDATE (a) ON TABLE public.t FROM PUBLIC;\n\
             SET LOCAL ROLE NONE;\n\
             REVOKE app FROM pg_read_all_data GRANTED BY postgres;\n\
             ALTER EVENT TRIGGER spy ENABLE ALWAYS;\n\
             ALTER EVENT TRIGGER plain ENABLE;\n\
             COMMIT";
        assert_eq!(revocation(&granted, &triggers), expected);
    }

    #[test]
    fn what_is_taken_is_said_in_the_words_of_the_schema() {
        let told = |cells: &[Option<&str>]| {
            taken(&row(cells)).map(|taken| format!("{}, {}: {}", taken.kind, taken.identity, taken.entry))
        };
        let own = told(&[
            Some("TABLE public.t"),
            Some("UPDATE (\"a b\")"),
            Some("PUBLIC"),
            Some("app"),
            Some("f"),
            Some("relation column"),
        ]);
        assert_eq!(own.as_deref(), Some("relation column, public.t.\"a b\": UPDATE to PUBLIC by app"));
        let system =
            told(&[Some("ROUTINE lo_create(oid)"), Some("EXECUTE"), Some("PUBLIC"), None, Some("f"), Some(SYSTEM)]);
        assert_eq!(system.as_deref(), Some("privileges on system objects, routine lo_create(oid): EXECUTE to PUBLIC"));
        let passed_on = told(&[
            Some("FOREIGN SERVER s"),
            Some("USAGE"),
            Some("pg_read_all_data"),
            None,
            Some("t"),
            Some("foreign server"),
        ]);
        assert_eq!(passed_on.as_deref(), Some("foreign server, s: USAGE to pg_read_all_data with grant option"));
        assert_eq!(told(&[Some("app"), None, Some("pg_read_all_data"), None, Some("f"), None]), None);
        assert_eq!(
            told(&[Some("TABLE public.t"), Some("MAINTAIN"), Some("PUBLIC"), None, Some("f"), Some("relation")]),
            None
        );
    }
}
