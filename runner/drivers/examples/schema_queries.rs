//! Prints what the schema check asks a server, for psql: `make bench` times the two against each other.
//!
//! The first argument is the server's `server_version_num`; without it, PostgreSQL 15's.
use std::io::Write;

use drivers::engine::postgresql::schema::{SETTINGS, queries};

fn main() -> std::io::Result<()> {
    let version = std::env::args().nth(1).and_then(|version| version.parse().ok()).unwrap_or(150_000);
    let mut out = std::io::stdout().lock();
    writeln!(out, "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY;\n{SETTINGS};")?;
    for query in queries(version) {
        writeln!(out, "{};", query.sql)?;
    }
    writeln!(out, "COMMIT;")
}
