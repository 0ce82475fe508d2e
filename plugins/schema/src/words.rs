//! What changed between two contents, in words.
use muster_check::text::{count, plural};
use serde_json::Value;

use crate::object::Content;

/// Characters of a value that are shown.
const SHOWN: usize = 160;
/// Changes of one object that are told.
const TOLD: usize = 6;

/// One key that is not the same on both sides.
pub(crate) struct Change<'a> {
    pub key: &'a str,
    pub expected: Option<&'a Value>,
    pub found: Option<&'a Value>,
}

/// By key, in the order of keys. A value that says nothing is one that is not there.
pub(crate) fn changes<'a>(expected: &'a Content, found: &'a Content) -> Vec<Change<'a>> {
    let mut keys: Vec<&str> = expected.keys().chain(found.keys()).map(String::as_str).collect();
    keys.sort_unstable();
    keys.dedup();
    let change = |key| Change { key, expected: expected.get(key), found: found.get(key) };
    keys.into_iter().map(change).filter(|change| change.expected != change.found).collect()
}

pub(crate) fn sentence(changes: &[Change<'_>]) -> String {
    let mut told: Vec<String> = changes.iter().flat_map(words).collect();
    let more = told.len().saturating_sub(TOLD);
    told.truncate(TOLD);
    if more > 0 {
        told.push(format!("{} more", plural(more as u64, "change")));
    }
    told.join("; ")
}

fn words(change: &Change<'_>) -> Vec<String> {
    let Change { key, expected, found } = *change;
    let one = |words: String| vec![words];
    match (key, expected, found) {
        ("acl" | "granted" | "revoked", ..) => privileges(key, &list(expected), &list(found)),
        (_, Some(Value::Array(_)), _) | (_, _, Some(Value::Array(_))) => members(key, &list(expected), &list(found)),
        ("enabled" | "kind", Some(Value::String(expected)), Some(Value::String(found))) => {
            one(format!("is {found}, was {expected}"))
        }
        ("notNull", Some(_), None) => one("NOT NULL expected, nullable found".to_owned()),
        ("notNull", None, Some(_)) => one("nullable expected, NOT NULL found".to_owned()),
        ("validated", Some(Value::Bool(true)), _) => one("is NOT VALID, was validated".to_owned()),
        ("validated", ..) => one("is validated, was NOT VALID".to_owned()),
        ("populated", Some(Value::Bool(true)), _) => one("holds no data, held some".to_owned()),
        ("populated", ..) => one("holds data, held none".to_owned()),
        ("sha256", ..) => one("holds other bytes".to_owned()),
        (_, Some(Value::String(expected)), Some(Value::String(found))) if lines(expected) || lines(found) => {
            one(first_difference(key, expected, found))
        }
        _ => one(format!("{} {} expected, {} found", label(key), value(expected), value(found))),
    }
}

fn privileges(key: &str, expected: &[String], found: &[String]) -> Vec<String> {
    let (missing, added) = apart(expected, found);
    let (without, with) = match key {
        "revoked" => ("should be revoked and is granted", "is revoked"),
        _ => ("is not granted any more", "is granted, and was not"),
    };
    let missing = missing.iter().map(|entry| format!("{} {without}", cut(entry)));
    missing.chain(added.iter().map(|entry| format!("{} {with}", cut(entry)))).collect()
}

fn members(key: &str, expected: &[String], found: &[String]) -> Vec<String> {
    let (missing, added) = apart(expected, found);
    if missing.is_empty() && added.is_empty() {
        let joined = |list: &[String]| cut(&list.join(", "));
        return vec![format!("{} in the order {} expected, {} found", label(key), joined(expected), joined(found))];
    }
    let told = |entries: Vec<String>, words: &'static str| {
        entries.into_iter().map(move |entry| format!("{}: {} {words}", label(key), cut(&entry)))
    };
    told(missing, "is missing").chain(told(added, "is not in the backup")).collect()
}

/// What only the one and what only the other has.
fn apart(expected: &[String], found: &[String]) -> (Vec<String>, Vec<String>) {
    let missing = expected.iter().filter(|entry| !found.contains(entry)).cloned().collect();
    let added = found.iter().filter(|entry| !expected.contains(entry)).cloned().collect();
    (missing, added)
}

fn list(value: Option<&Value>) -> Vec<String> {
    let entries = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    entries.iter().map(|entry| entry.as_str().map_or_else(|| entry.to_string(), str::to_owned)).collect()
}

