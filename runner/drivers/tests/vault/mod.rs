//! Leases from a real Vault: what is leased (`lease`), who may ask (`login`), and what goes wrong (`faults`, `network`).
mod faults;
mod lease;
mod login;
mod many;
mod namespace;
mod network;
mod place;
mod server;

use std::time::Duration;

use drill::port::LeaseRequest;

use tokio::sync::OnceCell;

use crate::source::{Backup, SourceServer};
use crate::{Running, TestFn, restored};

pub(crate) use server::end;

pub(crate) fn tests() -> Vec<(&'static str, TestFn)> {
    [login::tests(), namespace::tests(), lease::tests(), faults::tests(), network::tests(), many::tests()].concat()
}

async fn database() -> Running {
    static BACKUP: OnceCell<Backup> = OnceCell::const_new();
    let dumped = async || SourceServer::start().await.dump(&["postgres"], &[]).await;
    restored(BACKUP.get_or_init(dumped).await, 1).await.0
}

fn request(suffix: &str) -> LeaseRequest {
    crate::request(&format!("orders-20261122t021500z-{suffix}"), &["postgres"], Duration::from_mins(5))
}
