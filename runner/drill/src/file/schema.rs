//! The JSON Schema of a drill file, from the same table that the parser reads.
use serde_json::{Map, Value, json};

use super::compact::COMPACT;
use super::shape::{Choice, DRILL, Form, Key, Need, Shape};

/// Draft 2020-12, for editors and other people's checks. It says what form can say; [`super::parse`] says the rest.
pub fn json_schema() -> Value {
    of(&DRILL, "muster drill", "What a disaster-recovery drill restores, where, and what must be true of it.")
}

/// The same of a compact manifest.
pub fn compact_schema() -> Value {
    of(&COMPACT, "compact muster drill", "What differs between drills; the daemon's configuration has the rest.")
}

pub(super) fn of(shape: &Shape, title: &str, description: &str) -> Value {
    let mut schema = object(shape);
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = title.into();
    schema["description"] = description.into();
    schema
}

fn object(shape: &Shape) -> Value {
    let properties: Map<String, Value> = shape.keys.iter().map(|key| (key.name.to_owned(), property(key))).collect();
    let required: Vec<&str> = shape.keys.iter().filter(|key| key.need == Need::Required).map(|key| key.name).collect();
    let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    if shape.choice == Choice::ExactlyOne {
        schema["minProperties"] = 1.into();
    }
    if shape.choice != Choice::Any {
        schema["maxProperties"] = 1.into();
    }
    schema
}

fn property(key: &Key) -> Value {
    if key.need == Need::NotYet {
        // Known, described, and refused, as the parser does.
        return json!({ "description": format!("{} Not offered by this version.", key.about), "not": {} });
    }
    let mut schema = form(&key.form);
    schema["description"] = key.about.into();
    schema
}

fn form(form: &Form) -> Value {
    match form {
        Form::Constant(text) => json!({ "const": text }),
        Form::OneOf(words) => json!({ "enum": words }),
        Form::Text(rule) => {
            let mut schema = json!({ "type": "string", "examples": [rule.example] });
            if let Some(pattern) = rule.pattern {
                schema["pattern"] = pattern.into();
            }
            schema
        }
        Form::Scalar(rule) => json!({ "type": ["string", "number", "boolean"], "examples": [rule.example] }),
        Form::Duration { .. } => {
            json!({ "type": "string", "pattern": "^(?=.)(\\d+w)?(\\d+d)?(\\d+h)?(\\d+m)?(\\d+s)?(\\d+ms)?$", "examples": ["90s", "1h30m"] })
        }
        Form::Size { .. } => {
            let text = json!({ "type": "string", "pattern": "^\\d+(B|[kKMGT]B|[KMGT]iB?)?$" });
            json!({ "anyOf": [text, { "type": "integer", "minimum": 0 }], "examples": ["512MiB", "4GiB"] })
        }
        Form::Whole { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Form::Object(shape) => object(shape),
        Form::List { item, if_empty } => {
            let mut schema = json!({ "type": "array", "items": self::form(item) });
            if if_empty.is_some() {
                schema["minItems"] = 1.into();
            }
            schema
        }
        Form::Map { key, value } => {
            let mut schema = json!({ "type": "object", "additionalProperties": self::form(value) });
            if let Some(pattern) = key.pattern {
                schema["propertyNames"] = json!({ "pattern": pattern });
            }
            schema
        }
        Form::Free => json!({ "type": "object" }),
    }
}
