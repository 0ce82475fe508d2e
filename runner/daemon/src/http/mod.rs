//! What the daemon says to programs and people over HTTP. Nothing here decides about drills: it shows the dispatcher's view and
//! the store, and hands on what somebody asks for.
//!
//! - `server`: listens on TCP, with TLS or without, and on the socket that the command line talks to; bounds connections
//! - `guard`: who asks, what they may do, and the headers of every answer; `throttle` slows down who guesses tokens
//! - `health`: `/healthz`, `/readyz`, `/metrics`
//! - `api`: JSON beneath `/api/v1`, described by `/api/v1/openapi.json`
//! - `page`: the same for people
//! - `problem`: every error, as RFC 9457 wants it
pub mod api;
mod guard;
mod health;
mod page;
mod problem;
mod server;
#[cfg(test)]
mod tests;
mod throttle;
mod tls;

pub use server::{SOCKET, Server};

use std::sync::Arc;

use axum::Router;
use drill::port::Store;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::dispatcher::Handle;
use crate::feed::Feed;
use crate::guard::Guarded;

/// Streams of events at one time.
const STREAMS: usize = 64;

/// What is shown, and whom to ask for more.
#[derive(Clone)]
pub struct App {
    pub dispatcher: Handle,
    pub store: Arc<dyn Store>,
    pub feed: Feed,
    /// Whether runs may begin.
    pub guarded: Guarded,
    /// The text of `/metrics`.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

/// What handlers work with.
#[derive(Clone)]
struct Shared {
    app: App,
    /// Ends every stream.
    stop: CancellationToken,
    streams: Arc<Semaphore>,
    probe: Arc<health::Probe>,
    worries: Arc<page::worry::Worries>,
}

impl Shared {
    fn new(app: App, stop: CancellationToken) -> Self {
        Self { app, stop, streams: Arc::new(Semaphore::new(STREAMS)), probe: Arc::default(), worries: Arc::default() }
    }
}

/// All routes, without who may ask for them.
fn router(shared: Shared) -> Router {
    Router::new()
        .merge(health::router())
        .merge(api::router())
        .merge(page::router())
        .fallback(problem::no_such_page)
        .method_not_allowed_fallback(problem::no_such_method)
        .with_state(shared)
}
