//! Has the host read every restored table, and compares the digests with those of the backup's baseline.
//!
//! [`options`] is what may be asked for, [`scans`] keeps several tables going, [`words`] says what differs.
mod options;
mod scans;
mod words;

use muster_check::baseline::{self, Table};
use muster_check::digest::{self, Outcome};
use muster_check::report::{self, Finding, Severity};
use muster_check::sql::Error;
use muster_check::text::{count, plural};
use muster_check::{Check, Conclusion, Failure, glob};
use options::Options;
use words::{Difference, Refusal, refusal};

/// Tables that are told one by one: below the number of findings that a check may make unless its drill says otherwise.
const TOLD: u64 = 900;

struct Checksum;

impl Check for Checksum {
    const NAME: &str = "checksum";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &str = "Every row is as when the backup was made.";
    type Options = Options;

    fn run(options: Options) -> Result<Conclusion, Failure> {
        let chosen = match baseline::available().then(|| chosen(&options, baseline::tables().collect())) {
            None => {
                return Ok(inconclusive(
                    "the backup has no baseline of this database: there is nothing to compare with; make backups with `muster \
                 capture`, or leave this check out",
                ));
            }
            Some(Err(why)) => return Ok(Conclusion::Inconclusive(why)),
            Some(Ok(tables)) => tables,
        };
        let with_digest: Vec<&Table> = chosen.iter().filter(|table| table.root.is_some()).collect();
        let without = (chosen.len() - with_digest.len()) as u64;
        if with_digest.is_empty() && without > 0 {
            return Ok(inconclusive(
                "the baseline has no digest of any of these tables: there is nothing to compare with; make backups with \
                 `muster capture --digests all`",
            ));
        }
        if without > 0 {
            let message = format!("the baseline has no digest of {}: not compared", plural(without, "table"));
            report::info("digests", message);
        }
        let mut tally = Tally::default();
        scans::scan_all(&with_digest, options.concurrency, |table, ended| tally.add(table, ended))?;
        Ok(tally.conclude())
    }
}

muster_check::check!(Checksum);

fn inconclusive(why: &str) -> Conclusion {
    Conclusion::Inconclusive(why.to_owned())
}

fn label(table: &Table) -> String {
    format!("{}.{}", table.schema, table.name)
}

/// The tables of the baseline that the options choose, or what is wrong with the options.
fn chosen(options: &Options, mut tables: Vec<Table>) -> Result<Vec<Table>, String> {
    let labels: Vec<String> = tables.iter().map(label).collect();
    for (option, globs) in [("tables", &options.tables), ("except", &options.except)] {
        if let Some(glob) = glob::unmatched(globs, &labels) {
            return Err(format!("`{option}`: `{glob}` matches no table of the baseline"));
        }
    }
    let excepted = |label: &str| !options.except.is_empty() && glob::chooses(&options.except, label);
    tables.retain(|table| glob::chooses(&options.tables, &label(table)) && !excepted(&label(table)));
    if tables.is_empty() && !labels.is_empty() {
        return Err("`except` leaves none of the tables".to_owned());
    }
    Ok(tables)
}

/// What all scans added up to.
#[derive(Default)]
struct Tally {
    tables: u64,
    rows: u64,
    blocks: u64,
    /// Tables that are a failure, told or not.
    different: u64,
    told: u64,
    /// Failures and warnings that were not told.
    untold: [u64; 2],
    /// The tables that may not be read: how many, the first, and why.
    unread: u64,
    first_unread: Option<String>,
}

impl Tally {
    fn add(&mut self, table: &Table, ended: Result<Outcome, Error>) -> Result<(), Failure> {
        match ended {
            Ok(outcome) => self.scanned(table, &outcome),
            Err(error) => match refusal(&error) {
                Refusal::Found(message) => {
                    self.tables += 1;
                    let details = vec![("rowsExpected".to_owned(), table.rows.to_string())];
                    self.tell(table, Severity::Failure, message, details);
                }
                Refusal::Unread(why) => {
                    self.unread += 1;
                    self.first_unread.get_or_insert_with(|| format!("{} may not be read: {why}", label(table)));
                }
                Refusal::Trouble(why) => {
                    return Err(Failure::Other(format!("scanning {} failed: {why}", label(table))));
                }
            },
        }
        Ok(())
    }

    fn scanned(&mut self, table: &Table, outcome: &Outcome) {
        self.tables += 1;
        self.rows = self.rows.saturating_add(outcome.rows());
        self.blocks = self.blocks.saturating_add(outcome.blocks());
        if table.root.as_deref() == Some(outcome.root().as_slice()) && outcome.blocks_different() == 0 {
            return;
        }
        let difference = Difference {
            blocks: outcome.blocks(),
            blocks_different: outcome.blocks_different(),
            first: digest::mismatches(outcome).take(Difference::ASKED).collect(),
        };
        let mut details = vec![
            ("rowsExpected".to_owned(), table.rows.to_string()),
            ("rowsFound".to_owned(), outcome.rows().to_string()),
        ];
        details.extend(difference.details());
        if is_matview(table) {
            let message = format!("{}; a restore refreshes a materialized view", difference.message());
            self.tell(table, Severity::Warning, message, details);
        } else {
            self.tell(table, Severity::Failure, difference.message(), details);
        }
    }

    fn tell(&mut self, table: &Table, severity: Severity, message: String, details: Vec<(String, String)>) {
        self.different += u64::from(severity == Severity::Failure);
        if self.told < TOLD {
            self.told += 1;
            report::add_finding(&Finding { severity, subject: label(table), message, details });
        } else {
            self.untold[usize::from(severity == Severity::Warning)] += 1;
        }
    }

    fn conclude(self) -> Conclusion {
        for (untold, severity) in self.untold.into_iter().zip([Severity::Failure, Severity::Warning]) {
            if untold > 0 {
                let noun = if severity == Severity::Failure { "table" } else { "materialized view" };
                let verb = if untold == 1 { "is" } else { "are" };
                let message = format!("{} beyond these {verb} not as in the backup", plural(untold, noun));
                report::add_finding(&Finding { severity, subject: "more".to_owned(), message, details: Vec::new() });
            }
        }
        match &self.first_unread {
            Some(first) if self.unread == 1 => Conclusion::Inconclusive(format!("{first}; {}", self.summary())),
            Some(first) => {
                let others = plural(self.unread - 1, "other table");
                Conclusion::Inconclusive(format!("{first}, nor may {others}; {}", self.summary()))
            }
            None => Conclusion::Completed(self.summary()),
        }
    }

    fn summary(&self) -> String {
        let [tables, rows, blocks] =
            [(self.tables, "table"), (self.rows, "row"), (self.blocks, "block")].map(|(n, noun)| plural(n, noun));
        match self.different {
            0 => format!("{tables}, {rows}, {blocks}"),
            different => format!("{tables}, {rows}, {blocks}, {} not as in the backup", count(different)),
        }
    }
}

fn is_matview(table: &Table) -> bool {
    table.details.iter().any(|(key, kind)| key == "kind" && kind == "matview")
}
