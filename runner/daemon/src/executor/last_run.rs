//! What the last passed run of a drill counted, for backups that carry no baseline. It is told by the check itself as findings,
//! and so is in the ledger and the evidence already.
use std::collections::BTreeMap;

use drill::finding::Finding;
use drill::id::{DrillName, RunId};
use drill::ledger::{Event, Stamped};
use drill::port::Store;
use drill::stop::Stop;
use drill::verdict::Verdict;
use serde_json::{Value, json};

/// What the check calls such findings.
const COUNTS: &str = "counts";
/// Runs that are looked through.
const LOOKED_AT: u32 = 50;

/// The run and its counts as the check's option `lastRun`; None where no run passed yet.
pub(super) async fn counts(
    store: &dyn Store,
    drill: &DrillName,
    now: &RunId,
    check: &str,
) -> Result<Option<Value>, Stop> {
    let runs = store.runs(Some(drill), LOOKED_AT).await?;
    let passed = runs.into_iter().find(|run| run.verdict == Some(Verdict::Passed) && run.run != *now);
    let Some(passed) = passed else { return Ok(None) };
    let databases = told(&store.events(&passed.run).await?, check);
    Ok((!databases.is_empty()).then(|| json!({ "run": passed.run, "databases": databases })))
}

fn told(events: &[Stamped], check: &str) -> BTreeMap<String, BTreeMap<String, u64>> {
    let mut databases: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    for stamped in events {
        let Event::Finding(Finding { source, database: Some(database), subject, details, .. }) = &stamped.event else {
            continue;
        };
        if source == check && subject == COUNTS {
            let counts = details.iter().filter_map(|(table, rows)| Some((table.clone(), rows.parse().ok()?)));
            databases.entry(database.clone()).or_default().extend(counts);
        }
    }
    databases
}

#[cfg(test)]
mod tests {
    use drill::finding::Severity;

    use super::*;

    #[test]
    fn only_counts_of_the_check_itself_are_taken() {
        let finding = |source: &str, subject: &str, rows: &str| Stamped {
            sequence: 1,
            at: jiff::Timestamp::UNIX_EPOCH,
            event: Event::Finding(Finding {
                source: source.to_owned(),
                database: Some("shop".to_owned()),
                severity: Severity::Info,
                subject: subject.to_owned(),
                message: String::new(),
                details: vec![("public.orders".to_owned(), rows.to_owned())],
            }),
        };
        let events =
            [finding("rows", "counts", "12"), finding("other", "counts", "13"), finding("rows", "public.orders", "14")];
        assert_eq!(told(&events, "rows")["shop"]["public.orders"], 12);
        assert!(told(&[finding("rows", "counts", "-1")], "rows")["shop"].is_empty());
        assert!(told(&events[1..], "rows").is_empty());
    }
}
