//! The baseline's schema as the restored server would tell it, for whoever compares.
use std::io::Write;

use drill::port::{Session, SqlError};
use drill::schema::{Header, Object, Reader, Taken};
use serde_json::{Map, Value};

use crate::engine::postgresql::text::{literal, plain};

#[derive(Debug, thiserror::Error)]
pub enum TranslateError {
    #[error("{0}")]
    File(String),
    /// Not what the server says of a view, but that it does not answer as a server should.
    #[error(transparent)]
    Server(SqlError),
}

impl From<String> for TranslateError {
    fn from(why: String) -> Self {
        Self::File(why)
    }
}

/// Rewrites a schema file: the header says what was revoked, and where `session` is given, each view has the text that this
/// server has for it. Another major tells the same view in other words, so it is made here, read, and rolled back; one that
/// cannot be made says why. The session is an administrator's, in the database that the file is about.
pub async fn translate(
    file: &[u8],
    taken: Vec<Taken>,
    session: Option<&dyn Session>,
) -> Result<Vec<u8>, TranslateError> {
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

async fn view(object: Object, session: &dyn Session) -> Result<Object, TranslateError> {
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
            Err(error) if is_trouble(&error) => return Err(TranslateError::Server(error)),
            Err(error) => Some(plain(&error.to_string(), 300)),
        },
        None if is_view => Some("it is too long".to_owned()),
        None => return Ok(object),
    };
    if let Some(why) = untranslated {
        content.insert("untranslated".to_owned(), why.into());
    }
    Ok(Object::new(&object.kind, object.identity, Value::Object(content).to_string())?)
}

/// The connection, or the server itself: out of means, shut down, told to cancel, without its files.
fn is_trouble(error: &SqlError) -> bool {
    let class = error.sqlstate.as_deref().and_then(|state| state.get(..2));
    class.is_none_or(|class| ["08", "53", "57", "58"].contains(&class))
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

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use drill::port::Rows;

    use super::*;

    /// Answers everything with one error.
    struct Refusing(Option<&'static str>);

    #[async_trait]
    impl Session for Refusing {
        async fn run(&self, _: &str) -> Result<Rows, SqlError> {
            Err(SqlError { sqlstate: self.0.map(str::to_owned), message: "no".to_owned() })
        }
    }

    #[tokio::test]
    async fn only_what_the_server_says_of_a_view_is_about_the_view() {
        let file = "{\"schema\":1,\"database\":\"orders\"}\n\
             {\"kind\":\"relation\",\"identity\":\"v\",\"content\":{\"definition\":\"select 1;\",\"kind\":\"view\"}}";
        for state in [None, Some("53200"), Some("57P01"), Some("57014")] {
            let answer = translate(file.as_bytes(), Vec::new(), Some(&Refusing(state))).await;
            assert!(matches!(answer, Err(TranslateError::Server(_))), "{state:?}: {answer:?}");
        }
        let missing = translate(file.as_bytes(), Vec::new(), Some(&Refusing(Some("42P01")))).await.expect("a file");
        assert!(String::from_utf8_lossy(&missing).contains("\"untranslated\":\"no (SQLSTATE 42P01)\""));
        let damaged = translate(b"{}", Vec::new(), Some(&Refusing(None))).await;
        assert!(matches!(damaged, Err(TranslateError::File(_))), "{damaged:?}");
    }
}
