//! What stands under a key, as a value of its type. None where it is absent, or where form was wrong, which has been said.
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::tree::Node;
use crate::unit;

/// A key of what may be absent itself.
pub(super) trait Get<'a> {
    fn get(self, name: &str) -> Option<&'a Node>;
}

impl<'a> Get<'a> for Option<&'a Node> {
    fn get(self, name: &str) -> Option<&'a Node> {
        self?.get(name)
    }
}

pub(super) fn text<'a>(node: Option<&'a Node>, name: &str) -> Option<&'a str> {
    node.get(name)?.text()
}

pub(super) fn duration(node: Option<&Node>, name: &str) -> Option<Duration> {
    unit::parse_duration(text(node, name)?).ok()
}

/// Bytes.
pub(super) fn size(node: Option<&Node>, name: &str) -> Option<u64> {
    unit::parse_size(node.get(name)?.written()?).ok()
}

pub(super) fn number<T: TryFrom<u64>>(node: Option<&Node>, name: &str) -> Option<T> {
    node.get(name)?.whole()?.try_into().ok()
}

/// Of the configuration, whose relative paths start from `base`. What stands in a variable of the service manager is resolved by
/// whoever reads the file.
pub(super) fn path(base: &Path, text: &str) -> PathBuf {
    if text.starts_with("${") { PathBuf::from(text) } else { base.join(text) }
}
