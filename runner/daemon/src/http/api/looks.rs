//! What changes nothing.
use std::ops::Bound;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use drill::id::{DrillName, RunId, Sha256Digest};
use drill::ledger::Stamped;
use drill::port::RunSummary;
use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;
use jiff::Timestamp;
use serde::Deserialize;
use utoipa::IntoParams;

use super::model::{DrillState, Drills, FileProblems, Fire, Fires, OpenAlerts, QuarantineList, RunReport, Runs};
use super::{Answer, Json};
use crate::cli::report::{Report, json};
use crate::evidence;
use crate::fires;
use crate::http::Shared;
use crate::http::problem::Problem;

/// Entries of one page, unless fewer are asked for.
const PAGE: u32 = 200;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DrillsQuery {
    /// `next` of the page before.
    after: Option<String>,
    /// At most so many, up to 200.
    limit: Option<u32>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct NextQuery {
    /// Only of this drill.
    drill: Option<String>,
    /// At most so many, up to 10,000; 200 unless it says.
    limit: Option<u32>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RunsQuery {
    /// Only runs of this drill.
    drill: Option<String>,
    /// `next` of the page before.
    before: Option<String>,
    /// At most so many, up to 200.
    limit: Option<u32>,
}

/// Drills by name.
#[utoipa::path(get, path = "/api/v1/drills", params(DrillsQuery),
    responses((status = 200, body = Drills), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn drills(
    State(shared): State<Shared>,
    query: Result<Query<DrillsQuery>, QueryRejection>,
) -> Answer<Drills> {
    let Query(query) = query?;
    let after = query.after.map(|after| after.parse::<DrillName>().map_err(|_| bad_cursor(&after))).transpose()?;
    let limit = size(query.limit);
    let view = shared.app.dispatcher.view();
    let now = Timestamp::now();
    let from = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
    let mut rest = view.drills.range::<DrillName, _>((from, Bound::Unbounded));
    let drills: Vec<DrillState> = rest
        .by_ref()
        .take(limit)
        .map(|(name, drill)| DrillState::of(name, drill, shared.worries.of(name, drill, now)))
        .collect();
    let next = rest.next().and(drills.last()).map(|drill| drill.name.clone());
    Ok(Json(Drills { drills, next, stopping: view.stopping }))
}

/// One drill.
#[utoipa::path(get, path = "/api/v1/drills/{drill}", params(("drill" = String, Path, description = "Its name")),
    responses((status = 200, body = DrillState), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn drill(
    State(shared): State<Shared>,
    path: Result<Path<DrillName>, PathRejection>,
) -> Answer<DrillState> {
    let Path(name) = path?;
    let view = shared.app.dispatcher.view();
    let drill = view.drills.get(&name).ok_or_else(|| no_such_drill(&name))?;
    Ok(Json(DrillState::of(&name, drill, shared.worries.of(&name, drill, Timestamp::now()))))
}

/// When drills run next, soonest first; one that is due often is there often.
#[utoipa::path(get, path = "/api/v1/next", params(NextQuery),
    responses((status = 200, body = Fires), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn next(
    State(shared): State<Shared>,
    query: Result<Query<NextQuery>, QueryRejection>,
) -> Answer<Fires> {
    let Query(query) = query?;
    let limit = query.limit.unwrap_or(PAGE).clamp(1, fires::MOST);
    let only = query.drill.as_deref().map(named).transpose()?;
    let view = shared.app.dispatcher.view();
    if let Some(name) = only.as_ref().filter(|name| !view.drills.contains_key(*name)) {
        return Err(no_such_drill(name));
    }
    let drills = view.drills.iter().filter(|(name, _)| only.as_ref().is_none_or(|only| only == *name));
    let next = drills.filter_map(|(_, drill)| Some((drill.drill.as_ref(), drill.next?)));
    let next = fires::first(next, usize::try_from(limit).unwrap_or(usize::MAX))?;
    Ok(Json(Fires { next: next.into_iter().map(Fire::from).collect() }))
}

/// Runs, newest first.
#[utoipa::path(get, path = "/api/v1/runs", params(RunsQuery),
    responses((status = 200, body = Runs), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn runs(
    State(shared): State<Shared>,
    query: Result<Query<RunsQuery>, QueryRejection>,
) -> Answer<Runs> {
    let Query(query) = query?;
    let drill = match &query.drill {
        Some(name) => Some(named(name)?),
        None => None,
    };
    let (runs, next) = page_of_runs(&shared, drill.as_ref(), query.before.as_deref(), size(query.limit)).await?;
    Ok(Json(Runs { runs: runs.into_iter().map(Into::into).collect(), next }))
}

fn named(drill: &str) -> Result<DrillName, Problem> {
    drill.parse().map_err(|error: drill::id::BadName| {
        let advice = "`/api/v1/drills` lists the drills";
        Problem::new(StatusCode::BAD_REQUEST, "bad-query", error.to_string(), advice)
    })
}

/// One page, and where the next one begins.
pub(in crate::http) async fn page_of_runs(
    shared: &Shared,
    drill: Option<&DrillName>,
    before: Option<&str>,
    size: usize,
) -> Result<(Vec<RunSummary>, Option<String>), Problem> {
    // One more says whether there is more.
    let limit = u32::try_from(size).unwrap_or(PAGE) + 1;
    let mut runs = match before {
        None => shared.app.store.runs(drill, limit).await?,
        Some(cursor) => {
            let (started, run) = read_cursor(cursor).ok_or_else(|| bad_cursor(cursor))?;
            shared.app.store.older_runs(drill, (started, &run), limit).await?
        }
    };
    let more = runs.len() > size;
    runs.truncate(size);
    let next = runs.last().filter(|_| more).map(|run| format!("{}_{}", run.started, run.run));
    Ok((runs, next))
}

/// One run, in the words of evidence.
#[utoipa::path(get, path = "/api/v1/runs/{run}", params(("run" = String, Path, description = "Its id")),
    responses((status = 200, body = RunReport), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn run(State(shared): State<Shared>, path: Result<Path<RunId>, PathRejection>) -> Answer<RunReport> {
    let report = Report::of(&run_events(&shared, &path?.0).await?)?;
    let report = serde_json::from_value(json::value(&report)?)
        .map_err(|error| Stop::internal(format!("the report of a run is not as documented: {error}")))?;
    Ok(Json(report))
}

/// The signed evidence of a run: a DSSE envelope.
#[utoipa::path(get, path = "/api/v1/runs/{run}/evidence", params(("run" = String, Path, description = "Its id")),
    responses((status = 200, content_type = "application/json", body = Object),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn evidence(
    State(shared): State<Shared>,
    path: Result<Path<RunId>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(run) = path?;
    let report = Report::of(&run_events(&shared, &run).await?)?;
    let Some((file, digest, _)) = report.state.evidence else {
        let advice = "evidence is written when a run ends; `muster reap` writes it where a run was cut off";
        return Err(Problem::new(StatusCode::NOT_FOUND, "no-evidence", format!("{run} has no evidence yet"), advice));
    };
    // What the ledger says, and nothing that a request could say.
    let shown = file.clone();
    let read = tokio::task::spawn_blocking(move || evidence::read(file.as_ref())).await;
    let bytes = read.or_stop(Reason::Internal, "reading evidence")?.map_err(|error| {
        let advice = "it was moved or deleted after it was written; look for it where evidence is kept";
        Problem::new(StatusCode::GONE, "evidence-gone", format!("{shown}: {error}"), advice)
    })?;
    if Sha256Digest::of(&bytes) != digest {
        let advice = "somebody changed it; `muster evidence verify` says whether its signature still holds";
        let detail = format!("{shown} is not what was written there");
        return Err(Problem::new(StatusCode::GONE, "evidence-changed", detail, advice));
    }
    let name = format!("attachment; filename=\"{run}.dsse.json\"");
    Ok(([(header::CONTENT_TYPE, "application/json".to_owned()), (header::CONTENT_DISPOSITION, name)], bytes)
        .into_response())
}

/// Refused backups.
#[utoipa::path(get, path = "/api/v1/quarantine",
    responses((status = 200, body = QuarantineList), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn quarantine(State(shared): State<Shared>) -> Answer<QuarantineList> {
    let entries = shared.app.store.quarantined().await?;
    Ok(Json(QuarantineList { quarantine: entries.into_iter().map(Into::into).collect() }))
}

/// Drill files that cannot be used as they are.
#[utoipa::path(get, path = "/api/v1/problems",
    responses((status = 200, body = FileProblems), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn problems(State(shared): State<Shared>) -> Answer<FileProblems> {
    let view = shared.app.dispatcher.view();
    Ok(Json(FileProblems { problems: view.files.iter().map(Into::into).collect() }))
}

/// Alerts that are open.
#[utoipa::path(get, path = "/api/v1/alerts",
    responses((status = 200, body = OpenAlerts), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn alerts(State(shared): State<Shared>) -> Answer<OpenAlerts> {
    let alerts = shared.app.store.open_alerts().await?;
    Ok(Json(OpenAlerts { alerts: alerts.into_iter().map(Into::into).collect() }))
}

/// Never empty.
pub(in crate::http) async fn run_events(shared: &Shared, run: &RunId) -> Result<Vec<Stamped>, Problem> {
    let events = shared.app.store.events(run).await?;
    if events.is_empty() {
        let advice = "`/api/v1/runs` lists the runs; old ones are forgotten";
        return Err(Problem::new(StatusCode::NOT_FOUND, "no-such-run", format!("there is no run {run}"), advice));
    }
    Ok(events)
}

pub(in crate::http) fn no_such_drill(name: &DrillName) -> Problem {
    let detail = format!("there is no drill `{name}`");
    Problem::new(StatusCode::NOT_FOUND, "no-such-drill", detail, "`/api/v1/drills` lists the drills")
}

fn size(limit: Option<u32>) -> usize {
    limit.unwrap_or(PAGE).clamp(1, PAGE) as usize
}

fn read_cursor(cursor: &str) -> Option<(Timestamp, RunId)> {
    let (started, run) = cursor.split_once('_')?;
    Some((started.parse().ok()?, run.parse().ok()?))
}

fn bad_cursor(given: &str) -> Problem {
    let detail = format!("`{given}` is not where a page begins");
    Problem::new(StatusCode::BAD_REQUEST, "bad-cursor", detail, "use `next` of the page before, as it is")
}
