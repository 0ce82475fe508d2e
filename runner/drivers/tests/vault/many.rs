//! Leases in a row and at once. `MUSTER_BENCH_LEASES=200,20` measures; see docs/performance.md.
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use drill::port::{Credentials as _, LeaseRequest};
use reqwest::Method;
use serde_json::{Value, json};

use super::place::Place;
use super::server::repository;
use super::{database, request};
use crate::{Running, TestFn, test};

pub(super) fn tests() -> Vec<(&'static str, TestFn)> {
    vec![test!(many_leases_in_a_row_and_at_once_leave_nothing)]
}

async fn many_leases_in_a_row_and_at_once_leave_nothing() {
    let asked = std::env::var("MUSTER_BENCH_LEASES").ok();
    let mut counts = asked.as_deref().unwrap_or("4,2").split(',').map(|count| count.parse().expect("two numbers"));
    let (in_a_row, at_once): (u32, u32) = (counts.next().expect("two"), counts.next().expect("two"));
    let place = Place::new().await;
    let vault = place.credentials();
    let mut databases = vec![database().await];
    let (mut cold, mut warm, mut revoked) = (Vec::new(), Vec::new(), Vec::new());
    let (row, mut sizes) = (request("rows"), Vec::new());
    for nth in 0..in_a_row {
        let is_warm = nth % 2 == 1;
        if is_warm {
            vault.warm_up(&row.run).await.expect("warm");
        }
        let (issue, revoke) = lease_once(&vault, &row, &databases[0]).await;
        if is_warm { &mut warm } else { &mut cold }.push(issue);
        revoked.push(revoke);
        vault.cool_down(&row.run).await;
        sizes.push(resident());
    }
    place.assert_clean_after(&[], &row.run).await;
    assert_eq!(connections(&databases[0]).await, 0, "no session of Vault's or of a lease is left");
    while databases.len() < at_once as usize {
        databases.push(database().await);
    }
    let began = Instant::now();
    let requests: Vec<LeaseRequest> = (0..at_once).map(|n| request(&format!("n{n:03}"))).collect();
    let all = requests.iter().zip(&databases).map(async |(request, database)| {
        let took = lease_once(&vault, request, database).await;
        vault.cool_down(&request.run).await;
        took
    });
    futures_util::future::join_all(all).await;
    let whole = began.elapsed();
    place.assert_clean_after(&[], &row.run).await;
    for database in &databases {
        assert_eq!(connections(database).await, 0);
    }
    if asked.is_some() {
        let tenth = sizes[sizes.len() / 10];
        let last = sizes[sizes.len() - 1];
        eprintln!("issue, warm {}; issue, cold {}; revoke {}", told(warm), told(cold), told(revoked));
        eprintln!("{in_a_row} in a row: resident {tenth} KiB after a tenth of them, {last} KiB after all");
        eprintln!("{at_once} at once: {:.1} s", whole.as_secs_f64());
        by_hand(&place, &databases[0], in_a_row.min(60)).await;
    }
    for database in databases {
        database.end().await;
    }
}

async fn lease_once(
    vault: &drivers::credentials::vault::VaultCredentials,
    request: &LeaseRequest,
    database: &Running,
) -> (Duration, Duration) {
    let began = Instant::now();
    let lease = vault.issue(request, database.inside()).await.expect("a lease");
    let issued = began.elapsed();
    let began = Instant::now();
    vault.revoke(request, Some(&lease), Some(database.inside())).await.expect("revoked");
    (issued, began.elapsed())
}

/// Of others than muster itself.
async fn connections(database: &Running) -> usize {
    let sessions = "SELECT usename FROM pg_catalog.pg_stat_activity WHERE usename <> 'muster_sandbox'";
    database.inside().server.admin("template1", sessions).await.expect("asked").len()
}

/// What `vault read` and `vault lease revoke` take, with a connection that somebody set up before.
async fn by_hand(place: &Place, database: &Running, times: u32) {
    let inside = database.inside();
    let role = "CREATE ROLE by_hand SUPERUSER LOGIN";
    inside.server.admin("template1", role).await.expect("made");
    let identity = inside.server.identity("by_hand", Duration::from_hours(1)).expect("a certificate");
    let doorway = inside.sandbox.open_doorway().await.expect("a doorway");
    let url =
        format!("postgresql://{{{{username}}}}@{}:{}/template1?sslmode=verify-full", doorway.host(), doorway.port());
    let connection = json!({
        "plugin_name": "postgresql-database-plugin", "connection_url": url, "username": "by_hand", "allowed_roles": "by-hand",
        "tls_ca": identity.ca, "tls_certificate": identity.certificate, "private_key": identity.key.0.expose(),
    });
    let name = &place.name;
    place.vault.ok(Method::POST, &format!("{name}/config/by-hand"), Some(connection)).await;
    let role = json!({ "db_name": "by-hand", "creation_statements": "CREATE ROLE \"{{name}}\" LOGIN VALID UNTIL '{{expiration}}'" });
    place.vault.ok(Method::POST, &format!("{name}/roles/by-hand"), Some(role)).await;
    let (mut read, mut revoked) = (Vec::new(), Vec::new());
    for _ in 0..times {
        let began = Instant::now();
        let made: Value =
            serde_json::from_slice(&cli(place, &["read", "-format=json", &format!("{name}/creds/by-hand")]))
                .expect("JSON");
        read.push(began.elapsed());
        let began = Instant::now();
        cli(place, &["lease", "revoke", "-sync", made["lease_id"].as_str().expect("an id")]);
        revoked.push(began.elapsed());
    }
    eprintln!("by hand: vault read {}; vault lease revoke {}", told(read), told(revoked));
    doorway.close().await.expect("closed");
}

fn cli(place: &Place, arguments: &[&str]) -> Vec<u8> {
    let program = Command::new(repository().join("tests/services/vault/build")).output().expect("built before");
    let program = String::from_utf8(program.stdout).expect("a path");
    let mut command = Command::new(program.trim());
    command.args(arguments).env("VAULT_ADDR", place.vault.address()).env("VAULT_CACERT", place.vault.ca());
    let output = command.env("VAULT_TOKEN", place.vault.token()).stdin(Stdio::null()).output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn told(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)].as_millis();
    format!("{} ms (95 %: {} ms)", at(50), at(95))
}

/// Of this process, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc is there");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it has one");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}
