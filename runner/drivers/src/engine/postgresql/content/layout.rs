//! Which form the rows of a table are read in, and which key says where a row belongs: decided from the source's catalog.
//!
//! Binary where every column's type is *safe*: its binary form is the same in every server and shows all of its value. Text
//! otherwise: the type's own output function answers, which a restore needs to be right.
use std::collections::HashMap;

use drill::baseline::{Bucketing, DigestColumn, Float, Form, Layout};

/// OIDs from here on are given by a server, and another one gives others: between majors some below 16384 moved, none below this.
const FIRST_MOVING_OID: u32 = 10_000;
/// A domain over an array over a domain and so on; deeper ones are read as text.
const MAX_DEPTH: u32 = 32;

/// Type, kind, base of a domain, element, send function and its name, subtype of a range or multirange. Multiranges came with
/// 14, so that their column is read through the row as JSON.
pub const TYPES: &str = "
SELECT t.oid, t.typtype, t.typbasetype, t.typelem, p.oid, p.proname, r.subtype
FROM pg_catalog.pg_type t
LEFT JOIN pg_catalog.pg_proc p ON p.oid = t.typsend
LEFT JOIN (
  SELECT rngtypid AS oid, rngsubtype AS subtype FROM pg_catalog.pg_range
  UNION ALL
  SELECT (pg_catalog.to_jsonb(g) ->> 'rngmultitypid')::pg_catalog.oid, rngsubtype FROM pg_catalog.pg_range g) r ON r.oid = t.oid
WHERE t.typtype NOT IN ('c', 'p')";

/// Table, column number, name, type, and the type as people write it. A virtual generated column holds nothing.
pub const COLUMNS: &str = "
SELECT a.attrelid, a.attnum, a.attname, a.atttypid, pg_catalog.format_type(a.atttypid, a.atttypmod)
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
WHERE c.relkind IN ('r', 'm') AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> 'v'
ORDER BY a.attrelid";

/// Table, whether it is the primary key, and the key's column numbers: of indexes that no two rows of a table can share a key of.
pub const KEYS: &str = "
SELECT i.indrelid, i.indisprimary,
  (SELECT pg_catalog.string_agg(k.attnum::pg_catalog.text, ' ' ORDER BY k.attnum)
   FROM pg_catalog.unnest(i.indkey) WITH ORDINALITY k (attnum, position) WHERE k.position <= i.indnkeyatts)
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
WHERE i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL
  AND NOT EXISTS (
    SELECT FROM pg_catalog.unnest(i.indkey) WITH ORDINALITY k (attnum, position)
    JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
    WHERE k.position <= i.indnkeyatts AND NOT a.attnotnull)
ORDER BY i.indrelid, c.relname";

/// Rows of [`TYPES`], [`COLUMNS`] and [`KEYS`] as text.
pub type Cells<const COLUMNS: usize> = Vec<[Option<String>; COLUMNS]>;

/// The layout of each table; one without columns is not there.
pub fn layouts(types: Cells<7>, columns: Cells<5>, keys: Cells<3>) -> HashMap<u32, Layout> {
    let types = Types(types.into_iter().filter_map(Type::read).collect());
    let mut tables: HashMap<u32, Vec<Column>> = HashMap::new();
    for [table, number, name, type_oid, type_name] in columns {
        if let (Some(table), Some(number), Some(name), Some(type_oid), Some(type_name)) =
            (parse(table), parse(number), name, parse(type_oid), type_name)
        {
            tables.entry(table).or_default().push(Column { number, name, type_oid, type_name });
        }
    }
    let mut all_keys: HashMap<u32, Vec<Key>> = HashMap::new();
    for [table, primary, numbers] in keys {
        if let (Some(table), Some(numbers)) = (parse(table), numbers) {
            let columns = numbers.split(' ').filter_map(|number| number.parse().ok()).collect();
            let key = Key { primary: primary.as_deref() == Some("t"), columns };
            all_keys.entry(table).or_default().push(key);
        }
    }
    let of = |(table, columns)| (table, layout(columns, all_keys.get(&table).map_or(&[], Vec::as_slice), &types));
    tables.into_iter().map(of).collect()
}

struct Column {
    number: i16,
    name: String,
    type_oid: u32,
    type_name: String,
}

struct Key {
    primary: bool,
    columns: Vec<i16>,
}

