//! What the newest row means.
use std::time::Duration;

use muster_check::report::Severity;
use muster_check::text::{count, plural};

use crate::words::{day, duration, minute};

/// Rows may come this long after the snapshot's time: clocks differ.
const SLACK: i64 = 5 * 60 * MICROS;
const DAY: i64 = 24 * 3_600 * MICROS;
const MICROS: i64 = 1_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Timestamp,
    Timestamptz,
    Date,
}

impl Kind {
    /// As the database names the type, with a precision or without.
    pub(crate) fn of(type_name: &str) -> Option<Self> {
        let plain = match (type_name.find('('), type_name.find(')')) {
            (Some(open), Some(close)) if open < close => format!("{}{}", &type_name[..open], &type_name[close + 1..]),
            _ => type_name.to_owned(),
        };
        match plain.as_str() {
            "timestamp without time zone" => Some(Self::Timestamp),
            "timestamp with time zone" => Some(Self::Timestamptz),
            "date" => Some(Self::Date),
            _ => None,
        }
    }

    /// A row that is later cannot have been in the backup. Somewhere it is tomorrow already.
    pub(crate) fn latest(self, snapshot: i64) -> i64 {
        snapshot.saturating_add(if self == Self::Date { DAY } else { SLACK })
    }

    fn told(self, micros: i64) -> String {
        match self {
            Self::Timestamptz => format!("{} UTC", minute(micros)),
            Self::Timestamp => format!("{} (read as UTC)", minute(micros)),
            Self::Date => format!("{} (read as its midnight in UTC)", day(micros)),
        }
    }
}

/// Times are microseconds since 1970-01-01 UTC.
pub(crate) struct Times {
    pub started: i64,
    pub snapshot: i64,
}

/// What the database answered.
pub(crate) struct Rows {
    /// Of the finite times up to [`Kind::latest`].
    pub newest: Option<i64>,
    /// Finite, and later than that.
    pub ahead: u64,
    pub all: u64,
}

pub(crate) struct Verdict {
    /// How long before the run the newest row was.
    pub age: Option<Duration>,
    pub findings: Vec<(Severity, String)>,
}

pub(crate) fn judge(kind: Kind, within: Duration, rows: &Rows, times: &Times) -> Verdict {
    let mut findings = Vec::new();
    let age = rows.newest.map(|newest| age(newest, times.started));
    match (rows.newest, age) {
        (Some(newest), Some(age)) if age > within => {
            let (newest, age, within) = (kind.told(newest), duration(age), duration(within));
            findings.push((Severity::Failure, format!("newest row {newest}, {age} before the run, {within} allowed")));
        }
        (Some(_), _) => {}
        (None, _) if rows.all == 0 => findings.push((Severity::Failure, "no rows".to_owned())),
        (None, _) => {
            let (rows, snapshot) = (plural(rows.all, "row"), minute(times.snapshot));
            findings.push((Severity::Failure, format!("{rows}, and no time up to the backup's, {snapshot} UTC")));
        }
    }
    if rows.ahead > 0 {
        findings.push((Severity::Warning, ahead(kind, rows, times)));
    }
    Verdict { age, findings }
}

fn age(newest: i64, started: i64) -> Duration {
    Duration::from_micros(u64::try_from(started.saturating_sub(newest)).unwrap_or(0))
}

fn ahead(kind: Kind, rows: &Rows, times: &Times) -> String {
    let verb = if rows.ahead == 1 { "is" } else { "are" };
    let (ahead, all, snapshot) = (count(rows.ahead), plural(rows.all, "row"), minute(times.snapshot));
    let hint = if kind == Kind::Timestamp { "; local times? the column is read as UTC" } else { "" };
    format!("{ahead} of {all} {verb} later than the backup, {snapshot} UTC, and left out{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-22 02:15 UTC.
    const RUN: i64 = 1_795_313_700 * MICROS;
    const MINUTE: i64 = 60 * MICROS;
    const HOUR: i64 = 60 * MINUTE;
    const A_DAY: Duration = Duration::from_secs(24 * 3_600);

    fn told(kind: Kind, newest: Option<i64>, ahead: u64, all: u64) -> (Option<u64>, Vec<String>) {
        let times = Times { started: RUN, snapshot: RUN - MINUTE };
        let verdict = judge(kind, A_DAY, &Rows { newest, ahead, all }, &times);
        let lines = verdict.findings.iter().map(|(severity, message)| format!("{severity:?}: {message}"));
        (verdict.age.map(|age| age.as_secs()), lines.collect())
    }

    #[test]
    fn a_row_is_as_old_as_it_may_be_and_no_older() {
        assert_eq!(told(Kind::Timestamptz, Some(RUN - 24 * HOUR), 0, 9), (Some(86_400), vec![]));
        let (_, lines) = told(Kind::Timestamptz, Some(RUN - 24 * HOUR - 1), 0, 9);
        assert_eq!(lines, ["Severity::Failure: newest row 2026-11-21 02:14 UTC, 24 h before the run, 24 h allowed"]);
        let (_, lines) = told(Kind::Timestamp, Some(RUN - 26 * HOUR - 3 * MINUTE), 0, 9);
        let late = "newest row 2026-11-21 00:12 (read as UTC), 26 h 3 m before the run, 24 h allowed";
        assert_eq!(lines, [format!("Severity::Failure: {late}")]);
        let (_, lines) = told(Kind::Date, Some(RUN - 26 * HOUR - 15 * MINUTE), 0, 9);
        assert!(lines[0].contains("2026-11-21 (read as its midnight in UTC), 26 h 15 m"), "{lines:?}");
    }

    #[test]
    fn a_row_between_snapshot_and_slack_is_new() {
        assert_eq!(told(Kind::Timestamptz, Some(RUN + MINUTE), 0, 1), (Some(0), vec![]));
        assert_eq!(Kind::Timestamptz.latest(RUN), RUN + 5 * MINUTE);
        assert_eq!(Kind::Date.latest(RUN), RUN + 24 * HOUR);
    }

    #[test]
    fn no_row_is_a_failure() {
        assert_eq!(told(Kind::Date, None, 0, 0), (None, vec!["Severity::Failure: no rows".to_owned()]));
        let (_, lines) = told(Kind::Date, None, 0, 3);
        assert_eq!(lines, ["Severity::Failure: 3 rows, and no time up to the backup's, 2026-11-22 02:14 UTC"]);
    }

    #[test]
    fn rows_from_the_future_are_told_and_prove_nothing() {
        let (age, lines) = told(Kind::Timestamp, Some(RUN - HOUR), 2, 1_000);
        assert_eq!(age, Some(3_600));
        let later = "2 of 1,000 rows are later than the backup, 2026-11-22 02:14 UTC, and left out";
        assert_eq!(lines, [format!("Severity::Warning: {later}; local times? the column is read as UTC")]);
        let (_, lines) = told(Kind::Timestamptz, None, 1, 1);
        assert_eq!(lines.len(), 2);
        assert!(lines[1].ends_with("1 of 1 row is later than the backup, 2026-11-22 02:14 UTC, and left out"));
    }

    #[test]
    fn types_are_known_by_the_names_that_the_database_gives() {
        assert_eq!(Kind::of("timestamp(3) without time zone"), Some(Kind::Timestamp));
        assert_eq!(Kind::of("timestamp with time zone"), Some(Kind::Timestamptz));
        assert_eq!(Kind::of("date"), Some(Kind::Date));
        for other in ["date[]", "public.date", "time without time zone", "interval", "text", ")("] {
            assert_eq!(Kind::of(other), None, "{other}");
        }
    }
}
