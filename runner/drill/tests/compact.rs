//! Compact manifests: what each stands for, and what is said where it stands for nothing.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::needless_raw_string_hashes, reason = "expect-test writes them")]
use std::path::Path;
use std::time::Duration;

use drill::config::Compact;
use drill::file::{Options, compact_schema, full, is_compact, parse, parse_config, render};
use drill::spec::{Credentials, Drill, Isolation, Source, VaultAuth};
use expect_test::expect;
use serde_json::{Value, json};

fn config() -> String {
    let image = |digit: &str| format!("registry.example/postgres@sha256:{}", digit.repeat(64));
    format!(
        "apiVersion: muster.dev/v1
kind: Config
drills: [drills]
compact:
  backups: /srv/backups
  trustedKeys: [{{ file: backup.pub }}]
  images: {{ '16': {} }}
  kubernetes:
    image: {}
    musterImage: registry.example/muster@sha256:{}
    production: ['10.20.0.5:5432']
    doorway: {{ pods: {{ namespace: vault, labels: {{ app: vault }} }} }}
  vault:
    address: https://vault.example:8200
    ca: vault.pem
    auth: {{ kubernetes: {{ role: muster, tokenFile: token }} }}
    maxTtl: 2h
",
        image("6"),
        image("5"),
        "0".repeat(64),
    )
}

fn defaults(config: &str) -> Result<Compact, String> {
    let config = parse_config(config, Path::new("/etc/muster"))
        .map_err(|problems| render(&problems, "muster.yaml", config, false))?;
    Ok(config.compact.unwrap_or_default())
}

fn expand(text: &str, config: &str) -> Result<String, String> {
    let defaults = defaults(config).unwrap();
    let full = full(text, Some(&defaults)).map(std::borrow::Cow::into_owned);
    full.map_err(|problems| render(&problems, "orders.yaml", text, false))
}

const LEAST: &str = "drill_id: orders\nbackup_snapshot: orders/latest\ndb_engine: postgres\n";

/// None of them at its default.
fn whole() -> Value {
    json!({
        "drill_id": "orders", "backup_snapshot": "orders/latest", "db_engine": "postgresql:16", "target_port": 6432,
        "orchestrator_cidr": "10.30.0.0/24", "vault_path": "drills/database", "ttl_seconds": 1200,
    })
}

fn drill(text: &str) -> Drill {
    parse(text, Options::default()).unwrap_or_else(|problems| panic!("{}", render(&problems, "it", text, false)))
}

