//! What every implementation of credentials must do.
use std::time::Duration;

use drill::ledger::Resource;
use drill::port::{Credentials, Inside, LeaseRequest};

pub(crate) async fn credentials_contract(credentials: &dyn Credentials, inside: Inside<'_>, request: &LeaseRequest) {
    credentials.warm_up(&request.run).await.expect("warm");
    nothing_to_revoke_is_success(credentials, inside, request).await;
    let lease = credentials.issue(request, inside).await.expect("a lease");
    lease.proof.judge().expect("a proof that holds");
    assert!(lease.proof.role.starts_with(&Resource::lease_role(&request.run)), "{}", lease.proof.role);
    assert_eq!(lease.grant.identity.role, lease.proof.role);
    assert!(lease.grant.expires_at <= request.not_after && lease.grant.expires_at > jiff::Timestamp::now());
    let database = &request.databases[0];
    inside.server.login(&lease.grant.identity, database).await.map(drop).expect("the lease logs in");

    let renewed = credentials.renew(request, &lease, inside).await.expect("renewed").grant;
    assert!(renewed.expires_at >= lease.grant.expires_at && renewed.expires_at <= request.not_after);
    inside.server.login(&renewed.identity, database).await.map(drop).expect("by the certificate that came with it");
    let late = LeaseRequest { ttl: Duration::from_hours(1_000), ..request.clone() };
    let renewed = credentials.renew(&late, &lease, inside).await.expect("renewed").grant.expires_at;
    assert_eq!(renewed, request.not_after, "never beyond the run");

    let proof = credentials.revoke(request, Some(&lease), Some(inside)).await.expect("revoked");
    assert!(proof.observed.iter().any(|line| line.contains("28000")), "{proof:?}");
    let after = inside.server.login(&lease.grant.identity, database).await.map(drop).expect_err("refused");
    assert_eq!(after.sqlstate.as_deref(), Some("28000"));
    nothing_to_revoke_is_success(credentials, inside, request).await;

    // A runner that knows nothing of the lease finds it by its name.
    credentials.issue(request, inside).await.expect("another lease");
    credentials.revoke(request, None, Some(inside)).await.expect("revoked by name");
    // And where the database went with its sandbox, nothing is owed.
    credentials.revoke(request, None, None).await.expect("gone with its database");
    credentials.cool_down(&request.run).await;
    credentials.cool_down(&request.run).await;
}

async fn nothing_to_revoke_is_success(credentials: &dyn Credentials, inside: Inside<'_>, request: &LeaseRequest) {
    credentials.revoke(request, None, Some(inside)).await.expect("nothing to revoke");
}
