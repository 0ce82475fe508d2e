//! muster's own token: got by logging in, renewed, and given back.
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use drill::secret::{Secret, SecretSource};
use drill::spec::{Vault, VaultAuth};
use rustify::endpoint::Endpoint;
use tokio::time::Instant;
use vaultrs::api::auth::approle::requests::LoginWithApproleRequest;
use vaultrs::api::auth::cert::requests::LoginRequest;
use vaultrs::api::auth::kubernetes::requests::LoginWithKubernetesRequest;
use zeroize::Zeroize;

use super::endpoints::{RenewSelf, RevokeSelf};
use super::fault::{Failure, Fault};
use super::link::{Answer, Auth, Link, read, told};

const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Session {
    pub(super) link: Link,
    pub(super) token: Secret,
    /// Two thirds of what it has to live. None: it cannot be renewed, or does not end.
    renew_at: Mutex<Option<Instant>>,
}

impl Session {
    pub(super) async fn begin(vault: &Vault) -> Result<Self, Failure> {
        let link = Link::new(vault).await.map_err(unasked)?;
        match &vault.auth {
            VaultAuth::AppRole { mount, role_id, secret_id } => {
                let secret_id = secret(secret_id).await.map_err(unasked)?.expose().to_owned();
                let mut login = LoginWithApproleRequest { mount: mount.clone(), role_id: role_id.clone(), secret_id };
                let begun = logged_in(link, &login).await;
                login.secret_id.zeroize();
                begun
            }
            VaultAuth::Kubernetes { mount, role, token } => {
                let jwt = secret_file(token).await.map_err(unasked)?.expose().to_owned();
                let mut login = LoginWithKubernetesRequest { mount: mount.clone(), role: role.clone(), jwt };
                let begun = logged_in(link, &login).await;
                login.jwt.zeroize();
                begun
            }
            VaultAuth::Certificate { mount, role, .. } => {
                let login = LoginRequest { mount: mount.clone(), cert_name: role.clone().unwrap_or_default() };
                logged_in(link, &login).await
            }
            VaultAuth::Token { file } => {
                let token = secret_file(file).await.map_err(unasked)?;
                let session = Self { link, token, renew_at: Mutex::new(Some(Instant::now())) };
                session.keep_alive().await;
                Ok(session)
            }
        }
    }

    /// Whether the file that holds the token holds another one by now.
    pub(super) async fn is_replaced(&self, auth: &VaultAuth) -> Result<bool, Failure> {
        match auth {
            VaultAuth::Token { file } => Ok(secret_file(file).await.map_err(unasked)?.expose() != self.token.expose()),
            VaultAuth::AppRole { .. } | VaultAuth::Kubernetes { .. } | VaultAuth::Certificate { .. } => Ok(false),
        }
    }

    /// Renews it where that is due, in place: what was leased with a token ends with that token. False where Vault has forgotten
    /// it. One that Vault will not renew goes on until it ends; trouble of Vault's is met again by whoever asks.
    pub(super) async fn keep_alive(&self) -> bool {
        if self.renew_at().is_none_or(|at| at > Instant::now()) {
            return true;
        }
        match self.link.send(&RenewSelf {}, Some(&self.token), PATIENCE).await {
            Ok(Answer { auth, .. }) => *self.renew_at() = auth.as_ref().and_then(renewal),
            Err(Fault::Refused(..) | Fault::Denied) => *self.renew_at() = None,
            Err(Fault::TokenInvalid) => return false,
            Err(_) => {}
        }
        true
    }

    fn renew_at(&self) -> MutexGuard<'_, Option<Instant>> {
        self.renew_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So that a login leaves nothing behind. What is not given back ends by itself.
    pub(super) async fn end(&self, auth: &VaultAuth) {
        match auth {
            VaultAuth::AppRole { .. } | VaultAuth::Kubernetes { .. } | VaultAuth::Certificate { .. } => {
                let _ = self.link.send(&RevokeSelf {}, Some(&self.token), PATIENCE).await;
            }
            // Somebody else's.
            VaultAuth::Token { .. } => {}
        }
    }
}

async fn logged_in<E: Endpoint>(link: Link, login: &E) -> Result<Session, Failure> {
    let failed = |fault| Failure { request: told(login), fault };
    let answer = link.send(login, None, PATIENCE).await.map_err(failed)?;
    let auth = answer.auth.ok_or_else(|| failed(Fault::Garbled("a login without a token".to_owned())))?;
    let renew_at = Mutex::new(renewal(&auth));
    Ok(Session { link, token: auth.client_token.0, renew_at })
}

fn renewal(auth: &Auth) -> Option<Instant> {
    let life = Duration::from_secs(auth.lease_duration);
    (auth.renewable && !life.is_zero()).then(|| Instant::now() + life * 2 / 3)
}

async fn secret(source: &SecretSource) -> Result<Secret, Fault> {
    match source {
        SecretSource::File(path) => secret_file(path).await,
        SecretSource::Env(name) => match std::env::var(name) {
            Ok(text) => Ok(Secret::new(text.trim().to_owned())),
            Err(error) => Err(Fault::Unprepared(format!("the variable {name} cannot be read: {error}"))),
        },
    }
}

/// Written by hand or by Vault's agent, it may end in a newline.
async fn secret_file(path: &std::path::Path) -> Result<Secret, Fault> {
    let bytes = read("secret", path).await?;
    let text = std::str::from_utf8(&bytes).map(str::trim).unwrap_or_default();
    if text.is_empty() {
        return Err(Fault::Unprepared(format!("{} holds no secret", path.display())));
    }
    Ok(Secret::new(text.to_owned()))
}

/// It did not come to a request.
fn unasked(fault: Fault) -> Failure {
    Failure { request: String::new(), fault }
}
