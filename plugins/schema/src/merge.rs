//! Two sorted sides, one object at a time.
use std::cmp::Ordering;

use crate::object::Object;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pair {
    /// Only the backup has it.
    Missing(Object),
    /// Only the restored database has it.
    Added(Object),
    Both(Object, Object),
}

/// Both sides are sorted by the bytes of kind and identity: the host has seen that they are.
pub(crate) fn merge<E>(
    mut expected: impl Iterator<Item = Result<Object, E>>,
    mut found: impl Iterator<Item = Result<Object, E>>,
    mut each: impl FnMut(Pair),
) -> Result<(), E> {
    let (mut left, mut right) = (expected.next().transpose()?, found.next().transpose()?);
    loop {
        let order = match (&left, &right) {
            (None, None) => return Ok(()),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(left), Some(right)) => left.key().cmp(&right.key()),
        };
        let taken = if order.is_le() { std::mem::replace(&mut left, expected.next().transpose()?) } else { None };
        let other = if order.is_ge() { std::mem::replace(&mut right, found.next().transpose()?) } else { None };
        match (taken, other) {
            (Some(object), None) => each(Pair::Missing(object)),
            (None, Some(object)) => each(Pair::Added(object)),
            (Some(expected), Some(found)) => each(Pair::Both(expected, found)),
            (None, None) => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(names: &[&str]) -> Vec<Result<Object, String>> {
        let object = |name: &&str| {
            let (kind, identity) = name.split_once('/').expect("kind and identity");
            Ok(Object { kind: kind.to_owned(), identity: identity.to_owned(), content: "{}".to_owned() })
        };
        names.iter().map(object).collect()
    }

    fn merged(expected: &[&str], found: &[&str]) -> Vec<String> {
        let mut told = Vec::new();
        let each = |pair| {
            told.push(match pair {
                Pair::Missing(object) => format!("-{}/{}", object.kind, object.identity),
                Pair::Added(object) => format!("+{}/{}", object.kind, object.identity),
                Pair::Both(object, _) => format!("={}/{}", object.kind, object.identity),
            });
        };
        merge(side(expected).into_iter(), side(found).into_iter(), each).expect("no error");
        told
    }

    #[test]
    fn what_only_one_side_has_is_told() {
        assert_eq!(merged(&[], &[]), [""; 0]);
        assert_eq!(merged(&["a/1", "a/3", "b/1"], &["a/2", "a/3", "a/4"]), ["-a/1", "+a/2", "=a/3", "+a/4", "-b/1"]);
        assert_eq!(merged(&["a/1"], &["a/1", "a b/0"]), ["=a/1", "+a b/0"]);
    }

    #[test]
    fn an_error_of_either_side_ends_it() {
        let bad = || std::iter::once(Err("gone".to_owned()));
        assert_eq!(merge(side(&["a/1"]).into_iter(), bad(), |_| ()), Err("gone".to_owned()));
        assert_eq!(merge(bad(), side(&["a/1"]).into_iter(), |_| ()), Err("gone".to_owned()));
    }
}
