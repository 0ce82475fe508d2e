//! Errors as RFC 9457 (<https://www.rfc-editor.org/rfc/rfc9457>) wants them, with what to do about it.
use axum::http::{HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use drill::stop::Stop;
use serde::Serialize;
use utoipa::ToSchema;

use crate::cli::style::{clean, clean_json};

/// What went wrong and what to do, as `application/problem+json`.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(in crate::http) struct Problem {
    /// Stable; names the kind of problem. Nothing can be fetched there.
    #[serde(rename = "type")]
    pub(in crate::http) kind: String,
    pub(in crate::http) title: &'static str,
    pub(in crate::http) status: u16,
    /// What was tried and what is wrong.
    pub(in crate::http) detail: String,
    /// What to do about it.
    pub(in crate::http) advice: String,
    #[serde(skip)]
    #[schema(ignore)]
    headers: Vec<(HeaderName, String)>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, kind: &str, detail: impl AsRef<str>, advice: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:muster:problem:{kind}"),
            title: status.canonical_reason().unwrap_or("Problem"),
            status: status.as_u16(),
            detail: clean(detail.as_ref()),
            advice: advice.into(),
            headers: Vec::new(),
        }
    }

    #[must_use]
    pub(super) fn header(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// muster's own trouble.
    pub(super) fn internal(stop: &Stop) -> Self {
        let advice = stop.advice.clone().unwrap_or_else(|| "the daemon's log says more".to_owned());
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", &stop.message, advice)
    }
}

impl From<Stop> for Problem {
    fn from(stop: Stop) -> Self {
        tracing::error!(%stop, "a request could not be answered");
        Self::internal(&stop)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let json = serde_json::to_string(&self).unwrap_or_default();
        let mut response = (status, clean_json(&json)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        for (name, value) in self.headers {
            if let Ok(value) = value.parse() {
                headers.append(name, value);
            }
        }
        response
    }
}

pub(super) async fn no_such_page(uri: Uri) -> Problem {
    let advice = "`/` is the page for people, `/api/v1/openapi.json` describes the API";
    Problem::new(StatusCode::NOT_FOUND, "not-found", format!("there is nothing at `{}`", uri.path()), advice)
}

pub(super) async fn no_such_method(uri: Uri) -> Problem {
    let detail = format!("`{}` does not know this method", uri.path());
    let advice = "`/api/v1/openapi.json` says which methods there are";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", detail, advice)
}
