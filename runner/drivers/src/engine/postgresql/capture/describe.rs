//! What the baseline and the manifest say of a database, read inside its snapshot.
use std::collections::HashMap;
use std::io::{BufWriter, Write};
use std::path::Path;

use drill::baseline::{Column, Header, Table, TableKind, VERSION};
use drill::manifest::{Extension, Locale};
use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;

use super::scan::Scanned;
use super::session::Session;
use super::snapshot::{Kind, Snapshot};

const COLUMNS: &str = "
SELECT a.attrelid, a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
WHERE c.relkind IN ('r', 'p', 'm', 'f') AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attrelid, a.attnum";

const PARENTS: &str = "
SELECT i.inhrelid, n.nspname, c.relname
FROM pg_catalog.pg_inherits i
JOIN pg_catalog.pg_class c ON c.oid = i.inhparent
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'f')
ORDER BY i.inhrelid, i.inhseqno";

/// Columns that came with later majors are read through the row as JSON: absent is NULL.
const LOCALE: &str = "
SELECT pg_catalog.pg_encoding_to_char(d.encoding), d.datcollate, d.datctype,
  pg_catalog.to_jsonb(d) ->> 'datlocprovider',
  coalesce(pg_catalog.to_jsonb(d) ->> 'datlocale', pg_catalog.to_jsonb(d) ->> 'daticulocale')
FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()";

const EXTENSIONS: &str = "
SELECT e.extname, e.extversion, n.nspname
FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
ORDER BY e.extname";

pub(super) async fn locale(session: &Session) -> Result<Locale, Stop> {
    let rows = session.rows::<5>(LOCALE).await?;
    let Some([Some(encoding), Some(collate), Some(ctype), provider, icu_locale]) = rows.into_iter().next() else {
        return Err(Stop::internal("the catalog does not hold the locale of its own database"));
    };
    let provider = match provider.as_deref() {
        Some("i") => "icu",
        Some("b") => "builtin",
        _ => "libc",
    };
    Ok(Locale { encoding, collate, ctype, provider: provider.to_owned(), icu_locale })
}

pub(super) async fn extensions(session: &Session) -> Result<Vec<Extension>, Stop> {
    let rows = session.rows::<3>(EXTENSIONS).await?;
    let extension = |row: [Option<String>; 3]| match row {
        [Some(name), Some(version), Some(schema)] => Some(Extension { name, version: Some(version), schema }),
        _ => None,
    };
    Ok(rows.into_iter().filter_map(extension).collect())
}

/// The tables of the baseline, sorted by the bytes of schema and name.
pub(super) async fn tables(snapshot: &Snapshot, scanned: Scanned) -> Result<Vec<Table>, Stop> {
    let mut columns: HashMap<u32, Vec<Column>> = HashMap::new();
    for [oid, name, type_name, not_null] in snapshot.session.rows::<4>(COLUMNS).await? {
        if let (Some(oid), Some(name), Some(type_name)) = (number(oid), name, type_name) {
            let column = Column { name, type_name, not_null: not_null.as_deref() == Some("t") };
            columns.entry(oid).or_default().push(column);
        }
    }
    let mut parents: HashMap<u32, Vec<(String, String)>> = HashMap::new();
    for [oid, schema, name] in snapshot.session.rows::<3>(PARENTS).await? {
        if let (Some(oid), Some(schema), Some(name)) = (number(oid), schema, name) {
            parents.entry(oid).or_default().push((schema, name));
        }
    }
    let mut tables: Vec<Table> = snapshot
        .relations
        .iter()
        .zip(scanned.rows.into_iter().zip(scanned.digests))
        .map(|(relation, (rows, digest))| Table {
            schema: relation.schema.clone(),
            name: relation.name.clone(),
            kind: match relation.kind {
                Kind::Table => TableKind::Table,
                Kind::Partitioned => TableKind::Partitioned,
                Kind::Matview => TableKind::Matview,
                Kind::Foreign => TableKind::Foreign,
            },
            parents: parents.remove(&relation.oid).unwrap_or_default(),
            rows,
            columns: columns.remove(&relation.oid).unwrap_or_default(),
            digest,
        })
        .collect();
    tables.sort_by(|a, b| (&a.schema, &a.name).cmp(&(&b.schema, &b.name)));
    Ok(tables)
}

/// JSON lines: the header, then a table a line.
pub(super) fn write_baseline(path: &Path, database: &str, tables: &[Table]) -> Result<(), Stop> {
    let tried = || format!("writing `{}`", path.display());
    let file = std::fs::OpenOptions::new().write(true).open(path).or_stop(Reason::SandboxUnfit, tried())?;
    let mut file = BufWriter::new(file);
    let header = Header { baseline: VERSION, database: database.to_owned(), tables: tables.len() as u64 };
    let mut line = |value: &[u8]| file.write_all(value).and_then(|()| file.write_all(b"\n"));
    line(&serde_json::to_vec(&header).or_stop(Reason::Internal, tried())?).or_stop(Reason::SandboxUnfit, tried())?;
    for table in tables {
        let json = serde_json::to_vec(table).or_stop(Reason::Internal, tried())?;
        line(&json).or_stop(Reason::SandboxUnfit, tried())?;
    }
    file.flush().or_stop(Reason::SandboxUnfit, tried())
}

fn number(text: Option<String>) -> Option<u32> {
    text?.parse().ok()
}
