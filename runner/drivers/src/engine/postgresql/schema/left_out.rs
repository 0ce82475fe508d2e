//! What a dump does not keep and nobody can compare: told when the backup is made.
use super::words::{made, name, qualified, relations};

/// How each kind of row of [`left_out`] is told.
pub const LEFT_OUT: [(&str, &str); 3] = [
    ("index", "is invalid, so it is not in the backup: drop it, or build it again"),
    ("operator", "is a shell without a function, so it is not in the backup"),
    ("function", "was put into pg_catalog, where it can answer for PostgreSQL's own; it is not in the backup"),
];

/// Rows of one of [`LEFT_OUT`]'s words and a name.
pub fn left_out() -> String {
    let (index, from) = (name("n.nspname", "c.relname"), relations("i"));
    let (operator, function) = (made("pg_operator", "o.oid"), made("pg_proc", "p.oid"));
    qualified(&format!(
        "SELECT 'index', {index} FROM {from} JOIN pg_catalog.pg_index x ON x.indexrelid = c.oid AND NOT x.indisvalid
UNION ALL SELECT 'operator', pg_catalog.concat(o.oid::pg_catalog.regoperator) FROM pg_catalog.pg_operator o
WHERE o.oprcode = 0::pg_catalog.oid AND {operator}
UNION ALL SELECT 'function', pg_catalog.concat(p.oid::pg_catalog.regprocedure) FROM pg_catalog.pg_proc p
WHERE p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace AND {function}"
    ))
}
