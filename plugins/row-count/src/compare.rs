//! What a count means.
use muster_check::text::{count, plural};

use crate::options::Tolerance;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Same,
    /// Not as expected, but near enough: says how far.
    Tolerated(String),
    /// Says what was expected and found.
    Different(String),
}

pub(crate) fn compare(expected: u64, found: u64, tolerance: Tolerance) -> Verdict {
    let difference = expected.abs_diff(found);
    if difference == 0 {
        return Verdict::Same;
    }
    let direction = if found > expected { "more" } else { "fewer" };
    let message =
        format!("{} expected, {} found, {} {direction}", plural(expected, "row"), count(found), count(difference));
    let allowed = tolerance.rows(expected);
    if difference <= allowed {
        Verdict::Tolerated(format!("{message}, within the tolerance of {}", plural(allowed, "row")))
    } else if allowed > 0 {
        Verdict::Different(format!("{message}, beyond the tolerance of {}", plural(allowed, "row")))
    } else {
        Verdict::Different(message)
    }
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
}
