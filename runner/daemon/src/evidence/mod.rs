//! Signs evidence and checks it: [`write()`] and [`verify()`].
//!
//! Evidence is a file and a link in the store's chain. The link is the moment of truth: before it, nothing but a hidden
//! file exists that nobody takes for evidence; after it, the hidden file only needs its name. So a crash can neither fork
//! the chain nor lose a link of it.
mod chain;
mod files;
#[cfg(test)]
mod tests;
mod verify;
mod write;

pub use chain::ChainReport;
pub use verify::{Verified, verify};
pub use write::{KEY_NAME, PUBLIC_KEY_NAME, Written, write};
