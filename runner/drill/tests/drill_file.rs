//! Drill files as users meet them: those that ship, those with mistakes, and those that were never meant to be one.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::needless_raw_string_hashes, reason = "expect-test writes them")]
use std::path::{Path, PathBuf};

use drill::file::{Options, json_schema, parse, render};
use drill::spec::{Drill, Enforcement};
use expect_test::{Expect, expect};
use proptest::prelude::*;
use serde_json::{Value, json};

fn shipped() -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schedules");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

fn read(text: &str) -> Result<Drill, String> {
    parse(text, Options::default()).map_err(|problems| render(&problems, "drill.yaml", text, false))
}

/// Every key that this version offers, none at its default.
fn full() -> Value {
    json!({
        "apiVersion": "muster.dev/v1",
        "kind": "Drill",
        "metadata": { "name": "full", "labels": { "team": "payments" } },
        "spec": {
            "schedule": {
                "cron": "15 2 * * *", "timezone": "Europe/Berlin", "jitter": "10m", "startDeadline": "1h", "missed": "run-once",
                "blackout": [{ "cron": "0 0 24 12 *", "duration": "72h" }],
            },
            "objectives": { "recoveryTime": "31m", "recoveryPoint": "25h" },
            "source": {
                "manifest": "a/manifest.json",
                "trustedKeys": [
                    { "file": "backup.pub" },
                    { "inline": "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3" },
                ],
            },
            "engine": { "postgresql": { "major": 15, "jobs": 7, "fidelity": "fast", "settings": { "shared_buffers": "1GB" } } },
            "isolation": {
                "local": { "limits": { "memory": "5GiB", "disk": "51GiB", "processes": 201, "enforcement": "required" } },
            },
            "credentials": { "embedded": { "ttl": "16m" } },
            "checks": [{
                "name": "own",
                "plugin": format!("own.wasm@sha256:{}", "0a".repeat(32)),
                "grants": { "sql": {}, "baseline": {}, "catalog": {}, "digest": {} },
                "limits": {
                    "memory": "65MiB", "cpuTime": "11s", "wallTime": "6m", "logBytes": "65KiB", "findings": 1001, "metrics": 101,
                    "handles": 65,
                },
                "options": { "deep": [{ "x": null }] },
            }],
            "deadlines": {
                "preflight": "2m", "verify": "11m", "sandbox": "3m", "restore": "2h", "lease": "2m", "validate": "31m",
                "teardown": "6m",
            },
        },
    })
}

#[test]
fn every_file_in_schedules_is_valid() {
    let files = shipped();
    assert!(files.len() >= 3);
    let validator = jsonschema::validator_for(&json_schema()).unwrap();
    for (path, text) in files {
        let drill = read(&text).unwrap_or_else(|problems| panic!("{}: {problems}", path.display()));
        assert!(!drill.checks.is_empty());
        let value: Value = serde_saphyr::from_str(&text).unwrap();
        if let Err(error) = validator.validate(&value) {
            panic!("{}: {error} at {}", path.display(), error.instance_path());
        }
    }
}

