//! The baseline blob, read a line at a time.
use std::collections::{HashMap, HashSet};

use drill::baseline::{ContentDigest, Header, Table, VERSION};
use plugin_host::backend::BaselineTable;

/// What the baseline says of a database.
#[derive(Debug)]
pub(super) struct Baseline {
    /// The tables whose rows were counted.
    pub(super) tables: Vec<BaselineTable>,
    /// Their digests, where capture made one, by schema and name.
    pub(super) digests: HashMap<(String, String), ContentDigest>,
}

/// The error says which line is wrong and why.
pub(super) fn read(blob: &[u8], database: &str) -> Result<Baseline, String> {
    let mut lines = blob.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
    let (_, first) = lines.next().ok_or("the baseline is empty")?;
    let header: Header = serde_json::from_slice(first).map_err(|error| format!("line 1 of the baseline: {error}"))?;
    if header.baseline != VERSION {
        return Err(format!("the baseline has version {}, this muster reads {VERSION}", header.baseline));
    }
    if header.database != database {
        return Err(format!("the baseline is of database `{}`, not of `{database}`", header.database));
    }
    let mut seen = HashSet::new();
    let mut baseline = Baseline { tables: Vec::new(), digests: HashMap::new() };
    for (index, line) in lines {
        let table: Table =
            serde_json::from_slice(line).map_err(|error| format!("line {} of the baseline: {error}", index + 1))?;
        if !seen.insert((table.schema.clone(), table.name.clone())) {
            return Err(format!("the baseline names table `{}.{}` twice", table.schema, table.name));
        }
        baseline.add(table);
    }
    if seen.len() as u64 != header.tables {
        return Err(format!("the baseline holds {} tables, its header says {}", seen.len(), header.tables));
    }
    Ok(baseline)
}

impl Baseline {
    fn add(&mut self, table: Table) {
        let Some(rows) = table.rows else { return };
        let mut details = vec![("kind".to_owned(), table.kind.as_str().to_owned())];
        let root = table.digest.as_ref().map(|digest| {
            details.push(("blocks".to_owned(), digest.blocks.to_string()));
            digest.root.as_bytes().to_vec()
        });
        let known = BaselineTable { schema: table.schema.clone(), name: table.name.clone(), rows, root, details };
        self.tables.push(known);
        if let Some(digest) = table.digest {
            self.digests.insert((table.schema, table.name), digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"baseline":1,"database":"orders","tables":2}
{"schema":"public","name":"lines","kind":"table","rows":3,"columns":[{"name":"id","typeName":"bigint","notNull":true}]}
{"schema":"public","name":"root","kind":"partitioned","rows":null,"columns":[]}
"#;

    #[test]
    fn tables_without_a_count_are_left_out() {
        let tables = read(GOOD.as_bytes(), "orders").expect("a good baseline").tables;
        assert_eq!(tables.len(), 1);
        assert_eq!((tables[0].name.as_str(), tables[0].rows, &tables[0].root), ("lines", 3, &None));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = |blob: &str, database| read(blob.as_bytes(), database).expect_err("a bad baseline");
        assert_eq!(wrong("", "orders"), "the baseline is empty");
        assert_eq!(wrong(GOOD, "other"), "the baseline is of database `orders`, not of `other`");
        assert!(wrong(&GOOD.replace("\"tables\":2", "\"tables\":3"), "orders").contains("its header says 3"));
        assert!(wrong(&GOOD.replace("\"root\"", "\"lines\""), "orders").contains("twice"));
        assert!(wrong(&GOOD.replace("\"rows\":3", "\"rows\":-3"), "orders").starts_with("line 2 of the baseline"));
        assert!(wrong(&GOOD.replace(":1,", ":9,"), "orders").contains("version 9"));
    }
}
