//! Server-sent events (<https://html.spec.whatwg.org/multipage/server-sent-events.html>): what happens, as it happens.
//!
//! A run's stream begins with what the ledger has, after `Last-Event-ID` where a client was cut off, goes on with what is heard
//! live, and ends with the run. A client that is too slow is told so and sent away: it comes back where it was. Every stream
//! ends when muster stops.
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use drill::id::{DrillName, RunId};
use drill::ledger::{self, Stamped};
use futures_util::stream;
use serde::Serialize;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::looks::run_events;
use crate::cli::style::clean_json;
use crate::dispatcher::{Happening, RunUpdate};
use crate::http::Shared;
use crate::http::problem::Problem;

/// So that neither end takes a quiet stream for a dead one.
const ALIVE: Duration = Duration::from_secs(15);
/// By how much the view may be behind the ledger.
const BEHIND: Duration = Duration::from_secs(1);

/// What happens to all drills from now on: `ledger`, `progress`, `check`, `skipped`, `not-begun`, `recovered`;
/// at its end `lagged` or `stopping`.
#[utoipa::path(get, path = "/api/v1/events",
    responses((status = 200, content_type = "text/event-stream", body = String),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn all(State(shared): State<Shared>) -> Result<Response, Problem> {
    let slot = slot(&shared)?;
    Ok(answer(Stream::new(&shared, slot, None, VecDeque::new(), 0, true)))
}

/// What happened and happens to one run. Ids are the ledger's sequence: send the last one as `Last-Event-ID` to go on there.
#[utoipa::path(get, path = "/api/v1/runs/{run}/events",
    params(("run" = String, Path, description = "Its id"),
        ("Last-Event-ID" = Option<u64>, Header, description = "The last event that was seen")),
    responses((status = 200, content_type = "text/event-stream", body = String),
        (status = 204, description = "The run has ended, and nothing comes after that event"),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn of_run(
    State(shared): State<Shared>,
    path: Result<Path<RunId>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Path(run) = path?;
    let slot = slot(&shared)?;
    let seen = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse::<u64>().ok()).unwrap_or(0);
    // Heard before the ledger is read, so that nothing falls between the two.
    let mut stream = Stream::new(&shared, slot, Some(run.clone()), VecDeque::new(), seen, true);
    let events = run_events(&shared, &run).await?;
    let ended = events.iter().any(is_end);
    let last = events.last().map_or(0, |stamped| stamped.sequence);
    if ended && seen >= last {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    stream.backlog = events.into_iter().filter(|stamped| stamped.sequence > seen).map(Arc::new).collect();
    // Another process runs it, or it was cut off: what is known is all that can be told.
    stream.live = !ended && runs_here(&shared, &run).await;
    Ok(answer(stream))
}

/// Whether this daemon runs it. The ledger knows of a run a moment before the dispatcher's view does.
async fn runs_here(shared: &Shared, run: &RunId) -> bool {
    let mut dispatcher = shared.app.dispatcher.clone();
    let seen = async {
        while !is_running(shared, run) {
            dispatcher.changed().await;
        }
    };
    tokio::time::timeout(BEHIND, seen).await.is_ok()
}

/// Whether this daemon runs it.
pub(in crate::http) fn is_running(shared: &Shared, run: &RunId) -> bool {
    let view = shared.app.dispatcher.view();
    view.drills.values().any(|drill| drill.running.as_ref().is_some_and(|running| running.run.as_ref() == Some(run)))
}

fn slot(shared: &Shared) -> Result<OwnedSemaphorePermit, Problem> {
    Arc::clone(&shared.streams).try_acquire_owned().map_err(|_| {
        let detail = "as many streams as may be are open";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too-many-streams", detail, "close one, or ask again later")
    })
}

fn answer(stream: Stream) -> Response {
    let events =
        stream::unfold(stream, |mut stream| async { Some((Ok::<_, Infallible>(stream.next().await?), stream)) });
    Sse::new(events).keep_alive(KeepAlive::new().interval(ALIVE)).into_response()
}

struct Stream {
    /// None: all of them.
    run: Option<RunId>,
    feed: Receiver<Arc<Happening>>,
    stop: CancellationToken,
    backlog: VecDeque<Arc<Stamped>>,
    /// What was told last.
    seen: u64,
    /// More may come after the backlog.
    live: bool,
    _slot: OwnedSemaphorePermit,
}

impl Stream {
    fn new(
        shared: &Shared,
        slot: OwnedSemaphorePermit,
        run: Option<RunId>,
        backlog: VecDeque<Arc<Stamped>>,
        seen: u64,
        live: bool,
    ) -> Self {
        let (feed, stop) = (shared.app.feed.subscribe(), shared.stop.clone());
        Self { run, feed, stop, backlog, seen, live, _slot: slot }
    }

    async fn next(&mut self) -> Option<Event> {
        if let Some(stamped) = self.backlog.pop_front() {
            return Some(self.ledger(None, &stamped));
        }
        while self.live {
            let heard = tokio::select! {
                () = self.stop.cancelled() => {
                    self.live = false;
                    return Some(event("stopping", &json!({ "message": "muster is stopping" })));
                }
                heard = self.feed.recv() => heard,
            };
            match heard {
                Ok(happening) => {
                    if let Some(event) = self.tell(&happening) {
                        return Some(event);
                    }
                }
                Err(RecvError::Lagged(missed)) => {
                    self.live = false;
                    return Some(event("lagged", &json!({ "missed": missed })));
                }
                Err(RecvError::Closed) => self.live = false,
            }
        }
        None
    }

    /// None where it is not for this stream, or was told.
    fn tell(&mut self, happening: &Happening) -> Option<Event> {
        match happening {
            Happening::Run { drill, run, update } => {
                let all = self.run.is_none();
                if !all && self.run.as_ref() != Some(run) {
                    return None;
                }
                let of = all.then_some((drill, run));
                match update {
                    RunUpdate::Event(stamped) if all || stamped.sequence > self.seen => Some(self.ledger(of, stamped)),
                    RunUpdate::Event(_) | RunUpdate::Lease { .. } => None,
                    RunUpdate::Progress { phase, done, total, unit } => Some(with_run(
                        "progress",
                        of,
                        json!({ "phase": phase, "done": done, "total": total, "unit": unit }),
                    )),
                    RunUpdate::Check { name, database, done, total, unit } => Some(with_run(
                        "check",
                        of,
                        json!({ "check": name, "database": database, "done": done, "total": total, "unit": unit }),
                    )),
                }
            }
            _ if self.run.is_some() => None,
            Happening::Skipped { drill, self_test, slot, why, count } => {
                let (at, why) = (slot.scheduled_for, why.as_str());
                let told =
                    json!({ "drill": drill, "selfTest": self_test, "scheduledFor": at, "why": why, "count": count });
                Some(event("skipped", &told))
            }
            Happening::Recovered { drill, run, summary, .. } => {
                let (verdict, reason) = (summary.verdict, summary.reason);
                Some(event("recovered", &json!({ "drill": drill, "run": run, "verdict": verdict, "reason": reason })))
            }
            Happening::NotBegun { drill, why } => Some(event("not-begun", &json!({ "drill": drill, "why": why }))),
        }
    }

    fn ledger(&mut self, of: Option<(&DrillName, &RunId)>, stamped: &Stamped) -> Event {
        let told = with_run("ledger", of, serde_json::to_value(stamped).unwrap_or_default());
        if of.is_some() {
            return told;
        }
        self.seen = stamped.sequence;
        if is_end(stamped) {
            self.live = false;
        }
        told.id(stamped.sequence.to_string())
    }
}

/// Nothing is told after it.
fn is_end(stamped: &Stamped) -> bool {
    matches!(stamped.event, ledger::Event::Ended { .. })
}

fn with_run(kind: &str, of: Option<(&DrillName, &RunId)>, mut told: serde_json::Value) -> Event {
    if let (Some((drill, run)), Some(told)) = (of, told.as_object_mut()) {
        told.insert("drill".to_owned(), json!(drill));
        told.insert("run".to_owned(), json!(run));
    }
    event(kind, &told)
}

/// One line: JSON has none within it, whatever a plugin says.
fn event(kind: &str, told: &impl Serialize) -> Event {
    Event::default().event(kind).data(clean_json(&serde_json::to_string(told).unwrap_or_default()))
}
