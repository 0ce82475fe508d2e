//! What a scan that was not as expected means, in words.
use muster_check::digest::Mismatch;
use muster_check::sql::{Error, describe};
use muster_check::text::{count, plural};

/// Blocks of a table that are told one by one.
const TOLD: usize = 3;

/// How many blocks, and what the host gave of the first of them.
pub(crate) struct Difference {
    pub blocks: u64,
    pub blocks_different: u64,
    /// One more than is told at most is enough.
    pub first: Vec<Mismatch>,
}

impl Difference {
    /// Blocks of a difference that [`Self::message`] and [`Self::details`] look at.
    pub(crate) const ASKED: usize = TOLD;

    pub(crate) fn message(&self) -> String {
        let noun = if self.first.first().is_some_and(|block| block.keys.is_none()) { "bucket" } else { "block" };
        let verb = if self.blocks_different == 1 { "differs" } else { "differ" };
        match self.blocks_different {
            0 => return format!("the digest of {} differs, and no {noun} of them does", plural(self.blocks, noun)),
            _ if self.first.is_empty() => return format!("{} {verb}", self.of(noun)),
            1 => return format!("{} {verb}, {}", self.of(noun), words(&self.first[0])),
            _ => {}
        }
        let told: Vec<String> = self.first.iter().take(TOLD).map(words).collect();
        let more = match self.blocks_different.saturating_sub(told.len() as u64) {
            0 => String::new(),
            more => format!("; and {} more", count(more)),
        };
        format!("{} {verb}: {}{more}", self.of(noun), told.join("; "))
    }

    fn of(&self, noun: &str) -> String {
        format!("{} of {}", count(self.blocks_different), plural(self.blocks, noun))
    }

    /// Keys of the first blocks, where blocks have any.
    pub(crate) fn details(&self) -> Vec<(String, String)> {
        let keys: Vec<String> = self.first.iter().take(TOLD).filter_map(keys).collect();
        let mut details = vec![
            ("blocks".to_owned(), self.blocks.to_string()),
            ("blocksDifferent".to_owned(), self.blocks_different.to_string()),
        ];
        if !keys.is_empty() {
            details.push(("firstKeys".to_owned(), keys.join("; ")));
        }
        details
    }
}

fn words(block: &Mismatch) -> String {
    let mut words: Vec<String> = keys(block).into_iter().collect();
    words.push(if block.rows_expected == block.rows_found {
        format!("{} expected and found", plural(block.rows_expected, "row"))
    } else {
        format!("{} expected, {} found", plural(block.rows_expected, "row"), count(block.rows_found))
    });
    words.extend(block.rows_different.map(|rows| {
        let verb = if rows == 1 { "differs" } else { "differ" };
        format!("{} {verb}", plural(rows, "row"))
    }));
    words.join(", ")
}

/// None for a bucket, and for a block that holds whatever key there may be.
fn keys(block: &Mismatch) -> Option<String> {
    const OPEN: &str = "-";
    let (first, last) = block.keys.as_ref()?;
    match (first.as_str(), last.as_str()) {
        (OPEN, OPEN) => None,
        (OPEN, last) => Some(format!("keys up to {last}")),
        (first, OPEN) => Some(format!("keys from {first}")),
        (first, last) if first == last => Some(format!("key {first}")),
        (first, last) => Some(format!("keys {first} to {last}")),
    }
}

/// What it means that a table could not be scanned.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The restored table is to blame.
    Found(String),
    /// It may not be read: nothing is known of this table.
    Unread(String),
    /// Nothing is known, and the next table would fare no better.
    Trouble(String),
}

