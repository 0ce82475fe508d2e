//! Configurations as operators meet them: the least, the whole, and those with mistakes.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::needless_raw_string_hashes, reason = "expect-test writes them")]
use std::path::{Path, PathBuf};
use std::time::Duration;

use drill::config::{Config, LogFormat, LogSink, Role};
use drill::file::{config_schema, parse_config, render};
use drill::secret::SecretSource;
use expect_test::expect;

fn read(text: &str) -> Result<Config, String> {
    parse_config(text, Path::new("/etc/muster")).map_err(|problems| render(&problems, "muster.yaml", text, false))
}

const LEAST: &str = "apiVersion: muster.dev/v1\nkind: Config\ndrills: [drills]\n";

const WHOLE: &str = "apiVersion: muster.dev/v1
kind: Config
drills: [drills, /srv/drills]
stateDirectory: /var/lib/muster
evidence: { directory: /srv/evidence, key: { file: keys/evidence.key } }
concurrency: { total: 7, perTarget: 3 }
approvedTemplate: sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
shutdown: { grace: 90s }
http:
  listen: 0.0.0.0:443
  tls: { certificate: tls/cert.pem, key: '${CREDENTIALS_DIRECTORY}/key.pem' }
  tokens:
    - { name: grafana, role: viewer, sha256: 'sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08' }
    - { name: oncall, role: operator, sha256: 'sha256:0f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08' }
  socket: /run/muster.sock
alerts:
  webhooks: [{ name: chat, url: 'https://hooks.example/x', secret: { env: CHAT_SECRET }, ca: { file: ca.pem } }]
  alertmanagers: [{ name: main, url: 'http://127.0.0.1:9093/' }]
logs: { format: json, level: debug, file: /var/log/muster.log }
retention: { age: 400d, runs: 1000 }
production: { vault: [database-production, shared/database/orders], networks: ['10.20.0.0/16:5432', '10.20.7.5:6432'] }
kubernetes: { lease: { namespace: drills, name: one, duration: 9s, context: staging } }
";

#[test]
fn the_least_has_every_default() {
    let config = read(LEAST).unwrap();
    assert_eq!(config.drills, [PathBuf::from("/etc/muster/drills")]);
    assert!(config.http.listen.ip().is_loopback() && config.http.tokens.is_empty());
    assert_eq!((config.concurrency.total, config.concurrency.per_target), (2, 1));
    assert_eq!(config.shutdown.grace, Duration::from_mins(5));
    assert_eq!((config.logs.format, config.logs.sink), (LogFormat::Text, LogSink::Stderr));
    assert_eq!((config.retention.age, config.retention.runs), (None, None));
    assert_eq!(config.lease, None);
    let lease = read(&format!("{LEAST}kubernetes: {{ lease: {{ namespace: muster }} }}\n")).unwrap().lease.unwrap();
    assert_eq!((lease.name.as_str(), lease.duration, lease.context), ("muster", Duration::from_secs(15), None));
}

#[test]
fn a_lease_that_cannot_be_renewed_in_time_or_never_ends_is_refused() {
    for duration in ["1s", "1h"] {
        let text = format!("{LEAST}kubernetes: {{ lease: {{ namespace: muster, duration: {duration} }} }}\n");
        assert!(read(&text).unwrap_err().contains("between 3.0 s and 10 m"), "{duration}");
    }
    assert!(read(&format!("{LEAST}kubernetes: {{ lease: {{}} }}\n")).unwrap_err().contains("namespace"));
}