#[test]
fn the_least_stands_for_a_whole_drill() {
    let text = expand(LEAST, &config()).unwrap();
    expect![[r#"
        apiVersion: muster.dev/v1
        kind: Drill
        metadata:
          name: orders
        spec:
          credentials:
            vault:
              address: https://vault.example:8200
              auth:
                kubernetes:
                  role: muster
                  tokenFile: /etc/muster/token
              ca: /etc/muster/vault.pem
              maxTtl: 2h
              ttl: 900s
          engine:
            postgresql: {}
          isolation:
            kubernetes:
              doorway:
                pods:
                  labels:
                    app: vault
                  namespace: vault
              image: >-
                registry.example/postgres@sha256:5555555555555555555555555555555555555555555555555555555555555555
              musterImage: >-
                registry.example/muster@sha256:0000000000000000000000000000000000000000000000000000000000000000
              port: 5432
              production:
              - 10.20.0.5:5432
          source:
            manifest: /srv/backups/orders/latest/manifest.json
            trustedKeys:
            - file: /etc/muster/backup.pub
    "#]]
    .assert_eq(&text);
    let drill = drill(&text);
    let Isolation::Kubernetes(cluster) = &drill.isolation else { panic!("{:?}", drill.isolation) };
    let Credentials::Vault(vault) = &drill.credentials else { panic!("{:?}", drill.credentials) };
    assert_eq!((cluster.port, drill.engine.major), (5432, None));
    assert_eq!((vault.ttl, vault.mount.as_str()), (Duration::from_mins(15), "database"));
    assert_eq!(vault.ca, Path::new("/etc/muster/vault.pem"));
    assert!(matches!(&vault.auth, VaultAuth::Kubernetes { token, .. } if token == Path::new("/etc/muster/token")));
}

#[test]
fn what_a_manifest_says_stands_in_the_drill() {
    let drill = drill(&expand(&whole().to_string(), &config()).unwrap());
    let Isolation::Kubernetes(cluster) = &drill.isolation else { panic!("{:?}", drill.isolation) };
    let Credentials::Vault(vault) = &drill.credentials else { panic!("{:?}", drill.credentials) };
    let Source::Manifest { path, .. } = &drill.source else { panic!("{:?}", drill.source) };
    assert_eq!((drill.name.as_str(), drill.engine.major), ("orders", Some(16)));
    assert_eq!(path, "/srv/backups/orders/latest/manifest.json");
    assert!(cluster.image.ends_with(&"6".repeat(64)), "the image of its major: {}", cluster.image);
    assert_eq!(cluster.port, 6432);
    assert_eq!(cluster.orchestrator.unwrap().to_string(), "10.30.0.0/24");
    assert_eq!((vault.mount.as_str(), vault.ttl), ("drills/database", Duration::from_mins(20)));
}

#[test]
fn every_key_makes_a_difference_and_is_in_the_schema() {
    let validator = jsonschema::validator_for(&compact_schema()).unwrap();
    let whole = whole();
    assert!(validator.is_valid(&whole));
    let stands_for = expand(&whole.to_string(), &config());
    for key in whole.as_object().unwrap().keys() {
        let mut less = whole.clone();
        less.as_object_mut().unwrap().remove(key);
        assert_ne!(expand(&less.to_string(), &config()), stands_for, "{key} makes no difference");
    }
    let known: Vec<String> = compact_schema()["properties"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(known, whole.as_object().unwrap().keys().cloned().collect::<Vec<_>>());
}

#[test]
fn a_drill_file_is_none_and_stays_as_it_is() {
    let text = "apiVersion: muster.dev/v1\nkind: Drill\ndrill_id: orders\n";
    assert!(!is_compact(text) && !is_compact("drill: [") && !is_compact("orders: 1") && is_compact("drill_id: [1]"));
    assert_eq!(full(text, None).unwrap(), text);
}

#[test]
fn all_that_is_wrong_is_said_at_once_and_where() {
    let text = "drill_id: Orders\nbackup_snapshot: ../orders\ndb_engine: mysql\ntarget_port: 80\norchestrator_cidr: 10.30.0.1/24\n\
                vault_path: /database\nttl_seconds: 5\nttl: 5m\n";
    expect![[r#"
        error: 8 problems in orders.yaml

          `Orders` is not a DNS label of at most 30 characters (a-z, 0-9 and -)
           1 | drill_id: Orders
             |           ^^^^^^ such as orders

          `../orders` is not a directory beneath compact.backups
           2 | backup_snapshot: ../orders
             |                  ^^^^^^^^^ such as orders/latest: no slash at its ends, and no `..`

          `mysql` is not an engine that muster restores
           3 | db_engine: mysql
             |            ^^^^^ postgresql, or postgresql:15 for that major; postgres is the same

          `target_port` must be a whole number from 1024 to 65535
           4 | target_port: 80
             |              ^^

          `10.30.0.1/24` names an address within a network: the network itself is 10.30.0.0/24
           5 | orchestrator_cidr: 10.30.0.1/24
             |                    ^^^^^^^^^^^^ such as 10.30.0.0/24, or 10.30.0.7/32 for one machine

          `/database` is not a path in a Vault
           6 | vault_path: /database
             |             ^^^^^^^^^ letters, digits, - _ . in steps between slashes, such as teams/database

          `ttl_seconds` must be a whole number from 60 to 86400
           7 | ttl_seconds: 5
             |              ^

          unknown key `ttl`
           8 | ttl: 5m
             | ^^^ known here: `drill_id`, `backup_snapshot`, `db_engine`, `target_port`, `orchestrator_cidr`, `vault_path`, `ttl_seconds`
    "#]].assert_eq(&expand(text, &config()).unwrap_err());
}

#[test]
fn what_only_the_configuration_can_mend_is_said() {
    let bare = "apiVersion: muster.dev/v1\nkind: Config\ndrills: [drills]\ncompact: { backups: /srv }\n";
    expect![[r#"
        error: 3 problems in orders.yaml

          the configuration lacks `compact.trustedKeys`: who is trusted to have signed them
           1 | drill_id: orders
             | ^ add compact: { trustedKeys: … } to it; `muster config schema` has its form

          the configuration lacks `compact.kubernetes`: in which cluster, and with which images, they are restored
           1 | drill_id: orders
             | ^ add compact: { kubernetes: … } to it; `muster config schema` has its form

          the configuration lacks `compact.vault`: who leases the login
           1 | drill_id: orders
             | ^ add compact: { vault: … } to it; `muster config schema` has its form
    "#]]
    .assert_eq(&expand(LEAST, bare).unwrap_err());
    let nothing = full(LEAST, None).unwrap_err();
    expect![[r#"
        error: 1 problem in orders.yaml

          no configuration says what this compact manifest leaves out
           1 | drill_id: orders
             | ^ name the daemon's configuration with --config; its `compact` has the rest
    "#]]
    .assert_eq(&render(&nothing, "orders.yaml", LEAST, false));
    let other = LEAST.replace("postgres\n", "postgres:15\n");
    expect![[r#"
        error: 1 problem in orders.yaml

          the configuration has no image of PostgreSQL 15
           3 | db_engine: postgres:15
             |            ^^^^^^^^^^^ it has those of 16; add one to compact.images
    "#]]
    .assert_eq(&expand(&other, &config()).unwrap_err());
    let long = format!("{LEAST}ttl_seconds: 7201\n");
    expect![[r#"
        error: 1 problem in orders.yaml

          the drill that this stands for is wrong: `maxTtl` is shorter than `ttl`, which is 2 h
           1 | drill_id: orders
             | ^ raise `maxTtl`, or shorten `ttl`
    "#]]
    .assert_eq(&expand(&long, &config()).unwrap_err());
}

/// Before any manifest is read.
#[test]
fn a_configuration_that_no_manifest_can_be_used_with_is_refused() {
    let without = config().replace("    doorway: { pods: { namespace: vault, labels: { app: vault } } }\n", "");
    expect![[r#"
        error: 1 problem in muster.yaml

          the drill that this stands for is wrong: nobody says from where this Vault reaches the sandbox in the cluster
           5 |   backups: /srv/backups
             |   ^ add isolation.kubernetes.doorway: { addresses: [192.0.2.10] }, or { pods: { namespace: …, labels: … } } for one in the cluster
    "#]].assert_eq(&defaults(&without).unwrap_err());
    let wrong = config().replace("'16':", "'16.2':").replace("musterImage", "musterimage");
    expect![[r#"
        error: 3 problems in muster.yaml

          `16.2` is not a major version of PostgreSQL
           7 |   images: { '16.2': registry.example/postgres@sha256:666666666666666666666666666666666666666666666666666666666…
             |             ^^^^^^ such as "15": …

          `musterImage` is missing from `kubernetes`
           8 |   kubernetes:
             |   ^^^^^^^^^^ add musterImage: registry.example/postgres@sha256:0000000000000000000000000000000000000000000000000000000000000000

          unknown key `musterimage`
          10 |     musterimage: registry.example/muster@sha256:00000000000000000000000000000000000000000000000000000000000000…
             |     ^^^^^^^^^^^ did you mean `musterImage`?
    "#]].assert_eq(&defaults(&wrong).unwrap_err());
}
