//! What a correct dump and restore does not keep, and what only another version of the server tells otherwise.
use muster_check::report::Severity;
use muster_check::text::count;
use serde_json::Value;

use crate::object::{Content, text};
use crate::words::{Change, sentence};

/// What is left to say of one object that is not the same on both sides.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Judged {
    pub told: Vec<(Severity, String)>,
    /// It stood in a tablespace of its own, and a drill restores into one.
    pub moved: bool,
}

pub(crate) fn judge(kind: &str, expected: &Content, found: &Content, mut changes: Vec<Change<'_>>) -> Judged {
    let mut judged = Judged::default();
    if let Some(why) = text(expected, "untranslated") {
        judged.told.extend(untranslated(&mut changes, &why));
    }
    if kind != "large object"
        && let Some(digest) = take(&mut changes, "sha256")
    {
        let message = format!("{} expected, {} found, too long to say more", size(expected), size(found));
        judged.told.push((Severity::Failure, message));
        if digest.expected.is_none() || digest.found.is_none() {
            return judged;
        }
        changes.retain(|change| change.key != "length");
    }
    let mut say = |severity, message| judged.told.push((severity, message));
    if kind == "sequence" {
        changes.retain(|change| !["lastValue", "called", "readable"].contains(&change.key));
        if let Some(message) = behind(expected, found) {
            say(Severity::Failure, message);
        }
    }
    if kind == "relation column order" && take(&mut changes, "columns").is_some() {
        changes.retain(|change| change.key != "inherits");
        judged.told.extend(order(expected, found));
    }
    if kind == "extension"
        && let Some(version) = take(&mut changes, "version")
    {
        let message = sentence(&[version]);
        judged.told.push((Severity::Warning, format!("{message}: the sandbox has another one installed")));
    }
    if kind == "subscription" {
        // A restore must not begin to replicate; and where a dump of before 18 says nothing, 18 streams in parallel.
        changes.retain(|change| match change.key {
            "enabled" => change.found != Some(&Value::Bool(false)),
            "streaming" => change.expected.is_some() || change.found != Some(&"parallel".into()),
            _ => true,
        });
    }
    // Its name says which table it is, or the owner of the sequence does.
    changes.retain(|change| change.key != "table");
    judged.moved = take(&mut changes, "tablespace").is_some();
    if !changes.is_empty() {
        judged.told.insert(0, (Severity::Failure, sentence(&changes)));
    }
    judged
}

/// Another major may tell the same view in other words, so that neither they nor a digest of them say anything; words that are
/// the same do. Of a view that is known by its digest, only what stands beside it on both sides is left to compare.
fn untranslated(changes: &mut Vec<Change<'_>>, why: &str) -> Option<(Severity, String)> {
    take(changes, "untranslated");
    let digest = take(changes, "sha256");
    if digest.is_some() {
        changes.retain(|change| change.key != "length" && change.expected.is_some() && change.found.is_some());
    }
    if take(changes, "definition").is_none() && digest.is_none() {
        return None;
    }
    let message = format!("its text cannot be compared with that of another major version: {why}");
    Some((Severity::Warning, message))
}

fn take<'a>(changes: &mut Vec<Change<'a>>, key: &str) -> Option<Change<'a>> {
    let position = changes.iter().position(|change| change.key == key)?;
    Some(changes.remove(position))
}

fn size(content: &Content) -> String {
    match content.get("length").and_then(Value::as_u64) {
        Some(length) => format!("a description of {} bytes", count(length)),
        None => "a short description".to_owned(),
    }
}

