//! What the last passed run of a drill counted, for backups that carry no baseline. It is told by the check itself as findings,
//! and so is in the ledger and the evidence already.
use std::collections::BTreeMap;

use drill::finding::Finding;
use drill::ledger::{Event, RunStarted, Stamped, Trigger};
use drill::port::{RunSummary, Store};
use drill::stop::Stop;
use drill::verdict::Verdict;
use serde_json::{Value, json};

/// What the check calls such findings.
const COUNTS: &str = "counts";
/// Runs that are looked through.
const LOOKED_AT: u32 = 50;

/// The run and its counts as the check's option `lastRun`; None where no such run passed yet. Only runs of the same drill file
/// count: without one, a drill is called after its dump, and `/a/latest.dump` and `/b/latest.dump` share the name only.
pub(super) async fn counts(store: &dyn Store, now: &RunStarted, check: &str) -> Result<Option<Value>, Stop> {
    let runs = store.runs(Some(&now.drill), LOOKED_AT).await?;
    let counts = |run: &RunSummary| {
        run.verdict == Some(Verdict::Passed) && run.run != now.run && !matches!(run.trigger, Trigger::SelfTest { .. })
    };
    for run in runs.into_iter().filter(counts) {
        let events = store.events(&run.run).await?;
        if is_of(&events, &now.drill_file) {
            let databases = told(&events, check);
            return Ok((!databases.is_empty()).then(|| json!({ "run": run.run, "databases": databases })));
        }
    }
    Ok(None)
}

fn is_of(events: &[Stamped], drill_file: &str) -> bool {
    let started = events.iter().find_map(|stamped| match &stamped.event {
        Event::Started(started) => Some(started),
        _ => None,
    });
    started.is_some_and(|started| started.drill_file == drill_file)
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
