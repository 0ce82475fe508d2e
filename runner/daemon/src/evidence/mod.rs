//! Signs evidence and checks it: [`write()`] and [`verify()`].
//!
//! Evidence is a file and a link in the store's chain. The link is the moment of truth: before it, nothing but a hidden
//! file exists that nobody takes for evidence; after it, the hidden file only needs its name. So a crash can neither fork
//! the chain nor lose a link of it.
//!
//! [`prune()`] deletes evidence of runs that are forgotten, and leaves a signed tombstone for it.
mod chain;
mod files;
mod key;
mod prune;
#[cfg(test)]
mod prune_tests;
#[cfg(test)]
mod tests;
mod verify;
mod write;

use std::path::Path;

use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;
use rustix::fs::Access;

pub use chain::ChainReport;
pub(crate) use files::read;
pub use key::{KEY_NAME, PUBLIC_KEY_NAME, configured};
pub use prune::{Forgotten, prune};
pub use verify::{Verified, verify};
pub use write::{Written, write};

/// Makes the directory that evidence goes to, or says why it cannot be written. Found out before anything is begun: a drill
/// without evidence would prove nothing.
pub fn make_directory(directory: &Path) -> Result<(), Stop> {
    let tried = || format!("evidence cannot be written to {}", directory.display());
    std::fs::create_dir_all(directory).or_stop(Reason::Internal, tried())?;
    rustix::fs::access(directory, Access::WRITE_OK).or_stop(Reason::Internal, tried())
}
