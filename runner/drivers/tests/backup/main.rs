//! Making a backup and the gate, against the real `minisign` and a throwaway PostgreSQL.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop where it is")]
mod capture;
mod content;
mod dump;
mod minisign;
mod schema;
mod server;
mod verify;
