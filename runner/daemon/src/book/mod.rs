//! The drill files as they were read last: what is good, and what is wrong with the others.
//!
//! [`read`] makes a [`Book`] of the directories as they are; [`Keeper`] watches them and hands each new book on.
mod keeper;
mod read;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use drill::id::DrillName;
use drill::spec::Drill;

use crate::dispatcher::FileView;

pub use keeper::Keeper;
pub use read::read;

/// All drills at one moment. Never changes; a new one replaces it.
#[derive(Debug, Clone, Default)]
pub struct Book {
    pub drills: BTreeMap<DrillName, Entry>,
    pub problems: Vec<FileView>,
}

#[derive(Debug, Clone)]
pub struct Entry {
    /// The same as in the book before where the file's bytes are.
    pub drill: Arc<Drill>,
    /// Absolute.
    pub file: PathBuf,
}