/// The order of columns is lost where a child has columns that its parents have too. Columns that are missing or added are
/// told as such.
fn order(expected: &Content, found: &Content) -> Option<(Severity, String)> {
    let names = |content: &Content| -> Vec<String> {
        let names = content.get("columns").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        names.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let (before, after) = (names(expected), names(found));
    let sorted = |mut names: Vec<String>| {
        names.sort_unstable();
        names
    };
    if sorted(before.clone()) != sorted(after.clone()) {
        return None;
    }
    let first = before.iter().zip(&after).find(|(before, after)| before != after)?;
    let message = format!("{} expected, {} found in its place", first.0, first.1);
    if expected.contains_key("inherits") {
        Some((Severity::Info, format!("{message}, as a dump orders the columns of inheritance")))
    } else {
        Some((Severity::Failure, message))
    }
}

/// A sequence goes on while the dump is made, so it may be beyond what was seen; behind, it would give numbers again.
fn behind(expected: &Content, found: &Content) -> Option<String> {
    let number = |content: &Content, key: &str| content.get(key).and_then(Value::as_i64);
    let (last, other) = (number(expected, "lastValue")?, number(found, "lastValue")?);
    let increment = number(expected, "increment")?;
    let next = |content: &Content, last: i64| {
        let called = content.get("called") == Some(&Value::Bool(true));
        i128::from(last) + if called { i128::from(increment) } else { 0 }
    };
    let (wanted, have) = (next(expected, last), next(found, other));
    let reached = if increment < 0 { have <= wanted } else { have >= wanted };
    (!reached).then(|| format!("its next value is {have}, {wanted} expected: numbers would be given again"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::changes;

    fn judged(kind: &str, expected: &str, found: &str) -> Vec<(Severity, String)> {
        let content = |text: &str| serde_json::from_str::<Content>(text).expect("an object");
        let (expected, found) = (content(expected), content(found));
        judge(kind, &expected, &found, changes(&expected, &found)).told
    }

    fn failure(message: &str) -> Vec<(Severity, String)> {
        vec![(Severity::Failure, message.to_owned())]
    }

    #[test]
    fn sequences_may_be_ahead_and_never_behind() {
        let state = |increment: i64, last: i64, called: bool| {
            format!(r#"{{"increment": {increment}, "lastValue": {last}, "called": {called}}}"#)
        };
        assert_eq!(judged("sequence", &state(1, 10, true), &state(1, 12, true)), []);
        assert_eq!(judged("sequence", &state(1, 10, true), &state(1, 11, false)), []);
        assert_eq!(judged("sequence", &state(-5, 10, true), &state(-5, 0, true)), []);
        let words = "its next value is 10, 11 expected: numbers would be given again";
        assert_eq!(judged("sequence", &state(1, 10, true), &state(1, 10, false)), failure(words));
        assert_eq!(judged("sequence", &state(-5, 10, true), &state(-5, 15, true)).len(), 1);
        assert_eq!(judged("sequence", &state(1, i64::MAX, true), &state(1, i64::MAX, true)), []);
        // On a standby it could not be read.
        assert_eq!(judged("sequence", r#"{"increment": 1, "readable": false}"#, &state(1, 1, false)), []);
        assert_eq!(
            judged("sequence", &state(1, 1, false), &state(2, 1, false)),
            failure("increment 1 expected, 2 found")
        );
    }

    #[test]
    fn what_a_dump_does_not_keep_is_no_failure() {
        let severities = |kind: &str, expected: &str, found: &str| -> Vec<Severity> {
            judged(kind, expected, found).into_iter().map(|(severity, _)| severity).collect()
        };
        let order = |names: &str, more: &str| format!(r#"{{"columns": {names}{more}}}"#);
        let (ab, ba) = (r#"["a", "b"]"#, r#"["b", "a"]"#);
        let kind = "relation column order";
        assert_eq!(
            severities(kind, &order(ab, r#", "inherits": true"#), &order(ba, r#", "inherits": true"#)),
            [Severity::Info]
        );
        assert_eq!(severities(kind, &order(ab, ""), &order(ba, "")), [Severity::Failure]);
        assert_eq!(severities(kind, &order(ab, ""), &order(r#"["a"]"#, "")), [], "the column itself is told");
        assert_eq!(severities("extension", r#"{"version": "1.6"}"#, r#"{"version": "1.5"}"#), [Severity::Warning]);
        assert_eq!(severities("extension", r#"{"schema": "a"}"#, r#"{"schema": "b"}"#), [Severity::Failure]);
        assert_eq!(severities("subscription", r#"{"enabled": true}"#, r#"{"enabled": false}"#), []);
        assert_eq!(severities("subscription", r#"{"enabled": false}"#, r#"{"enabled": true}"#), [Severity::Failure]);
        assert_eq!(severities("subscription", "{}", r#"{"streaming": "parallel"}"#), []);
        assert_eq!(severities("subscription", r#"{"streaming": "parallel"}"#, "{}"), [Severity::Failure]);
        assert_eq!(severities("relation", r#"{"tablespace": "fast"}"#, "{}"), []);
        let untranslated = r#"{"definition": "a", "untranslated": "no reason"}"#;
        assert_eq!(severities("relation", untranslated, r#"{"definition": "b"}"#), [Severity::Warning]);
        assert_eq!(severities("relation", r#"{"definition": "a"}"#, r#"{"definition": "b"}"#), [Severity::Failure]);
    }

    #[test]
    fn a_view_that_could_not_be_translated_is_worth_a_look_and_no_failure() {
        let long = r#"{"length": 300000, "sha256": "00", "kind": "view", "acl": [], "untranslated": "it is too long"}"#;
        let message = "its text cannot be compared with that of another major version: it is too long".to_owned();
        let warning = || (Severity::Warning, message.clone());
        let other = r#"{"length": 299000, "sha256": "01", "kind": "view", "acl": []}"#;
        assert_eq!(judged("relation", long, other), [warning()]);
        let short = r#"{"definition": "b", "owner": "alice", "kind": "view", "acl": []}"#;
        assert_eq!(judged("relation", long, short), [warning()]);
        let granted = other.replace("[]", r#"["SELECT to eve"]"#);
        let failure = (Severity::Failure, "SELECT to eve is granted, and was not".to_owned());
        assert_eq!(judged("relation", long, &granted), [failure, warning()]);
        let same = long.replace(r#", "untranslated": "it is too long""#, "");
        assert_eq!(judged("relation", long, &same), [], "what has the same bytes has the same words");
    }

    #[test]
    fn what_is_too_long_is_said_to_be() {
        let (long, short) = (r#"{"length": 300000, "sha256": "00"}"#, r#"{"owner": "alice"}"#);
        let privileges = |acl: &str| format!(r#"{{"length": 300000, "sha256": "00", "acl": ["{acl}"]}}"#);
        let only = judged("function", &privileges("EXECUTE to bob"), &privileges("EXECUTE to eve"));
        assert_eq!(only, failure("EXECUTE to bob is not granted any more; EXECUTE to eve is granted, and was not"));
        let words = "a description of 300,000 bytes expected, a short description found, too long to say more";
        assert_eq!(judged("function", long, short), failure(words));
        assert_eq!(judged("large object", r#"{"sha256": "00"}"#, r#"{"sha256": "01"}"#), failure("holds other bytes"));
    }
}
