//! What the source held when the backup was made: JSON lines, a [`Header`] first, then one [`Table`] a line, sorted by schema
//! and name, so that neither side ever holds it as one text.
use serde::{Deserialize, Serialize};

use crate::id::Sha256Digest;

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
    /// Absent where capture left them out.
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

/// What [`crate::content`] says of one table's rows. Its blocks lie in the backup's blocks file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ContentDigest {
    pub layout: Layout,
    /// Over the layout and all blocks: equal roots mean equal rows.
    pub root: Sha256Digest,
    pub blocks: u64,
    /// Where this table's blocks begin in the blocks file, in bytes.
    pub at: u64,
    /// Where this table's row digests begin in the row digests file, in bytes; absent where capture was not asked for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row_digests_at: Option<u64>,
}

/// How the rows of a table are read. The drill uses the baseline's, never one that the restored database suggests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Layout {
    pub form: Form,
    /// Sorted by the bytes of their names, because a dump does not keep the order of the columns of inheritance children.
    pub columns: Vec<DigestColumn>,
    pub bucketing: Bucketing,
}

/// The format of COPY.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Form {
    Binary,
    Text,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DigestColumn {
    pub name: String,
    /// As `format_type` gives it, such as `numeric(12,2)`.
    pub type_name: String,
    /// A float (or a domain over one): a dump does not keep the sign of a NaN, so that all of them are read as one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub float: Option<Float>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Float {
    Float4,
    Float8,
}

/// Which block a row belongs to. Columns are positions in [`Layout::columns`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Bucketing {
    /// A key of one int2, int4 or int8: its value, so that a block is a range of keys.
    KeyRange { column: u16 },
    /// Any other key: a hash of its bytes, because no collation's order is the same everywhere.
    KeyHash { columns: Vec<u16> },
    /// No key: the row's own digest.
    RowDigest,
}
