//! `/drills/NAME`: how its recovery time went, and its runs.
use ::drill::id::DrillName;
use ::drill::ledger::Trigger;
use ::drill::port::RunSummary;
use ::drill::spec::Source;
use ::drill::unit;
use ::drill::verdict::{Leftovers, Verdict};
use askama::Template;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use jiff::Timestamp;
use serde::Deserialize;

use super::chart::{Chart, chart, shown};
use super::drills::Row;
use super::worry::reason;
use super::{Page, html, now};
use crate::cli::style::{Mark, time};
use crate::http::Shared;
use crate::http::api::{no_such_drill, page_of_runs};

/// Runs of one page.
const PAGE: usize = 50;
/// Runs in the chart.
const CHARTED: u32 = 100;

#[derive(Deserialize)]
pub(super) struct Asked {
    before: Option<String>,
}

#[derive(Template)]
#[template(path = "page/drill.html")]
struct DrillPage<'a> {
    at: String,
    row: Row,
    facts: Vec<(&'static str, String)>,
    chart: Option<Chart>,
    from: String,
    to: String,
    objective: Option<String>,
    runs: Vec<RunRow>,
    older: Option<&'a str>,
    is_first: bool,
}

struct RunRow {
    run: String,
    started: String,
    mark: Mark,
    verdict: &'static str,
    why: Option<&'static str>,
    recovery: String,
    trigger: String,
    leftovers: bool,
}

pub(super) async fn page(
    State(shared): State<Shared>,
    path: Result<Path<DrillName>, PathRejection>,
    query: Result<Query<Asked>, QueryRejection>,
) -> Page {
    let (Path(name), Query(asked)) = (path?, query?);
    let view = shared.app.dispatcher.view();
    let drill = view.drills.get(&name).ok_or_else(|| no_such_drill(&name))?;
    let now_at = Timestamp::now();
    let newest = shared.app.store.runs(Some(&name), CHARTED).await?;
    let (runs, older) = page_of_runs(&shared, Some(&name), asked.before.as_deref(), PAGE).await?;
    let timed = || newest.iter().filter(|run| run.recovery_time_milliseconds.is_some());
    let objectives = &drill.drill.objectives;
    let mut facts = Vec::new();
    if let Some(schedule) = &drill.drill.schedule {
        facts.push(("Schedule", format!("{} in {}", schedule.cron, schedule.timezone)));
    }
    if let Some(next) = drill.next {
        facts.push(("Next", time(next.starts)));
    }
    let source = match &drill.drill.source {
        Source::Manifest { path, .. } => path.clone(),
        Source::Dump(dump) => dump.path.clone(),
    };
    facts.push(("Backup", source));
    let words = |objective: Option<std::time::Duration>| objective.map_or("none".to_owned(), unit::duration);
    facts.push(("Recovery time objective", words(objectives.recovery_time)));
    facts.push(("Recovery point objective", words(objectives.recovery_point)));
    facts.push(("Checks", drill.drill.checks.iter().map(|check| check.name.as_str()).collect::<Vec<_>>().join(", ")));
    facts.push(("Drill file", drill.file.display().to_string()));
    if !drill.drill.labels.is_empty() {
        let labels: Vec<_> = drill.drill.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        facts.push(("Labels", labels.join(", ")));
    }
    let worry = shared.worries.of(&name, drill, now_at);
    html(&DrillPage {
        at: now(),
        row: Row::of(worry, &name, drill, None, now_at),
        facts,
        chart: chart(&newest, objectives.recovery_time, 640, 180),
        from: timed().next_back().map(|run| time(run.started)).unwrap_or_default(),
        to: timed().next().map(|run| time(run.started)).unwrap_or_default(),
        objective: objectives.recovery_time.map(unit::duration),
        runs: runs.iter().map(RunRow::of).collect(),
        older: older.as_deref(),
        is_first: asked.before.is_none(),
    })
}

impl RunRow {
    fn of(run: &RunSummary) -> Self {
        let (mark, verdict) = match (run.verdict, run.ended) {
            (Some(verdict), _) => (Mark::from(verdict), verdict.as_str()),
            (None, None) => (Mark::None, "not ended"),
            (None, Some(_)) => (Mark::Unsure, "no verdict"),
        };
        Self {
            run: run.run.to_string(),
            started: time(run.started),
            mark,
            verdict,
            why: run.reason.filter(|_| run.verdict != Some(Verdict::Passed)).map(reason),
            recovery: run.recovery_time_milliseconds.map_or_else(|| "-".to_owned(), shown),
            trigger: trigger(&run.trigger),
            leftovers: run.ended.is_some() && run.leftovers == Leftovers::Some,
        }
    }
}

/// Why a run began.
pub(super) fn trigger(trigger: &Trigger) -> String {
    match trigger {
        Trigger::Command => "by command".to_owned(),
        Trigger::Schedule { scheduled_for } => format!("by schedule, due {}", time(*scheduled_for)),
        Trigger::Operator { by } => format!("asked for by {by}"),
        Trigger::SelfTest { damage, .. } => format!("self-test: damaged {}", damage.as_str()),
    }
}
