//! What is said about objects, and what is granted before or beside them.
use super::words::{entries, name, role};
use super::{Query, SYSTEM};

pub(super) fn all() -> Vec<Query> {
    vec![relation_comment(), comment(), security_label(), default_privileges(), system_privileges()]
}

/// PostgreSQL's own comments, and those of extensions, come with them. `public` may have another than it is born with.
const NOTED: &str = "(x.objoid >= 16384 OR x.classoid = 'pg_catalog.pg_largeobject'::pg_catalog.regclass {public})
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.classid = x.classoid AND e.objid = x.objoid AND e.deptype = 'e')
  AND NOT pg_catalog.starts_with(coalesce(i.schema, ''), 'pg_temp')";

const PUBLIC: &str = "OR x.classoid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND x.objoid = 2200
    AND x.description <> 'standard public schema'";

const IDENTIFIED: &str = "LATERAL pg_catalog.pg_identify_object(x.classoid, x.objoid, x.objsubid) i";

/// The relation that the object is, or belongs to.
const OF_RELATION: &str = "pg_catalog.pg_description x
LEFT JOIN pg_catalog.pg_constraint k ON k.oid = x.objoid AND x.classoid = 'pg_catalog.pg_constraint'::pg_catalog.regclass
LEFT JOIN pg_catalog.pg_trigger g ON g.oid = x.objoid AND x.classoid = 'pg_catalog.pg_trigger'::pg_catalog.regclass
LEFT JOIN pg_catalog.pg_policy y ON y.oid = x.objoid AND x.classoid = 'pg_catalog.pg_policy'::pg_catalog.regclass
LEFT JOIN pg_catalog.pg_rewrite w ON w.oid = x.objoid AND x.classoid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
LEFT JOIN pg_catalog.pg_class c ON c.oid = coalesce(k.conrelid, g.tgrelid, y.polrelid, w.ev_class,
    CASE WHEN x.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass THEN x.objoid END)
LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace";

/// Apart from the others, so that it comes after the relation.
fn relation_comment() -> Query {
    let (table, noted) = (name("n.nspname", "c.relname"), NOTED.replace("{public}", ""));
    Query::new(
        "relation comment",
        &format!(
            "SELECT pg_catalog.concat(i.type, ' ', i.identity) AS identity,
  pg_catalog.jsonb_build_object('table', {table}, 'text', x.description) AS content
FROM {OF_RELATION}, {IDENTIFIED}
WHERE c.oid IS NOT NULL AND {noted}"
        ),
    )
}

fn comment() -> Query {
    let noted = NOTED.replace("{public}", PUBLIC);
    Query::new(
        "comment",
        &format!(
            "SELECT pg_catalog.concat(i.type, ' ', i.identity) AS identity,
  pg_catalog.jsonb_build_object('text', x.description) AS content
FROM {OF_RELATION}, {IDENTIFIED}
WHERE c.oid IS NULL AND {noted}"
        ),
    )
}

fn security_label() -> Query {
    let noted = NOTED.replace("{public}", "");
    Query::new(
        "security label",
        &format!(
            "SELECT pg_catalog.concat(i.type, ' ', i.identity, ' for ', x.provider) AS identity,
  pg_catalog.jsonb_build_object('label', x.label) AS content
FROM pg_catalog.pg_seclabel x, {IDENTIFIED}
WHERE {noted}"
        ),
    )
}

fn default_privileges() -> Query {
    let role = role("d.defaclrole");
    let entries = entries("d.defaclacl", "r", "d.defaclrole");
    Query::new(
        "default privileges",
        &format!(
            "SELECT pg_catalog.concat('of ', {role}, CASE WHEN n.oid IS NOT NULL THEN
      pg_catalog.concat(' in schema ', pg_catalog.quote_ident(n.nspname)) END, ' on ',
    CASE d.defaclobjtype WHEN 'r' THEN 'tables' WHEN 'S' THEN 'sequences' WHEN 'f' THEN 'functions' WHEN 'T' THEN 'types'
      WHEN 'n' THEN 'schemas' WHEN 'L' THEN 'large objects' END) AS identity,
  pg_catalog.jsonb_build_object('acl', coalesce((SELECT pg_catalog.jsonb_agg(g.entry ORDER BY pg_catalog.convert_to(g.entry, 'UTF8'))
    FROM ({entries}) g), pg_catalog.jsonb_build_array())) AS content
FROM pg_catalog.pg_default_acl d LEFT JOIN pg_catalog.pg_namespace n ON n.oid = d.defaclnamespace"
        ),
    )
}

