//! Compares the objects of the restored schema with those of the backup's baseline.
//!
//! [`merge`] brings the two sides together, [`compare`] goes through the pairs, [`expected`] knows what a dump does not keep,
//! [`words`] says what changed; this file asks the host.
mod compare;
mod expected;
mod merge;
mod object;
mod options;
mod words;

use compare::Comparison;
use merge::merge;
use muster_check::catalog::{self, Side};
use muster_check::sql::Error;
use muster_check::{Check, Conclusion, Failure, report, sql};
use object::Object;
use options::{Chosen, Options};

/// Objects between two reports of progress.
const STEP: u64 = 1000;

struct Schema;

impl Check for Schema {
    const NAME: &str = "schema";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &str = "Every object of the schema is as when the backup was made.";
    type Options = Options;

    fn run(options: Options) -> Result<Conclusion, Failure> {
        let expected = match side(Side::Baseline) {
            Ok(objects) => objects,
            Err(error) => {
                let why = sql::describe(&error);
                return Ok(Conclusion::Inconclusive(format!("there is no schema to compare with: {why}")));
            }
        };
        let found = side(Side::Restored).map_err(|error| failed(&error))?;
        let mut comparison = Comparison::new(Chosen::new(options), |finding| report::add_finding(&finding));
        let mut done = 0;
        merge(expected, found, |pair| {
            comparison.pair(&pair);
            done += 1;
            if done % STEP == 0 {
                report::set_progress(done, None, "objects");
            }
        })
        .map_err(|error| failed(&error))?;
        report::set_progress(done, Some(done), "objects");
        Ok(match comparison.finish() {
            Ok(summary) => Conclusion::Completed(summary),
            Err(why) => Conclusion::Inconclusive(why),
        })
    }
}

muster_check::check!(Schema);

fn side(side: Side) -> Result<impl Iterator<Item = Result<Object, Error>>, Error> {
    let objects = catalog::read(side)?;
    Ok(objects.map(|object| {
        object.map(|object| Object { kind: object.kind, identity: object.identity, content: object.content })
    }))
}

fn failed(error: &Error) -> Failure {
    Failure::Other(format!("reading the schema failed: {}", sql::describe(error)))
}
