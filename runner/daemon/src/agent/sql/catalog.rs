//! Which tables there are. Every function, type and operator is written with its schema, so that nothing the backup brought can
//! answer in its place; sorting is done here for the same reason.
use std::collections::HashMap;

use plugin_host::backend::{ColumnInfo, Error, TableInfo};

use super::fault::host;
use super::session::Session;

/// The relations that count: outside the system's schemas, not temporary, and not an extension's own unless the extension
/// says that users fill them.
macro_rules! counted {
    () => {
        r#"c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p,m,f}'::pg_catalog."char"[])
    AND c.relpersistence OPERATOR(pg_catalog.<>) 't'::pg_catalog."char"
    AND n.nspname OPERATOR(pg_catalog.<>) ALL ('{pg_catalog,information_schema,pg_toast}'::pg_catalog.name[])
    AND (NOT EXISTS (
            SELECT FROM pg_catalog.pg_depend d
            WHERE d.classid OPERATOR(pg_catalog.=) 1259::pg_catalog.oid AND d.objid OPERATOR(pg_catalog.=) c.oid
            AND d.deptype OPERATOR(pg_catalog.=) 'e'::pg_catalog."char")
        OR EXISTS (
            SELECT FROM pg_catalog.pg_extension e WHERE c.oid OPERATOR(pg_catalog.=) ANY (e.extconfig)))"#
    };
}

const TABLES: &str = concat!(
    "SELECT c.oid, n.nspname, c.relname, c.relkind, c.reltuples, pn.nspname, pc.relname
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
LEFT JOIN pg_catalog.pg_inherits i
    ON i.inhrelid OPERATOR(pg_catalog.=) c.oid AND i.inhseqno OPERATOR(pg_catalog.=) 1
LEFT JOIN pg_catalog.pg_class pc ON pc.oid OPERATOR(pg_catalog.=) i.inhparent
LEFT JOIN pg_catalog.pg_namespace pn ON pn.oid OPERATOR(pg_catalog.=) pc.relnamespace
WHERE ",
    counted!()
);

const COLUMNS: &str = concat!(
    "SELECT a.attrelid, a.attnum, a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod)
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) a.attrelid
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
WHERE a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped AND ",
    counted!()
);

/// Sorted by the bytes of schema and name; columns in the table's own order.
pub(super) async fn tables(session: &mut Session) -> Result<Vec<TableInfo>, Error> {
    let mut columns = columns(session).await?;
    let mut tables = Vec::new();
    for row in session.run(TABLES).await? {
        let [oid, schema, name, kind, tuples, parent_schema, parent] = exactly(row)?;
        let columns = columns.remove(&text(oid)?).unwrap_or_default();
        tables.push(TableInfo {
            schema: text(schema)?,
            name: text(name)?,
            kind: kind_name(&text(kind)?)?.to_owned(),
            parent: parent_schema.zip(parent),
            estimated_rows: estimate(&text(tuples)?),
            columns: columns.into_iter().map(|(_, column)| column).collect(),
        });
    }
    tables.sort_by(|a, b| (&a.schema, &a.name).cmp(&(&b.schema, &b.name)));
    Ok(tables)
}

async fn columns(session: &mut Session) -> Result<HashMap<String, Vec<(i32, ColumnInfo)>>, Error> {
    let mut columns: HashMap<_, Vec<_>> = HashMap::new();
    for row in session.run(COLUMNS).await? {
        let [relation, number, name, type_name] = exactly(row)?;
        let number = text(number)?.parse().map_err(|_| strange())?;
        let info = ColumnInfo { name: text(name)?, type_name: text(type_name)? };
        columns.entry(text(relation)?).or_default().push((number, info));
    }
    for list in columns.values_mut() {
        list.sort_by_key(|(number, _)| *number);
    }
    Ok(columns)
}

fn kind_name(kind: &str) -> Result<&'static str, Error> {
    match kind {
        "r" => Ok("table"),
        "p" => Ok("partitioned"),
        "m" => Ok("matview"),
        "f" => Ok("foreign"),
        _ => Err(strange()),
    }
}

/// -1 says that nothing is known.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate, and the cast saturates")]
fn estimate(tuples: &str) -> u64 {
    tuples.parse::<f64>().unwrap_or(0.0).max(0.0) as u64
}

fn exactly<const N: usize>(row: Vec<Option<String>>) -> Result<[Option<String>; N], Error> {
    row.try_into().map_err(|_| strange())
}

fn text(cell: Option<String>) -> Result<String, Error> {
    cell.ok_or_else(strange)
}

fn strange() -> Error {
    host("the database's catalog holds what PostgreSQL would not write")
}
