//! What an operator asks for.
use axum::Extension;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use drill::id::{DrillName, RunId, Sha256Digest};
use drill::ledger::Damage;
use serde::Deserialize;
use utoipa::IntoParams;

use super::model::{Released, Started};
use super::{Answer, Json};
use crate::dispatcher::{CancelError, StartError};
use crate::http::Shared;
use crate::http::guard::Caller;
use crate::http::problem::Problem;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct StartQuery {
    /// Damage a copy of the backup like this, which the drill must notice; such as `byte` or `baseline-rows`.
    self_test: Option<String>,
}

/// Runs a drill now, whatever its schedule says. Answers when the run was claimed; it goes on.
#[utoipa::path(post, path = "/api/v1/drills/{drill}/runs",
    params(("drill" = String, Path, description = "Its name"), StartQuery),
    responses((status = 202, body = Started), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn start(
    State(shared): State<Shared>,
    Extension(Caller(by)): Extension<Caller>,
    path: Result<Path<DrillName>, PathRejection>,
    query: Result<Query<StartQuery>, QueryRejection>,
) -> Result<impl IntoResponse, Problem> {
    let (Path(drill), Query(query)) = (path?, query?);
    let self_test = query.self_test.as_deref().map(damage).transpose()?;
    let shown = self_test.map(Damage::as_str);
    tracing::info!(drill = drill.as_str(), self_test = shown, by, "somebody starts a drill");
    let run = shared.app.dispatcher.start(drill, self_test, by).await?;
    let location = [(header::LOCATION, format!("/api/v1/runs/{run}"))];
    Ok((StatusCode::ACCEPTED, location, Json(Started { run: run.to_string() })))
}

/// Ends a run. Its teardown goes on after the answer; its events say when it has ended.
#[utoipa::path(post, path = "/api/v1/runs/{run}/cancel", params(("run" = String, Path, description = "Its id")),
    responses((status = 202, body = Started), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn cancel(
    State(shared): State<Shared>,
    Extension(Caller(by)): Extension<Caller>,
    path: Result<Path<RunId>, PathRejection>,
) -> Result<impl IntoResponse, Problem> {
    let Path(run) = path?;
    shared.app.dispatcher.cancel(run.clone(), by).await?;
    Ok((StatusCode::ACCEPTED, Json(Started { run: run.to_string() })))
}

/// Lets runs use a refused backup again. It repairs nothing: the next run verifies the backup as any other.
#[utoipa::path(post, path = "/api/v1/quarantine/{digest}/release",
    params(("digest" = String, Path, description = "SHA-256 of the backup's manifest, such as `sha256:3fb1…`")),
    responses((status = 200, body = Released), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn release(
    State(shared): State<Shared>,
    Extension(Caller(by)): Extension<Caller>,
    path: Result<Path<Sha256Digest>, PathRejection>,
) -> Answer<Released> {
    let Path(digest) = path?;
    let released = shared.app.store.release_quarantine(digest, &by).await?;
    if released == 0 {
        let detail = format!("{digest} is not in quarantine");
        let advice = "`/api/v1/quarantine` lists what is";
        return Err(Problem::new(StatusCode::NOT_FOUND, "not-in-quarantine", detail, advice));
    }
    tracing::info!(%digest, by, released, "a backup was released from quarantine");
    Ok(Json(Released { released }))
}

fn damage(named: &str) -> Result<Damage, Problem> {
    Damage::ALL.into_iter().find(|damage| damage.as_str() == named).ok_or_else(|| {
        let detail = format!("there is no damage `{named}`");
        let advice = format!("there are {}", Damage::ALL.map(Damage::as_str).join(", "));
        Problem::new(StatusCode::BAD_REQUEST, "bad-query", detail, advice)
    })
}

impl From<StartError> for Problem {
    fn from(error: StartError) -> Self {
        let (status, kind, advice) = match &error {
            StartError::NoSuchDrill(_) => (
                StatusCode::NOT_FOUND,
                "no-such-drill",
                "`/api/v1/drills` lists the drills; a file that is no drill yet is run with `muster run FILE`",
            ),
            StartError::Running { .. } => {
                (StatusCode::CONFLICT, "already-running", "wait until that run has ended, or cancel it")
            }
            StartError::CannotNotice { .. } => (
                StatusCode::CONFLICT,
                "nothing-to-notice-with",
                "it needs a backup with a manifest, and for damage of the baseline the check that compares with it",
            ),
            StartError::NoSlot => (
                StatusCode::CONFLICT,
                "no-slot",
                "wait until a run has ended, or raise `concurrency` in the configuration",
            ),
            StartError::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping", "start it again when muster is back"),
            StartError::Refused(stop) => {
                let advice = stop.advice.as_deref().unwrap_or("the daemon's log says more");
                (StatusCode::CONFLICT, "not-begun", advice)
            }
        };
        Self::new(status, kind, error.to_string(), advice)
    }
}

impl From<CancelError> for Problem {
    fn from(error: CancelError) -> Self {
        let (status, kind, advice) = match &error {
            CancelError::NotRunning(_) => (
                StatusCode::CONFLICT,
                "not-running",
                "only a run that this daemon runs can be cancelled; see `/api/v1/runs`",
            ),
            CancelError::Gone => (StatusCode::SERVICE_UNAVAILABLE, "stopping", "look again when muster is back"),
        };
        Self::new(status, kind, error.to_string(), advice)
    }
}
