//! What may be asked for in the drill file.
use muster_check::glob::glob;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::object::Object;

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Options {
    /// Globs of kinds, such as `function` or `relation*` (`*` any text, `?` any character); empty: all.
    pub kinds: Vec<String>,
    /// Globs of objects that are not compared, by name (`public.tmp_*`) or by kind and name (`sequence public.*`). What
    /// belongs to a table that is left out is left out with it.
    pub ignore: Vec<String>,
}

/// The options, and which of the globs have matched anything.
pub(crate) struct Chosen {
    kinds: Vec<(String, bool)>,
    ignore: Vec<(String, bool)>,
}

impl Chosen {
    pub(crate) fn new(options: Options) -> Self {
        let unseen = |globs: Vec<String>| globs.into_iter().map(|glob| (glob, false)).collect();
        Self { kinds: unseen(options.kinds), ignore: unseen(options.ignore) }
    }

    pub(crate) fn takes(&mut self, object: &Object) -> bool {
        let kind = any(&mut self.kinds, |pattern| glob(pattern, &object.kind));
        if !(kind || self.kinds.is_empty()) {
            return false;
        }
        if self.ignore.is_empty() {
            return true;
        }
        let name = format!("{} {}", object.kind, object.identity);
        let table = object.table();
        !any(&mut self.ignore, |pattern| {
            glob(pattern, &object.identity)
                || glob(pattern, &name)
                || table.as_ref().is_some_and(|table| glob(pattern, table))
        })
    }

    /// The first glob that matched nothing: a misspelled one must not pass as a check that looked.
    pub(crate) fn unmatched(&self) -> Option<(&'static str, &str)> {
        let first = |name, globs: &'_ [(String, bool)]| {
            let position = globs.iter().position(|(_, seen)| !seen)?;
            Some((name, position))
        };
        let (name, position) = first("kinds", &self.kinds).or_else(|| first("ignore", &self.ignore))?;
        let globs = if name == "kinds" { &self.kinds } else { &self.ignore };
        Some((name, &globs[position].0))
    }
}

/// Every glob that matches is marked, not only the first.
fn any(globs: &mut [(String, bool)], matches: impl Fn(&str) -> bool) -> bool {
    globs.iter_mut().fold(false, |any, (pattern, seen)| {
        let chosen = matches(pattern);
        *seen |= chosen;
        any || chosen
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(json: &str) -> Chosen {
        Chosen::new(serde_json::from_str(json).expect("valid options"))
    }

    fn object(kind: &str, identity: &str, content: &str) -> Object {
        Object { kind: kind.to_owned(), identity: identity.to_owned(), content: content.to_owned() }
    }

    #[test]
    fn kinds_and_names_choose() {
        let mut chosen = chosen(r#"{"kinds": ["relation*", "seq*"], "ignore": ["public.tmp_*", "sequence public.s"]}"#);
        assert!(chosen.takes(&object("relation", "public.orders", "{}")));
        assert!(!chosen.takes(&object("function", "public.f()", "{}")));
        assert!(!chosen.takes(&object("relation", "public.tmp_1", "{}")));
        assert!(!chosen.takes(&object("relation column", "public.\"x\".a", r#"{"table": "public.tmp_2"}"#)));
        assert_eq!(chosen.unmatched(), Some(("kinds", "seq*")));
        assert!(!chosen.takes(&object("sequence", "public.s", "{}")));
        assert!(chosen.takes(&object("sequence", "public.t", "{}")));
        assert_eq!(chosen.unmatched(), None);
    }

    #[test]
    fn no_option_takes_all_and_a_misspelled_one_is_refused() {
        assert!(chosen("{}").takes(&object("cast", "(a AS b)", "{}")));
        let error = serde_json::from_str::<Options>(r#"{"kind": []}"#).expect_err("unknown");
        assert!(error.to_string().contains("unknown field `kind`"));
    }
}
