//! What can go wrong with a Vault while a lease is revoked. Whatever it is: the login is refused, what Vault still holds is owed,
//! and when Vault is well again nothing is left.
use drill::port::{Credentials as _, Lease, LeaseRequest};
use drill::spec::Vault;
use drill::stop::Stop;
use drill::verdict::Reason;
use drivers::credentials::vault::VaultCredentials;
use reqwest::Method;
use serde_json::json;

use super::place::{Place, credentials_of};
use super::{database, request};
use crate::{Running, TestFn, ask, test};

pub(super) fn tests() -> Vec<(&'static str, TestFn)> {
    vec![
        test!(what_a_vault_in_trouble_does_not_revoke_is_owed_and_the_login_is_refused_all_the_same),
        test!(a_vault_that_comes_back_while_muster_asks_is_no_trouble),
        test!(a_vault_that_answers_500_is_told_of_and_nothing_is_left),
        test!(leases_of_a_database_that_is_gone_are_forgotten_and_that_is_said),
        test!(a_database_that_died_is_not_waited_for),
        test!(a_lease_that_somebody_else_revoked_is_gone),
        test!(a_token_that_is_revoked_or_ends_midway_is_replaced),
    ]
}

pub(super) struct Held {
    pub(super) place: Place,
    pub(super) running: Running,
    pub(super) vault: VaultCredentials,
    pub(super) request: LeaseRequest,
    pub(super) lease: Lease,
}

impl Held {
    async fn of(suffix: &str) -> Self {
        let place = Place::new().await;
        let config = place.config();
        Self::by(place, config, suffix).await
    }

    /// With a Vault that is reached as `config` says.
    pub(super) async fn by(place: Place, config: Vault, suffix: &str) -> Self {
        let running = database().await;
        let (vault, request) = (credentials_of(config), request(suffix));
        let lease = vault.issue(&request, running.inside()).await.expect("a lease");
        Self { place, running, vault, request, lease }
    }

    /// How the revocation ended: in trouble, with the login refused nevertheless.
    async fn refused(&self, cause: &str) -> Stop {
        let revoked = self.vault.revoke(&self.request, Some(&self.lease), Some(self.running.inside())).await;
        let stop = revoked.expect_err("it is owed");
        let refused = self.running.server.login(&self.lease.grant.identity, "postgres").await.map(drop);
        assert_eq!(refused.expect_err("refused").sqlstate.as_deref(), Some("28000"), "{stop}");
        assert_eq!(stop.cause.as_deref(), Some(cause), "{stop}");
        assert!(stop.advice.is_some(), "{stop}");
        stop
    }

    pub(super) async fn owed(&self, cause: &str) -> Stop {
        let stop = self.refused(cause).await;
        assert_eq!(self.place.leases_of(&format!("muster-{}", self.request.run)).await, 1, "it is still there");
        stop
    }

    async fn revoked(&self) -> Vec<String> {
        let revoked = self.vault.revoke(&self.request, Some(&self.lease), Some(self.running.inside())).await;
        revoked.expect("revoked").observed
    }

    /// What is owed is paid by somebody who knows the names alone.
    pub(super) async fn paid_by_another(&self) -> Vec<String> {
        let another = self.place.credentials();
        let proof = another.revoke(&self.request, None, None).await.expect("Vault is well again");
        another.cool_down(&self.request.run).await;
        proof.observed
    }

    pub(super) async fn end(self) {
        self.place.assert_clean_after(&[&self.vault], &self.request.run).await;
        self.running.end().await;
    }
}

