//! What every implementation of credentials must do.
use std::time::Duration;

use drill::ledger::Resource;
use drill::port::{Credentials, LeaseRequest, Server};

pub(crate) async fn credentials_contract(credentials: &dyn Credentials, server: &dyn Server, request: &LeaseRequest) {
    credentials.warm_up().await.expect("warm");
    nothing_to_revoke_is_success(credentials, server, request).await;
    let lease = credentials.issue(request, server).await.expect("a lease");
    lease.proof.judge().expect("a proof that holds");
    assert_eq!(lease.proof.role, Resource::lease_role(&request.run));
    assert_eq!(lease.grant.identity.role, lease.proof.role);
    assert!(lease.grant.expires_at <= request.not_after && lease.grant.expires_at > jiff::Timestamp::now());
    let database = &request.databases[0];
    server.login(&lease.grant.identity, database).await.map(drop).expect("the lease logs in");

    let end = credentials.renew(request, server).await.expect("renewed");
    assert!(end >= lease.grant.expires_at && end <= request.not_after);
    let late = LeaseRequest { ttl: Duration::from_hours(1_000), ..request.clone() };
    assert_eq!(credentials.renew(&late, server).await.expect("renewed"), request.not_after, "never beyond the run");

    let proof = credentials.revoke(request, Some(&lease), server).await.expect("revoked");
    assert!(proof.observed.iter().any(|line| line.contains("28000")), "{proof:?}");
    let after = server.login(&lease.grant.identity, database).await.map(drop).expect_err("refused");
    assert_eq!(after.sqlstate.as_deref(), Some("28000"));
    nothing_to_revoke_is_success(credentials, server, request).await;

    // A runner that knows nothing of the lease finds it by its name.
    credentials.issue(request, server).await.expect("another lease");
    credentials.revoke(request, None, server).await.expect("revoked by name");
}

async fn nothing_to_revoke_is_success(credentials: &dyn Credentials, server: &dyn Server, request: &LeaseRequest) {
    credentials.revoke(request, None, server).await.expect("nothing to revoke");
}
