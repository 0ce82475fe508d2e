//! A backup without a baseline: counts what is there, compares with the options' expectations and with the last passed run, and
//! says so. The counts are told, so that the next run has something to compare with.
use std::collections::BTreeMap;

use muster_check::report::{self, Finding, Severity};
use muster_check::text::{count, plural};
use muster_check::{Conclusion, Failure, context, glob};

use crate::compare::{Verdict, compare, compare_with_last_run, may_be_gone};
use crate::counting::{self, Count, Wanted};
use crate::options::{Options, Tolerance};
use crate::{Kind, Name, is_refreshed, label, tell, tell_verdict};

/// What findings of counts are about; muster looks for them by this name.
const COUNTS: &str = "counts";
/// What one finding holds, and how many of them there are.
const IN_ONE: usize = 50;
const FINDINGS: usize = 20;

pub(crate) fn run(options: &Options, restored: &BTreeMap<Name, Kind>) -> Result<Conclusion, Failure> {
    let database = context::database();
    let last = options.last_run.as_ref().and_then(|last| Some((last.run.as_str(), last.databases.get(&database)?)));
    let expectations = expectations(options, last.map(|(_, tables)| tables), restored)?;
    let counts = counts(options, restored, &expectations)?;
    let known: Vec<_> = counts.keys().chain(expectations.keys()).map(label).collect();
    if let Some(glob) = glob::unmatched(&options.tables, &known) {
        return Ok(Conclusion::Inconclusive(format!("`tables`: `{glob}` matches no table that is known here")));
    }
    let mut different = 0u64;
    for (name, expected) in &expectations {
        different += u64::from(!judge(name, expected, counts.get(name), restored));
    }
    let rows = counts.values().fold(0u64, |sum, rows| sum.saturating_add(*rows));
    report::info("baseline", message(options, last.map(|(run, _)| run)));
    tell_counts(&counts);
    let seen = format!("{}, {}", plural(counts.len() as u64, "table"), plural(rows, "row"));
    Ok(Conclusion::Completed(match (different, expectations.is_empty()) {
        (0, true) => format!("{seen}; there is no baseline and nothing else to compare with"),
        (0, false) => format!("{seen}; no baseline, {} compared", plural(expectations.len() as u64, "count")),
        (different, _) => format!("{seen}, {} not as expected", count(different)),
    }))
}

fn message(options: &Options, last: Option<&str>) -> String {
    let compared = match (options.expect.is_empty(), last) {
        (false, Some(run)) => format!("the drill's expectations and the last passed run {run} were compared with"),
        (false, None) => "only the drill's expectations were compared with".to_owned(),
        (true, Some(run)) => format!("the last passed run {run} was compared with"),
        (true, None) => {
            "nothing could be compared: the next run is compared with these counts; capture with muster, or set \
             `options: { expect: { \"public.orders\": 1000 } }`"
                .to_owned()
        }
    };
    format!("the backup has no baseline of this database: {compared}")
}

/// `tolerance`: what was asked for.
struct Expected {
    rows: u64,
    tolerance: Option<Tolerance>,
    by_last_run: bool,
}

fn expectations(
    options: &Options,
    last: Option<&BTreeMap<String, u64>>,
    restored: &BTreeMap<Name, Kind>,
) -> Result<BTreeMap<Name, Expected>, Failure> {
    let labels: BTreeMap<String, &Name> = restored.keys().map(|name| (label(name), name)).collect();
    let name_of = |table: &str| labels.get(table).map(|name| (*name).clone()).or_else(|| crate::split(table));
    let mut expected = BTreeMap::new();
    for (table, rows) in last.into_iter().flatten().filter(|(table, _)| glob::chooses(&options.tables, table)) {
        let tolerance = options.tolerance.get(table).copied().or(options.since_last_run);
        expected.extend(name_of(table).map(|name| (name, Expected { rows: *rows, tolerance, by_last_run: true })));
    }
    for (table, rows) in &options.expect {
        let name = name_of(table)
            .ok_or_else(|| Failure::Options(format!("`expect`: `{table}` is not of the form `schema.table`")))?;
        let tolerance = options.tolerance.get(table).copied();
        expected.insert(name, Expected { rows: *rows, tolerance, by_last_run: false });
    }
    if let Some(table) = options.tolerance.keys().find(|table| !expected.keys().any(|name| label(name) == **table)) {
        // Before the first passed run there is nothing to tolerate; a table that is not there is misspelled.
        if !labels.contains_key(table) {
            return Err(Failure::Options(format!(
                "`tolerance`: nothing is expected of `{table}`: is it misspelled, or was it for one run?"
            )));
        }
    }
    Ok(expected)
}

