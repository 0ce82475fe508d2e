//! JSON for programs, beneath `/api/v1`. Names and units are those of `muster … --output json`.
//!
//! [`routes`] is the one list of what there is; a test compares it with what the documentation says.
mod changes;
mod document;
mod events;
mod looks;
pub(super) use events::is_running;
pub(super) use looks::{no_such_drill, page_of_runs, run_events};
pub(super) mod model;

use axum::Router;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::handler::Handler;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use drill::stop::Stop;
use serde::Serialize;

use super::Shared;
use super::problem::Problem;
use crate::cli::style::clean_json;

pub(super) fn router() -> Router<Shared> {
    routes().into_iter().fold(Router::new(), |router, route| router.route(route.path, route.methods))
}

/// One method of one path.
pub(super) struct Route {
    /// Both are what the documentation must have.
    pub(super) path: &'static str,
    #[cfg_attr(not(test), expect(dead_code, reason = "a test compares it with the documentation"))]
    pub(super) method: &'static str,
    methods: MethodRouter<Shared>,
}

pub(super) fn routes() -> Vec<Route> {
    vec![
        look("/api/v1/drills", looks::drills),
        look("/api/v1/drills/{drill}", looks::drill),
        change("/api/v1/drills/{drill}/runs", changes::start),
        look("/api/v1/next", looks::next),
        look("/api/v1/runs", looks::runs),
        look("/api/v1/runs/{run}", looks::run),
        change("/api/v1/runs/{run}/cancel", changes::cancel),
        look("/api/v1/runs/{run}/events", events::of_run),
        look("/api/v1/runs/{run}/evidence", looks::evidence),
        look("/api/v1/events", events::all),
        look("/api/v1/quarantine", looks::quarantine),
        change("/api/v1/quarantine/{digest}/release", changes::release),
        look("/api/v1/problems", looks::problems),
        look("/api/v1/alerts", looks::alerts),
        look("/api/v1/openapi.json", document::openapi),
    ]
}

fn look<T: 'static>(path: &'static str, handler: impl Handler<T, Shared>) -> Route {
    Route { path, method: "get", methods: get(handler) }
}

fn change<T: 'static>(path: &'static str, handler: impl Handler<T, Shared>) -> Route {
    Route { path, method: "post", methods: post(handler) }
}

type Answer<T> = Result<Json<T>, Problem>;

/// JSON that a terminal can show as it is.
pub(super) struct Json<T>(pub(super) T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_string(&self.0) {
            Ok(json) => {
                let kind = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
                ([kind], clean_json(&json)).into_response()
            }
            Err(error) => Problem::from(Stop::internal(format!("an answer is no JSON: {error}"))).into_response(),
        }
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        let advice =
            "names of drills and runs are lower-case letters, digits and `-`; a digest is `sha256:` and 64 digits";
        Self::new(StatusCode::NOT_FOUND, "not-found", rejection.body_text(), advice)
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        let advice = "`/api/v1/openapi.json` says what can be asked for";
        Self::new(StatusCode::BAD_REQUEST, "bad-query", rejection.body_text(), advice)
    }
}
