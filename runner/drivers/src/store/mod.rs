//! The durable memory: [`sqlite::SqliteStore`] and, for tests of whoever writes to a store, [`fake::MemoryStore`]. Both keep the
//! rules of `fold` and pass one contract.
#[cfg(test)]
mod contract;
pub mod fake;
mod fold;
pub mod sqlite;
