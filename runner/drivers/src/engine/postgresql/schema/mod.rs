//! The schema of a database as objects: one query a kind, the same when a backup is made and when it was restored.
//!
//! Start at [`queries`]. Each gives rows of identity and content, sorted by the bytes of the identity in UTF-8, whatever encoding
//! the database has: text and canonical JSON of what counts. What is not compared is left out here: what `initdb` or an extension
//! made, what is temporary, OIDs, statistics. What two servers may tell differently about the same thing is written only where
//! somebody changed it.
mod completion;
mod left_out;
mod notes;
mod places;
mod put_back;
mod read;
mod relations;
mod routines;
mod translate;
mod words;

pub use completion::{Completion, LargeObject, readable, with_bytes, with_state};
pub use left_out::{LEFT_OUT, left_out};
pub use put_back::PutBack;
pub use read::{ReadError, read};
pub use translate::{TranslateError, translate};

/// For whoever runs [`queries`], inside the transaction. A database that was just restored has no statistics of its catalogs, and
/// the planner then loops in a loop: 3,000 sequences took 15 s instead of less than 50 ms.
pub const SETTINGS: &str = "SET LOCAL enable_nestloop = off";

/// The kind of what was granted or revoked on what nobody of the database's own people made.
pub const SYSTEM: &str = "privileges on system objects";

/// The objects of one kind.
#[derive(Debug, Clone)]
pub struct Query {
    pub kind: &'static str,
    /// Two columns of type text. Reads catalogs only; no function of the backup's is called.
    pub sql: String,
    /// What must be asked in addition, of each object.
    pub completion: Option<Completion>,
}

impl Query {
    /// `inner` gives `identity` as text and `content` as jsonb. What is too large to be looked at is known by its digest, but
    /// for the privileges and what it is.
    fn new(kind: &'static str, inner: &str) -> Self {
        let (large, half) = (words::LARGE, words::LARGE / 2);
        let sql = format!(
            "SELECT o.identity, CASE WHEN pg_catalog.octet_length(o.text) < {large} THEN o.text
  ELSE (SELECT pg_catalog.concat(pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
      'length', pg_catalog.octet_length(r.rest),
      'sha256', pg_catalog.encode(pg_catalog.sha256(pg_catalog.textsend(r.rest)), 'hex'),
      'acl', s.acl, 'kind', o.content -> 'kind', 'table', o.content -> 'table')))
    FROM (SELECT CASE WHEN pg_catalog.octet_length(pg_catalog.concat(o.content -> 'acl')) < {half}
        THEN o.content -> 'acl' END) AS s (acl),
    LATERAL (SELECT pg_catalog.concat(CASE WHEN s.acl IS NULL THEN o.content ELSE o.content - 'acl' END)) AS r (rest)) END
FROM (SELECT q.identity, q.content, pg_catalog.concat(q.content) AS text
FROM (SELECT i.identity, pg_catalog.jsonb_strip_nulls(i.content) AS content FROM ({inner}) i OFFSET 0) q OFFSET 0) o
ORDER BY pg_catalog.convert_to(o.identity, 'UTF8')"
        );
        Self { kind, sql: words::qualified(&sql), completion: None }
    }
}

/// All kinds, in the order of their names' bytes. `version` is the server's `server_version_num`.
pub fn queries(version: u32) -> Vec<Query> {
    let mut queries = [relations::all(), routines::all(), places::all(version), notes::all()].concat();
    queries.sort_by_key(|query| query.kind);
    queries
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words that may stand before a parenthesis and are no function.
    const SYNTAX: [&str; 21] = [
        "ALL", "AND", "ANY", "AS", "CASE", "ELSE", "EXCEPT", "EXISTS", "FROM", "LATERAL", "NOT", "ON", "OR", "SELECT",
        "THEN", "WHEN", "WHERE", "BY", "coalesce", "OPERATOR", "JOIN",
    ];

    #[test]
    fn nothing_that_a_backup_brought_can_answer() {
        for query in [queries(140_000), queries(180_000)].concat() {
            let sql = without_literals(&query.sql);
            for (at, _) in sql.match_indices('(') {
                let before = sql[..at].trim_end();
                let from =
                    before.rfind(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.')).map_or(0, |at| at + 1);
                let word = &before[from..];
                let alias = before[..from].trim_end().ends_with("AS");
                let fine = word.is_empty() || word.starts_with("pg_catalog.") || SYNTAX.contains(&word) || alias;
                assert!(fine, "{}: `{word}(` has no schema", query.kind);
            }
            for operator in ["=", "<>", "<", ">", ">=", "<=", "||", "->>", "->", "~", "+", "-", "/", "%", "&"] {
                assert!(!sql.contains(&format!(" {operator} ")), "{}: `{operator}` has no schema", query.kind);
            }
            for (at, _) in sql.match_indices("::") {
                assert!(sql[at + 2..].starts_with("pg_catalog."), "{}: a type without its schema", query.kind);
            }
            for word in ["FROM", "JOIN"] {
                for piece in sql.split(&format!("{word} ")).skip(1) {
                    let fine = piece.starts_with("pg_catalog.") || piece.starts_with('(');
                    assert!(fine, "{}: {word} {}", query.kind, piece.chars().take(30).collect::<String>());
                }
            }
            for word in [" IN ", " LIKE ", " BETWEEN ", "NULLIF", "IS DISTINCT", "||", "::text", "CAST"] {
                assert!(!sql.contains(word), "{}: `{word}` is looked up by name", query.kind);
            }
        }
    }

    fn without_literals(sql: &str) -> String {
        sql.split('\'').step_by(2).collect::<Vec<_>>().join("''")
    }

    #[test]
    fn kinds_are_sorted_and_no_two_are_the_same() {
        let kinds: Vec<&str> = queries(150_000).iter().map(|query| query.kind).collect();
        assert!(kinds.is_sorted_by(|a, b| a < b), "{kinds:?}");
    }
}
