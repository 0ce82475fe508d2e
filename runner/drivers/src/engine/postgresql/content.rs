//! How the rows of a table are read for [`drill::content`], at capture and in the drill: the settings of the connection, the
//! form, and the statement. Pure text; nothing here talks to a server.
use std::fmt::Write;

use drill::baseline::{Float, Form, Layout};
use postgres_protocol::escape::escape_identifier;

mod layout;

pub use layout::{COLUMNS, Cells, KEYS, TYPES, layouts};

/// What changes the bytes of a row, or which of them are read. They belong into the startup packet, because there they win over
/// what a database or a role sets, and hold during login triggers. `client_encoding` is UTF8, or `SQL_ASCII` where the database
/// is: its bytes may be none of UTF-8.
pub const PINNED: [(&str, &str); 21] = [
    // Whatever is not qualified is found in `pg_catalog` alone.
    ("search_path", ""),
    ("quote_all_identifiers", "off"),
    ("DateStyle", "ISO, YMD"),
    ("IntervalStyle", "postgres"),
    ("TimeZone", "UTC"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
    ("lc_monetary", "C"),
    // Hidden rows are an error and not fewer rows.
    ("row_security", "off"),
    // No index may answer for the heap.
    ("enable_indexscan", "off"),
    ("enable_indexonlyscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_seqscan", "on"),
    ("enable_tidscan", "on"),
    ("standard_conforming_strings", "on"),
    ("synchronize_seqscans", "off"),
    ("jit", "off"),
    ("max_parallel_workers_per_gather", "0"),
    ("default_transaction_isolation", "repeatable read"),
    ("default_transaction_read_only", "on"),
    ("idle_in_transaction_session_timeout", "0"),
];

/// Of a heap; 16 MiB where a page has 8 KiB, as nearly all have.
const PAGES: u32 = 2048;

/// Pages from `first` up to `end`, or to the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRange {
    pub first: u32,
    pub end: Option<u32>,
}

impl PageRange {
    pub const ALL: Self = Self { first: 0, end: None };

    /// Pieces of about 16 MiB of a heap that has `pages`. The last has no end, so that a heap that is longer than was thought
    /// loses no row.
    pub fn split(pages: u32) -> Vec<Self> {
        let pieces = pages.div_ceil(PAGES).max(1);
        let piece =
            |number: u32| Self { first: number * PAGES, end: (number + 1 < pieces).then(|| (number + 1) * PAGES) };
        (0..pieces).map(piece).collect()
    }
}

/// The rows of one table, not of its children. Never a cast of a column to text: a user-made cast would answer.
pub fn copy_statement(schema: &str, table: &str, layout: &Layout, range: PageRange) -> String {
    let columns: Vec<String> = layout
        .columns
        .iter()
        .map(|column| {
            let name = escape_identifier(&column.name);
            match column.float {
                None => name,
                Some(Float::Float4) => one_nan(&name, "float4"),
                Some(Float::Float8) => one_nan(&name, "float8"),
            }
        })
        .collect();
    let form = match layout.form {
        Form::Binary => "binary",
        Form::Text => "text",
    };
    let relation = format!("{}.{}", escape_identifier(schema), escape_identifier(table));
    let rows = format!("SELECT {} FROM ONLY {relation}{}", columns.join(", "), within(range));
    format!("COPY ({rows}) TO STDOUT (FORMAT {form})")
}

fn one_nan(column: &str, float: &str) -> String {
    let nan = format!("'NaN'::pg_catalog.{float}");
    format!("CASE WHEN {column} OPERATOR(pg_catalog.=) {nan} THEN {nan} ELSE {column} END")
}

fn within(range: PageRange) -> String {
    let mut condition = String::new();
    if range == PageRange::ALL {
        return condition;
    }
    // Writing to a string cannot fail.
    let _ = write!(condition, " WHERE ctid OPERATOR(pg_catalog.>=) '({},0)'::pg_catalog.tid", range.first);
    if let Some(end) = range.end {
        let _ = write!(condition, " AND ctid OPERATOR(pg_catalog.<) '({end},0)'::pg_catalog.tid");
    }
    condition
}

#[cfg(test)]
mod tests {
    use drill::baseline::{Bucketing, DigestColumn};

    use super::*;

    fn column(name: &str, float: Option<Float>) -> DigestColumn {
        DigestColumn { name: name.to_owned(), type_name: "x".to_owned(), float }
    }

    #[test]
    fn a_statement_qualifies_and_quotes_everything() {
        let columns = vec![column("a\"b", None), column("f", Some(Float::Float4))];
        let layout = Layout { form: Form::Text, columns, bucketing: Bucketing::RowDigest };
        assert_eq!(
            copy_statement("S", "t'", &layout, PageRange { first: 2048, end: Some(4096) }),
            "COPY (SELECT \"a\"\"b\", CASE WHEN \"f\" OPERATOR(pg_catalog.=) 'NaN'::pg_catalog.float4 \
             THEN 'NaN'::pg_catalog.float4 ELSE \"f\" END FROM ONLY \"S\".\"t'\" \
             WHERE ctid OPERATOR(pg_catalog.>=) '(2048,0)'::pg_catalog.tid \
             AND ctid OPERATOR(pg_catalog.<) '(4096,0)'::pg_catalog.tid) TO STDOUT (FORMAT text)"
        );
        let nothing = Layout { form: Form::Binary, columns: vec![], bucketing: Bucketing::RowDigest };
        let all = copy_statement("s", "t", &nothing, PageRange::ALL);
        assert_eq!(all, "COPY (SELECT  FROM ONLY \"s\".\"t\") TO STDOUT (FORMAT binary)");
    }

    #[test]
    fn ranges_cover_every_page_once() {
        assert_eq!(PageRange::split(0), [PageRange::ALL]);
        assert_eq!(PageRange::split(2048), [PageRange::ALL]);
        let ranges = PageRange::split(5000);
        assert_eq!(ranges.len(), 3);
        assert_eq!((ranges[0].first, ranges[2].end), (0, None));
        assert!(ranges.windows(2).all(|pair| pair[0].end == Some(pair[1].first)));
        assert_eq!(PageRange::split(u32::MAX).last().map(|range| range.first), Some(u32::MAX / 2048 * 2048));
    }
}
