use std::time::Duration;

use drill::ledger::Resource;
use drill::port::{Credentials as _, LeaseRequest};
use drill::spec::Vault;
use serde_json::json;

use super::place::{Place, credentials_of};
use super::{database, request};
use crate::contract::credentials_contract;
use crate::{TestFn, ask, test};

pub(super) fn tests() -> Vec<(&'static str, TestFn)> {
    vec![
        test!(vault_keeps_the_contract_and_leaves_nothing),
        test!(a_lease_that_may_not_live_longer_is_replaced_without_ending_what_runs),
        test!(a_lease_that_vault_gave_up_is_replaced),
    ]
}

const MUSTERS_ROLES: &str =
    "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'muster%' AND rolname <> 'muster_sandbox'";

async fn vault_keeps_the_contract_and_leaves_nothing() {
    let (place, running) = (Place::new().await, database().await);
    let (vault, request, server) = (place.credentials(), request("real"), running.server.as_ref());
    credentials_contract(&vault, running.inside(), &request).await;
    place.assert_clean_after(&[], &request.run).await;

    let lease = vault.issue(&request, running.inside()).await.expect("a lease");
    assert!(lease.proof.attempts.len() > 20, "{:?}", lease.proof.attempts);
    let stored = &lease.proof.leases[0];
    assert!(stored.id.starts_with(&format!("{}/creds/muster-{}/", place.name, request.run)), "{}", stored.id);
    assert_eq!((&stored.role, stored.ttl), (&lease.proof.role, Duration::from_mins(5)));
    assert_eq!(lease.handle, json!({ "role": stored.role, "leases": [stored.id] }));
    assert_eq!(ask(server, "postgres", MUSTERS_ROLES).await, "1", "Vault's own role is there only while it is needed");
    let password = "SELECT rolpassword IS NULL FROM pg_authid WHERE rolname LIKE 'muster-%'";
    assert_eq!(ask(server, "postgres", password).await, "t", "the password that Vault made opens nothing");
    let session = server.login(&lease.grant.identity, "postgres").await.expect("it logs in");

    let proof = vault.revoke(&request, Some(&lease), Some(running.inside())).await.expect("revoked");
    assert!(proof.observed.contains(&format!("lease {} revoked", stored.id)), "{proof:?}");
    assert!(session.run("SELECT 1").await.is_err(), "its session ended with it");
    assert_eq!(ask(server, "postgres", MUSTERS_ROLES).await, "0");
    place.assert_clean_after(&[&vault], &request.run).await;
    running.end().await;
}

async fn a_lease_that_may_not_live_longer_is_replaced_without_ending_what_runs() {
    let (place, running) = (Place::new().await, database().await);
    let short = Vault { max_ttl: Duration::from_secs(90), ..place.config() };
    let vault = credentials_of(short);
    let request = LeaseRequest { ttl: Duration::from_mins(1), ..request("maxt") };
    let first = vault.issue(&request, running.inside()).await.expect("a lease");
    let session = running.server.login(&first.grant.identity, "postgres").await.expect("it logs in");

    let same = vault.renew(&request, &first, running.inside()).await.expect("renewed");
    assert_eq!(same.proof.leases.len(), 1);
    let longer = LeaseRequest { ttl: Duration::from_mins(5), ..request.clone() };
    let second = vault.renew(&longer, &same, running.inside()).await.expect("replaced");
    assert_ne!(second.grant.identity.role, first.grant.identity.role);
    assert_eq!(second.proof.leases.len(), 2, "{:?}", second.proof.leases);
    second.proof.judge().expect("proven like the first");
    session.run("SELECT 1").await.expect("what the first has open goes on");
    running.server.login(&second.grant.identity, "postgres").await.map(drop).expect("the second logs in");

    vault.revoke(&request, Some(&second), Some(running.inside())).await.expect("both are revoked");
    assert!(session.run("SELECT 1").await.is_err());
    assert_eq!(ask(running.server.as_ref(), "postgres", MUSTERS_ROLES).await, "0");
    place.assert_clean_after(&[&vault], &request.run).await;
    running.end().await;
}

/// A lease hangs on muster's token, so it goes when somebody revokes that.
async fn a_lease_that_vault_gave_up_is_replaced() {
    let (place, running) = (Place::new().await, database().await);
    let (vault, request) = (place.credentials(), request("gone"));
    let first = vault.issue(&request, running.inside()).await.expect("a lease");
    place
        .vault
        .ok(reqwest::Method::PUT, "sys/leases/revoke-prefix/auth/approle/login", Some(json!({ "sync": true })))
        .await;
    let second = vault.renew(&request, &first, running.inside()).await.expect("replaced");
    assert_ne!(second.grant.identity.role, first.grant.identity.role);
    running.server.login(&second.grant.identity, "postgres").await.map(drop).expect("the second logs in");
    vault.revoke(&request, Some(&second), Some(running.inside())).await.expect("revoked");
    assert!(Resource::lease_role(&request.run).len() < 60);
    assert_eq!(ask(running.server.as_ref(), "postgres", MUSTERS_ROLES).await, "0");
    place.assert_clean_after(&[&vault], &request.run).await;
    running.end().await;
}