#[test]
fn the_smallest_drill_file_is_six_lines_and_has_every_default() {
    let (_, text) = shipped().into_iter().find(|(path, _)| path.ends_with("smallest.yaml")).unwrap();
    let lines: Vec<&str> = text.lines().take_while(|line| !line.starts_with('#')).collect();
    assert_eq!(lines.len(), 6);
    let mut drill = read(&lines.join("\n")).unwrap();
    drill.digest = drill::id::Sha256Digest::from_bytes([0; 32]);
    expect![[r#"
        Drill {
            name: DrillName(
                "orders",
            ),
            labels: {},
            digest: sha256:0000000000000000000000000000000000000000000000000000000000000000,
            schedule: None,
            objectives: Objectives {
                recovery_time: None,
                recovery_point: None,
            },
            source: Source {
                manifest: "/backups/orders/latest/manifest.json",
                trusted_keys: [
                    File(
                        "backup.pub",
                    ),
                ],
            },
            engine: Postgresql {
                major: None,
                jobs: 2,
                fidelity: Production,
                settings: {},
            },
            isolation: Local(
                Limits {
                    memory: None,
                    disk: None,
                    processes: 200,
                    enforcement: BestEffort,
                },
            ),
            credentials: Embedded {
                ttl: 900s,
            },
            checks: [
                Check {
                    name: "rows",
                    plugin: Builtin(
                        "row-count",
                    ),
                    grants: {},
                    limits: CheckLimits {
                        memory: 67108864,
                        cpu_time: 10s,
                        wall_time: 300s,
                        log_bytes: 65536,
                        findings: 1000,
                        metrics: 100,
                        handles: 64,
                    },
                    options: Object {},
                },
            ],
            deadlines: Deadlines {
                preflight: 60s,
                verify: 1800s,
                sandbox: 120s,
                restore: 14400s,
                lease: 60s,
                validate: 3600s,
                teardown: 300s,
            },
        }
    "#]]
    .assert_debug_eq(&drill);
}

#[test]
fn the_daemon_requires_limits_where_the_file_does_not_say() {
    let (_, text) = shipped().into_iter().find(|(path, _)| path.ends_with("smallest.yaml")).unwrap();
    let drill = parse(&text, Options { enforcement: Enforcement::Required }).unwrap();
    let drill::spec::Isolation::Local(limits) = drill.isolation;
    assert_eq!(limits.enforcement, Enforcement::Required);
}

/// JSON is YAML: each key of the full file in turn is taken out, and the result must notice.
#[test]
fn no_key_is_ignored() {
    let whole = parsed(&full()).unwrap();
    let mut paths = Vec::new();
    pointers(&full(), "", &mut paths);
    assert!(paths.len() > 50);
    for pointer in paths {
        let mut less = full();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let removed = match less.pointer_mut(parent).unwrap() {
            Value::Object(map) => map.remove(key),
            Value::Array(list) => Some(list.remove(key.parse().unwrap())),
            _ => None,
        };
        assert!(removed.is_some(), "{pointer}");
        assert_ne!(parsed(&less).as_ref(), Ok(&whole), "{pointer} makes no difference");
    }
}

fn parsed(value: &Value) -> Result<Drill, String> {
    let drill = read(&value.to_string())?;
    Ok(Drill { digest: drill::id::Sha256Digest::from_bytes([0; 32]), ..drill })
}

fn pointers(value: &Value, at: &str, into: &mut Vec<String>) {
    let mut visit = |key: &str, value: &Value| {
        let here = format!("{at}/{key}");
        into.push(here.clone());
        pointers(value, &here, into);
    };
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| visit(key, value)),
        Value::Array(list) => list.iter().enumerate().for_each(|(index, value)| visit(&index.to_string(), value)),
        _ => {}
    }
}

/// Both ways: the full file holds every key that the schema knows and offers, and the schema knows every key of it.
#[test]
fn the_schema_and_the_parser_know_the_same_keys() {
    let schema = json_schema();
    let validator = jsonschema::validator_for(&schema).unwrap();
    assert!(validator.is_valid(&full()));

    let mut known = Vec::new();
    schema_keys(&schema, "", &mut known);
    let mut written = Vec::new();
    pointers(&full(), "", &mut written);
    let written: Vec<String> =
        written.iter().map(|pointer| pointer.replace(|c: char| c.is_ascii_digit(), "*")).collect();
    for (key, offered) in known {
        assert_eq!(written.contains(&key), offered, "{key}");
    }

    // An unknown key and a key of a later version, at every place where there is a map with known keys.
    let mut places = vec![String::new()];
    pointers(&full(), "", &mut places);
    for place in places
        .iter()
        .filter(|place| !place.contains("/options") && !place.contains("/labels") && !place.contains("/settings"))
    {
        let mut more = full();
        let Some(Value::Object(map)) = more.pointer_mut(place) else { continue };
        map.insert("zzz".to_owned(), json!({}));
        assert!(!validator.is_valid(&more), "{place}");
        assert!(read(&more.to_string()).unwrap_err().contains("unknown key `zzz`"), "{place}");
    }
    for (place, key) in [
        ("/spec", "selfTest"),
        ("/spec/source", "fallbacks"),
        ("/spec/isolation", "kubernetes"),
        ("/spec/credentials", "vault"),
        ("/spec/source/trustedKeys/0", "secretRef"),
    ] {
        let mut later = full();
        later.pointer_mut(place).unwrap()[key] = json!({});
        assert!(!validator.is_valid(&later), "{key}");
        let answer = read(&later.to_string()).unwrap_err();
        assert!(answer.contains(&format!("`{key}` is not offered by this version of muster")), "{answer}");
    }
}

