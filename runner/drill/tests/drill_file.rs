//! Drill files as users meet them: those that ship, those with mistakes, and those that were never meant to be one.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::needless_raw_string_hashes, reason = "expect-test writes them")]
use std::path::{Path, PathBuf};

use drill::file::{Options, json_schema, parse, render};
use drill::spec::{Drill, Enforcement};
use expect_test::{Expect, expect, expect_file};
use serde_json::Value;

fn shipped() -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schedules");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

fn read(text: &str) -> Result<Drill, String> {
    parse(text, Options::default()).map_err(|problems| render(&problems, "drill.yaml", text, false))
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
#[expect(clippy::too_many_lines, reason = "the golden answer is long")]
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
            source: Manifest {
                path: "/backups/orders/latest/manifest.json",
                trusted_keys: [
                    File(
                        "backup.pub",
                    ),
                ],
                fallbacks: [],
                exercise: First,
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
                    name: "schema",
                    plugin: Builtin(
                        "schema",
                    ),
                    grants: {},
                    limits: CheckLimits {
                        memory: 67108864,
                        cpu_time: 3600s,
                        wall_time: 3600s,
                        log_bytes: 65536,
                        findings: 1000,
                        metrics: 100,
                        handles: 64,
                    },
                    options: Object {},
                    needs: Some(
                        Schema,
                    ),
                },
                Check {
                    name: "rows",
                    plugin: Builtin(
                        "row-count",
                    ),
                    grants: {},
                    limits: CheckLimits {
                        memory: 67108864,
                        cpu_time: 3600s,
                        wall_time: 3600s,
                        log_bytes: 65536,
                        findings: 1000,
                        metrics: 100,
                        handles: 64,
                    },
                    options: Object {},
                    needs: None,
                },
                Check {
                    name: "content",
                    plugin: Builtin(
                        "checksum",
                    ),
                    grants: {},
                    limits: CheckLimits {
                        memory: 67108864,
                        cpu_time: 3600s,
                        wall_time: 3600s,
                        log_bytes: 65536,
                        findings: 1000,
                        metrics: 100,
                        handles: 64,
                    },
                    options: Object {},
                    needs: Some(
                        Digests,
                    ),
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
            self_test: None,
        }
    "#]]
    .assert_debug_eq(&drill);
}

#[test]
fn the_daemon_requires_limits_where_the_file_does_not_say() {
    let (_, text) = shipped().into_iter().find(|(path, _)| path.ends_with("smallest.yaml")).unwrap();
    let drill = parse(&text, Options { enforcement: Enforcement::Required }).unwrap();
    assert_eq!(drill.isolation.limits().enforcement, Enforcement::Required);
}

#[test]
fn every_mistake_has_words_of_its_own_and_all_are_shown_at_once() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mistakes");
    let mut seen = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let text = std::fs::read_to_string(&path).unwrap();
            expect_file![path.with_extension("txt")].assert_eq(&read(&text).expect_err("it has mistakes"));
            seen += 1;
        }
    }
    assert!(seen >= 10);
}

/// What only an escape can write down here: tabs, wide and combining characters, a byte order mark, line ends of all kinds,
/// terminal escapes, and a line too long for a terminal.
#[test]
#[expect(clippy::unicode_not_nfc, reason = "a combining character takes no column")]
fn carets_stand_under_what_they_mean() {
    let rest = "apiVersion: muster.dev/v1\rkind: Drill\r\nspec: { source: { manifest: manifest.json, trustedKeys: [{ file: k }] } }";
    golden(
        &format!(
            "\u{feff}metadata:\t{{ name: x, \t\u{8a9e}\u{1f600}e\u{301}: x,  zz: y }}\r\nnope: 1\rother: 2\n{rest}"
        ),
        &expect![[r#"
            error: 4 problems in drill.yaml

              unknown key `語😀é`
               1 | metadata:    { name: x,     語😀é: x,  zz: y }
                 |                             ^^^^^ known here: `name`, `labels`

              unknown key `zz`
               1 | metadata:    { name: x,     語😀é: x,  zz: y }
                 |                                        ^^ known here: `name`, `labels`

              unknown key `nope`
               2 | nope: 1
                 | ^^^^ known here: `apiVersion`, `kind`, `metadata`, `spec`

              unknown key `other`
               3 | other: 2
                 | ^^^^^ known here: `apiVersion`, `kind`, `metadata`, `spec`
        "#]],
    );
    golden(
        &format!("{rest}\nmetadata: {{ name: x, labels: {{ a: {0} }}, nam: {0} }}\n", "x".repeat(150)),
        &expect![[r#"
            error: 1 problem in drill.yaml

              unknown key `nam`
               4 | …xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx }, nam: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…
                 |                                          ^^^ did you mean `name`?
        "#]],
    );
    golden(
        &format!("{rest}\nmetadata: {{ name: x, \"\\e[31mred\\u202e\": 1 }}"),
        &expect![[r#"
        error: 1 problem in drill.yaml

          unknown key `�[31mred�`
           4 | metadata: { name: x, "\e[31mred\u202e": 1 }
             |                      ^^^^^^^^^^^^^^^^^ known here: `name`, `labels`
    "#]],
    );
    golden(
        &format!("{rest}\nmetadata: {{ name: \"\u{202e}txet\" }}"),
        &expect![[r#"
        error: 1 problem in drill.yaml

          `�txet` is not a DNS label of at most 30 characters (a-z, 0-9 and -)
           4 | metadata: { name: "�txet" }
             |                   ^^^^^^^ such as txet
    "#]],
    );
}

#[test]
fn what_grows_without_end_is_refused() {
    golden(
        &"[".repeat(2000),
        &expect![[r#"
        error: 1 problem in drill.yaml

          the file grows beyond what a drill can mean
           1 | [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[…
             |                                 ^ use fewer aliases, and nest less deeply
    "#]],
    );
    golden(
        &format!("a: &a [x, x, x, x]\nb: [{}]\n", ["*a"; 900].join(", ")),
        &expect![[r#"
        error: 1 problem in drill.yaml

          the file grows beyond what a drill can mean
          use fewer aliases, and nest less deeply
    "#]],
    );
    golden(
        &" ".repeat((1 << 20) + 1),
        &expect![[r#"
            error: 1 problem in drill.yaml

              the file is longer than the 1 MiB that a drill file may have
        "#]],
    );
    let many: Vec<String> = (0..80).map(|number| format!("k{number}: 1")).collect();
    assert!(read(&many.join("\n")).unwrap_err().ends_with("\n  and 34 more\n"));
}

fn golden(text: &str, expected: &Expect) {
    expected.assert_eq(&read(text).expect_err("it has problems"));
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
