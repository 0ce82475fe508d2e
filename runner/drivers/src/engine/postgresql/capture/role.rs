//! The least role that a capture needs.

/// A note on each line that is not plain SQL. A test captures under exactly this role.
pub const LEAST_ROLE: &str = "\
-- The least role that `muster capture` needs (PostgreSQL 14 and later). As a superuser, in psql:
CREATE ROLE muster_capture LOGIN BYPASSRLS;   -- BYPASSRLS: rows that a policy hides would be missing from the backup
GRANT pg_read_all_data TO muster_capture;     -- every table, sequence and schema; nothing is ever written
-- Large objects are not covered by it before PostgreSQL 18: GRANT SELECT ON LARGE OBJECT … TO muster_capture, for each.
-- Then \\password muster_capture, and put that password into ~/.pgpass of the user that runs muster.
";

pub(super) fn advice() -> String {
    "`muster capture --print-role` prints the least role that it needs, as SQL".to_owned()
}
