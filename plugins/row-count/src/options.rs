//! What a drill may ask for.
use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Options {
    /// Exact rows by `schema.table`; stands above the baseline.
    pub expect: BTreeMap<String, u64>,
    /// How far a count may be from what is expected, by `schema.table`: rows, or a share such as `1%`. Without a baseline,
    /// `100%` also lets a table be gone that the last passed run had.
    pub tolerance: BTreeMap<String, Tolerance>,
    /// Without a baseline: how far a count may fall below the last passed run's, by rows or by a share; a table may always
    /// grow. Default: `10%`, and 100 rows at least.
    #[serde(rename = "sinceLastRun")]
    pub since_last_run: Option<Tolerance>,
    /// The last passed run's counts, where the backup has no baseline. muster gives it; a drill file need not.
    #[serde(rename = "lastRun")]
    pub last_run: Option<LastRun>,
    /// Globs of `schema.table` (`*` any text, `?` any character) that choose from the baseline; empty: all.
    pub tables: Vec<String>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LastRun {
    pub run: String,
    /// Rows by database and `schema.table`.
    pub databases: BTreeMap<String, BTreeMap<String, u64>>,
}

/// Data shrink now and then between two backups; a table that lost a tenth of its rows is worth a look.
pub(crate) const SINCE_LAST_RUN: Tolerance = Tolerance::Share(100_000);

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "Written")]
pub(crate) enum Tolerance {
    Rows(u64),
    /// Millionths of the rows expected: `1%` is 10,000.
    Share(u64),
}

impl Default for Tolerance {
    fn default() -> Self {
        Self::Rows(0)
    }
}

impl Tolerance {
    pub(crate) const ALL: Self = Self::Share(1_000_000);

    pub(crate) fn rows(self, expected: u64) -> u64 {
        match self {
            Self::Rows(rows) => rows,
            Self::Share(millionths) => {
                u64::try_from(u128::from(expected) * u128::from(millionths) / 1_000_000).unwrap_or(u64::MAX)
            }
        }
    }
}

/// As it stands in the drill file.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum Written {
    Rows(u64),
    Share(#[schemars(regex(pattern = r"^\d{1,3}(\.\d{1,4})?%$"))] String),
}

impl JsonSchema for Tolerance {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Tolerance".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        Written::json_schema(generator)
    }
}

impl TryFrom<Written> for Tolerance {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        match written {
            Written::Rows(rows) => Ok(Self::Rows(rows)),
            Written::Share(text) => share(&text)
                .map(Self::Share)
                .ok_or_else(|| format!("`{text}` is neither a number of rows nor a share from `0%` to `100%`")),
        }
    }
}

/// `1%`, `0.5%`: at most four decimals, so that the arithmetic is exact.
fn share(text: &str) -> Option<u64> {
    let (whole, decimals) = text.strip_suffix('%').map(|number| number.split_once('.').unwrap_or((number, "0")))?;
    let digits = |text: &str| (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then_some(());
    digits(whole).and(digits(decimals)).filter(|()| whole.len() <= 3 && decimals.len() <= 4)?;
    let millionths = whole.parse::<u64>().ok()? * 10_000 + format!("{decimals:0<4}").parse::<u64>().ok()?;
    (millionths <= 1_000_000).then_some(millionths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_as_written() {
        let read = |text: &str| serde_json::from_str::<Options>(text);
        let options = read(r#"{"expect": {"a.b": 3}, "tolerance": {"a.b": "0.5%", "a.c": 10}}"#).expect("valid");
        assert_eq!(options.tolerance["a.b"], Tolerance::Share(5_000));
        assert_eq!(options.tolerance["a.c"], Tolerance::Rows(10));
        assert!(read(r#"{"expects": {}}"#).expect_err("unknown").to_string().contains("unknown field `expects`"));
        for bad in ["1", "%", "101%", "-1%", "1.%", "1.00001%", "+1%", "1.5.5%"] {
            let text = format!(r#"{{"tolerance": {{"a.b": "{bad}"}}}}"#);
            let error = read(&text).expect_err(bad).to_string();
            assert!(error.contains("neither a number of rows nor a share"), "{bad}: {error}");
        }
    }

    #[test]
    fn shares_round_down_and_never_overflow() {
        assert_eq!(Tolerance::Share(10_000).rows(1_050), 10);
        assert_eq!(Tolerance::Share(1_000_000).rows(u64::MAX), u64::MAX);
    }
}
