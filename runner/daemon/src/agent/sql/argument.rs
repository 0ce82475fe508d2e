//! Arguments of a statement on the wire.
use bytes::BytesMut;
use plugin_host::backend::Value;
use postgres_protocol::IsNull;

use super::time;

/// Arguments cross as text, so that the server reads each as the type that the statement gives it.
pub(super) fn argument(value: &Value, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
    let text = match value {
        Value::Null => return Ok(IsNull::Yes),
        Value::Boolean(value) => if *value { "t" } else { "f" }.to_owned(),
        Value::Integer(value) => value.to_string(),
        Value::Float(value) if value.is_infinite() => if *value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned(),
        Value::Float(value) => value.to_string(),
        Value::Text(value) => value.clone(),
        Value::Binary(value) => format!("\\x{}", hex::encode(value)),
        Value::Timestamp(value) => time::argument(*value),
    };
    if text.contains('\0') {
        return Err("a text argument contains a NUL character".into());
    }
    out.extend_from_slice(text.as_bytes());
    Ok(IsNull::No)
}
