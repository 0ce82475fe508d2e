//! One object of a schema, and how people call it.
use serde_json::{Map, Value};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Object {
    pub kind: String,
    pub identity: String,
    /// Canonical JSON.
    pub content: String,
}

pub(crate) type Content = Map<String, Value>;

impl Object {
    pub(crate) fn key(&self) -> (&str, &str) {
        (&self.kind, &self.identity)
    }

    /// Nothing where it is no JSON object; the host has seen that it is.
    pub(crate) fn content(&self) -> Content {
        serde_json::from_str(&self.content).unwrap_or_default()
    }

    /// The relation that it belongs to.
    pub(crate) fn table(&self) -> Option<String> {
        // Hardly any object is looked at so closely: most are only compared as text.
        self.content.contains("\"table\"").then(|| text(&self.content(), "table"))?
    }

    /// Such as `column public.orders.total`.
    pub(crate) fn label(&self) -> String {
        format!("{} {}", self.noun(), self.identity)
    }

    /// What it is, in the words that its documentation uses.
    pub(crate) fn noun(&self) -> String {
        match self.kind.as_str() {
            "relation" => text(&self.content(), "kind").unwrap_or_else(|| "relation".to_owned()),
            "type" => text(&self.content(), "kind").unwrap_or_else(|| "type".to_owned()),
            "relation column order" => "order of the columns of".to_owned(),
            "relation comment" | "comment" => "comment on".to_owned(),
            "security label" => "security label of".to_owned(),
            "function in pg_catalog" => "function".to_owned(),
            "privileges on system objects" => "privileges on".to_owned(),
            kind => kind.strip_prefix("relation ").unwrap_or(kind).to_owned(),
        }
    }

    /// What several of it are, where they go with their table.
    pub(crate) fn counted(&self) -> &str {
        self.kind.strip_prefix("relation ").unwrap_or(&self.kind)
    }
}

pub(crate) fn text(content: &Content, key: &str) -> Option<String> {
    content.get(key).and_then(Value::as_str).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_called_as_people_call_them() {
        let label = |kind: &str, identity: &str, content: &str| {
            Object { kind: kind.to_owned(), identity: identity.to_owned(), content: content.to_owned() }.label()
        };
        assert_eq!(label("relation", "public.v", r#"{"kind": "materialized view"}"#), "materialized view public.v");
        assert_eq!(label("relation column", "public.orders.total", "{}"), "column public.orders.total");
        assert_eq!(label("relation comment", "table public.t", "{}"), "comment on table public.t");
        assert_eq!(label("event trigger", "watching", "{}"), "event trigger watching");
    }
}
