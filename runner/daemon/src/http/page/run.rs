//! `/runs/RUN`: what happened, findings first, to scale.
use ::drill::evidence::{Facts, Finding};
use ::drill::id::RunId;
use askama::Template;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};

use super::drill::trigger;
use super::{Page, html, now};
use crate::cli::report::html::{Group, Item, Page as ReportPage};
use crate::cli::report::{Report, words};
use crate::cli::style::Mark;
use crate::http::Shared;
use crate::http::api::{is_running, run_events};

#[derive(Template)]
#[template(path = "page/run.html")]
struct RunPage<'a> {
    at: String,
    report: ReportPage<'a>,
    trigger: String,
    /// It goes on, and this is the last event that the page shows.
    live: Option<u64>,
}

impl RunPage<'_> {
    fn details(finding: &Finding) -> String {
        words::details(finding)
    }
}

pub(super) async fn page(State(shared): State<Shared>, path: Result<Path<RunId>, PathRejection>) -> Page {
    let Path(run) = path?;
    let events = run_events(&shared, &run).await?;
    let report = Report::of(&events)?;
    let facts = Facts::of(&report.state);
    let last = events.last().map_or(0, |stamped| stamped.sequence);
    // Others than this daemon's are told of as the ledger has them.
    let live = report.ended.is_none() && is_running(&shared, &run);
    let mut shown = ReportPage::of(&report, &facts);
    if live {
        let phase = report.state.phases.iter().rev().find(|phase| phase.ended.is_none());
        let doing = phase.map(|phase| format!("{} goes on", phase.phase));
        shown.verdict = Item { mark: Mark::None, text: "RUNNING".to_owned(), more: doing.into_iter().collect() };
        shown.next.clear();
    }
    html(&RunPage {
        at: now(),
        report: shown,
        trigger: trigger(&report.state.started.trigger),
        live: live.then_some(last),
    })
}