#[test]
fn every_key_makes_a_difference() {
    let config = read(WHOLE).unwrap();
    assert_eq!(config.drills[1], PathBuf::from("/srv/drills"));
    assert_eq!(config.evidence.key, Some(SecretSource::File("/etc/muster/keys/evidence.key".into())));
    assert_eq!((config.concurrency.total, config.concurrency.per_target), (7, 3));
    assert!(config.approved_template.is_some());
    assert_eq!(config.shutdown.grace, Duration::from_secs(90));
    let tls = config.http.tls.unwrap();
    assert_eq!(tls.certificate, PathBuf::from("/etc/muster/tls/cert.pem"));
    assert_eq!(tls.key, PathBuf::from("${CREDENTIALS_DIRECTORY}/key.pem"));
    let roles: Vec<_> = config.http.tokens.iter().map(|token| (token.name.as_str(), token.role)).collect();
    assert_eq!(roles, [("grafana", Role::Viewer), ("oncall", Role::Operator)]);
    assert_eq!(config.http.socket, Some("/run/muster.sock".into()));
    assert_eq!(config.alerts.webhooks[0].ca, Some("/etc/muster/ca.pem".into()));
    assert_eq!(config.alerts.alertmanagers[0].ca, None);
    assert_eq!(config.alerts.webhooks[0].secret, SecretSource::Env("CHAT_SECRET".to_owned()));
    assert_eq!(config.alerts.alertmanagers[0].url, "http://127.0.0.1:9093");
    assert_eq!(config.logs.sink, LogSink::File("/var/log/muster.log".into()));
    assert_eq!(config.retention.age, Some(Duration::from_hours(400 * 24)));
    assert_eq!(config.retention.runs, Some(1_000));
    assert_eq!(config.production.vault, ["database-production", "shared/database/orders"]);
    let networks: Vec<String> = config.production.networks.iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["10.20.0.0/16:5432", "10.20.7.5:6432"]);
    let lease = config.lease.unwrap();
    assert_eq!(
        (lease.namespace.as_str(), lease.name.as_str(), lease.context.as_deref()),
        ("drills", "one", Some("staging"))
    );
    assert_eq!(lease.duration, Duration::from_secs(9));
}

#[test]
fn all_mistakes_are_told_at_once_and_where() {
    let text = "apiVersion: muster.dev/v1
kind: Config
drills: []
http:
  listen: 0.0.0.0:9642
  tokens: [{ name: a, role: admin, sha256: hunter2 }, { name: a, role: viewer, sha256: hunter2 }]
alerts:
  webhooks: [{ name: chat, url: 'https://me:secret@hooks.example/', secret: hunter2 }]
logs: { file: a, socket: b }
concurency: { total: 0 }
";
    expect![[r#"
        error: 10 problems in muster.yaml

          `drills` is empty: there would be nothing to drill
           3 | drills: []
             |         ^^ name the directories of your drill files, such as [/etc/muster/drills]

          `listen` on 0.0.0.0:9642 lets other machines in, and that needs `tls` and `tokens` beside it
           5 |   listen: 0.0.0.0:9642
             |           ^^^^^^^^^^^^ add tls: { certificate: …, key: … } and tokens: [{ name: …, role: viewer, sha256: … }], or listen on 127.0.0.1

          `admin` is not a value of `role`
           6 |   tokens: [{ name: a, role: admin, sha256: hunter2 }, { name: a, role: viewer, sha256: hunter2 }]
             |                             ^^^^^ write `viewer` or `operator`

          `hunter2` is not a SHA-256 digest (`sha256:` and 64 hexadecimal digits)
           6 |   tokens: [{ name: a, role: admin, sha256: hunter2 }, { name: a, role: viewer, sha256: hunter2 }]
             |                                            ^^^^^^^ `sha256sum FILE` prints the digits; write sha256: before them

          another token is called `a`
           6 |   tokens: [{ name: a, role: admin, sha256: hunter2 }, { name: a, role: viewer, sha256: hunter2 }]
             |                                                               ^ the other is on line 6; name them apart

          `hunter2` is not a SHA-256 digest (`sha256:` and 64 hexadecimal digits)
           6 |   tokens: [{ name: a, role: admin, sha256: hunter2 }, { name: a, role: viewer, sha256: hunter2 }]
             |                                                                                        ^^^^^^^ `sha256sum FILE` prints the digits; write sha256: before them

          a URL with a password in it would end up in logs
           8 |   webhooks: [{ name: chat, url: 'https://me:secret@hooks.example/', secret: hunter2 }]
             |                                 ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ remove what stands before the @

          `secret` must be a map, not text
           8 |   webhooks: [{ name: chat, url: 'https://me:secret@hooks.example/', secret: hunter2 }]
             |                                                                             ^^^^^^^

          `logs` takes one of `file` and `socket`, not both
           9 | logs: { file: a, socket: b }
             |                          ^ remove one

          unknown key `concurency`
          10 | concurency: { total: 0 }
             | ^^^^^^^^^^ did you mean `concurrency`?
    "#]]
    .assert_eq(&read(text).unwrap_err());
}

#[test]
fn the_schema_knows_what_the_parser_knows() {
    let validator = jsonschema::validator_for(&config_schema()).unwrap();
    for text in [LEAST, WHOLE] {
        let value: serde_json::Value = serde_saphyr::from_str(text).unwrap();
        validator.validate(&value).unwrap();
    }
    let unknown: serde_json::Value = serde_saphyr::from_str(&LEAST.replace("drills", "drill")).unwrap();
    assert!(validator.validate(&unknown).is_err());
}
