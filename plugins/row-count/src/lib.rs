//! Counts every restored table and compares with what the backup's baseline, or the options, say.
//!
//! Where there is no baseline, [`unbased`] compares with what it has. [`options`] is what may be asked for, [`counting`] asks the database,
//! [`compare`] decides what a count means.
mod compare;
mod counting;
mod options;
mod unbased;

use std::collections::{BTreeMap, BTreeSet};

use compare::{Verdict, compare};
use counting::{Count, Wanted};
use muster_check::report::{self, Finding, Severity};
use muster_check::text::{count, plural};
use muster_check::{Check, Conclusion, Failure, baseline, context, glob};
use options::Options;

struct RowCount;

impl Check for RowCount {
    const NAME: &str = "row-count";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &str = "Every table holds as many rows as when the backup was made.";
    type Options = Options;

    fn run(options: Options) -> Result<Conclusion, Failure> {
        let baseline = baseline::available().then(|| baseline::tables().collect::<Vec<_>>());
        let restored: BTreeMap<Name, Kind> =
            context::tables().map(|table| ((table.schema, table.name), table.kind)).collect();
        let Some(baseline) = baseline else { return unbased::run(&options, &restored) };
        let plan = plan(&options, baseline, &restored)?;
        let known: Vec<_> = plan.iter().map(|(name, _)| label(name)).collect();
        if let Some(glob) = glob::unmatched(&options.tables, &known) {
            return Ok(Conclusion::Inconclusive(format!("`tables`: `{glob}` matches no table that is known here")));
        }
        let tally = count_all(&options, &plan, &restored)?;
        warn_of_strangers(&options, &plan, &restored);
        let _ = report::set_metric("tables", &[], plan.len().try_into().map_or(f64::INFINITY, |n: u32| n.into()));
        Ok(Conclusion::Completed(tally.summary()))
    }
}

muster_check::check!(RowCount);

/// Schema and name.
type Name = (String, String);
/// As `context` has it: `table`, `matview` …
type Kind = String;

fn label((schema, name): &Name) -> String {
    format!("{schema}.{name}")
}

/// What is counted, with the rows expected, in the order of names.
fn plan(
    options: &Options,
    baseline: Vec<baseline::Table>,
    restored: &BTreeMap<Name, Kind>,
) -> Result<Vec<(Name, u64)>, Failure> {
    let mut expected: BTreeMap<Name, u64> =
        baseline.into_iter().map(|table| ((table.schema, table.name), table.rows)).collect();
    let labels: BTreeMap<String, Name> =
        restored.keys().chain(expected.keys()).map(|name| (label(name), name.clone())).collect();
    for (table, rows) in &options.expect {
        // A table that exists on neither side is still expected: it is missing.
        let name = labels.get(table).cloned().or_else(|| split(table));
        let name =
            name.ok_or_else(|| Failure::Options(format!("`expect`: `{table}` is not of the form `schema.table`")))?;
        expected.insert(name, *rows);
    }
    if let Some(table) = options.tolerance.keys().find(|table| !expected.keys().any(|name| label(name) == **table)) {
        return Err(Failure::Options(format!("`tolerance`: nothing is expected of `{table}`, is it misspelled?")));
    }
    expected
        .retain(|name, _| options.expect.contains_key(&label(name)) || glob::chooses(&options.tables, &label(name)));
    Ok(expected.into_iter().collect())
}

fn split(table: &str) -> Option<Name> {
    table.split_once('.').map(|(schema, name)| (schema.to_owned(), name.to_owned()))
}

#[derive(Default)]
struct Tally {
    tables: u64,
    rows: u64,
    different: u64,
}

impl Tally {
    fn summary(&self) -> String {
        let seen = format!("{}, {}", plural(self.tables, "table"), plural(self.rows, "row"));
        match self.different {
            0 => seen,
            different => format!("{seen}, {} not as in the backup", count(different)),
        }
    }
}

fn count_all(options: &Options, plan: &[(Name, u64)], restored: &BTreeMap<Name, Kind>) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    let wanted: Vec<_> = plan.iter().map(|(name, rows)| Wanted { name, rows: Some(*rows) }).collect();
    counting::each(&wanted, restored, |index, found| {
        let (name, expected) = &plan[index];
        tally.tables += 1;
        match found {
            Count::Rows(rows) => {
                tally.rows = tally.rows.saturating_add(rows);
                let asked_for = options.expect.contains_key(&label(name));
                let tolerance = options.tolerance.get(&label(name)).copied().unwrap_or_default();
                let verdict = compare(*expected, rows, tolerance);
                let severity = tell_verdict(name, verdict, is_refreshed(name, restored) && !asked_for, *expected, rows);
                tally.different += u64::from(severity == Some(Severity::Failure));
            }
            Count::None(why) => {
                tally.different += 1;
                let message = format!("{} expected, but {why}", plural(*expected, "row"));
                tell(name, Severity::Failure, message, *expected, None);
            }
        }
    })?;
    Ok(tally)
}

fn tell(name: &Name, severity: Severity, message: String, expected: u64, found: Option<u64>) {
    let mut details = vec![("expected".to_owned(), expected.to_string())];
    details.extend(found.map(|rows| ("found".to_owned(), rows.to_string())));
    report::add_finding(&Finding { severity, subject: label(name), message, details });
}

/// A restore fills a materialized view from the restored tables, so it need not hold what it held: it may have been stale.
fn is_refreshed(name: &Name, restored: &BTreeMap<Name, Kind>) -> bool {
    restored.get(name).is_some_and(|kind| kind == "matview")
}

/// How severe it is; none where there is nothing to tell.
fn tell_verdict(name: &Name, verdict: Verdict, refreshed: bool, expected: u64, found: u64) -> Option<Severity> {
    let (severity, message) = match verdict {
        Verdict::Same => return None,
        Verdict::Tolerated(message) => (Severity::Info, message),
        Verdict::Emptied(message) => (Severity::Warning, message),
        Verdict::Different(message) if refreshed => {
            (Severity::Warning, format!("{message}; a restore refreshes a materialized view"))
        }
        Verdict::Different(message) => (Severity::Failure, message),
    };
    tell(name, severity, message, expected, Some(found));
    Some(severity)
}

/// Tables that nobody expected. Matviews are left out: the baseline does not list those that had no data.
fn warn_of_strangers(options: &Options, plan: &[(Name, u64)], restored: &BTreeMap<Name, Kind>) {
    let planned: BTreeSet<&Name> = plan.iter().map(|(name, _)| name).collect();
    for (name, kind) in restored {
        if kind == "table" && !planned.contains(name) && glob::chooses(&options.tables, &label(name)) {
            report::warning(label(name), "the table was restored, but the baseline does not have it");
        }
    }
}