fn counts(
    options: &Options,
    restored: &BTreeMap<Name, Kind>,
    expected: &BTreeMap<Name, Expected>,
) -> Result<BTreeMap<Name, u64>, Failure> {
    let wanted: Vec<_> = restored
        .iter()
        .filter(|(name, kind)| {
            let holds_rows = ["table", "matview"].contains(&kind.as_str());
            holds_rows && (glob::chooses(&options.tables, &label(name)) || expected.contains_key(name))
        })
        .map(|(name, _)| Wanted { name, rows: expected.get(name).map(|expected| expected.rows) })
        .collect();
    let mut counts = BTreeMap::new();
    counting::each(&wanted, restored, |index, count| {
        if let Count::Rows(rows) = count {
            counts.insert(wanted[index].name.clone(), rows);
        }
    })?;
    Ok(counts)
}

/// Whether it is as expected, or near enough.
fn judge(name: &Name, expected: &Expected, found: Option<&u64>, restored: &BTreeMap<Name, Kind>) -> bool {
    let Some(&rows) = found else { return judge_absent(name, expected, restored.contains_key(name)) };
    if !expected.by_last_run {
        let verdict = compare(expected.rows, rows, expected.tolerance.unwrap_or_default());
        return tell_verdict(name, verdict, false, expected.rows, rows) != Some(Severity::Failure);
    }
    let by = |message: String| format!("{message} (by the last passed run)");
    let refreshed = is_refreshed(name, restored);
    let verdict = match compare_with_last_run(expected.rows, rows, expected.tolerance) {
        Verdict::Same => Verdict::Same,
        Verdict::Tolerated(message) => Verdict::Tolerated(by(message)),
        Verdict::Emptied(message) => Verdict::Emptied(by(message)),
        Verdict::Different(message) if refreshed => Verdict::Different(by(message)),
        Verdict::Different(message) => {
            let accept = format!("`expect: {{ \"{}\": {rows} }}`", label(name));
            Verdict::Different(format!("{}: {}", by(message), advice(&accept)))
        }
    };
    tell_verdict(name, verdict, refreshed, expected.rows, rows) != Some(Severity::Failure)
}

/// What could not be counted. Without a way to accept it, the last passed run would be the last one for ever.
fn judge_absent(name: &Name, expected: &Expected, is_there: bool) -> bool {
    let why = if is_there { "it cannot be counted" } else { "the table is missing" };
    let message = format!("{} expected", plural(expected.rows, "row"));
    if !expected.by_last_run {
        tell(name, Severity::Failure, format!("{message}, but {why}"), expected.rows, None);
        return false;
    }
    let message = format!("{message} (by the last passed run), but {why}");
    let accepted = !is_there && may_be_gone(expected.rows, expected.tolerance);
    if accepted {
        tell(name, Severity::Warning, format!("{message}, which is tolerated"), expected.rows, None);
    } else {
        let accept = format!("`tolerance: {{ \"{}\": \"100%\" }}`", label(name));
        let message = if is_there { message } else { format!("{message}: {}", advice(&accept)) };
        tell(name, Severity::Failure, message, expected.rows, None);
    }
    accepted
}

fn advice(option: &str) -> String {
    format!(
        "if that is meant, run once with {option} in the check's options, and the next run is compared with that one"
    )
}

/// As many as the ledger keeps of one check, and how many were left out.
fn tell_counts(counts: &BTreeMap<Name, u64>) {
    let all: Vec<(String, String)> = counts.iter().map(|(name, rows)| (label(name), rows.to_string())).collect();
    for details in all.chunks(IN_ONE).take(FINDINGS) {
        let message = format!("rows of {}", plural(details.len() as u64, "table"));
        report::add_finding(&Finding {
            severity: Severity::Info,
            subject: COUNTS.to_owned(),
            message,
            details: details.to_vec(),
        });
    }
    if let Some(first) = all.get(FINDINGS * IN_ONE) {
        let message = format!(
            "{} from {} on were counted, but their counts are not kept: the next run has nothing to compare them with; \
             choose with `tables`",
            plural((all.len() - FINDINGS * IN_ONE) as u64, "table"),
            first.0
        );
        report::warning("baseline", message);
    }
}
