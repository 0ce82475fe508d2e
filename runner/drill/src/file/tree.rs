//! A file as a tree that knows where each key and value stands. Scalars keep the text that was written.
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::{DuplicateKeyPolicy, MergeKeyPolicy, NonFiniteFloatPolicy};
use serde_saphyr::{Location, Spanned};

use super::problem::{Place, Problem};

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Number {
        written: String,
        number: serde_json::Number,
    },
    Text(String),
    List(Vec<Node>),
    /// In the order of the file; a key may stand in it twice.
    Map(Vec<(Key, Node)>),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Key {
    pub(super) place: Place,
    pub(super) name: String,
}

impl Value {
    /// What it is, for a sentence such as "must be text, not a list".
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "empty",
            Self::Bool(_) => "true or false",
            Self::Number { .. } => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

/// Deepest nesting; the deepest drill file that means something has eight.
const MAX_DEPTH: usize = 32;

/// Reads one YAML 1.2 document. What an alias may blow it up to is bounded.
pub(super) fn read(text: &str) -> Result<Node, Problem> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_events: 200_000,
            max_nodes: 100_000,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_documents: 1,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 20_000,
            max_replay_stack_depth: 8,
        },
        // Duplicates are ours to report, all of them at once; a merge key is not YAML 1.2 and so a key that nobody knows.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        merge_keys: MergeKeyPolicy::AsOrdinary,
        strict_booleans: true,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        reject_unsupported_tags: true,
        with_snippet: false,
    };
    let raw: Raw = serde_saphyr::from_str_with_options(text, options).map_err(|error| unreadable(&error))?;
    Ok(raw.place(text))
}

fn unreadable(error: &serde_saphyr::Error) -> Problem {
    use serde_saphyr::Error;
    use serde_saphyr::budget::BudgetBreach;
    let error = error.without_snippet();
    let text = error.to_string();
    // Limits inside an alias, and those of the scanner, come as text alone.
    let beyond = matches!(error, Error::Budget { .. })
        || ["alias replay", "recursion limit"].iter().any(|limit| text.contains(limit));
    let (message, hint) = if let Error::Budget { breach: BudgetBreach::Documents { .. }, .. } = error {
        ("a second document begins here".to_owned(), Some("one file declares one drill; give it a file of its own"))
    } else if text.contains("recursive references") {
        ("this alias stands inside what it stands for".to_owned(), Some("write the value itself"))
    } else if beyond {
        ("the file grows beyond what a drill can mean".to_owned(), Some("use fewer aliases, and nest less deeply"))
    } else {
        // The place is shown beside it.
        let text = text.find(" at line ").map_or(text.as_str(), |end| &text[..end]);
        (format!("not readable as YAML: {text}"), None)
    };
    let problem = match error.location() {
        Some(location) if location.line() > 0 => Problem::at(place(location), message),
        _ => Problem::whole_file(message),
    };
    Problem { hint: hint.map(str::to_owned), ..problem }
}

fn place(location: Location) -> Place {
    let bounded = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    Place { line: bounded(location.line()), column: bounded(location.column()), length: bounded(location.span().len()) }
}

struct Raw(Spanned<RawValue>);

enum RawValue {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    Text(String),
    List(Vec<Raw>),
    Map(Vec<(Spanned<String>, Raw)>),
}

impl Raw {
    /// Places from the reader, and the text of numbers from the source, because `1GB` and `010` are told by how they are
    /// written.
    fn place(self, source: &str) -> Node {
        let Spanned { value, referenced, defined, .. } = self.0;
        let value = match value {
            RawValue::Null => Value::Null,
            RawValue::Bool(value) => Value::Bool(value),
            RawValue::Number(number) => Value::Number { written: written(source, defined, &number), number },
            RawValue::Text(text) => Value::Text(text),
            RawValue::List(items) => Value::List(items.into_iter().map(|item| item.place(source)).collect()),
            RawValue::Map(entries) => Value::Map(
                entries
                    .into_iter()
                    .map(|(key, value)| (Key { place: place(key.referenced), name: key.value }, value.place(source)))
                    .collect(),
            ),
        };
        let mut place = place(referenced);
        if matches!(&value, Value::List(items) if items.is_empty())
            || matches!(&value, Value::Map(map) if map.is_empty())
        {
            // The reader gives the first bracket alone; an empty pair is one thing to look at.
            place.length = bytes(referenced, source).and_then(closing).unwrap_or(place.length);
        }
        Node { place, value }
    }
}

fn written(source: &str, defined: Location, number: &serde_json::Number) -> String {
    let length = defined.span().byte_len().and_then(|length| usize::try_from(length).ok());
    let text = bytes(defined, source).zip(length).and_then(|(text, length)| text.get(..length));
    text.map_or_else(|| number.to_string(), |text| text.trim().to_owned())
}

/// The source from a place on.
fn bytes(location: Location, source: &str) -> Option<&str> {
    source.get(usize::try_from(location.span().byte_offset()?).ok()?..)
}

/// Characters of an empty pair of brackets at the beginning of `text`.
fn closing(text: &str) -> Option<usize> {
    let inside = text.strip_prefix(['[', '{'])?;
    let spaces = inside.len() - inside.trim_start_matches(' ').len();
    inside[spaces..].starts_with([']', '}']).then_some(spaces + 2)
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Spanned::deserialize(deserializer).map(Self)
    }
}

