//! The page: what is proven, what failed, what runs, what is next. Rendered here, readable without scripts; one small script of
//! its own shows the progress of a run. What changes something is a command that the page names, never a button: a browser
//! cannot be trusted with it.
mod chart;
mod drill;
mod drills;
mod quarantine;
mod run;
pub(super) mod worry;

use std::time::Duration;

use ::drill::unit;
use askama::Template;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use jiff::Timestamp;

use super::Shared;
use super::problem::Problem;
use crate::cli::report::html::rendered;

pub(super) fn router() -> Router<Shared> {
    Router::new()
        .route("/", get(drills::page))
        .route("/drills/{drill}", get(drill::page))
        .route("/runs/{run}", get(run::page))
        .route("/quarantine", get(quarantine::page))
        .route("/assets/style.css", get(|| async { asset("text/css", include_str!("../../../assets/style.css")) }))
        .route("/assets/live.js", get(|| async { asset("text/javascript", include_str!("../../../assets/live.js")) }))
        .route("/assets/icon.svg", get(|| async { asset("image/svg+xml", include_str!("../../../assets/icon.svg")) }))
}

fn asset(kind: &'static str, text: &'static str) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, format!("{kind}; charset=utf-8"))], text)
}

type Page = Result<Html<String>, Failure>;

fn html(page: &impl Template) -> Page {
    Ok(Html(rendered(page).map_err(Problem::from)?))
}

/// A problem, for people.
struct Failure(Problem);

impl<T: Into<Problem>> From<T> for Failure {
    fn from(problem: T) -> Self {
        Self(problem.into())
    }
}

#[derive(Template)]
#[template(path = "page/problem.html")]
struct ProblemPage<'a> {
    problem: &'a Problem,
    at: String,
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        match rendered(&ProblemPage { problem: &self.0, at: now() }) {
            Ok(page) => (status, Html(page)).into_response(),
            Err(_) => self.0.into_response(),
        }
    }
}

/// For the foot of a page.
fn now() -> String {
    crate::cli::style::time(Timestamp::now())
}

/// A time as a person thinks of it, and as it is.
struct When {
    words: String,
    /// RFC 3339.
    exact: String,
}

impl When {
    fn ago(at: Timestamp, now: Timestamp) -> Self {
        let words = match Duration::try_from(now.duration_since(at)) {
            Ok(ago) if ago >= Duration::from_secs(1) => format!("{} ago", about(ago)),
            _ => "just now".to_owned(),
        };
        Self { words, exact: exact(at) }
    }

    fn ahead(at: Timestamp, now: Timestamp) -> Self {
        let words = match Duration::try_from(at.duration_since(now)) {
            Ok(ahead) if ahead >= Duration::from_secs(1) => format!("in {}", about(ahead)),
            _ => "now".to_owned(),
        };
        Self { words, exact: exact(at) }
    }
}

fn exact(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The largest unit alone: `6 h`.
fn about(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} m", seconds / 60),
        3_600..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

fn count(number: usize, noun: &str) -> String {
    unit::plural(u64::try_from(number).unwrap_or(u64::MAX), noun)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_as_people_think_of_them() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().expect("a time");
        let ago = |at: &str| When::ago(at.parse().expect("a time"), now).words;
        assert_eq!(ago("2026-11-22T05:48:00Z"), "6 h ago");
        assert_eq!(ago("2026-11-22T11:59:59.5Z"), "just now");
        assert_eq!(ago("2026-11-22T12:00:05Z"), "just now");
        assert_eq!(ago("2026-10-22T12:00:00Z"), "31 d ago");
        assert_eq!(When::ahead("2026-11-22T12:05:10Z".parse().expect("a time"), now).words, "in 5 m");
    }
}
