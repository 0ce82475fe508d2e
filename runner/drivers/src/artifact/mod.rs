//! Where backups are, and the gate: signature, digests, the dump's own header.
mod beneath;
mod checked;
pub mod described;
pub mod digest;
mod fault;
pub mod file;
#[cfg(test)]
#[path = "../../../../fuzz/properties/manifest.rs"]
mod manifest_property;
pub mod stamp;
pub mod tree;

pub use checked::{Unbelievable, check};
pub(crate) use fault::reading;
