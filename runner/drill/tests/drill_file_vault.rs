//! `credentials.vault`: defaults, files beside the drill, what the ledger keeps, and what is production's.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
use std::path::Path;
use std::time::Duration;

use drill::config::Production;
use drill::file::{Options, parse};
use drill::secret::SecretSource;
use drill::spec::{Credentials, Vault, VaultAuth};

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
