//! What the queries have in common.
//!
//! Nothing that a backup brought may answer for PostgreSQL's own: names stand with their schema, and [`qualified`] writes the
//! operators with theirs. Where PostgreSQL has no cast of its own to text, `concat` and JSON take the type's output function,
//! because a cast could be the backup's.

/// Bytes of content from which on an object is known by its digest alone.
pub(super) const LARGE: usize = 256 << 10;

/// The operators that the queries use, as they stand there: between blanks.
const OPERATORS: [&str; 7] = ["=", "<>", ">=", "<", "->>", "->", "-"];

/// Writes every operator with its schema.
pub(super) fn qualified(sql: &str) -> String {
    OPERATORS.iter().fold(sql.to_owned(), |sql, operator| {
        sql.replace(&format!(" {operator} "), &format!(" OPERATOR(pg_catalog.{operator}) "))
    })
}

/// Objects that no extension owns: those come with the extension. `catalog` is where `oid` stands.
pub(super) fn no_member(catalog: &str, oid: &str) -> String {
    format!(
        "NOT EXISTS (SELECT FROM pg_catalog.pg_depend ext WHERE ext.classid = 'pg_catalog.{catalog}'::pg_catalog.regclass \
         AND ext.objid = {oid} AND ext.deptype = 'e')"
    )
}

/// Made by people: neither by `initdb` nor by an extension.
pub(super) fn made(catalog: &str, oid: &str) -> String {
    format!("{oid} >= 16384 AND {}", no_member(catalog, oid))
}

/// `"schema"."name"`, quoted where it must be.
pub(super) fn name(schema: &str, name: &str) -> String {
    format!("pg_catalog.concat(pg_catalog.quote_ident({schema}), '.', pg_catalog.quote_ident({name}))")
}

pub(super) fn role(oid: &str) -> String {
    format!("pg_catalog.quote_ident(pg_catalog.pg_get_userbyid({oid}))")
}

/// A text array as a sorted JSON array; nothing where it is empty.
pub(super) fn sorted(array: &str) -> String {
    format!(
        "(SELECT pg_catalog.jsonb_agg(e.v ORDER BY pg_catalog.convert_to(e.v, 'UTF8')) FROM pg_catalog.unnest({array}) AS e (v))"
    )
}

/// One privilege a row, in words. What the owner has is the owner's, whoever that is. MAINTAIN came with 17.
pub(super) fn entries(acl: &str, kind: &str, owner: &str) -> String {
    let (grantee, grantor) = (role("a.grantee"), role("a.grantor"));
    format!(
        "SELECT pg_catalog.concat(a.privilege_type, ' to ', CASE WHEN a.grantee = 0 THEN 'PUBLIC' \
         WHEN a.grantee = {owner} THEN 'its owner' ELSE {grantee} END, \
         CASE WHEN a.is_grantable THEN ' with grant option' END, \
         CASE WHEN a.grantor <> {owner} THEN pg_catalog.concat(' by ', {grantor}) END) AS entry \
         FROM pg_catalog.aclexplode(coalesce({acl}, pg_catalog.acldefault('{kind}', {owner}))) a \
         WHERE a.privilege_type <> 'MAINTAIN'"
    )
}

/// All privileges on an object, sorted; an ACL that is absent is the default one.
pub(super) fn acl(acl: &str, kind: &str, owner: &str) -> String {
    format!(
        "coalesce((SELECT pg_catalog.jsonb_agg(g.entry ORDER BY pg_catalog.convert_to(g.entry, 'UTF8')) FROM ({}) g), \
         pg_catalog.jsonb_build_array())",
        entries(acl, kind, owner)
    )
}

/// Made by people, and not by the way: a range type brings its constructors and a cast.
pub(super) fn made_itself(catalog: &str, oid: &str) -> String {
    made(catalog, oid).replace("ext.deptype = 'e'", "ext.deptype = ANY ('{e,i}'::pg_catalog.\"char\"[])")
}

/// The relations that are compared: `c`, with its schema `n`.
pub(super) fn relations(kinds: &str) -> String {
    format!(
        "pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         AND c.relkind = ANY ('{{{kinds}}}'::pg_catalog.\"char\"[]) AND c.relpersistence <> 't' AND {}",
        made("pg_class", "c.oid")
    )
}

/// How a trigger or a rule is enabled.
pub(super) fn enabled(column: &str) -> String {
    format!(
        "CASE {column} WHEN 'D' THEN 'disabled' WHEN 'R' THEN 'on replicas' WHEN 'A' THEN 'always' ELSE 'enabled' END"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_get_their_schema() {
        assert_eq!(
            qualified("a = b AND c <> 1 AND d >= 2 AND e ->> 'x'"),
            "a OPERATOR(pg_catalog.=) b AND c OPERATOR(pg_catalog.<>) 1 AND d OPERATOR(pg_catalog.>=) 2 AND e \
             OPERATOR(pg_catalog.->>) 'x'"
        );
    }
}