/// What was granted or revoked on PostgreSQL's own objects and on those of extensions, against what they came with. Their
/// owner has another name in each server, and is not compared. No dump keeps what was granted on `information_schema`.
fn system_privileges() -> Query {
    let relation = name("n.nspname", "o.relname");
    let parts = [
        part(
            &format!("pg_catalog.concat('table ', {relation})"),
            "pg_class",
            "o",
            "relacl",
            "r",
            "relowner",
            "o.relkind <> 'S' AND n.nspname <> 'information_schema'",
        ),
        part(
            &format!("pg_catalog.concat('sequence ', {relation})"),
            "pg_class",
            "o",
            "relacl",
            "s",
            "relowner",
            "o.relkind = 'S'",
        ),
        columns(&relation),
        part(
            "pg_catalog.concat('routine ', o.oid::pg_catalog.regprocedure)",
            "pg_proc",
            "",
            "proacl",
            "f",
            "proowner",
            "true",
        ),
        part(
            "pg_catalog.concat('schema ', pg_catalog.quote_ident(o.nspname))",
            "pg_namespace",
            "",
            "nspacl",
            "n",
            "nspowner",
            "o.nspname <> 'information_schema'",
        ),
        part(
            "pg_catalog.concat('language ', pg_catalog.quote_ident(o.lanname))",
            "pg_language",
            "",
            "lanacl",
            "l",
            "lanowner",
            "true",
        ),
        part(
            "pg_catalog.concat('type ', pg_catalog.format_type(o.oid, NULL))",
            "pg_type",
            "",
            "typacl",
            "T",
            "typowner",
            "true",
        ),
        part(
            "pg_catalog.concat('foreign data wrapper ', pg_catalog.quote_ident(o.fdwname))",
            "pg_foreign_data_wrapper",
            "",
            "fdwacl",
            "F",
            "fdwowner",
            "true",
        ),
    ];
    Query::new(
        SYSTEM,
        &format!(
            "SELECT s.identity, pg_catalog.jsonb_build_object('granted', s.granted, 'revoked', s.revoked) AS content
FROM ({}) s WHERE s.granted IS NOT NULL OR s.revoked IS NOT NULL",
            parts.join("\nUNION ALL ")
        ),
    )
}

/// Only what has an ACL of its own can differ from what it came with.
fn part(identity: &str, catalog: &str, named: &str, column: &str, kind: &str, owner: &str, which: &str) -> String {
    let (column, owner) = (format!("o.{column}"), format!("o.{owner}"));
    let namespace = if named.is_empty() { "" } else { "JOIN pg_catalog.pg_namespace n ON n.oid = o.relnamespace" };
    format!(
        "SELECT {identity} AS identity, {} FROM pg_catalog.{catalog} o {namespace} LEFT JOIN pg_catalog.pg_init_privs i
    ON i.classoid = 'pg_catalog.{catalog}'::pg_catalog.regclass AND i.objoid = o.oid AND i.objsubid = 0
  WHERE {column} IS NOT NULL AND {which} AND {}",
        difference(&column, kind, &owner),
        of_the_system(catalog, "o.oid"),
    )
}

fn columns(relation: &str) -> String {
    format!(
        "SELECT pg_catalog.concat('column ', {relation}, '.', pg_catalog.quote_ident(a.attname)) AS identity, {}
  FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class o ON o.oid = a.attrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = o.relnamespace LEFT JOIN pg_catalog.pg_init_privs i
    ON i.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass AND i.objoid = o.oid AND i.objsubid = a.attnum
  WHERE a.attacl IS NOT NULL AND NOT a.attisdropped AND n.nspname <> 'information_schema' AND {}",
        difference("a.attacl", "c", "o.relowner"),
        of_the_system("pg_class", "o.oid"),
    )
}

fn of_the_system(catalog: &str, oid: &str) -> String {
    format!(
        "({oid} < 16384 OR {oid} = ANY (SELECT e.objid FROM pg_catalog.pg_depend e
    WHERE e.classid = 'pg_catalog.{catalog}'::pg_catalog.regclass AND e.deptype = 'e'))"
    )
}

fn difference(column: &str, kind: &str, owner: &str) -> String {
    let now = entries(column, kind, owner);
    let then = entries("i.initprivs", kind, owner);
    let beyond = |these: &str, those: &str| {
        format!(
            "(SELECT pg_catalog.jsonb_agg(g.entry ORDER BY pg_catalog.convert_to(g.entry, 'UTF8')) FROM ({these} EXCEPT {those}) g)"
        )
    };
    format!("{} AS granted, {} AS revoked", beyond(&now, &then), beyond(&then, &now))
}
