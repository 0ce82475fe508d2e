//! Errors as a guest is told of them.
use fallible_iterator::FallibleIterator;
use plugin_host::backend::{Blame, Error};
use postgres_protocol::message::backend::ErrorResponseBody;

use crate::agent::text;

pub(super) fn host(message: impl Into<String>) -> Error {
    Error { blame: Blame::Host, code: None, message: message.into() }
}

pub(super) fn plugin(message: impl Into<String>) -> Error {
    Error { blame: Blame::Plugin, code: None, message: message.into() }
}

/// The server's own words, bounded. Whoever wrote the statement is to blame for what only a statement can cause.
pub(super) fn server(body: &ErrorResponseBody) -> Error {
    let (mut code, mut message) = (None, String::new());
    let mut fields = body.fields();
    while let Ok(Some(field)) = fields.next() {
        let value = String::from_utf8_lossy(field.value_bytes());
        match field.type_() {
            b'C' if value.len() == 5 && value.bytes().all(|b| b.is_ascii_alphanumeric()) => {
                code = Some(value.into_owned());
            }
            b'M' => message = text::clean(&value),
            _ => {}
        }
    }
    // Features, cardinality, data, transaction state, statement name, cursor name, syntax or access.
    let of_plugin = ["0A", "21", "22", "25", "26", "34", "42"];
    let blame = match &code {
        Some(code) if of_plugin.contains(&&code[..2]) => Blame::Plugin,
        _ => Blame::Host,
    };
    Error { blame, code, message }
}
