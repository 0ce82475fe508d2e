//! Drills whose login a real Vault leases, under exactly the policy that ships.
use std::fs;

use rustix::process::Signal;
use whole_program::{Daemon, Finished, Muster, Place, Vault, muster, sample};

#[test]
fn a_vault_leases_the_login_and_nothing_of_it_is_left() {
    let (place, vault) = (Place::new(), Vault::start());
    let drill = sample(&place, "shop").drill_with(&vault.credentials(&place));
    let run = muster(&place, &["run", &drill, "--output", "json"]).expect(0);
    assert_eq!(run.result()["verdict"], "passed");
    vault.assert_nothing_left();
    place.assert_nothing_left();

    assert_leased_and_revoked(&run);
    let proofs = run.events("isolation");
    for when in ["(after the doorway was closed)", "(after the lease was revoked)"] {
        assert!(proofs.iter().any(|proof| proof.to_string().contains(when)), "{when}: {proofs:?}");
    }
    let secret = fs::read_to_string(place.path("secret-id")).unwrap();
    let evidence = fs::read_to_string(run.result()["evidence"]["path"].as_str().unwrap()).unwrap();
    assert!(
        !run.stdout.contains(secret.trim()) && !run.stderr.contains(secret.trim()) && !evidence.contains(secret.trim())
    );
}

/// That the run of `shop` had a lease, and that its end was seen in Vault and in the database.
#[track_caller]
pub(crate) fn assert_leased_and_revoked(run: &Finished) {
    let lease = &run.events("lease")[0]["leases"][0];
    let id = lease["id"].as_str().unwrap();
    assert!(id.starts_with("database/creds/muster-shop-"), "{id}");
    let released = run.events("released");
    let released = released.iter().find(|released| released["resource"] == "lease").unwrap().to_string();
    assert!(
        released.contains(&format!("lease {id} revoked")) && released.contains("login refused with 28000"),
        "{released}"
    );
}

/// Exactly the policy that ships is enough, as every other test here shows; and without any line of it a drill stops before its
/// restore ends, and says which path is missing.
#[test]
fn without_any_line_of_the_policy_a_drill_stops_early_and_names_it() {
    let (place, vault) = (Place::new(), Vault::start());
    let drill = sample(&place, "shop").drill_with(&vault.credentials(&place));
    let policy = shipped_policy();
    let lines: Vec<&str> = policy.lines().filter(|line| line.starts_with("path ")).collect();
    assert_eq!(lines.len(), 10, "{policy}");
    for line in lines {
        set_policy(&place, &vault, &policy.replace(line, ""));
        let run = muster(&place, &["run", &drill, "--output", "json"]).expect(2);
        let (reason, message) = (run.result()["reason"].clone(), run.result()["message"].to_string());
        let path = line.split('"').nth(1).unwrap().trim_end_matches('*');
        assert!(reason == "credentials" && message.contains(path), "without `{line}`: {reason}: {message}");
        assert!(run.events("lease").is_empty(), "without `{line}`");
        place.assert_nothing_left();
    }
    set_policy(&place, &vault, &policy);
    // Without `revoke-self` it could not give its token back.
    vault.cli(&["lease", "revoke", "-prefix", "-sync", "auth/approle/login"]);
    vault.assert_nothing_left();
}

#[test]
fn a_sealed_vault_stops_the_run_early_and_a_stopped_run_leaves_no_token() {
    let (place, vault) = (Place::new(), Vault::start());
    let backup = sample(&place, "shop");
    let drill = backup.drill_with(&vault.credentials(&place));
    let before = vault.list("auth/token/accessors");
    vault.seal();
    let run = muster(&place, &["run", &drill, "--output", "json"]).expect(2);
    assert!(run.result()["message"].as_str().unwrap().contains("it is sealed"), "{}", run.result());
    vault.unseal();

    // Refused before there is anything to lease for; Vault was asked by then.
    let dump = backup.file(".dump");
    let mut bytes = fs::read(&dump).unwrap();
    bytes[100] ^= 1;
    fs::write(&dump, bytes).unwrap();
    let run = muster(&place, &["run", &drill, "--output", "json"]).expect(1);
    assert!(run.events("lease").is_empty());
    assert_eq!(vault.list("auth/token/accessors"), before, "muster's token is left");
    place.assert_nothing_left();
    vault.assert_nothing_left();
}

fn shipped_policy() -> String {
    fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/vault/muster.hcl")).unwrap()
}

fn set_policy(place: &Place, vault: &Vault, policy: &str) {
    let file = place.write("policy.hcl", policy);
    vault.cli(&["policy", "write", "muster", file.to_str().unwrap()]);
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
        // The killed one's own token ends with its period.
        vault.assert_no_lease_left();
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
    vault.assert_no_lease_left();
    place.assert_nothing_left();
}

/// A daemon's token that may not revoke any more, which its policy's capabilities do not show. Nobody does anything but mend the
/// policy.
#[test]
fn a_daemon_revokes_what_it_owes_once_it_may_and_says_so_until_then() {
    let (place, vault) = (Place::new(), Vault::start());
    sample(&place, "shop");
    let here = |name: &str| place.path(name).display().to_string();
    let credentials = vault.credentials(&place).replace("vault-ca.pem", &here("vault-ca.pem"));
    let credentials = credentials.replace("file: secret-id", &format!("file: {}", here("secret-id")));
    fs::create_dir(place.path("drills")).unwrap();
    let (manifest, key) = (here("backups/shop/latest/manifest.json"), here("backup.pub"));
    let drill = format!(
        "apiVersion: muster.dev/v1\nkind: Drill\nmetadata: {{ name: shop }}\nspec:\n  source: {{ manifest: {manifest}, trustedKeys: [{{ file: {key} }}] }}\n  \
         isolation: {{ local: {{ limits: {{ enforcement: best-effort }} }} }}\n{credentials}"
    );
    place.write("drills/shop.yaml", &drill);
    let may_not =
        shipped_policy().replace("[\"update\", \"sudo\"] }", "[\"update\", \"sudo\"] required_parameters = [\"x\"] }");
    set_policy(&place, &vault, &may_not);

    let daemon = Daemon::start(&place, "drills: [drills]\n");
    muster(&place, &["start", "shop", "--wait"]).expect(4);
    let id = vault.list("sys/leases/lookup/database/creds").lines().last().unwrap().to_owned();
    let lease = format!(
        "database/creds/{id}{}",
        vault.list(&format!("sys/leases/lookup/database/creds/{id}")).lines().last().unwrap()
    );
    let open = |daemon: &Daemon| {
        let alerts = daemon.get_json("/api/v1/alerts")["alerts"].as_array().unwrap().clone();
        alerts.into_iter().find(|alert| alert["kind"] == "leftovers").map(|alert| alert["message"].to_string())
    };
    let message = daemon.wait_for("the alert", open);
    assert!(message.contains(&lease) && message.contains("permission denied"), "{lease} is not in {message}");
    let failures = "muster_lease_failures_total{cause=\"permission-denied\",operation=\"revoke\"} ";
    assert!(daemon.get("/metrics").contains(failures));

    set_policy(&place, &vault, &shipped_policy());
    daemon.wait_for("the end of the alert", |daemon| open(daemon).is_none().then_some(()));
    daemon.signal(Signal::TERM);
    let (code, log) = daemon.end();
    assert_eq!(code, Some(0), "{log}");
    place.assert_nothing_left();
    vault.assert_nothing_left();
}
