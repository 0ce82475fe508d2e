//! `muster serve`: puts the daemon together from its parts, and takes it apart again. Every task is owned here; one that ends
//! before it should ends the daemon, and the service manager starts it anew.
mod lock;
mod manager;
mod tasks;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use drill::config::{ClusterLease, Config};
use drill::ledger::Owner;
use drill::port::Store;
use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;
use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use self::tasks::Tasks;
use crate::alarms::Alarms;
use crate::alerts::Sender;
use crate::book::Keeper;
use crate::dispatcher::{Dispatcher, Event, Handle, Listeners, Setup};
use crate::executor::{Ports, Recovered, Silent, recover};
use crate::feed::Feed;
use crate::guard::{self, Guarded};
use crate::logs::LogListener;
use crate::metrics::{Metrics, Timed};
use crate::owner::{self, ThisProcess};
use crate::reconcile::{self, Reconciler};
use crate::runner::DrillRunner;
use crate::{evidence, http, logs, state_dir, wiring};

/// Runs until a signal stops it. Everything that was begun has ended when it returns.
pub async fn serve(config: Config) -> Result<(), Stop> {
    let logs = logs::init(&config.logs)?;
    let reopen = logs.reopen_at_hangup()?;
    let state_directory = match &config.state_directory {
        Some(directory) => state_dir::make(directory)?,
        None => state_dir::resolve()?,
    };
    let _lock = lock::take(&state_directory)?;
    let me = ThisProcess::register(&state_directory)?;
    let stop = CancellationToken::new();
    let mut tasks = Tasks::new(stop.clone());
    let guarded = guard(config.lease.as_ref(), &me.owner, &mut tasks).await?;
    let evidence_directory = config.evidence.directory.clone().unwrap_or_else(|| state_directory.join("evidence"));
    evidence::make_directory(&evidence_directory)?;
    let metrics = Arc::new(Metrics::new()?);
    let mut ports = wiring::local(&state_directory)?;
    ports.store = Arc::new(Timed::new(ports.store, Arc::clone(&metrics)));
    ports.evidence_key = config.evidence.key.as_ref().map(evidence::configured).transpose()?.map(Arc::new);
    ports.approved_template = config.approved_template;
    ports.production = config.production.clone();
    let socket = config.http.socket.clone().unwrap_or_else(|| state_directory.join(http::SOCKET));
    let server = http::Server::bind(&config.http, &socket)?;
    // What killed runs left goes first: their drills could not begin, and what they hold may be needed.
    let since = Timestamp::now();
    let recovered = settle(&ports, &me.owner, &state_directory).await?;

    let keeper = Keeper::new(config.drills.clone(), config.compact.clone()).await?;
    let drills = keeper.book().drills.len();
    let alarms = Alarms::new(ports.store.clone());
    let sender = Sender::new(ports.store.clone(), wiring::destinations(&config.alerts)?, alarms.changed());
    let runner =
        DrillRunner { ports: ports.clone(), evidence_directory, owner: me.owner.clone(), guarded: guarded.clone() };
    let feed = Feed::new();
    let listeners = Listeners::new(vec![metrics.clone(), Arc::new(feed.clone()), Arc::new(LogListener)]);
    reconcile::tell(&recovered, since, ports.store.as_ref(), &listeners).await;
    let reconciler =
        Reconciler::new(ports.clone(), me.owner.clone(), alarms.clone(), listeners.clone(), config.retention);
    let setup = Setup {
        concurrency: config.concurrency,
        grace: config.shutdown.grace,
        store: Arc::clone(&ports.store),
        runner: Arc::new(runner),
        listeners,
        alarms,
    };
    let (dispatcher, handle) = Dispatcher::new(setup, keeper.book()).await?;
    let watched = handle.clone();
    metrics.follow(move || watched.view());
    metrics.remember(ports.store.as_ref()).await?;

    let address = server.address();
    let figures = Arc::clone(&metrics);
    let app = http::App {
        dispatcher: handle.clone(),
        store: Arc::clone(&ports.store),
        feed,
        guarded: guarded.clone(),
        metrics: Arc::new(move || figures.render()),
    };
    tasks.spawn("dispatcher", dispatcher.run());
    tasks.spawn("HTTP", server.serve(app, stop.clone()));
    tasks.spawn_until_stop("log", reopen);
    tasks.spawn_until_stop("alerts", sender.run());
    tasks.spawn_until_stop("drill files", keeper.keep(handle.clone()));
    tasks.spawn_until_stop("reconciliation", reconciler.each_minute());
    tasks.spawn_until_stop("metrics", refresh(metrics, Arc::clone(&ports.store)));
    tasks.spawn_until_stop("signals", signals(handle.clone())?);
    tasks.spawn_until_stop("watchdog", manager::watchdog(handle.clone()));
    manager::ready(drills);
    tracing::info!(drills, %address, state = %state_directory.display(), "muster serves");
    let wind_down = async {
        handle.tell(Event::Stop).await;
        handle.tell(Event::Stop).await;
    };
    let ended = tasks.end("dispatcher", wind_down).await;
    manager::stopping();
    guarded.let_go().await;
    ended
}

/// Before anything is begun or removed: what this one would remove may be what another works with.
async fn guard(lease: Option<&ClusterLease>, me: &Owner, tasks: &mut Tasks) -> Result<Guarded, Stop> {
    let Some(lease) = lease else { return Ok(Guarded::default()) };
    let process = format!("{}-{}", me.pid, me.start_ticks);
    let port = wiring::guard(lease).await?;
    let (guarded, keeper) = guard::take(port, lease, guard::identity(&process)).await?;
    tasks.spawn_until_stop("lease", keeper.keep());
    Ok(guarded)
}

/// What only the store knows, each minute. Never ends: figures that could not be read stay as they were, and the errors are a
/// figure of their own.
async fn refresh(metrics: Arc<Metrics>, store: Arc<dyn Store>) -> Result<(), Stop> {
    let mut minutes = tokio::time::interval(Duration::from_mins(1));
    minutes.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        minutes.tick().await;
        if let Err(stop) = metrics.refresh(store.as_ref()).await {
            tracing::error!(%stop, "figures of the store could not be read");
        }
    }
}

async fn settle(ports: &Ports, me: &Owner, state_directory: &Path) -> Result<Recovered, Stop> {
    let alive = |owner: &Owner| owner::is_alive(state_directory, owner);
    let recovered = recover(ports, Arc::new(Silent), me, alive).await?;
    for (run, leftovers) in &recovered.settled {
        tracing::warn!(run = run.as_str(), ?leftovers, "a run had been cut off; what it left was removed");
    }
    for (run, stop) in &recovered.troubles {
        tracing::error!(run = run.as_str(), %stop, "a run could not be settled");
    }
    Ok(recovered)
}

/// SIGTERM and SIGINT stop the daemon; each further one waits less. Never ends.
fn signals(dispatcher: Handle) -> Result<impl Future<Output = Result<(), Stop>>, Stop> {
    let mut interrupt = signal(SignalKind::interrupt()).or_stop(Reason::Internal, "listening for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).or_stop(Reason::Internal, "listening for SIGTERM")?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            manager::stopping();
            dispatcher.tell(Event::Stop).await;
        }
    })
}