pub(crate) fn refusal(error: &Error) -> Refusal {
    let what = describe(error);
    match error.code.as_deref() {
        Some("42P01" | "3F000") => Refusal::Found("the table is missing".to_owned()),
        Some("42703") => Refusal::Found(format!("a column that the backup had is missing: {what}")),
        // 55000: a matview that was restored without data. Class XX: the server found damage.
        Some(code) if code == "55000" || code.starts_with("XX") => {
            Refusal::Found(format!("the table cannot be read: {what}"))
        }
        Some("42501") => Refusal::Unread(what),
        _ => Refusal::Trouble(what),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(keys: Option<(&str, &str)>, expected: u64, found: u64, different: Option<u64>) -> Mismatch {
        Mismatch {
            keys: keys.map(|(first, last)| (first.to_owned(), last.to_owned())),
            rows_expected: expected,
            rows_found: found,
            rows_different: different,
            details: Vec::new(),
        }
    }

    fn message(blocks: u64, blocks_different: u64, first: Vec<Mismatch>) -> String {
        Difference { blocks, blocks_different, first }.message()
    }

    #[test]
    fn one_block_says_where_to_look() {
        for (keys, expected, found, different, words) in [
            (
                Some(("48129", "49152")),
                1024,
                1024,
                None,
                "block differs, keys 48129 to 49152, 1,024 rows expected and found",
            ),
            (
                Some(("48129", "49152")),
                1024,
                1023,
                None,
                "block differs, keys 48129 to 49152, 1,024 rows expected, 1,023 found",
            ),
            (Some(("1", "9")), 9, 9, Some(3), "block differs, keys 1 to 9, 9 rows expected and found, 3 rows differ"),
            (
                Some(("-", "1000")),
                1,
                1,
                Some(1),
                "block differs, keys up to 1000, 1 row expected and found, 1 row differs",
            ),
            (Some(("5001", "-")), 0, 2, None, "block differs, keys from 5001, 0 rows expected, 2 found"),
            (Some(("-", "-")), 2, 0, None, "block differs, 2 rows expected, 0 found"),
            (Some(("-7", "-7")), 2, 0, None, "block differs, key -7, 2 rows expected, 0 found"),
            (None, 1000, 999, None, "bucket differs, 1,000 rows expected, 999 found"),
        ] {
            let words = format!("1 of 1 {words}");
            assert_eq!(message(1, 1, vec![block(keys, expected, found, different)]), words);
        }
    }

    #[test]
    fn of_several_blocks_the_first_are_told() {
        let blocks =
            |keys: &[(&str, &str)]| keys.iter().map(|keys| block(Some(*keys), 10, 9, None)).collect::<Vec<_>>();
        assert_eq!(
            message(977, 2, blocks(&[("1", "10"), ("31", "40")])),
            "2 of 977 blocks differ: keys 1 to 10, 10 rows expected, 9 found; keys 31 to 40, 10 rows expected, 9 found"
        );
        let many = blocks(&[("1", "2"), ("3", "4"), ("5", "6"), ("7", "8")]);
        let told = message(12_000, 11_004, many);
        assert!(told.starts_with("11,004 of 12,000 blocks differ: keys 1 to 2, "), "{told}");
        assert!(told.ends_with("keys 5 to 6, 10 rows expected, 9 found; and 11,001 more"), "{told}");
    }

    #[test]
    fn what_the_host_did_not_give_is_not_invented() {
        assert_eq!(message(977, 5, Vec::new()), "5 of 977 blocks differ");
        assert_eq!(message(977, 0, Vec::new()), "the digest of 977 blocks differs, and no block of them does");
        let hidden = Difference { blocks: 9, blocks_different: 1, first: vec![block(None, 1, 2, None)] };
        let details = [("blocks".to_owned(), "9".to_owned()), ("blocksDifferent".to_owned(), "1".to_owned())];
        assert_eq!(hidden.details(), details);
    }

    #[test]
    fn a_refusal_is_told_by_its_code() {
        use muster_check::bindings::muster::check::values::Blame;
        let refused = |code: Option<&str>| {
            let code = code.map(str::to_owned);
            refusal(&Error { blame: Blame::Plugin, code, message: "no".to_owned(), details: Vec::new() })
        };
        let found = |text: &str| Refusal::Found(text.to_owned());
        assert_eq!(refused(Some("42P01")), found("the table is missing"));
        assert_eq!(refused(Some("3F000")), found("the table is missing"));
        assert_eq!(refused(Some("42703")), found("a column that the backup had is missing: no (SQLSTATE 42703)"));
        assert_eq!(refused(Some("XX001")), found("the table cannot be read: no (SQLSTATE XX001)"));
        assert_eq!(refused(Some("55000")), found("the table cannot be read: no (SQLSTATE 55000)"));
        assert_eq!(refused(Some("42501")), Refusal::Unread("no (SQLSTATE 42501)".to_owned()));
        assert_eq!(refused(Some("57014")), Refusal::Trouble("no (SQLSTATE 57014)".to_owned()));
        assert_eq!(refused(None), Refusal::Trouble("no".to_owned()));
    }
}
