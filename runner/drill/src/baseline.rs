//! What the source held when the backup was made: JSON lines, a [`Header`] first, then one [`Table`] a line, sorted by schema
//! and name, so that neither side ever holds it as one text.
use serde::{Deserialize, Serialize};

pub const VERSION: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Header {
    pub baseline: u32,
    pub database: String,
    pub tables: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Table {
    pub schema: String,
    pub name: String,
    pub kind: TableKind,
    /// The partition root or inheritance parents.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<(String, String)>,
    /// Exact, `FROM ONLY`. None where there is nothing to count: partition roots, foreign tables, matviews without data.
    pub rows: Option<u64>,
    pub columns: Vec<Column>,
    /// Root of the content digests; absent where capture left them out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<ContentDigest>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TableKind {
    Table,
    Partitioned,
    Matview,
    Foreign,
}

impl TableKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Partitioned => "partitioned",
            Self::Matview => "matview",
            Self::Foreign => "foreign",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Column {
    pub name: String,
    /// As `format_type` gives it, such as `numeric(12,2)`.
    pub type_name: String,
    pub not_null: bool,
}

/// The place that content digests have in the format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ContentDigest {
    pub form: String,
    pub root: String,
    pub blocks: u64,
}
