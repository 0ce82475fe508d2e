//! What a count means.
use muster_check::text::{count, plural};

use crate::options::{SINCE_LAST_RUN, Tolerance};

/// Where nothing else is asked for, a table may lose so many rows between two runs: a tenth of a small one is next to nothing.
const FLOOR: u64 = 100;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Same,
    /// Not as expected, but near enough: says how far.
    Tolerated(String),
    /// Near enough by its number, and yet all that there was is gone.
    Emptied(String),
    /// Says what was expected and found.
    Different(String),
}

pub(crate) fn compare(expected: u64, found: u64, tolerance: Tolerance) -> Verdict {
    if expected == found {
        return Verdict::Same;
    }
    judge(expected, found, tolerance.rows(expected))
}

/// Between two backups data grow; what they lose is compared. `None`: the tolerance that nobody asked for.
pub(crate) fn compare_with_last_run(expected: u64, found: u64, tolerance: Option<Tolerance>) -> Verdict {
    if expected == found {
        return Verdict::Same;
    }
    if found > expected {
        return Verdict::Tolerated(difference(expected, found));
    }
    let allowed = tolerance.map_or_else(|| SINCE_LAST_RUN.rows(expected).max(FLOOR), |asked| asked.rows(expected));
    match judge(expected, found, allowed) {
        Verdict::Tolerated(message) if found == 0 => Verdict::Emptied(message),
        verdict => verdict,
    }
}

/// Whether a table may be gone: only where somebody asked for a tolerance of all its rows.
pub(crate) fn may_be_gone(expected: u64, tolerance: Option<Tolerance>) -> bool {
    tolerance.is_some_and(|asked| asked.rows(expected) >= expected.max(1) || asked == Tolerance::ALL)
}

fn judge(expected: u64, found: u64, allowed: u64) -> Verdict {
    let message = difference(expected, found);
    if expected.abs_diff(found) <= allowed {
        Verdict::Tolerated(format!("{message}, within the tolerance of {}", plural(allowed, "row")))
    } else if allowed > 0 {
        Verdict::Different(format!("{message}, beyond the tolerance of {}", plural(allowed, "row")))
    } else {
        Verdict::Different(message)
    }
}

fn difference(expected: u64, found: u64) -> String {
    let direction = if found > expected { "more" } else { "fewer" };
    let difference = count(expected.abs_diff(found));
    format!("{} expected, {} found, {difference} {direction}", plural(expected, "row"), count(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_compared_exactly_unless_told_otherwise() {
        let exact = Tolerance::default();
        assert_eq!(compare(5, 5, exact), Verdict::Same);
        assert_eq!(
            compare(1_001, 1_000, exact),
            Verdict::Different("1,001 rows expected, 1,000 found, 1 fewer".into())
        );
        assert_eq!(
            compare(1_000, 1_010, Tolerance::Share(10_000)),
            Verdict::Tolerated("1,000 rows expected, 1,010 found, 10 more, within the tolerance of 10 rows".into())
        );
        assert_eq!(
            compare(1_000, 1_011, Tolerance::Rows(10)),
            Verdict::Different("1,000 rows expected, 1,011 found, 11 more, beyond the tolerance of 10 rows".into())
        );
    }

    #[test]
    fn since_the_last_run_a_table_may_grow_and_not_lose_much() {
        let grown = Verdict::Tolerated("5 rows expected, 6,000,000 found, 5,999,995 more".into());
        assert_eq!(compare_with_last_run(5, 6_000_000, None), grown);
        assert_eq!(compare_with_last_run(5, 6_000_000, Some(Tolerance::Rows(0))), grown);
        assert_eq!(
            compare_with_last_run(500, 400, None),
            Verdict::Tolerated("500 rows expected, 400 found, 100 fewer, within the tolerance of 100 rows".into())
        );
        assert_eq!(
            compare_with_last_run(500, 399, None),
            Verdict::Different("500 rows expected, 399 found, 101 fewer, beyond the tolerance of 100 rows".into())
        );
        let severe =
            |found, tolerance| matches!(compare_with_last_run(10_000, found, tolerance), Verdict::Different(_));
        assert_eq!([severe(9_000, None), severe(8_999, None)], [false, true]);
        assert_eq!([severe(9_999, Some(Tolerance::Rows(0))), severe(0, Some(Tolerance::ALL))], [true, false]);
        let emptied = "60 rows expected, 0 found, 60 fewer, within the tolerance of 100 rows";
        assert_eq!(compare_with_last_run(60, 0, None), Verdict::Emptied(emptied.into()));
    }

    #[test]
    fn only_what_was_asked_for_lets_a_table_go() {
        assert!(!may_be_gone(5, None), "the floor is for rows");
        assert!(!may_be_gone(500, Some(Tolerance::Rows(499))));
        assert!(!may_be_gone(0, Some(Tolerance::Rows(0))));
        assert!(may_be_gone(0, Some(Tolerance::ALL)) && may_be_gone(500, Some(Tolerance::ALL)));
    }
}
