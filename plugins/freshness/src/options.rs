//! What a drill may ask for.
use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{Span, SpanRelativeTo};
use schemars::JsonSchema;
use serde::Deserialize;

/// Each column is a metric, and a check may set so many unless its drill says otherwise.
const MAX_COLUMNS: usize = 100;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Options {
    /// Columns whose newest row must be new enough.
    #[schemars(length(min = 1, max = MAX_COLUMNS))]
    pub columns: Vec<Wanted>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    /// The database that has the table, where a run restores several. Default: each of them.
    #[serde(default)]
    pub database: Option<String>,
    /// `schema.table`; a partitioned table is looked at with its partitions.
    pub table: String,
    /// Of type `timestamptz`, `timestamp` (read as UTC) or `date` (read as its midnight in UTC).
    pub column: String,
    /// How long before the start of the run the newest row may be, such as `90s`, `15m`, `1h30m` or `7d`. Default: the
    /// drill's objective `recoveryPoint`.
    #[serde(default)]
    pub within: Option<Within>,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Within(pub Duration);

impl JsonSchema for Within {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        String::json_schema(generator)
    }
}

impl TryFrom<String> for Within {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let duration = text.parse::<Span>().and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()));
        let duration = duration.ok().and_then(|duration| Duration::try_from(duration).ok());
        duration
            .filter(|duration| !duration.is_zero())
            .map(Self)
            .ok_or_else(|| format!("`within`: `{text}` is not a duration such as `90s`, `15m`, `1h30m` or `7d`"))
    }
}

/// A column to look at in this database.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub table: String,
    pub column: String,
    pub within: Duration,
}

impl Asked {
    pub(crate) fn label(&self) -> String {
        format!("{}.{}", self.table, self.column)
    }
}

/// Where the check is, and what it falls back to.
pub(crate) struct Place {
    pub database: String,
    pub databases: Vec<String>,
    pub objective: Option<Duration>,
}

impl Options {
    /// What is wrong is said with what would be right.
    pub(crate) fn asked(self, place: &Place) -> Result<Vec<Asked>, String> {
        if !(1..=MAX_COLUMNS).contains(&self.columns.len()) {
            return Err(format!(
                "`columns` must name from 1 to {MAX_COLUMNS} columns, such as `columns: [{{ table: public.orders, column: \
                 created_at, within: 24h }}]`"
            ));
        }
        let mut asked = Vec::new();
        for column in self.columns {
            if let Some(database) = column.database.as_ref().filter(|database| !place.databases.contains(database)) {
                return Err(format!("`database`: the run restores no database `{database}`"));
            }
            if column.database.as_ref().is_none_or(|database| *database == place.database) {
                asked.push(column.asked(place)?);
            }
        }
        let mut seen = BTreeSet::new();
        match asked.iter().find(|asked| !seen.insert((&asked.table, &asked.column))) {
            Some(twice) => Err(format!("`columns` names `{}` twice", twice.label())),
            None => Ok(asked),
        }
    }
}

impl Wanted {
    fn asked(self, place: &Place) -> Result<Asked, String> {
        let Self { table, column, within, .. } = self;
        if !table.contains('.') {
            return Err(format!("`table`: `{table}` is not of the form `schema.table`"));
        }
        let Some(within) = within.map(|within| within.0).or(place.objective) else {
            return Err(format!(
                "`{table}.{column}` has no `within`, and the drill has no objective to take its place: give `within: 24h` \
                 here, or `objectives: {{ recoveryPoint: 24h }}` in the drill"
            ));
        };
        Ok(Asked { table, column, within })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn asked(columns: &str, objective: Option<Duration>) -> Result<Vec<Asked>, String> {
        let options = format!(r#"{{"columns": {columns}}}"#);
        let options: Options = serde_json::from_str(&options).map_err(|error| error.to_string())?;
        let databases = vec!["orders".to_owned(), "stock".to_owned()];
        options.asked(&Place { database: "orders".to_owned(), databases, objective })
    }

    #[test]
    fn durations_are_read_as_the_drill_file_has_them() {
        let within = |text: &str| Within::try_from(text.to_owned()).map(|within| within.0);
        assert_eq!(within("24h"), Ok(24 * HOUR));
        assert_eq!(within("1h30m"), Ok(HOUR * 3 / 2));
        assert_eq!(within("7d"), Ok(7 * 24 * HOUR));
        assert_eq!(within("1w"), Ok(7 * 24 * HOUR));
        assert_eq!(within("250ms"), Ok(Duration::from_millis(250)));
        for bad in ["", "24", "-1h", "1h ago", "0s", "1mo", "a day"] {
            assert!(within(bad).is_err_and(|why| why.contains("is not a duration such as `90s`")), "{bad}");
        }
    }

    #[test]
    fn the_objective_stands_in_for_within() {
        let columns = r#"[{"table": "a.b", "column": "c"}, {"table": "a.b", "column": "d", "within": "2h"}]"#;
        let columns = asked(columns, Some(HOUR)).expect("valid");
        assert_eq!(columns.iter().map(|asked| asked.within).collect::<Vec<_>>(), [HOUR, 2 * HOUR]);
        let why = asked(r#"[{"table": "a.b", "column": "c"}]"#, None).expect_err("nothing to compare with");
        assert!(
            why.contains("`a.b.c` has no `within`") && why.contains("`objectives: { recoveryPoint: 24h }`"),
            "{why}"
        );
    }

    #[test]
    fn a_column_of_another_database_is_left_to_it() {
        let columns = r#"[{"database": "stock", "table": "a.b", "column": "c"}]"#;
        assert_eq!(asked(columns, Some(HOUR)), Ok(vec![]));
        let why = asked(&columns.replace("stock", "stok"), Some(HOUR));
        assert_eq!(why, Err("`database`: the run restores no database `stok`".to_owned()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (columns, words) in [
            ("[]", "`columns` must name from 1 to 100 columns"),
            (r#"[{"table": "a.b", "column": "c"}, {"table": "a.b", "column": "c"}]"#, "names `a.b.c` twice"),
            (r#"[{"table": "b", "column": "c"}]"#, "`b` is not of the form `schema.table`"),
            (r#"[{"table": "a.b", "column": "c", "withing": "1h"}]"#, "unknown field `withing`"),
            (r#"[{"table": "a.b"}]"#, "missing field `column`"),
        ] {
            let why = asked(columns, Some(HOUR)).expect_err("wrong");
            assert!(why.contains(words), "{why}");
        }
    }
}