fn layout(mut columns: Vec<Column>, keys: &[Key], types: &Types) -> Layout {
    columns.sort_by(|a, b| a.name.cmp(&b.name));
    let safe = |column: &Column| types.safe(column.type_oid, 0) || types.float(column.type_oid, 0).is_some();
    let form = if columns.iter().all(safe) { Form::Binary } else { Form::Text };
    let bucketing = bucketing(&columns, keys);
    let column = |column: Column| DigestColumn {
        float: types.float(column.type_oid, 0),
        name: column.name,
        type_name: column.type_name,
    };
    Layout { form, columns: columns.into_iter().map(column).collect(), bucketing }
}

/// The primary key, else the unique index that is an integer or has the fewest columns.
fn bucketing(columns: &[Column], keys: &[Key]) -> Bucketing {
    let position = |number: &i16| {
        columns.iter().position(|column| column.number == *number).and_then(|position| u16::try_from(position).ok())
    };
    let is_integer = |key: &[u16]| matches!(key, [one] if [20, 21, 23].contains(&columns[usize::from(*one)].type_oid));
    let whole = keys.iter().filter_map(|key| {
        let mut positions = key.columns.iter().map(position).collect::<Option<Vec<u16>>>()?;
        positions.sort_unstable();
        (!positions.is_empty()).then_some((key.primary, positions))
    });
    let best = whole.min_by_key(|(primary, key)| (!primary, !is_integer(key), key.len()));
    match best {
        Some((_, key)) if is_integer(&key) => Bucketing::KeyRange { column: key[0] },
        Some((_, columns)) => Bucketing::KeyHash { columns },
        None => Bucketing::RowDigest,
    }
}

struct Types(HashMap<u32, Type>);

struct Type {
    kind: String,
    base: u32,
    element: u32,
    /// The name of a send function that came with the server.
    send: Option<String>,
    subtype: Option<u32>,
}

impl Type {
    fn read([oid, kind, base, element, send, send_name, subtype]: [Option<String>; 7]) -> Option<(u32, Self)> {
        let built_in = parse::<u32>(send).is_some_and(|send| send < FIRST_MOVING_OID);
        let one = Self {
            kind: kind?,
            base: parse(base)?,
            element: parse(element)?,
            send: send_name.filter(|_| built_in),
            subtype: parse(subtype),
        };
        Some((parse(oid)?, one))
    }
}

impl Types {
    fn safe(&self, oid: u32, depth: u32) -> bool {
        let Some(one) = self.0.get(&oid).filter(|_| depth < MAX_DEPTH) else { return false };
        let send = one.send.as_deref().unwrap_or_default();
        let subtype_is_safe = || one.subtype.is_some_and(|subtype| self.safe(subtype, depth + 1));
        match (one.kind.as_str(), send) {
            ("d", _) => self.safe(one.base, depth + 1),
            // The label is sent.
            ("e", "enum_send") => true,
            ("r", "range_send") | ("m", "multirange_send") => subtype_is_safe(),
            // The element's OID is sent.
            ("b", "array_send") => one.element < FIRST_MOVING_OID && self.safe(one.element, depth + 1),
            ("b", send) => SAFE.contains(&send),
            _ => false,
        }
    }

    /// Within arrays, ranges and geometric types the NaNs cannot be reached, so that those are read as text.
    fn float(&self, oid: u32, depth: u32) -> Option<Float> {
        let one = self.0.get(&oid).filter(|_| depth < MAX_DEPTH)?;
        match (one.kind.as_str(), one.send.as_deref()) {
            ("d", _) => self.float(one.base, depth + 1),
            ("b", Some("float4send")) => Some(Float::Float4),
            ("b", Some("float8send")) => Some(Float::Float8),
            _ => None,
        }
    }
}

/// Send functions whose bytes are the value alone. Not `record_send` and those of reg* types, which send OIDs; and not those of
/// floats within others, because a dump does not keep the sign of a NaN.
const SAFE: [&str; 41] = [
    "boolsend",
    "byteasend",
    "charsend",
    "namesend",
    "int2send",
    "int4send",
    "int8send",
    "int2vectorsend",
    "oidvectorsend",
    "textsend",
    "oidsend",
    "tidsend",
    "xidsend",
    "xid8send",
    "cidsend",
    "json_send",
    "jsonb_send",
    "jsonpath_send",
    "xml_send",
    "cash_send",
    "macaddr_send",
    "macaddr8_send",
    "inet_send",
    "cidr_send",
    "bpcharsend",
    "varcharsend",
    "date_send",
    "time_send",
    "timetz_send",
    "timestamp_send",
    "timestamptz_send",
    "interval_send",
    "bit_send",
    "varbit_send",
    "numeric_send",
    "uuid_send",
    "pg_lsn_send",
    "tsvectorsend",
    "tsquerysend",
    "pg_snapshot_send",
    "txid_snapshot_send",
];