fn lines(text: &str) -> bool {
    text.trim_end().contains('\n')
}

fn first_difference(key: &str, expected: &str, found: &str) -> String {
    let (left, right): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), found.lines().collect());
    let position = left.iter().zip(&right).position(|(left, right)| left != right);
    let position = position.unwrap_or_else(|| left.len().min(right.len()));
    let line = |lines: &[&str]| lines.get(position).map_or_else(|| "nothing".to_owned(), |line| quoted(line.trim()));
    format!(
        "{} differs in line {}: {} expected, {} found",
        label(key),
        count(position as u64 + 1),
        line(&left),
        line(&right)
    )
}

fn value(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "none".to_owned(),
        Some(Value::Bool(true)) => "yes".to_owned(),
        Some(Value::Bool(false)) => "no".to_owned(),
        Some(Value::String(text)) if text.is_empty() => "an empty one".to_owned(),
        Some(Value::String(text)) => cut(text.trim()),
        Some(other) => cut(&other.to_string()),
    }
}

fn quoted(text: &str) -> String {
    format!("`{}`", cut(text))
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        None => text.to_owned(),
        Some((at, _)) => format!("{}…", &text[..at]),
    }
}

/// `statisticsTarget` is `statistics target`.
fn label(key: &str) -> String {
    let mut label = String::with_capacity(key.len() + 4);
    for c in key.chars() {
        if c.is_ascii_uppercase() {
            label.push(' ');
        }
        label.push(c.to_ascii_lowercase());
    }
    label
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(expected: &str, found: &str) -> String {
        let content = |text: &str| serde_json::from_str::<Content>(text).expect("an object");
        let (expected, found) = (content(expected), content(found));
        sentence(&changes(&expected, &found))
    }

    #[test]
    fn changes_are_told_as_a_dba_would() {
        for (expected, found, words) in [
            (
                r#"{"type": "numeric(10,2)"}"#,
                r#"{"type": "numeric(12,2)"}"#,
                "type numeric(10,2) expected, numeric(12,2) found",
            ),
            (r#"{"enabled": "enabled"}"#, r#"{"enabled": "disabled"}"#, "is disabled, was enabled"),
            (r#"{"kind": "view"}"#, r#"{"kind": "table"}"#, "is table, was view"),
            (r#"{"notNull": true}"#, "{}", "NOT NULL expected, nullable found"),
            (r#"{"default": "0"}"#, "{}", "default 0 expected, none found"),
            (r#"{"statisticsTarget": 5}"#, r#"{"statisticsTarget": 6}"#, "statistics target 5 expected, 6 found"),
            (r#"{"labels": ["a", "b"]}"#, r#"{"labels": ["b", "a"]}"#, "labels in the order a, b expected, b, a found"),
            (
                r#"{"options": ["a=1"]}"#,
                r#"{"options": ["a=2"]}"#,
                "options: a=1 is missing; options: a=2 is not in the backup",
            ),
            (
                r#"{"acl": ["INSERT to PUBLIC", "SELECT to bob"]}"#,
                r#"{"acl": ["SELECT to bob", "UPDATE to eve"]}"#,
                "INSERT to PUBLIC is not granted any more; UPDATE to eve is granted, and was not",
            ),
            (r#"{"revoked": ["EXECUTE to PUBLIC"]}"#, "{}", "EXECUTE to PUBLIC should be revoked and is granted"),
            (r#"{"validated": true}"#, r#"{"validated": false}"#, "is NOT VALID, was validated"),
            (
                r#"{"definition": "a\nb\nc"}"#,
                r#"{"definition": "a\n x\nc"}"#,
                "definition differs in line 2: `b` expected, `x` found",
            ),
            (
                r#"{"definition": "a\nb"}"#,
                r#"{"definition": "a"}"#,
                "definition differs in line 2: `b` expected, nothing found",
            ),
        ] {
            assert_eq!(told(expected, found), words);
        }
    }

    #[test]
    fn no_text_is_longer_than_people_read() {
        let long = format!(r#"{{"default": "{}"}}"#, "é".repeat(10_000));
        assert!(told(&long, "{}").chars().count() < 250);
        let many = |from: u32| {
            let entries: Vec<String> = (from..from + 100).map(|n| format!("\"a{n}\"")).collect();
            format!(r#"{{"acl": [{}]}}"#, entries.join(","))
        };
        assert!(told(&many(0), &many(100)).ends_with("; 194 changes more"), "{}", told(&many(0), &many(100)));
    }
}
