//! A Vault behind a bad line.
use std::time::Duration;

use drill::port::Credentials as _;
use drill::spec::Vault;
use serde_json::json;

use super::faults::Held;
use super::place::{Place, credentials_of};
use super::server::Proxy;
use super::{database, request};
use crate::{TestFn, test};

pub(super) fn tests() -> Vec<(&'static str, TestFn)> {
    vec![
        test!(a_lease_whose_id_was_never_heard_is_found_and_revoked),
        test!(a_slow_vault_revokes_all_the_same),
        test!(a_line_that_says_nothing_any_more_is_given_up),
    ]
}

async fn behind_a_proxy() -> (Place, Proxy, Vault) {
    let place = Place::new().await;
    let proxy = Proxy::to(place.vault.port()).await;
    let config = Vault { address: proxy.address.clone(), ..place.config() };
    (place, proxy, config)
}

/// The line is slow, and whoever asked is gone before it hears what Vault has made.
async fn a_lease_whose_id_was_never_heard_is_found_and_revoked() {
    let ((place, proxy, config), running) = (behind_a_proxy().await, database().await);
    let (vault, request) = (credentials_of(config), request("lost"));
    let name = format!("muster-{}", request.run);
    vault.warm_up(&request.run).await.expect("warm");
    proxy.toxic("latency", "downstream", json!({ "latency": 700 })).await;
    let made = async {
        while place.leases_of(&name).await == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        lease = vault.issue(&request, running.inside()) => panic!("it was heard: {:?}", lease.map(|lease| lease.proof)),
        () = made => {}
    }
    proxy.heal("latency").await;

    // Reset every time: it is still owed.
    proxy.toxic("reset_peer", "downstream", json!({ "timeout": 0 })).await;
    let stop = vault.revoke(&request, None, Some(running.inside())).await.expect_err("reset every time");
    assert!(stop.message.contains("it cannot be reached"), "{stop}");
    assert_eq!(stop.cause.as_deref(), Some("unreachable"));
    proxy.heal("reset_peer").await;
    assert_eq!(place.leases_of(&name).await, 1);

    let another = place.credentials();
    let proof = another.revoke(&request, None, Some(running.inside())).await.expect("the run's name is enough");
    assert!(proof.observed[0].ends_with("revoked") && proof.observed[1] == "login refused with 28000", "{proof:?}");
    vault.revoke(&request, None, Some(running.inside())).await.expect("nothing is left");
    place.assert_clean_after(&[&vault, &another], &request.run).await;
    running.end().await;
}

/// Slow is no trouble.
async fn a_slow_vault_revokes_all_the_same() {
    let (place, proxy, config) = behind_a_proxy().await;
    let held = Held::by(place, config, "slow").await;
    proxy.toxic("latency", "downstream", json!({ "latency": 900, "jitter": 300 })).await;
    let revoked = held.vault.revoke(&held.request, Some(&held.lease), Some(held.running.inside())).await;
    assert!(revoked.expect("revoked").observed[0].ends_with(" revoked"));
    held.end().await;
}

/// Half-open: the connection stands, and nothing comes. Bounded by the time that all tries may take.
async fn a_line_that_says_nothing_any_more_is_given_up() {
    let (place, proxy, config) = behind_a_proxy().await;
    let held = Held::by(place, config, "half").await;
    proxy.toxic("timeout", "downstream", json!({ "timeout": 0 })).await;
    let stop = held.owed("timeout").await;
    assert!(stop.message.contains("it did not answer in time"), "{stop}");
    proxy.heal("timeout").await;
    held.paid_by_another().await;
    held.end().await;
}
