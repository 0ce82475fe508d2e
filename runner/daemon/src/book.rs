//! The drill files as they were read last: what is good, and what is wrong with the others.
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use drill::id::DrillName;
use drill::spec::Drill;

use crate::dispatcher::FileView;

/// All drills at one moment. Never changes; a new one replaces it.
#[derive(Debug, Clone, Default)]
pub struct Book {
    pub drills: BTreeMap<DrillName, Entry>,
    pub problems: Vec<FileView>,
}

#[derive(Debug, Clone)]
pub struct Entry {
    pub drill: Arc<Drill>,
    /// Absolute.
    pub file: PathBuf,
}