fn parse<T: std::str::FromStr>(text: Option<String>) -> Option<T> {
    text?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Those of a server, as far as the tests need them.
    fn types() -> Cells<7> {
        let row = |row: &str| {
            let mut cells = row.split(' ').map(|cell| (cell != "-").then(|| cell.to_owned()));
            std::array::from_fn(|_| cells.next().expect("seven cells"))
        };
        [
            "23 b 0 0 2407 int4send -",
            "20 b 0 0 2409 int8send -",
            "25 b 0 0 2415 textsend -",
            "701 b 0 0 2427 float8send -",
            "1022 b 0 701 2401 array_send -",
            "1007 b 0 23 2401 array_send -",
            "2205 b 0 0 2445 regclasssend -",
            "3904 r 0 0 3837 range_send 23",
            "4451 m 0 0 4246 multirange_send 23",
            "20000 e 0 0 3533 enum_send -",
            "20001 b 0 20000 2401 array_send -",
            "20002 d 1007 0 20003 evil -",
            "20004 b 0 0 20005 textsend -",
            "20006 d 701 0 2427 float8send -",
            "20007 r 0 0 3837 range_send 701",
            "20008 d 20008 0 2427 loops -",
        ]
        .map(row)
        .to_vec()
    }

    fn of(columns: &[(&str, u32)], keys: &[(bool, &str)]) -> Layout {
        let text = |text: &dyn ToString| Some(text.to_string());
        let columns = columns
            .iter()
            .enumerate()
            .map(|(at, (name, oid))| [text(&7), text(&(at + 1)), text(name), text(oid), text(&"type")])
            .collect();
        let keys = keys.iter().map(|(primary, key)| [text(&7), text(&if *primary { "t" } else { "f" }), text(key)]);
        layouts(types(), columns, keys.collect()).remove(&7).expect("the table")
    }

    #[test]
    fn binary_is_for_types_whose_bytes_are_the_value_alone() {
        let form = |oid| of(&[("a", 23), ("b", oid)], &[]).form;
        for safe in [23, 25, 701, 1007, 3904, 4451, 20000, 20002, 20006] {
            assert_eq!(form(safe), Form::Binary, "{safe}");
        }
        // An array of floats, an OID, an element OID that moves, a user's send function, a range of floats, no end, no type.
        for unsafe_one in [1022, 2205, 20001, 20004, 20007, 20008, 4711] {
            assert_eq!(form(unsafe_one), Form::Text, "{unsafe_one}");
        }
    }

    #[test]
    fn columns_are_sorted_by_bytes_and_floats_are_marked() {
        let layout = of(&[("b", 20006), ("a", 23), ("B", 701), ("ä", 25)], &[]);
        let columns: Vec<_> = layout.columns.iter().map(|column| (column.name.as_str(), column.float)).collect();
        let double = Some(Float::Float8);
        assert_eq!(columns, [("B", double), ("a", None), ("b", double), ("ä", None)]);
        assert_eq!(layout.bucketing, Bucketing::RowDigest);
    }

    #[test]
    fn the_primary_key_comes_first_then_an_integer_then_the_shortest() {
        let columns = [("z", 23), ("y", 25), ("x", 20)];
        let key = |keys: &[(bool, &str)]| of(&columns, keys).bucketing;
        assert_eq!(key(&[(false, "1"), (true, "2 3")]), Bucketing::KeyHash { columns: vec![0, 1] });
        assert_eq!(key(&[(false, "1 2"), (false, "2"), (false, "3")]), Bucketing::KeyRange { column: 0 });
        assert_eq!(key(&[(false, "1 2"), (false, "2")]), Bucketing::KeyHash { columns: vec![1] });
        assert_eq!(key(&[(true, "9")]), Bucketing::RowDigest, "a column that is not read");
    }
}