/// Paths of all properties, and whether this version offers them.
fn schema_keys(schema: &Value, at: &str, into: &mut Vec<(String, bool)>) {
    for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        assert!(
            property["description"].as_str().is_some_and(|text| text.ends_with('.')),
            "{at}/{name} says what it is"
        );
        let here = format!("{at}/{name}");
        into.push((here.clone(), property.get("not").is_none()));
        schema_keys(property, &here, into);
    }
    if let Some(items) = schema.get("items") {
        schema_keys(items, &format!("{at}/*"), into);
    }
}

fn golden(text: &str, expected: Expect) {
    expected.assert_eq(&read(text).expect_err("it has problems"));
}

#[test]
fn problems_are_shown_all_at_once_under_the_line_they_are_on() {
    golden(
        "\
apiVersion: muster.dev/v1
kind: Drill
metadata: { name: orders }
spec:
  # the sketch of the documentation
  objectives: { recoverTime: 30m }
  source:
    manifest: /backups/orders/latest/manifest.json
    trustedKeys: []
",
        expect![[r#"
            error: 2 problems in drill.yaml

              unknown key `recoverTime`
               6 |   objectives: { recoverTime: 30m }
                 |                 ^^^^^^^^^^^ did you mean `recoveryTime`?

              `trustedKeys` is empty: without a key no backup can be told from a forged one
               9 |     trustedKeys: []
                 |                  ^^ name the public key of whoever signs, such as { file: keys/backup.pub }
        "#]],
    );
}

#[test]
fn every_kind_of_mistake_has_words_of_its_own() {
    golden(
        "\
apiVersion: muster.dev/v2
kind: Drill
metadata:
  name: Orders_Nightly
  labels: { tier: 1, \"a b\": x }
spec:
  schedule:
    cron: '61 2 * * *'
    timezone: Europe/Berlinn
    startDeadline: 1h
    misssed: run-once
    blackout: [{ cron: '@hourli', duration: 3 }]
  objectives: { recoveryTime: 1,5h, recoveryPoint: 0s }
  source:
    manifest: /backups/orders/latest
    trustedKeys:
      - secretRef: vault/backup
      - { file: a.pub, inline: RWQ }
      - {}
      - a.pub
    fallbacks: []
  engine:
    postgresql:
      jobs: 0
      jobs: many
      fidelity: quick
      settings: { fsync: off, listen_addresses: '*', \"a b\": 1 }
  isolation:
    local: { limits: { memory: 4 GiB, disk: 1MiB, processes: 200.5, enforcement: require } }
    kubernetes: {}
  credentials: { vault: {} }
  checks:
    - { name: rows, plugin: row-count }
    - { name: rows, plugin: builtin:row-cuont }
    - { name: r2, plugin: builtin:row-count, grants: { sql: {} } }
    - { name: far, plugin: oci://registry.example/checks/balance@sha256:00 }
    - { name: unpinned, plugin: ./check.wasm, limits: { wallTime: 2h } }
    - { name: short, plugin: ./check.wasm@sha256:00, grants: { sequel: {} }, options: { a: 1, a: 2 } }
    - plugin: builtin:row-count
  deadlines:
  selfTest: { schedule: { cron: '@weekly' } }
",
        expect![[r#"
            error: 46 problems in drill.yaml

              `apiVersion` must be `muster.dev/v1`
               1 | apiVersion: muster.dev/v2
                 |             ^^^^^^^^^^^^^ write muster.dev/v1

              `Orders_Nightly` is not a DNS label of at most 30 characters (a-z, 0-9 and -)
               4 |   name: Orders_Nightly
                 |         ^^^^^^^^^^^^^^ such as orders-nightly

              `tier` must be text, not a number
               5 |   labels: { tier: 1, "a b": x }
                 |                   ^ quote it: "1"

              `a b` is not a label name of at most 63 characters (letters, digits, - _ . /)
               5 |   labels: { tier: 1, "a b": x }
                 |                      ^^^^^

              `61` is not a minute (0 to 59)
               8 |     cron: '61 2 * * *'
                 |           ^^^^^^^^^^^^

              unknown time zone `Europe/Berlinn`
               9 |     timezone: Europe/Berlinn
                 |               ^^^^^^^^^^^^^^ did you mean `Europe/Berlin`?

              `startDeadline` says how late a missed run may start, and missed runs are skipped
              10 |     startDeadline: 1h
                 |                    ^^ add `missed: run-once`, or remove it

              unknown key `misssed`
              11 |     misssed: run-once
                 |     ^^^^^^^ did you mean `missed`?

              `@hourli` is not a schedule
              12 |     blackout: [{ cron: '@hourli', duration: 3 }]
                 |                        ^^^^^^^^^ did you mean `@hourly`?

              `duration` has no unit
              12 |     blackout: [{ cron: '@hourli', duration: 3 }]
                 |                                             ^ such as `3s` or `3m`

              `recoveryTime` has no unit
              13 |   objectives: { recoveryTime: 1,5h, recoveryPoint: 0s }
                 |                               ^ such as `1s` or `1m`

              unknown key `5h`
              13 |   objectives: { recoveryTime: 1,5h, recoveryPoint: 0s }
                 |                                 ^^ known here: `recoveryTime`, `recoveryPoint`

              `recoveryPoint` must be between 1.0 s and 3653 d
              13 |   objectives: { recoveryTime: 1,5h, recoveryPoint: 0s }
                 |                                                    ^^

              `manifest` must name a file called manifest.json
              15 |     manifest: /backups/orders/latest
                 |               ^^^^^^^^^^^^^^^^^^^^^^ such as /backups/orders/latest/manifest.json

              `secretRef` is not offered by this version of muster
              17 |       - secretRef: vault/backup
                 |         ^^^^^^^^^ a later version will; remove it until then

              entry 2 of `trustedKeys` takes one of `file` and `inline`, not both
              18 |       - { file: a.pub, inline: RWQ }
                 |         ^ keep one of them

              `inline` is not the base64 line of a minisign public key
              18 |       - { file: a.pub, inline: RWQ }
                 |                                ^^^ the second line of the .pub file: 56 characters, the first two are RW

              entry 3 of `trustedKeys` is empty
              19 |       - {}
                 |         ^^ write `file` or `inline`

              entry 4 of `trustedKeys` must be a map, not text
              20 |       - a.pub
                 |         ^^^^^

              `fallbacks` is not offered by this version of muster
              21 |     fallbacks: []
                 |     ^^^^^^^^^ a later version will; remove it until then

              `jobs` must be a whole number from 1 to 256
              24 |       jobs: 0
                 |             ^

              duplicate key `jobs`
              25 |       jobs: many
                 |       ^^^^ the first is on line 24; keep one of them

              `jobs` must be a whole number, not text
              25 |       jobs: many
                 |             ^^^^

              `quick` is not a value of `fidelity`
              26 |       fidelity: quick
                 |                 ^^^^^ write `production` or `fast`

              `fsync` off contradicts `fidelity: production`
              27 |       settings: { fsync: off, listen_addresses: '*', "a b": 1 }
                 |                   ^^^^^ remove it, or write `fidelity: fast`, which every result will say

              `listen_addresses` is muster's own to set: the sandbox depends on it
              27 |       settings: { fsync: off, listen_addresses: '*', "a b": 1 }
                 |                               ^^^^^^^^^^^^^^^^ remove it

              `a b` is not the name of a server setting
              27 |       settings: { fsync: off, listen_addresses: '*', "a b": 1 }
                 |                                                      ^^^^^

              `4 GiB` is not a size such as `512MiB`, `4GiB` or `10GB`
              29 |     local: { limits: { memory: 4 GiB, disk: 1MiB, processes: 200.5, enforcement: require } }
                 |                                ^^^^^

              `disk` must be at least 64MiB
              29 |     local: { limits: { memory: 4 GiB, disk: 1MiB, processes: 200.5, enforcement: require } }
                 |                                             ^^^^

              `processes` must be a whole number from 32 to 65536
              29 |     local: { limits: { memory: 4 GiB, disk: 1MiB, processes: 200.5, enforcement: require } }
                 |                                                              ^^^^^

              `require` is not a value of `enforcement`
              29 |     local: { limits: { memory: 4 GiB, disk: 1MiB, processes: 200.5, enforcement: require } }
                 |                                                                                  ^^^^^^^ did you mean `required`?

              `kubernetes` is not offered by this version of muster
              30 |     kubernetes: {}
                 |     ^^^^^^^^^^ a later version will; remove it until then

              `vault` is not offered by this version of muster
              31 |   credentials: { vault: {} }
                 |                  ^^^^^ a later version will; remove it until then

              `row-count` is neither a built-in plugin nor a pinned file
              33 |     - { name: rows, plugin: row-count }
                 |                             ^^^^^^^^^ did you mean `builtin:row-count`?

              another check is called `rows`
              34 |     - { name: rows, plugin: builtin:row-cuont }
                 |               ^^^^ the other is on line 33; name them apart

              no plugin `row-cuont` ships with muster
              34 |     - { name: rows, plugin: builtin:row-cuont }
                 |                             ^^^^^^^^^^^^^^^^^ did you mean `row-count`?

              `grants` are for plugins of your own: a built-in one gets what it imports
              35 |     - { name: r2, plugin: builtin:row-count, grants: { sql: {} } }
                 |                                                      ^ remove them

              plugins from a registry are not offered by this version of muster
              36 |     - { name: far, plugin: oci://registry.example/checks/balance@sha256:00 }
                 |                            ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ download the component and name it as PATH@sha256:DIGEST

              a plugin file must be pinned by its digest
              37 |     - { name: unpinned, plugin: ./check.wasm, limits: { wallTime: 2h } }
                 |                                 ^^^^^^^^^^^^ ./check.wasm@sha256:…; `sha256sum ./check.wasm` prints the digits

              `wallTime` is longer than all checks together may take: 1 h by default
              37 |     - { name: unpinned, plugin: ./check.wasm, limits: { wallTime: 2h } }
                 |                                                                   ^^ shorten it, or raise `validate` under `deadlines`

              `sha256:00` is not a SHA-256 digest (`sha256:` and 64 hexadecimal digits)
              38 |     - { name: short, plugin: ./check.wasm@sha256:00, grants: { sequel: {} }, options: { a: 1, a: 2 } }
                 |                              ^^^^^^^^^^^^^^^^^^^^^^

              unknown key `sequel`
              38 |     - { name: short, plugin: ./check.wasm@sha256:00, grants: { sequel: {} }, options: { a: 1, a: 2 } }
                 |                                                                ^^^^^^ known here: `sql`, `baseline`, `catalog`, `digest`

              duplicate key `a`
              38 |     - { name: short, plugin: ./check.wasm@sha256:00, grants: { sequel: {} }, options: { a: 1, a: 2 } }
                 |                                                                                               ^ the first is on line 38; keep one of them

              `name` is missing from entry 7 of `checks`
              39 |     - plugin: builtin:row-count
                 |       ^ add name: books-balance

              `deadlines` has no value
              40 |   deadlines:
                 |   ^^^^^^^^^ write { preflight: 15m }, or remove it

              `selfTest` is not offered by this version of muster
              41 |   selfTest: { schedule: { cron: '@weekly' } }
                 |   ^^^^^^^^ a later version will; remove it until then
        "#]],
    );
}

#[test]
fn what_is_missing_is_named_with_what_to_write() {
    golden(
        "",
        expect![[r#"
        error: 1 problem in drill.yaml

          the file is empty
          `muster schema` prints what it may hold
    "#]],
    );
    golden(
        "# nothing\n",
        expect![[r#"
        error: 1 problem in drill.yaml

          the file is empty
          `muster schema` prints what it may hold
    "#]],
    );
    golden(
        "just text",
        expect![[r#"
        error: 1 problem in drill.yaml

          the file must be a map, not text
           1 | just text
             | ^^^^^^^^^
    "#]],
    );
    golden(
        "apiVersion: muster.dev/v1\nmetadata: {}\nspec:\n  checks: []\n",
        expect![[r#"
            error: 4 problems in drill.yaml

              `kind` is missing from the file
               1 | apiVersion: muster.dev/v1
                 | ^ add kind: Drill

              `name` is missing from `metadata`
               2 | metadata: {}
                 | ^^^^^^^^ add name: orders-nightly

              `source` is missing from `spec`
               3 | spec:
                 | ^^^^ add source: { manifest: /backups/orders/latest/manifest.json, trustedKeys: [{ file: keys/backup.pub }] }

              `checks` is empty: nothing would be proven about what came back
               4 |   checks: []
                 |           ^^ leave `checks` out for the default checks
        "#]],
    );
    golden(
        "apiVersion: muster.dev/v1\nkind: Drill\nmetadata: { name: a }\nspec: { source: { trustedKeys: x } }\n",
        expect![[r#"
            error: 2 problems in drill.yaml

              `manifest` is missing from `source`
               4 | spec: { source: { trustedKeys: x } }
                 |         ^^^^^^ add manifest: /backups/orders/latest/manifest.json

              `trustedKeys` must be a list, not text
               4 | spec: { source: { trustedKeys: x } }
                 |                                ^
        "#]],
    );
}

#[test]
fn carets_stand_under_what_they_mean() {
    // Tabs, wide and combining characters, a carriage return, a byte order mark, terminal escapes, and a very long line.
    golden(
        "\u{feff}metadata:\t{ \t\u{8a9e}\u{1f600}e\u{301}: x,  zz: y }\r\nnope: 1\rmemory: 2\ncpuTime: 1s\n",
        expect![[r#"
            error: 9 problems in drill.yaml

              `apiVersion` is missing from the file
               1 | metadata:    {     語😀é: x,  zz: y }
                 | ^ add apiVersion: muster.dev/v1

              `kind` is missing from the file
               1 | metadata:    {     語😀é: x,  zz: y }
                 | ^ add kind: Drill

              `spec` is missing from the file
               1 | metadata:    {     語😀é: x,  zz: y }
                 | ^ add spec: { source: { manifest: /backups/orders/latest/manifest.json, trustedKeys: [{ file: keys/backup.pub }] } }

              `name` is missing from `metadata`
               1 | metadata:    {     語😀é: x,  zz: y }
                 | ^^^^^^^^ add name: orders-nightly

              unknown key `語😀é`
               1 | metadata:    {     語😀é: x,  zz: y }
                 |                    ^^^^^ known here: `name`, `labels`

              unknown key `zz`
               1 | metadata:    {     語😀é: x,  zz: y }
                 |                               ^^ known here: `name`, `labels`

              unknown key `nope`
               2 | nope: 1
                 | ^^^^ known here: `apiVersion`, `kind`, `metadata`, `spec`

              unknown key `memory`
               3 | memory: 2
                 | ^^^^^^ known here: `apiVersion`, `kind`, `metadata`, `spec`

              unknown key `cpuTime`
               4 | cpuTime: 1s
                 | ^^^^^^^ it belongs under `spec.checks.limits`
        "#]],
    );
    golden(
        "\"\\e[31mred\\u202e\": 1\n",
        expect![[r#"
        error: 5 problems in drill.yaml

          `apiVersion` is missing from the file
           1 | "\e[31mred\u202e": 1
             | ^ add apiVersion: muster.dev/v1

          `kind` is missing from the file
           1 | "\e[31mred\u202e": 1
             | ^ add kind: Drill

          `metadata` is missing from the file
           1 | "\e[31mred\u202e": 1
             | ^ add metadata: { name: orders-nightly }

          `spec` is missing from the file
           1 | "\e[31mred\u202e": 1
             | ^ add spec: { source: { manifest: /backups/orders/latest/manifest.json, trustedKeys: [{ file: keys/backup.pub }] } }

          unknown key `�[31mred�`
           1 | "\e[31mred\u202e": 1
             | ^^^^^^^^^^^^^^^^^ known here: `apiVersion`, `kind`, `metadata`, `spec`
    "#]],
    );
    golden(
        &format!("metadata: {{ labels: {{ a: {0} }}, nam: {0} }}\n", "x".repeat(150)),
        expect![[r#"
            error: 5 problems in drill.yaml

              `apiVersion` is missing from the file
               1 | metadata: { labels: { a: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…
                 | ^ add apiVersion: muster.dev/v1

              `kind` is missing from the file
               1 | metadata: { labels: { a: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…
                 | ^ add kind: Drill

              `spec` is missing from the file
               1 | metadata: { labels: { a: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…
                 | ^ add spec: { source: { manifest: /backups/orders/latest/manifest.json, trustedKeys: [{ file: keys/backup.pub }] } }

              `name` is missing from `metadata`
               1 | metadata: { labels: { a: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…
                 | ^^^^^^^^ add name: orders-nightly

              unknown key `nam`
               1 | …xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx }, nam: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…
                 |                                          ^^^ did you mean `name`?
        "#]],
    );
}

#[test]
fn yaml_has_traps_and_none_of_them_is_silent() {
    golden(
        "a: [1\nb: 2\n",
        expect![[r#"
            error: 1 problem in drill.yaml

              not readable as YAML: illegal placement of ':' indicator
               2 | b: 2
                 |  ^
        "#]],
    );
    golden(
        "spec: &s { source: *s }\n",
        expect![[r#"
            error: 1 problem in drill.yaml

              this alias stands inside what it stands for
               1 | spec: &s { source: *s }
                 |                    ^^ write the value itself
        "#]],
    );
    golden(
        "base: &b { name: x }\nmetadata: { <<: *b }\n",
        expect![[r#"
        error: 6 problems in drill.yaml

          `apiVersion` is missing from the file
           1 | base: &b { name: x }
             | ^ add apiVersion: muster.dev/v1

          `kind` is missing from the file
           1 | base: &b { name: x }
             | ^ add kind: Drill

          `spec` is missing from the file
           1 | base: &b { name: x }
             | ^ add spec: { source: { manifest: /backups/orders/latest/manifest.json, trustedKeys: [{ file: keys/backup.pub }] } }

          unknown key `base`
           1 | base: &b { name: x }
             | ^^^^ known here: `apiVersion`, `kind`, `metadata`, `spec`

          `name` is missing from `metadata`
           2 | metadata: { <<: *b }
             | ^^^^^^^^ add name: orders-nightly

          unknown key `<<`
           2 | metadata: { <<: *b }
             |             ^^ YAML 1.2 has no merge keys; use an alias for a whole value
    "#]],
    );
    golden(
        "kind: Drill\n---\nkind: Drill\n",
        expect![[r#"
            error: 1 problem in drill.yaml

              a second document begins here
               2 | ---
                 | ^^^ one file declares one drill; give it a file of its own
        "#]],
    );
    golden(
        "kind: !!python/object:os.system Drill\n",
        expect![[r#"
            error: 1 problem in drill.yaml

              not readable as YAML: unsupported tag `!!python/object:os.system`
               1 | kind: !!python/object:os.system Drill
                 |                                 ^^^^^
        "#]],
    );
    golden(
        "metadata: { name: on, labels: { a: yes, b: true, c: 012, d: 1_0, e: ~ } }\n",
        expect![[r#"
        error: 7 problems in drill.yaml

          `apiVersion` is missing from the file
           1 | metadata: { name: on, labels: { a: yes, b: true, c: 012, d: 1_0, e: ~ } }
             | ^ add apiVersion: muster.dev/v1

          `kind` is missing from the file
           1 | metadata: { name: on, labels: { a: yes, b: true, c: 012, d: 1_0, e: ~ } }
             | ^ add kind: Drill

          `spec` is missing from the file
           1 | metadata: { name: on, labels: { a: yes, b: true, c: 012, d: 1_0, e: ~ } }
             | ^ add spec: { source: { manifest: /backups/orders/latest/manifest.json, trustedKeys: [{ file: keys/backup.pub }] } }

          `b` must be text, not true or false
           1 | metadata: { name: on, labels: { a: yes, b: true, c: 012, d: 1_0, e: ~ } }
             |                                            ^^^^ quote it: "true"

          `c` must be text, not a number
           1 | metadata: { name: on, labels: { a: yes, b: true, c: 012, d: 1_0, e: ~ } }
             |                                                     ^^^ quote it: "012"

          `d` must be text, not a number
           1 | metadata: { name: on, labels: { a: yes, b: true, c: 012, d: 1_0, e: ~ } }
             |                                                             ^^^ quote it: "1_0"

          `e` has no value
           1 | metadata: { name: on, labels: { a: yes, b: true, c: 012, d: 1_0, e: ~ } }
             |                                                                  ^ write payments, or remove it
    "#]],
    );
    golden(
        &"[".repeat(2000),
        expect![[r#"
            error: 1 problem in drill.yaml

              the file grows beyond what a drill can mean
               1 | [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[…
                 |                                 ^ use fewer aliases, and nest less deeply
        "#]],
    );
    golden(
        &format!("a: &a [x,x,x,x,x,x,x,x]\nb: &b [{0}]\n", ["*a"; 900].join(",")),
        expect![[r#"
            error: 1 problem in drill.yaml

              the file grows beyond what a drill can mean
              use fewer aliases, and nest less deeply
        "#]],
    );
    golden(
        &" ".repeat((1 << 20) + 1),
        expect![[r#"
        error: 1 problem in drill.yaml

          a drill file has at most 1 MiB; this one has 1.0 MiB
    "#]],
    );
    let many: String = (0..80).map(|n| format!("k{n}: 1\n")).collect();
    assert!(read(&many).unwrap_err().ends_with("\n  and 34 more\n"));
}

#[test]
fn an_alias_for_a_whole_value_is_understood() {
    let text = "\
apiVersion: muster.dev/v1
kind: Drill
metadata: { name: twice }
spec:
  source: { manifest: m/manifest.json, trustedKeys: [{ file: k.pub }] }
  checks:
    - { name: a, plugin: builtin:row-count, limits: &small { memory: 8MiB } }
    - { name: b, plugin: builtin:row-count, limits: *small }
";
    let drill = read(text).unwrap();
    assert_eq!(drill.checks[0].limits, drill.checks[1].limits);
    assert_eq!(drill.checks[1].limits.memory, 8 << 20);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text_is_answered(text in any::<String>()) {
        answered(&text);
    }

    #[test]
    fn text_of_yaml_and_drill_words_is_answered(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "spec", "source", "metadata", "checks", "limits", ": ", ":", "\n", "\n  ", "\n    ", "- ", "{", "}", "[", "]", ", ", "\"", "'",
                "&a ", "*a", "? ", "| ", "> ", "!!str ", "<<", "~", "#", "\t", "\r", "1h", "4GiB", "0", "-1", ".inf", "\u{0}", "ü", "---", "...",
                "%YAML 1.2", "@daily", "`",
            ]),
            0..60,
        )
    ) {
        answered(&words.concat());
    }

    #[test]
    fn a_valid_file_with_a_mutation_is_answered(
        file in 0..3_usize,
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..4_usize, "[ -~\n\t:{}\\[\\]&*!|>'\"%@`ü\u{1f600}]{0,4}"), 1..5),
    ) {
        let mut text: Vec<char> = shipped()[file].1.chars().collect();
        for (at, cut, put) in edits {
            let at = at.index(text.len() + 1);
            let end = (at + cut).min(text.len());
            text.splice(at..end, put.chars());
        }
        answered(&text.into_iter().collect::<String>());
    }
}

/// Either a drill or problems that can be drawn; never a panic, never an empty list.
fn answered(text: &str) {
    if let Err(problems) = parse(text, Options::default()) {
        assert!(!problems.is_empty());
        for color in [false, true] {
            let drawn = render(&problems, "drill.yaml", text, color);
            assert!(drawn.contains("problem") && drawn.lines().count() > 2, "{drawn}");
        }
        let places: Vec<_> = problems.iter().map(|problem| problem.place).collect();
        assert!(places.is_sorted());
    }
}
