//! PostgreSQL.
pub mod capture;
pub mod dump_header;