impl<'de> Deserialize<'de> for RawValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Build;

        impl<'de> Visitor<'de> for Build {
            type Value = RawValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_unit<E>(self) -> Result<RawValue, E> {
                Ok(RawValue::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<RawValue, E> {
                Ok(RawValue::Bool(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<RawValue, E> {
                Ok(RawValue::Number(value.into()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<RawValue, E> {
                Ok(RawValue::Number(value.into()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<RawValue, E> {
                let number = serde_json::Number::from_f64(value);
                Ok(number.map_or_else(|| RawValue::Text(value.to_string()), RawValue::Number))
            }

            fn visit_str<E>(self, value: &str) -> Result<RawValue, E> {
                Ok(RawValue::Text(value.to_owned()))
            }

            fn visit_string<E>(self, value: String) -> Result<RawValue, E> {
                Ok(RawValue::Text(value))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<RawValue, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(RawValue::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<RawValue, A::Error> {
                let mut map = Vec::new();
                while let Some(entry) = entries.next_entry()? {
                    map.push(entry);
                }
                Ok(RawValue::Map(map))
            }
        }

        deserializer.deserialize_any(Build)
    }
}

impl Node {
    /// The value under a key; the first, where it stands there twice.
    pub(super) fn get(&self, name: &str) -> Option<&Node> {
        self.entries().iter().find(|(key, _)| key.name == name).map(|(_, value)| value)
    }

    pub(super) fn entries(&self) -> &[(Key, Node)] {
        if let Value::Map(entries) = &self.value { entries } else { &[] }
    }

    pub(super) fn items(&self) -> &[Node] {
        if let Value::List(items) = &self.value { items } else { &[] }
    }

    pub(super) fn text(&self) -> Option<&str> {
        if let Value::Text(text) = &self.value { Some(text) } else { None }
    }

    /// Text, or what was written where it reads as a number, true or false.
    pub(super) fn written(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) | Value::Number { written: text, .. } => Some(text),
            Value::Bool(true) => Some("true"),
            Value::Bool(false) => Some("false"),
            Value::Null | Value::List(_) | Value::Map(_) => None,
        }
    }

    pub(super) fn whole(&self) -> Option<u64> {
        if let Value::Number { number, .. } = &self.value { number.as_u64() } else { None }
    }

    pub(super) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Number { number, .. } => serde_json::Value::Number(number.clone()),
            Value::Text(text) => text.as_str().into(),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Map(entries) => entries.iter().map(|(key, value)| (key.name.clone(), value.to_json())).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    fn show(node: &Node, into: &mut String) {
        let Place { line, column, length } = node.place;
        let scalar = node.written().map_or_else(|| node.value.kind().to_owned(), |text| format!("{text:?}"));
        writeln!(into, "{line}:{column}+{length} {scalar}").expect("a string takes it");
        for (key, value) in node.entries() {
            let Place { line, column, length } = key.place;
            writeln!(into, "{line}:{column}+{length} key {:?}", key.name).expect("a string takes it");
            show(value, into);
        }
        node.items().iter().for_each(|item| show(item, into));
    }

    #[test]
    fn every_node_knows_its_place_and_its_spelling() {
        let text = "# päd\n\"ü a\": [ 1_0, {b: x y} ]\nc: &n 010\nd: *n\ne: |\n  two\n  lines\nf: on\ng: \"q\\\"q\"\nh: .nan\ni:\n";
        let mut shown = String::new();
        show(&read(text).expect("it is YAML"), &mut shown);
        expect_test::expect![[r#"
            2:1+0 a map
            2:1+5 key "ü a"
            2:8+1 a list
            2:10+3 "1_0"
            2:15+1 a map
            2:16+1 key "b"
            2:19+3 "x y"
            3:1+1 key "c"
            3:7+3 "010"
            4:1+1 key "d"
            4:4+2 "010"
            5:1+1 key "e"
            6:3+12 "two\nlines\n"
            8:1+1 key "f"
            8:4+2 "on"
            9:1+1 key "g"
            9:4+6 "q\"q"
            10:1+1 key "h"
            10:4+4 ".nan"
            11:1+1 key "i"
            11:2+0 empty
        "#]]
        .assert_eq(&shown);
    }

    #[test]
    fn what_would_grow_without_end_is_refused() {
        let bomb = ["a: &a [x, x, x, x, x, x, x, x]", "b: &b [*a, *a, *a, *a, *a, *a, *a, *a]"];
        let more = [
            "c: &c [*b, *b, *b, *b, *b, *b, *b, *b]",
            "d: &d [*c, *c, *c, *c, *c, *c, *c, *c]",
            "e: [*d, *d, *d, *d, *d]",
        ];
        let deep = "[".repeat(10_000);
        let block: Vec<String> = (0..500).map(|depth| " ".repeat(depth) + "a:").collect();
        for text in [[&bomb[..], &more[..]].concat().join("\n"), deep, block.join("\n")] {
            let problem = read(&text).expect_err("it is refused");
            assert_eq!(problem.message, "the file grows beyond what a drill can mean");
        }
        assert!(read(&bomb.join("\n")).is_ok(), "a little of it is no bomb");
    }
}
