//! Compares a tree with the table in [`super::shape`]: unknown and duplicate keys, what is missing, types and units.
use std::collections::BTreeMap;
use std::time::Duration;

use super::problem::{Place, Problem, Problems};
use super::rule::{Complaint, TextRule, nearest, quote, suggest};
use super::shape::{Choice, Form, Key, Need, Shape};
use super::tree::{self, Node, Value};
use crate::unit;

/// Adds everything that is wrong with the form of `root`.
pub(super) fn check(root: &Node, shape: &'static Shape, problems: &mut Problems) {
    let name = "the file";
    Walker { root: shape, problems }.object(&Subject { name, quoted: name.to_owned(), place: root.place }, root, shape);
}

struct Walker<'a> {
    root: &'static Shape,
    problems: &'a mut Problems,
}

/// What a message is about: a value under its key.
struct Subject<'a> {
    name: &'a str,
    /// As it stands in a sentence.
    quoted: String,
    /// Of its key, because that is where something missing is missing.
    place: Place,
}

impl<'a> Subject<'a> {
    fn key(key: &'a tree::Key) -> Self {
        Self { name: &key.name, quoted: format!("`{}`", key.name), place: key.place }
    }
}

impl Walker<'_> {
    fn value(&mut self, subject: &Subject<'_>, node: &Node, form: &'static Form) {
        if node.value == Value::Null {
            let problem = Problem::at(subject.place, format!("{} has no value", subject.quoted));
            self.problems.push(problem.hint(format!("write {}, or remove it", example(form))));
            return;
        }
        match form {
            Form::Object(shape) => self.object(subject, node, shape),
            Form::List { item, if_empty } => self.list(subject, node, item, if_empty.as_ref()),
            Form::Map { key, value } => self.map(subject, node, key, value),
            Form::Free => self.free(subject, node),
            leaf => {
                if let Err(complaint) = check_leaf(subject, &node.value, leaf) {
                    self.complain(node.place, complaint);
                }
            }
        }
    }

    fn object(&mut self, subject: &Subject<'_>, node: &Node, shape: &'static Shape) {
        let Some(entries) = self.entries(subject, node) else { return };
        let names: Vec<&str> = shape.keys.iter().map(|key| key.name).collect();
        for (key, value) in entries {
            match shape.keys.iter().find(|known| known.name == key.name) {
                None => {
                    let problem = Problem::at(key.place, format!("unknown key `{}`", key.name));
                    self.problems.push(problem.hint(unknown(self.root, &key.name, &names)));
                }
                Some(Key { need: Need::NotYet, .. }) => {
                    let message = format!("`{}` is not offered by this version of muster", key.name);
                    self.problems
                        .push(Problem::at(key.place, message).hint("a later version will; remove it until then"));
                }
                Some(known) => self.value(&Subject::key(key), value, &known.form),
            }
        }
        let given = |name: &str| entries.iter().any(|(key, _)| key.name == name);
        let missing = shape.keys.iter().filter(|known| known.need == Need::Required && !given(known.name));
        for known in missing {
            let problem = Problem::at(subject.place, format!("`{}` is missing from {}", known.name, subject.quoted));
            self.problems.push(problem.hint(format!("add {}: {}", known.name, example(&known.form))));
        }
        self.choice(subject, entries, shape);
    }

    fn choice(&mut self, subject: &Subject<'_>, entries: &[(tree::Key, Node)], shape: &'static Shape) {
        // One that this version does not offer has had its say.
        let offered = shape.keys.iter().filter(|known| known.need != Need::NotYet).map(|known| known.name);
        let offered: Vec<&str> = offered.collect();
        let given = |name: &&&str| entries.iter().any(|(key, _)| key.name == **name);
        let chosen: Vec<&str> = offered.iter().filter(given).copied().collect();
        match shape.choice {
            Choice::AtMostOne | Choice::ExactlyOne if chosen.len() > 1 => {
                let message = format!("{} takes one of {}, not both", subject.quoted, quote(&chosen, " and "));
                self.problems.push(Problem::at(subject.place, message).hint("keep one of them"));
            }
            // With an unknown key in it, that one was meant and has been reported.
            Choice::ExactlyOne if entries.is_empty() => {
                let problem = Problem::at(subject.place, format!("{} is empty", subject.quoted));
                self.problems.push(problem.hint(format!("write {}", quote(&offered, " or "))));
            }
            Choice::Any | Choice::AtMostOne | Choice::ExactlyOne => {}
        }
    }

    fn list(
        &mut self,
        subject: &Subject<'_>,
        node: &Node,
        item: &'static Form,
        if_empty: Option<&super::shape::IfEmpty>,
    ) {
        let Value::List(items) = &node.value else {
            let complaint = wrong_type(subject, &node.value, "a list");
            return self.complain(node.place, complaint);
        };
        if let (true, Some(if_empty)) = (items.is_empty(), if_empty) {
            self.problems.push(Problem::at(node.place, if_empty.message).hint(if_empty.hint));
        }
        for (index, value) in items.iter().enumerate() {
            let quoted = format!("entry {} of `{}`", index + 1, subject.name);
            self.value(&Subject { name: subject.name, quoted, place: value.place }, value, item);
        }
    }

    fn map(&mut self, subject: &Subject<'_>, node: &Node, rule: &TextRule, form: &'static Form) {
        for (key, value) in self.entries(subject, node).unwrap_or_default() {
            if let Err(complaint) = (rule.check)(&key.name) {
                self.complain(key.place, complaint);
            }
            self.value(&Subject::key(key), value, form);
        }
    }

    /// Options of a plugin: only what JSON cannot hold is wrong here.
    fn free(&mut self, subject: &Subject<'_>, node: &Node) {
        for (_, value) in self.entries(subject, node).unwrap_or_default() {
            self.inside_free(value);
        }
    }

    fn inside_free(&mut self, node: &Node) {
        match &node.value {
            Value::Map(entries) => {
                self.duplicates(entries);
                for (_, value) in entries {
                    self.inside_free(value);
                }
            }
            Value::List(items) => {
                for item in items {
                    self.inside_free(item);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number { .. } | Value::Text(_) => {}
        }
    }

    fn entries<'n>(&mut self, subject: &Subject<'_>, node: &'n Node) -> Option<&'n [(tree::Key, Node)]> {
        if let Value::Map(entries) = &node.value {
            self.duplicates(entries);
            Some(entries)
        } else {
            let complaint = wrong_type(subject, &node.value, "a map");
            self.complain(node.place, complaint);
            None
        }
    }

    fn duplicates(&mut self, entries: &[(tree::Key, Node)]) {
        let mut first = BTreeMap::new();
        for (key, _) in entries {
            if let Some(line) = first.get(key.name.as_str()) {
                let problem = Problem::at(key.place, format!("duplicate key `{}`", key.name));
                self.problems.push(problem.hint(format!("the first is on line {line}; keep one of them")));
            } else {
                first.insert(key.name.as_str(), key.place.line);
            }
        }
    }

    fn complain(&mut self, place: Place, complaint: Complaint) {
        self.problems.push(Problem { message: complaint.message, place: Some(place), hint: complaint.hint });
    }
}

fn check_leaf(subject: &Subject<'_>, value: &Value, form: &Form) -> Result<(), Complaint> {
    let quoted = &subject.quoted;
    match form {
        Form::Constant(wanted) => match value {
            Value::Text(text) if text == wanted => Ok(()),
            _ => Err(Complaint::new(format!("{quoted} must be `{wanted}`")).hint(format!("write {wanted}"))),
        },
        Form::OneOf(words) => {
            let text = as_text(subject, value)?;
            if words.contains(&text) {
                return Ok(());
            }
            let hint = nearest(text, words)
                .map_or_else(|| format!("write {}", quote(words, " or ")), |word| format!("did you mean `{word}`?"));
            Err(Complaint::new(format!("`{text}` is not a value of {quoted}")).hint(hint))
        }
        Form::Text(rule) => (rule.check)(as_text(subject, value)?),
        Form::Scalar(rule) => match value {
            Value::Text(text) | Value::Number { written: text, .. } => (rule.check)(text),
            Value::Bool(_) => Ok(()),
            other => Err(wrong_type(subject, other, "text, a number, true or false")),
        },
        Form::Duration { min, max } => {
            if let Value::Number { written, .. } = value {
                return Err(Complaint::new(format!("{quoted} has no unit"))
                    .hint(format!("such as `{written}s` or `{written}m`")));
            }
            let text = as_text(subject, value)?;
            let duration = unit::parse_duration(text).map_err(|error| Complaint::new(error.to_string()))?;
            if (*min..=*max).contains(&duration) {
                return Ok(());
            }
            Err(Complaint::new(format!(
                "{quoted} must be between {} and {}",
                unit::duration(*min),
                unit::duration(*max)
            )))
        }
        Form::Size { min, max } => {
            let (Value::Text(text) | Value::Number { written: text, .. }) = value else {
                return Err(wrong_type(subject, value, "a size such as `4GiB`"));
            };
            let size = unit::parse_size(text).map_err(|error| Complaint::new(error.to_string()))?;
            if size < *min {
                Err(Complaint::new(format!("{quoted} must be at least {}", spell_size(*min))))
            } else if size > *max {
                Err(Complaint::new(format!("{quoted} must be at most {}", spell_size(*max))))
            } else {
                Ok(())
            }
        }
        Form::Whole { min, max } => {
            let Value::Number { number, .. } = value else {
                return Err(wrong_type(subject, value, "a whole number"));
            };
            match number.as_u64() {
                Some(number) if (*min..=*max).contains(&number) => Ok(()),
                _ => Err(Complaint::new(format!("{quoted} must be a whole number from {min} to {max}"))),
            }
        }
        Form::Object(_) | Form::List { .. } | Form::Map { .. } | Form::Free => Ok(()),
    }
}

fn as_text<'v>(subject: &Subject<'_>, value: &'v Value) -> Result<&'v str, Complaint> {
    match value {
        Value::Text(text) => Ok(text),
        Value::Number { written, .. } => {
            Err(wrong_type(subject, value, "text").hint(format!("quote it: \"{written}\"")))
        }
        Value::Bool(given) => Err(wrong_type(subject, value, "text").hint(format!("quote it: \"{given}\""))),
        other => Err(wrong_type(subject, other, "text")),
    }
}

fn wrong_type(subject: &Subject<'_>, value: &Value, wanted: &str) -> Complaint {
    Complaint::new(format!("{} must be {wanted}, not {}", subject.quoted, value.kind()))
}

/// What could stand there, for a hint.
fn example(form: &Form) -> String {
    match form {
        Form::Constant(text) => (*text).to_owned(),
        Form::OneOf(words) => words.join(" or "),
        Form::Text(rule) | Form::Scalar(rule) => rule.example.to_owned(),
        Form::Duration { min, max } => spell_duration(Duration::from_mins(15).clamp(*min, *max)),
        Form::Size { .. } => "4GiB".to_owned(),
        Form::Whole { min, .. } => min.max(&4).to_string(),
        Form::Object(shape) => {
            let shown = shape.keys.iter().filter(|key| [Need::Required, Need::Usual].contains(&key.need));
            let parts: Vec<String> = shown.map(|key| format!("{}: {}", key.name, example(&key.form))).collect();
            match (parts.is_empty(), shape.keys.first()) {
                (true, Some(first)) => format!("{{ {}: {} }}", first.name, example(&first.form)),
                (true, None) => "{}".to_owned(),
                (false, _) => format!("{{ {} }}", parts.join(", ")),
            }
        }
        Form::List { item, .. } => format!("[{}]", example(item)),
        Form::Map { key, value } => format!("{{ {}: {} }}", key.example, example(value)),
        Form::Free => "{}".to_owned(),
    }
}

/// What to do about a key that is not known where it stands.
fn unknown(root: &'static Shape, name: &str, known_here: &[&str]) -> String {
    if name == "<<" {
        return "YAML 1.2 has no merge keys; use an alias for a whole value".to_owned();
    }
    let mut homes = Vec::new();
    find_homes(name, root, "", &mut homes);
    match homes.as_slice() {
        [home] => format!("it belongs under {home}"),
        _ => suggest(name, known_here),
    }
}

/// Every map in which a key of this name is known.
fn find_homes(name: &str, shape: &'static Shape, path: &str, homes: &mut Vec<String>) {
    for key in shape.keys.iter().filter(|key| key.need != Need::NotYet) {
        if key.name == name && !path.is_empty() {
            homes.push(format!("`{path}`"));
        }
        let inner = match &key.form {
            Form::List { item, .. } => item,
            form => form,
        };
        if let Form::Object(shape) = inner {
            let dot = if path.is_empty() { "" } else { "." };
            find_homes(name, shape, &format!("{path}{dot}{}", key.name), homes);
        }
    }
}

/// The spelling of a bound, in its largest whole unit.
fn spell_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let unit = units.into_iter().find(|(unit, _)| ms >= *unit && ms.is_multiple_of(*unit));
    unit.map_or_else(|| format!("{ms}ms"), |(unit, name)| format!("{}{name}", ms / unit))
}

fn spell_size(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = units.into_iter().find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit));
    unit.map_or_else(|| format!("{bytes} bytes"), |(unit, name)| format!("{}{name}", bytes / unit))
}
