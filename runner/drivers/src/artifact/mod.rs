//! Where backups are.
pub mod file;
