//! Asks a Vault: with a session that lasts, retries that are bounded, and one answer or one [`Failure`] at the end.
use std::sync::Arc;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use drill::spec::Vault;
use rustify::endpoint::Endpoint;
use tokio::sync::Mutex;

use super::fault::{Failure, Fault};
use super::link::{Answer, check_address, told};
use super::session::Session;

/// Of one try. Vault opens a connection to the database in some.
const PATIENCE: Duration = Duration::from_secs(10);
/// Of all tries.
const WHOLE: Duration = Duration::from_secs(30);
const TRIES: usize = 5;

pub(super) struct Client {
    vault: Vault,
    session: Mutex<Option<Arc<Session>>>,
}

impl Client {
    pub(super) fn new(vault: Vault) -> Result<Self, Failure> {
        check_address(&vault.address).map_err(|fault| Failure { request: String::new(), fault })?;
        Ok(Self { vault, session: Mutex::default() })
    }

    pub(super) async fn call<E: Endpoint>(&self, endpoint: E) -> Result<Answer<E::Response>, Failure> {
        let backoff = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(200))
            .with_max_delay(Duration::from_secs(3))
            .with_max_times(TRIES - 1)
            .with_jitter();
        let tries = (|| self.once(&endpoint)).retry(backoff).when(|failure: &Failure| failure.fault.may_pass());
        let answer = tokio::time::timeout(WHOLE, tries).await;
        answer.unwrap_or_else(|_| Err(Failure { request: told(&endpoint), fault: Fault::TimedOut }))
    }

    /// A token that Vault has forgotten is replaced once.
    async fn once<E: Endpoint>(&self, endpoint: &E) -> Result<Answer<E::Response>, Failure> {
        let session = self.session().await?;
        match session.link.send(endpoint, Some(&session.token), PATIENCE).await {
            Err(Fault::TokenInvalid) => {
                self.forget(&session).await;
                let session = self.session().await?;
                session.link.send(endpoint, Some(&session.token), PATIENCE).await
            }
            answer => answer,
        }
        .map_err(|fault| Failure { request: told(endpoint), fault })
    }

    async fn session(&self) -> Result<Arc<Session>, Failure> {
        let mut held = self.session.lock().await;
        if let Some(session) = held.as_ref()
            && !session.is_replaced(&self.vault.auth).await?
            && session.keep_alive().await
        {
            return Ok(Arc::clone(session));
        }
        let session = Arc::new(Session::begin(&self.vault).await?);
        *held = Some(Arc::clone(&session));
        Ok(session)
    }

    async fn forget(&self, session: &Arc<Session>) {
        let mut held = self.session.lock().await;
        if held.as_ref().is_some_and(|held| Arc::ptr_eq(held, session)) {
            *held = None;
        }
    }

    /// Gives muster's own token back, and with it whatever hangs on it.
    pub(super) async fn log_out(&self) {
        let held = self.session.lock().await.take();
        if let Some(session) = held {
            session.end(&self.vault.auth).await;
        }
    }
}
