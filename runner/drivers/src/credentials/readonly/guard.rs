//! PostgreSQL's `VALID UNTIL` binds passwords only, and the login is by certificate. So a session that was opened before the
//! login locks its role when the lease ends without a renewal. A runner that is killed takes the sandbox, and so the role, with it.
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use drill::port::{Server, Session};
use drill::stop::Stop;
use drill::verdict::Reason;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::{role, stop};
use crate::engine::postgresql::{ADMIN_ROLE, MAINTENANCE_DATABASE};

/// One of each role that has a lease.
#[derive(Default)]
pub(in crate::credentials) struct Guards(Mutex<BTreeMap<String, Guard>>);

/// Dropping it ends the watch.
struct Guard {
    until: watch::Sender<Instant>,
    _task: AbortOnDropHandle<()>,
}

impl Guards {
    pub(in crate::credentials) async fn post(
        &self,
        server: &dyn Server,
        role: &str,
        until: jiff::Timestamp,
    ) -> Result<(), Stop> {
        let identity = server.identity(ADMIN_ROLE, Duration::from_mins(5))?;
        let session = server.login(&identity, MAINTENANCE_DATABASE).await;
        let session = session.map_err(|error| stop("opening the guard of the lease", &error))?;
        let (until, watched) = watch::channel(instant(until));
        let task = tokio::spawn(watch_over(session, role.to_owned(), watched));
        self.all().insert(role.to_owned(), Guard { until, _task: AbortOnDropHandle::new(task) });
        Ok(())
    }

    pub(in crate::credentials) fn extend(&self, role: &str, until: jiff::Timestamp) -> Result<(), Stop> {
        let guards = self.all();
        let guard = guards
            .get(role)
            .ok_or_else(|| Stop::new(Reason::Credentials, "renewing the lease: this runner holds none for the run"))?;
        if *guard.until.borrow() <= Instant::now() {
            return Err(Stop::new(Reason::Credentials, "renewing the lease: it has expired"));
        }
        guard.until.send_replace(instant(until));
        Ok(())
    }

    pub(in crate::credentials) fn relieve(&self, role: &str) {
        self.all().remove(role);
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Guard>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn instant(at: jiff::Timestamp) -> Instant {
    let left = at.duration_since(jiff::Timestamp::now());
    Instant::now() + Duration::try_from(left).unwrap_or(Duration::ZERO)
}

async fn watch_over(session: Box<dyn Session>, role: String, mut until: watch::Receiver<Instant>) {
    loop {
        let end = *until.borrow_and_update();
        tokio::select! {
            () = tokio::time::sleep_until(end) => break,
            changed = until.changed() => if changed.is_err() {
                return;
            },
        }
    }
    // Where it fails, revocation is still owed and will tell.
    for statement in role::lock(&role) {
        let _ = session.run(&statement).await;
    }
}
