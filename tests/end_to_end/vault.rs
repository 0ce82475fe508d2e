//! Drills whose login a real Vault leases, under exactly the policy that ships.
use std::fs;

use rustix::process::Signal;
use whole_program::{Muster, Place, Vault, muster, sample};

#[test]
fn a_vault_leases_the_login_and_nothing_of_it_is_left() {
    let (place, vault) = (Place::new(), Vault::start());
    let drill = sample(&place, "shop").drill_with(&vault.credentials(&place));
    let run = muster(&place, &["run", &drill, "--output", "json"]).expect(0);
    assert_eq!(run.result()["verdict"], "passed");
    vault.assert_nothing_left();
    place.assert_nothing_left();

    let lease = &run.events("lease")[0]["leases"][0];
    let id = lease["id"].as_str().unwrap();
    assert!(id.starts_with("database/creds/muster-shop-"), "{id}");
    let released = run.events("released");
    let released = released.iter().find(|released| released["resource"] == "lease").unwrap().to_string();
    assert!(
        released.contains(&format!("lease {id} revoked")) && released.contains("login refused with 28000"),
        "{released}"
    );
    let again = run.events("isolation");
    assert!(again.iter().any(|proof| proof.to_string().contains("after the doorway was closed")), "{again:?}");
    let secret = fs::read_to_string(place.path("secret-id")).unwrap();
    let evidence = fs::read_to_string(run.result()["evidence"]["path"].as_str().unwrap()).unwrap();
    assert!(
        !run.stdout.contains(secret.trim()) && !run.stderr.contains(secret.trim()) && !evidence.contains(secret.trim())
    );
}

/// Before the restore ends; and what was wrong is said with what to do.
#[test]
fn a_sealed_vault_or_a_missing_line_of_the_policy_stops_the_run_early() {
    let (place, vault) = (Place::new(), Vault::start());
    let drill = sample(&place, "shop").drill_with(&vault.credentials(&place));
    let policy = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/vault/muster.hcl")).unwrap();
    let without = policy.lines().filter(|line| !line.contains("/revoke-prefix/")).collect::<Vec<_>>().join("\n");
    let file = place.write("less.hcl", &without);
    vault.cli(&["policy", "write", "muster", file.to_str().unwrap()]);
    let run = muster(&place, &["run", &drill, "--output", "json"]).expect(2);
    let message = run.result()["message"].to_string();
    assert!(
        message.contains("lacks update, sudo on sys/leases/revoke-prefix/database/creds/muster-shop-"),
        "{message}"
    );
    assert_eq!(run.result()["reason"], "credentials");

    vault.seal();
    let run = muster(&place, &["run", &drill, "--output", "json"]).expect(2);
    assert!(run.result()["message"].as_str().unwrap().contains("it is sealed"), "{}", run.result());
    vault.unseal();
    place.assert_nothing_left();
    for path in ["sys/leases/lookup/database/creds", "database/roles", "database/config"] {
        assert_eq!(vault.list(path), "", "{path}");
    }
}

/// Killed while Vault is asked, and after: whoever recovers finds the lease by the run's name.
#[test]
fn a_killed_run_leaves_no_lease() {
    let vault = Vault::start();
    for event in ["intended", "acquired"] {
        let place = Place::new();
        let drill = sample(&place, "shop").drill_with(&vault.credentials(&place));
        let mut run = Muster::start(&place, &["run", &drill, "--output", "json"]);
        while let Some(told) = run.next_event() {
            if told["event"] == event && told["data"]["resource"] == "lease" {
                break;
            }
        }
        run.signal(Signal::KILL);
        run.wait();
        muster(&place, &["reap"]).expect(0);
        place.assert_nothing_left();
        for path in ["sys/leases/lookup/database/creds", "database/roles", "database/config"] {
            assert_eq!(vault.list(path), "", "{path} after {event}");
        }
    }
}

/// What cannot be revoked is owed, which the exit code says, and is paid later.
#[test]
fn what_a_sealed_vault_keeps_is_owed_until_it_is_unsealed() {
    let (place, vault) = (Place::new(), Vault::start());
    let drill = sample(&place, "shop").drill_with(&vault.credentials(&place));
    let mut run = Muster::start(&place, &["run", &drill, "--output", "json"]);
    run.read_until("\"event\":\"lease\"");
    vault.seal();
    let run = run.wait().expect(4);
    assert_eq!(run.result()["leftovers"], "some");
    let failed = run.events("release-failed");
    assert!(
        failed.iter().any(|failed| failed["resource"] == "lease" && failed.to_string().contains("it is sealed")),
        "{failed:?}"
    );
    vault.unseal();
    muster(&place, &["reap"]).expect(0);
    for path in ["sys/leases/lookup/database/creds", "database/roles", "database/config"] {
        assert_eq!(vault.list(path), "", "{path}");
    }
    place.assert_nothing_left();
}
