//! What the host asks of whoever runs a check: the database, the baseline, and somebody to tell.
use std::time::Duration;

use async_trait::async_trait;
use drill::finding::Severity;

/// What is being checked: the free interface `context`.
#[derive(Debug, Clone)]
pub struct Context {
    pub drill: String,
    pub run: String,
    pub engine: String,
    pub server_version: String,
    pub database: String,
    pub databases: Vec<String>,
    pub started_at: jiff::Timestamp,
    pub snapshot_time: Option<jiff::Timestamp>,
    pub recovery_point_objective: Option<Duration>,
    pub tables: Vec<TableInfo>,
}

/// A relation of the restored database that holds rows, or whose partitions do.
#[derive(Debug, Clone)]
pub struct TableInfo {
    pub schema: String,
    pub name: String,
    /// `table`, `partitioned`, `matview` or `foreign`.
    pub kind: String,
    pub parent: Option<(String, String)>,
    pub estimated_rows: u64,
    pub columns: Vec<ColumnInfo>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnInfo {
    pub name: String,
    /// The database's own name of the type, such as `numeric`.
    pub type_name: String,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Boolean(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    Binary(Vec<u8>),
    /// Microseconds since 1970-01-01 UTC.
    Timestamp(i64),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    pub rows: u32,
    pub columns: Vec<Column>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// One bit a row, lowest bit first; a set bit is NULL.
    pub nulls: Vec<u8>,
    pub data: ColumnData,
}

#[derive(Debug, Clone, PartialEq)]
pub enum ColumnData {
    Booleans(Vec<bool>),
    Integers(Vec<i64>),
    Floats(Vec<f64>),
    Timestamps(Vec<i64>),
    Texts(Cells),
    Binaries(Cells),
}

/// Cells back to back: cell `i` ends at `ends[i]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cells {
    pub ends: Vec<u32>,
    pub data: Vec<u8>,
}

/// What the guest is told when something it asked for failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    pub blame: Blame,
    /// SQLSTATE where the database answered.
    pub code: Option<String>,
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    Plugin,
    Host,
}

/// Read-only SQL inside the one snapshot that every check of the run shares.
#[async_trait]
pub trait Sql: Send + Sync {
    async fn query(&self, statement: &str, arguments: Vec<Value>) -> Result<Box<dyn Rows>, Error>;
}

/// Dropping it cancels the statement.
#[async_trait]
pub trait Rows: Send {
    fn columns(&self) -> &[ColumnInfo];

    /// At most `max_rows` and at most 1 MiB; None at the end.
    async fn next(&mut self, max_rows: u32) -> Result<Option<Batch>, Error>;
}

/// What the baseline says of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaselineTable {
    pub schema: String,
    pub name: String,
    pub rows: u64,
    pub root: Option<Vec<u8>>,
    pub details: Vec<(String, String)>,
}

/// The two sides of a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Baseline,
    Restored,
}

/// One object of a schema, in canonical form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    pub kind: String,
    pub identity: String,
    /// JSON.
    pub content: String,
}

/// The schema on both sides, sorted by the bytes of kind and identity.
#[async_trait]
pub trait Catalog: Send + Sync {
    /// Blames the plugin where that side does not exist.
    async fn read(&self, side: Side) -> Result<Box<dyn Objects>, Error>;
}

#[async_trait]
pub trait Objects: Send {
    /// At most `max` objects, and about `bytes` of them; none at the end.
    async fn next(&mut self, max: u32, bytes: usize) -> Result<Vec<Object>, Error>;
}

/// Content digests of the restored tables.
#[async_trait]
pub trait Digest: Send + Sync {
    /// Blames the plugin where the baseline has no digest of the table.
    async fn start(&self, schema: &str, name: &str) -> Result<Box<dyn Scan>, Error>;
}

/// A scan that runs by itself. Dropping it cancels.
#[async_trait]
pub trait Scan: Send + Sync {
    fn progress(&self) -> ScanProgress;

    async fn finish(self: Box<Self>) -> Result<ScanOutcome, Error>;
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScanProgress {
    pub rows: u64,
    pub bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanOutcome {
    pub rows: u64,
    /// None where blocks differ: what they hold is not kept.
    pub root: Option<[u8; 32]>,
    pub blocks: u64,
    pub blocks_different: u64,
    /// The first of them: nobody reads a million.
    pub mismatches: Vec<Mismatch>,
}

/// A block that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// First and last key that the block may hold; None where blocks are buckets of a hash.
    pub keys: Option<(String, String)>,
    pub rows_expected: u64,
    pub rows_found: u64,
    /// Where capture stored a digest a row.
    pub rows_different: Option<u64>,
}

/// Who is told what a check reports. The host has applied the limits already.
pub trait Reporter: Send + Sync {
    fn finding(&self, severity: Severity, subject: String, message: String, details: Vec<(String, String)>);
    fn progress(&self, done: u64, total: Option<u64>, unit: String);
    fn metric(&self, name: String, labels: Vec<(String, String)>, value: f64);
    fn log(&self, message: String);
}

/// All that one call of a check needs.
pub struct Backend {
    pub context: Context,
    pub sql: std::sync::Arc<dyn Sql>,
    /// None where the artifact carries no baseline.
    pub baseline: Option<Vec<BaselineTable>>,
    pub catalog: std::sync::Arc<dyn Catalog>,
    pub digest: std::sync::Arc<dyn Digest>,
    pub reporter: std::sync::Arc<dyn Reporter>,
}
