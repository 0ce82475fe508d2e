//! PostgreSQL.
pub mod capture;