async fn what_a_vault_in_trouble_does_not_revoke_is_owed_and_the_login_is_refused_all_the_same() {
    let held = Held::of("owed").await;
    let place = &held.place;

    let quota = "sys/quotas/rate-limit/tests";
    let limit = json!({ "path": format!("{}/", place.name), "rate": 0.001, "interval": "1h" });
    place.vault.ok(Method::POST, quota, Some(limit)).await;
    // Whatever counts is used up by this one.
    place.vault.root("LIST", &format!("{}/roles", place.name), None).await;
    let stop = held.owed("throttled").await;
    assert!(stop.message.contains("429"), "{stop}");
    place.vault.ok(Method::DELETE, quota, None).await;

    // Its answer is 503.
    place.vault.seal().await;
    let stop = held.refused("sealed").await;
    assert!(stop.message.contains("it is sealed"), "{stop}");
    assert_eq!(stop.advice.as_deref(), Some("unseal it"));
    place.vault.unseal().await;

    let without = place.policy().replace("\"update\", \"sudo\"", "\"deny\"");
    place.set_policy(&without).await;
    let stop = held.owed("permission-denied").await;
    assert!(stop.message.contains("revoke-prefix") && stop.message.contains("permission denied"), "{stop}");
    place.set_policy(&place.policy()).await;

    let role = format!("{}/roles/muster-{}", place.name, held.request.run);
    let broken = json!({
        "db_name": format!("muster-{}", held.request.run), "creation_statements": ["SELECT 1"],
        "revocation_statements": ["SELECT 1 / 0"],
    });
    place.vault.ok(Method::POST, &role, Some(broken)).await;
    let stop = held.owed("refused").await;
    assert!(stop.message.contains("it answered 400") && stop.message.contains("division by zero"), "{stop}");

    let observed = held.paid_by_another().await;
    assert!(observed.iter().any(|line| line.contains("revoked by force")), "{observed:?}");
    held.vault.revoke(&held.request, None, None).await.expect("nothing is left to revoke");
    held.end().await;
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
    held.end().await;
}

async fn a_vault_that_answers_500_is_told_of_and_nothing_is_left() {
    let (place, running) = (Place::new().await, database().await);
    let writable = |how: &str| format!("ALTER DATABASE template1 SET default_transaction_read_only = {how}");
    // Vault gets in there, and then can make no user.
    ask(running.server.as_ref(), "postgres", &writable("on")).await;
    let (vault, request) = (place.credentials(), request("broken"));
    let stop = vault.issue(&request, running.inside()).await.expect_err("nobody can be made");
    assert_eq!((stop.reason, stop.cause.as_deref()), (Reason::Credentials, Some("server-error")));
    assert!(stop.message.contains("it answered 500") && stop.message.contains("read-only transaction"), "{stop}");
    vault.revoke(&request, None, Some(running.inside())).await.expect("nothing is left to revoke");
    place.assert_clean_after(&[&vault], &request.run).await;

    ask(running.server.as_ref(), "postgres", &writable("off")).await;
    let lease = vault.issue(&request, running.inside()).await.expect("a lease");
    vault.revoke(&request, Some(&lease), Some(running.inside())).await.expect("revoked");
    place.assert_clean_after(&[&vault], &request.run).await;
    running.end().await;
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
    place.assert_clean_after(&[&vault], &request.run).await;
}

async fn a_database_that_died_is_not_waited_for() {
    let held = Held::of("died").await;
    held.running.server.stop().await.expect("it stops");
    let observed = held.revoked().await;
    assert!(observed[0].starts_with("the database does not answer"), "{observed:?}");
    assert!(observed[1].ends_with("revoked by force"), "{observed:?}");
    held.place.assert_clean_after(&[&held.vault], &held.request.run).await;
}

async fn a_lease_that_somebody_else_revoked_is_gone() {
    let held = Held::of("else").await;
    let forget = format!("sys/leases/revoke-force/{}/creds", held.place.name);
    held.place.vault.ok(Method::PUT, &forget, None).await;
    assert_eq!(held.revoked().await[..2], ["Vault has no lease of the run", "login refused with 28000"]);
    held.end().await;
}

/// With the token its leases end: what Vault still lists of them is revoked under another one.
async fn a_token_that_is_revoked_or_ends_midway_is_replaced() {
    for how in ["revoke-accessor", "renew-accessor"] {
        let place = Place::new().await;
        // One without a period can be told to end earlier.
        let role = format!("auth/approle/role/{}", place.name);
        place.vault.ok(Method::POST, &role, Some(json!({ "token_period": 0, "token_ttl": "60s" }))).await;
        let config = place.config();
        let held = Held::by(place, config, "midw").await;
        let accessor = held.place.token().await.expect("muster's own")["accessor"].clone();
        let wanted = json!({ "accessor": accessor, "increment": "1s" });
        held.place.vault.ok(Method::POST, &format!("auth/token/{how}"), Some(wanted)).await;
        let ended = async {
            while held.place.tokens().await.contains(&accessor) {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_mins(1), ended).await.expect("it ends");
        let observed = held.revoked().await;
        assert!(observed.iter().any(|line| line == "login refused with 28000"), "{observed:?}");
        held.end().await;
    }
}
