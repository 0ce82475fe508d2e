//! `credentials.vault`: defaults, files beside the drill, what the ledger keeps, and what is production's.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
use std::path::Path;
use std::time::Duration;

use drill::config::Production;
use drill::file::{Options, parse};
use drill::secret::SecretSource;
use drill::spec::{Credentials, Isolation, Vault, VaultAuth, Visitor};

fn vault(more: &str) -> Vault {
    let text = format!(
        "apiVersion: muster.dev/v1
kind: Drill
metadata: {{ name: orders }}
spec:
  source: {{ manifest: /b/manifest.json, trustedKeys: [{{ file: k.pub }}] }}
  credentials:
    vault:
      address: https://vault.example:8200/
      ca: vault.pem
      auth: {{ appRole: {{ roleId: 7c3d, secretId: {{ file: /run/secret-id }} }} }}
{more}"
    );
    let drill = parse(&text, Options::default()).unwrap();
    let Credentials::Vault(vault) = drill.credentials else { panic!("{:?}", drill.credentials) };
    *vault
}

#[test]
fn what_is_left_out_has_a_default_and_files_lie_beside_the_drill() {
    let vault = vault("");
    assert_eq!((vault.address.as_str(), vault.mount.as_str()), ("https://vault.example:8200", "database"));
    assert_eq!((vault.ttl, vault.max_ttl), (Duration::from_mins(15), Duration::from_hours(24)));
    let run = "orders-20261122t021500z-j8y2".parse().unwrap();
    assert_eq!(vault.name_of(&run), "muster-orders-20261122t021500z-j8y2");
    let vault = vault.beneath(Path::new("/etc/muster/drills"));
    assert_eq!(vault.ca, Path::new("/etc/muster/drills/vault.pem"));
    let VaultAuth::AppRole { mount, secret_id, .. } = &vault.auth else { panic!("{:?}", vault.auth) };
    assert_eq!((mount.as_str(), secret_id), ("approle", &SecretSource::File("/run/secret-id".into())));

    // What the ledger keeps is what recovery reads.
    let kept = serde_json::to_string(&vault).unwrap();
    assert_eq!(serde_json::from_str::<Vault>(&kept).unwrap(), vault);
}

#[test]
fn what_is_productions_is_known_by_its_mount_or_its_path() {
    let forbids = |listed: &str, more: &str| {
        let production = Production { vault: vec!["elsewhere".to_owned(), listed.to_owned()], ..Production::default() };
        production.forbids(&vault(more)).map(str::to_owned)
    };
    assert_eq!(forbids("database", ""), Some("database".to_owned()));
    assert_eq!(forbids("database/muster", ""), Some("database/muster".to_owned()));
    assert_eq!(forbids("database/orders", "      path: orders\n"), Some("database/orders".to_owned()));
    assert_eq!(forbids("teams/database", "      namespace: teams\n"), Some("teams/database".to_owned()));
    for other in ["databases", "database/app", "teams/database", "muster"] {
        assert_eq!(forbids(other, ""), None, "{other}");
    }
}

/// A sandbox in a cluster lets in nobody of whom the drill does not say from where they come.
#[test]
fn in_a_cluster_a_vault_needs_a_doorway_and_a_doorway_a_vault() {
    let drill = |doorway: &str, credentials: &str| {
        let digits = "0".repeat(64);
        let text = format!(
            "apiVersion: muster.dev/v1\nkind: Drill\nmetadata: {{ name: orders }}\nspec:\n  \
             source: {{ manifest: /b/manifest.json, trustedKeys: [{{ file: k.pub }}] }}\n  \
             isolation:\n    kubernetes:\n      image: a@sha256:{digits}\n      musterImage: b@sha256:{digits}\n{doorway}{credentials}"
        );
        parse(&text, Options::default()).map_err(|problems| {
            problems
                .iter()
                .map(|problem| format!("{}: {}", problem.place.unwrap().line, problem.message))
                .collect::<Vec<_>>()
        })
    };
    let vault = "  credentials: { vault: { address: 'https://v:8200', ca: v.pem, auth: { token: { file: t } } } }\n";
    let doorway = |inner: &str| format!("      doorway: {inner}\n");
    let refused = |doorway: &str, credentials: &str| drill(doorway, credentials).unwrap_err().join("; ");
    assert_eq!(refused("", vault), "10: nobody says from where this Vault reaches the sandbox in the cluster");
    let addresses = doorway("{ addresses: [192.0.2.10] }");
    assert_eq!(refused(&addresses, ""), "10: `doorway` is for a Vault, and this drill has none");
    let drill_with_one = drill(&addresses, vault).unwrap();
    let Isolation::Kubernetes(cluster) = drill_with_one.isolation else { panic!("{:?}", drill_with_one.isolation) };
    assert_eq!(cluster.doorway, Some(Visitor::Addresses(vec!["192.0.2.10".parse().unwrap()])));
    for (wrong, why) in [
        ("{ addresses: [192.0.2.0/24] }", "10: `192.0.2.0/24` is not an address"),
        ("{ addresses: [] }", "10: `addresses` is empty: nobody could come in"),
        (
            "{ addresses: [192.0.2.10], pods: { namespace: vault, labels: { app: vault } } }",
            "10: `doorway` takes one of `addresses` and `pods`, not both",
        ),
        (
            "{ pods: { namespace: vault, labels: {} } }",
            "10: `labels` is empty: every pod of the namespace would be let in",
        ),
        ("{ pods: { namespace: vault, labels: { app: -v } } }", "10: `-v` is not a label's value in Kubernetes"),
    ] {
        assert_eq!(refused(&doorway(wrong), vault), why);
    }
}
