//! Where backups are, and the gate: signature, digests, the dump's own header.
mod beneath;
mod checked;
mod fault;
pub mod file;
pub mod stamp;
pub mod tree;

pub use checked::{Unbelievable, check};
