//! Database engines.
pub mod fake;
pub mod postgresql;
