//! What a drill may ask for.
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

/// Scans at once that a drill may ask for: half of the handles that a check may hold.
const MAX_CONCURRENCY: usize = 32;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Options {
    /// Globs of `schema.table` (`*` any text, `?` any character) that choose from the baseline; empty: all.
    pub tables: Vec<String>,
    /// Globs of what is left out of that.
    pub except: Vec<String>,
    /// Tables that are read at once.
    #[serde(deserialize_with = "concurrency")]
    #[schemars(range(min = 1, max = MAX_CONCURRENCY))]
    pub concurrency: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { tables: Vec::new(), except: Vec::new(), concurrency: 4 }
    }
}

fn concurrency<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    let scans = usize::deserialize(deserializer)?;
    if (1..=MAX_CONCURRENCY).contains(&scans) {
        return Ok(scans);
    }
    Err(serde::de::Error::custom(format!("`concurrency` is {scans}, and must be from 1 to {MAX_CONCURRENCY}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_as_written() {
        let read = |text: &str| serde_json::from_str::<Options>(text).map_err(|error| error.to_string());
        assert_eq!(read("{}").expect("valid").concurrency, 4);
        assert_eq!(read(r#"{"concurrency": 32}"#).expect("valid").concurrency, 32);
        for scans in [0, 33] {
            let error = read(&format!(r#"{{"concurrency": {scans}}}"#)).expect_err("out of range");
            assert!(error.contains(&format!("`concurrency` is {scans}, and must be from 1 to 32")), "{error}");
        }
        assert!(read(r#"{"table": []}"#).expect_err("unknown").contains("unknown field `table`"));
    }
}
