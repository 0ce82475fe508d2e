//! Whether muster is alive and ready, and its numbers.
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::Shared;

/// The scheduler's bell rings each second.
const TICKING: SignedDuration = SignedDuration::from_secs(5);
/// A dispatcher that dealt with nothing for so long hangs; one that is only late does not.
const ALIVE: SignedDuration = SignedDuration::from_secs(30);
/// What the last look at the store is good for, and how long one may take.
const LOOKED: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_secs(2);

/// What the last look at the store saw.
#[derive(Default)]
pub(super) struct Probe(Mutex<Option<(Instant, Option<String>)>>);

pub(super) fn router() -> Router<Shared> {
    Router::new().route("/healthz", get(alive)).route("/readyz", get(ready)).route("/metrics", get(metrics))
}

async fn alive(State(shared): State<Shared>) -> Response {
    let ticked = shared.app.dispatcher.view().ticked;
    let silent = ticked.is_some_and(|ticked| Timestamp::now().duration_since(ticked) > ALIVE);
    if shared.app.dispatcher.is_gone() || silent {
        return (StatusCode::SERVICE_UNAVAILABLE, "the dispatcher does not answer: restart muster\n").into_response();
    }
    "alive\n".into_response()
}

async fn ready(State(shared): State<Shared>) -> Response {
    let view = shared.app.dispatcher.view();
    let mut troubles = Vec::new();
    if view.stopping {
        troubles.push("muster is stopping".to_owned());
    }
    if shared.app.dispatcher.is_gone() {
        troubles.push("the dispatcher has ended".to_owned());
    } else if view.ticked.is_none_or(|ticked| Timestamp::now().duration_since(ticked) > TICKING) {
        troubles.push("the scheduler does not tick".to_owned());
    }
    troubles.extend(shared.app.guarded.may_begin().err().map(|stop| stop.message));
    troubles.extend(store_trouble(&shared).await.map(|trouble| format!("the store cannot be written: {trouble}")));
    if troubles.is_empty() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, troubles.join("\n") + "\n").into_response()
}

/// Writes what nobody reads: a disk that is full still gives the right to write.
async fn store_trouble(shared: &Shared) -> Option<String> {
    let mut last = shared.probe.0.lock().await;
    if let Some((at, trouble)) = &*last
        && at.elapsed() < LOOKED
    {
        return trouble.clone();
    }
    let look = shared.app.store.try_write();
    let trouble = match tokio::time::timeout(LOOK, look).await {
        Ok(Ok(())) => None,
        // The whole of it is in the log: this answer is for anybody.
        Ok(Err(stop)) => {
            tracing::error!(%stop, "the store cannot be written");
            Some("see the daemon's log".to_owned())
        }
        Err(_) => Some(format!("no answer within {} s", LOOK.as_secs())),
    };
    *last = Some((Instant::now(), trouble.clone()));
    trouble
}

async fn metrics(State(shared): State<Shared>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], (shared.app.metrics)())
}
