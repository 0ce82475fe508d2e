//! Database engines.
pub mod postgresql;
