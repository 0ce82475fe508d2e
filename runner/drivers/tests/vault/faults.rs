//! What can go wrong with a Vault while a lease is revoked. Whatever it is: the login is refused, what Vault still holds is owed,
//! and when Vault is well again nothing is left.
use drill::port::{Credentials as _, Lease, LeaseRequest};
use drill::stop::Stop;
use drivers::credentials::vault::VaultCredentials;
use reqwest::Method;
use serde_json::json;

use super::place::Place;
use super::{database, request};
use crate::{Running, TestFn, test};

pub(super) fn tests() -> Vec<(&'static str, TestFn)> {
    vec![
        test!(what_a_vault_in_trouble_does_not_revoke_is_owed_and_the_login_is_refused_all_the_same),
        test!(a_vault_that_comes_back_while_muster_asks_is_no_trouble),
        test!(leases_of_a_database_that_is_gone_are_forgotten_and_that_is_said),
        test!(a_database_that_died_is_not_waited_for),
        test!(a_lease_that_somebody_else_revoked_is_gone),
    ]
}

struct Held {
    place: Place,
    running: Running,
    vault: VaultCredentials,
    request: LeaseRequest,
    lease: Lease,
}

impl Held {
    async fn of(suffix: &str) -> Self {
        let (place, running) = (Place::new().await, database().await);
        let (vault, request) = (place.credentials(), request(suffix));
        let lease = vault.issue(&request, running.inside()).await.expect("a lease");
        Self { place, running, vault, request, lease }
    }

    async fn owed(&self) -> Stop {
        let revoked = self.vault.revoke(&self.request, Some(&self.lease), Some(self.running.inside())).await;
        let stop = revoked.expect_err("it is owed");
        let refused = self.running.server.login(&self.lease.grant.identity, "postgres").await.map(drop);
        assert_eq!(refused.expect_err("refused").sqlstate.as_deref(), Some("28000"), "{stop}");
        stop
    }

    /// What is owed is paid by somebody who knows the names alone.
    async fn paid_by_another(&self) -> Vec<String> {
        let another = self.place.credentials();
        let proof = another.revoke(&self.request, None, None).await.expect("Vault is well again");
        proof.observed
    }
}

async fn what_a_vault_in_trouble_does_not_revoke_is_owed_and_the_login_is_refused_all_the_same() {
    let held = Held::of("owed").await;
    let place = &held.place;

    place.vault.seal().await;
    let stop = held.owed().await;
    assert!(stop.message.contains("it is sealed"), "{stop}");
    assert_eq!(stop.advice.as_deref(), Some("unseal it"));
    assert_eq!(stop.cause.as_deref(), Some("sealed"));
    place.vault.unseal().await;

    let without = place.policy().replace("\"update\", \"sudo\"", "\"deny\"");
    place.set_policy(&without).await;
    let stop = held.owed().await;
    // Its login is gone by now, so that Vault has nobody to ask the database about.
    assert!(stop.message.contains("revoke-prefix") && stop.message.contains("permission denied"), "{stop}");
    assert_eq!(stop.cause.as_deref(), Some("permission-denied"));
    place.set_policy(&place.policy()).await;

    assert_eq!(place.leases_of(&format!("muster-{}", held.request.run)).await, 1, "it is still owed");
    let observed = held.paid_by_another().await;
    assert!(observed.iter().any(|line| line.contains("revoked by force")), "{observed:?}");
    let quota = "sys/quotas/rate-limit/tests";
    let limit = json!({ "path": format!("{}/", place.name), "rate": 0.001, "interval": "1h" });
    place.vault.ok(Method::POST, quota, Some(limit)).await;
    let stop = held.vault.revoke(&held.request, None, None).await.expect_err("too many requests");
    assert!(stop.message.contains("429"), "{stop}");
    assert_eq!(stop.cause.as_deref(), Some("throttled"));
    place.vault.ok(Method::DELETE, quota, None).await;

    held.vault.revoke(&held.request, None, None).await.expect("nothing is left to revoke");
    place.assert_clean().await;
    held.running.end().await;
}

async fn a_vault_that_comes_back_while_muster_asks_is_no_trouble() {
    let held = Held::of("back").await;
    let place = &held.place;

    // In standby: a node that stepped down does not stand for election for ten seconds; another one does not exist.
    place.vault.ok(Method::PUT, "sys/step-down", None).await;
    let renewed = held.vault.renew(&held.request, &held.lease, held.running.inside()).await;
    match renewed {
        Ok(renewed) => assert_eq!(renewed.proof.leases.len(), 1),
        Err(stop) => assert!(stop.message.contains("standby"), "{stop}"),
    }
    place.vault.unseal().await;
    let renewed = held.vault.renew(&held.request, &held.lease, held.running.inside()).await.expect("renewed");

    // Restarted: the token and the leases are still there.
    place.vault.stop();
    place.vault.start();
    held.vault.renew(&held.request, &renewed, held.running.inside()).await.expect("renewed after a restart");

    // Sealed, and unsealed while muster asks.
    place.vault.seal().await;
    let unsealed = async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        place.vault.unseal().await;
    };
    let revoke = held.vault.revoke(&held.request, Some(&renewed), Some(held.running.inside()));
    let (revoked, ()) = tokio::join!(revoke, unsealed);
    revoked.expect("asked again until it answered");
    place.assert_clean().await;
    held.running.end().await;
}

async fn leases_of_a_database_that_is_gone_are_forgotten_and_that_is_said() {
    let held = Held::of("dead").await;
    let Held { place, running, vault, request, lease } = held;
    running.end().await;
    let proof = vault.revoke(&request, Some(&lease), None).await.expect("revoked by force");
    let forced = format!("lease {} revoked by force", lease.proof.leases[0].id);
    assert_eq!(proof.observed[..2], ["the database went with its sandbox".to_owned(), forced]);
    let again = vault.revoke(&request, None, None).await.expect("nothing is left");
    assert_eq!(again.observed[1], "Vault has no lease of the run");
    place.assert_clean().await;
}

async fn a_database_that_died_is_not_waited_for() {
    let held = Held::of("died").await;
    held.running.server.stop().await.expect("it stops");
    let revoked = held.vault.revoke(&held.request, Some(&held.lease), Some(held.running.inside())).await;
    let observed = revoked.expect("revoked by force").observed;
    assert!(observed[0].starts_with("the database does not answer"), "{observed:?}");
    assert!(observed[1].ends_with("revoked by force"), "{observed:?}");
    held.place.assert_clean().await;
}

async fn a_lease_that_somebody_else_revoked_is_gone() {
    let held = Held::of("else").await;
    let forget = format!("sys/leases/revoke-force/{}/creds", held.place.name);
    held.place.vault.ok(Method::PUT, &forget, None).await;
    let revoked = held.vault.revoke(&held.request, Some(&held.lease), Some(held.running.inside())).await;
    let observed = revoked.expect("gone is success").observed;
    assert_eq!(observed[..2], ["Vault has no lease of the run", "login refused with 28000"]);
    held.place.assert_clean().await;
    held.running.end().await;
}
