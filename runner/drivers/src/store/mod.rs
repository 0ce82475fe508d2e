//! The durable memory.
pub mod sqlite;
