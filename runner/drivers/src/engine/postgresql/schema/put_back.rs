//! Counts as granted what muster itself revoked from a restored database before anybody looked.
use std::collections::BTreeMap;

use drill::schema::{Object, Taken};
use serde_json::{Map, Value};

use super::SYSTEM;

/// Goes along with the objects of one database, in their order.
#[derive(Debug, Default)]
pub struct PutBack {
    taken: BTreeMap<(String, String), Vec<String>>,
    /// The names that the run's leases begin with.
    lease: String,
}

impl PutBack {
    /// `lease` is [`lease_role`](drill::ledger::Resource::lease_role): a lease that was replaced may still be on the database,
    /// and another name of the run follows the first after a hyphen.
    pub fn new(taken: &[Taken], lease: &str) -> Self {
        let mut map: BTreeMap<_, Vec<String>> = BTreeMap::new();
        for Taken { kind, identity, entry } in taken {
            map.entry((kind.clone(), identity.clone())).or_default().push(entry.clone());
        }
        Self { taken: map, lease: lease.to_owned() }
    }

    fn is_given_to_a_lease(&self, entry: &str) -> bool {
        let name = entry.strip_prefix("CONNECT to \"").and_then(|rest| rest.strip_suffix('"'));
        let rest = name.and_then(|name| name.strip_prefix(self.lease.as_str()));
        !self.lease.is_empty() && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    }

    /// The next object that is gone because nothing but what was revoked made it one: before `next`, or before the end.
    pub fn gone(&mut self, next: Option<&Object>) -> Result<Option<Object>, String> {
        loop {
            let Some(entry) = self.taken.first_entry() else { return Ok(None) };
            let (kind, identity) = entry.key();
            if next.is_some_and(|next| next.key() <= (kind.as_str(), identity.as_str())) {
                return Ok(None);
            }
            let ((kind, identity), entries) = entry.remove_entry();
            // Any other object is there, whatever was revoked: one that is not was no object that is compared.
            if kind == SYSTEM {
                return object(&kind, identity, system(Map::new(), entries)).map(Some);
            }
        }
    }

    /// None where only what was revoked makes it an object.
    pub fn put_back(&mut self, object: Object) -> Result<Option<Object>, String> {
        let entries = self.taken.remove(&(object.kind.clone(), object.identity.clone())).unwrap_or_default();
        if entries.is_empty() && object.kind != "database" {
            return Ok(Some(object));
        }
        let mut content: Map<String, Value> = serde_json::from_str(object.content.get())
            .map_err(|error| format!("the description of {} {}: {error}", object.kind, object.identity))?;
        if object.kind == SYSTEM {
            content = system(content, entries);
            if content.is_empty() {
                return Ok(None);
            }
        } else {
            let mut acl = list(&mut content, "acl");
            acl.retain(|entry| !self.is_given_to_a_lease(entry));
            acl.extend(entries);
            set(&mut content, "acl", acl, true);
        }
        self::object(&object.kind, object.identity, content).map(Some)
    }
}

fn object(kind: &str, identity: String, content: Map<String, Value>) -> Result<Object, String> {
    Object::new(kind, identity, Value::Object(content).to_string())
}

/// A difference from what the object came with: what was revoked of that is not, or was granted beyond it.
fn system(mut content: Map<String, Value>, entries: Vec<String>) -> Map<String, Value> {
    let (mut granted, mut revoked) = (list(&mut content, "granted"), list(&mut content, "revoked"));
    for entry in entries {
        match revoked.iter().position(|revoked| *revoked == entry) {
            Some(position) => drop(revoked.remove(position)),
            None => granted.push(entry),
        }
    }
    set(&mut content, "granted", granted, false);
    set(&mut content, "revoked", revoked, false);
    content
}

fn list(content: &mut Map<String, Value>, key: &str) -> Vec<String> {
    match content.remove(key) {
        Some(Value::Array(entries)) => entries.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

fn set(content: &mut Map<String, Value>, key: &str, mut entries: Vec<String>, even_empty: bool) {
    entries.sort_unstable();
    entries.dedup();
    if even_empty || !entries.is_empty() {
        content.insert(key.to_owned(), entries.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(kind: &str, identity: &str, entry: &str) -> Taken {
        Taken { kind: kind.to_owned(), identity: identity.to_owned(), entry: entry.to_owned() }
    }

    fn read(kind: &str, identity: &str, content: &str) -> Object {
        Object::new(kind, identity.to_owned(), content.to_owned()).expect("an object")
    }

    fn told(object: Option<Object>) -> String {
        object.map(|object| format!("{} {}", object.identity, object.content)).unwrap_or_default()
    }

    #[test]
    fn privileges_are_what_they_were() {
        let mut put_back = PutBack::new(
            &[
                taken("database", "orders", "CONNECT to PUBLIC"),
                taken("relation", "public.t", "INSERT to PUBLIC"),
                taken("relation", "pg_toast.t", "INSERT to PUBLIC"),
            ],
            "muster-orders-x",
        );
        let database = read(
            "database",
            "orders",
            r#"{"acl": ["CONNECT to \"muster-orders-x\"", "CONNECT to \"muster-orders-x-k3q\"", "CREATE to its owner"]}"#,
        );
        let database = put_back.put_back(database).expect("a database");
        assert_eq!(told(database), r#"orders {"acl":["CONNECT to PUBLIC","CREATE to its owner"]}"#);
        let table = read("relation", "public.t", r#"{"acl": ["SELECT to bob"], "kind": "table"}"#);
        assert_eq!(told(put_back.gone(Some(&table)).expect("nothing")), "");
        let table = put_back.put_back(table).expect("a table");
        assert_eq!(told(table), r#"public.t {"acl":["INSERT to PUBLIC","SELECT to bob"],"kind":"table"}"#);
        let other = read("relation", "public.u", r#"{"acl":  []}"#);
        assert_eq!(told(put_back.put_back(other).expect("a table")), r#"public.u {"acl":  []}"#);
        assert_eq!(told(put_back.gone(None).expect("nothing")), "");
    }

    #[test]
    fn what_differs_of_system_objects_is_what_differed() {
        let taken = [
            taken(SYSTEM, "routine a()", "EXECUTE to PUBLIC"),
            taken(SYSTEM, "routine b()", "EXECUTE to PUBLIC"),
            taken(SYSTEM, "routine c()", "EXECUTE to PUBLIC"),
        ];
        let mut put_back = PutBack::new(&taken, "x");
        // It had been given to everybody, and that was all that was special about it.
        let next = read(SYSTEM, "routine b()", r#"{"revoked": ["EXECUTE to PUBLIC"]}"#);
        let gone = put_back.gone(Some(&next)).expect("an object");
        assert_eq!(told(gone), r#"routine a() {"granted":["EXECUTE to PUBLIC"]}"#);
        assert_eq!(told(put_back.gone(Some(&next)).expect("nothing")), "");
        // It came with that, so nothing is special about it.
        assert_eq!(told(put_back.put_back(next).expect("nothing")), "");
        let mixed = read(SYSTEM, "routine c()", r#"{"granted": ["EXECUTE to bob"], "revoked": ["EXECUTE to PUBLIC"]}"#);
        assert_eq!(told(put_back.put_back(mixed).expect("an object")), r#"routine c() {"granted":["EXECUTE to bob"]}"#);
        assert_eq!(told(put_back.gone(None).expect("nothing")), "");
    }
}
