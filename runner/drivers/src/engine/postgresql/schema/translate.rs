//! The baseline's schema as the restored server would tell it, for whoever compares.
use std::io::Write;

use drill::port::Session;
use drill::schema::{Header, Object, Reader, Taken};
use serde_json::{Map, Value};

use crate::engine::postgresql::text::{literal, plain};

/// Rewrites a schema file: the header says what was revoked, and where `session` is given, each view has the text that this
/// server has for it. Another major tells the same view in other words, so it is made here, read, and rolled back; one that
/// cannot be made says why. The session is an administrator's, in the database that the file is about.
pub async fn translate(file: &[u8], taken: Vec<Taken>, session: Option<&dyn Session>) -> Result<Vec<u8>, String> {
    let mut reader = Reader::new(file)?;
    let mut out = Vec::with_capacity(file.len());
    line(&mut out, &Header { taken, ..reader.header().clone() })?;
    while let Some(object) = reader.next_object() {
        let mut object = object?;
        if let Some(session) = session.filter(|_| object.kind == "relation") {
            object = view(object, session).await?;
        }
        line(&mut out, &object)?;
    }
    Ok(out)
}

fn line(out: &mut Vec<u8>, value: &impl serde::Serialize) -> Result<(), String> {
    serde_json::to_writer(&mut *out, value).map_err(|error| error.to_string())?;
    out.write_all(b"\n").map_err(|error| error.to_string())
}

async fn view(object: Object, session: &dyn Session) -> Result<Object, String> {
    let mut content: Map<String, Value> =
        serde_json::from_str(object.content.get()).map_err(|error| error.to_string())?;
    let is_view = content.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("view"));
    let definition = content.get("definition").and_then(Value::as_str);
    let untranslated = match definition {
        Some(definition) => match session.run(&make(definition)).await {
            Ok(rows) => match rows.first().and_then(|row| row.first()).cloned().flatten() {
                Some(text) => {
                    content.insert("definition".to_owned(), text.into());
                    None
                }
                None => Some("the server has no text for it".to_owned()),
            },
            Err(error) => Some(plain(&error.to_string(), 300)),
        },
        None if is_view => Some("it is too long".to_owned()),
        None => return Ok(object),
    };
    if let Some(why) = untranslated {
        content.insert("untranslated".to_owned(), why.into());
    }
    Object::new(&object.kind, object.identity, Value::Object(content).to_string())
}

/// The text is the backup's: what it would commit is refused inside a block, and all else is rolled back, as is that event
/// triggers sleep meanwhile.
fn make(definition: &str) -> String {
    let create = format!("CREATE TEMPORARY VIEW muster_view AS {definition}");
    let block = literal(&format!("BEGIN EXECUTE {}; END", literal(&create)));
    format!(
        "ROLLBACK; BEGIN; SET LOCAL search_path = ''; SET LOCAL quote_all_identifiers = off; \
         UPDATE pg_catalog.pg_event_trigger SET evtenabled = 'D'; \
         DO LANGUAGE plpgsql {block}; \
         SELECT pg_catalog.pg_get_viewdef('pg_temp.muster_view'::pg_catalog.regclass); ROLLBACK"
    )
}
