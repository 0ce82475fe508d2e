#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::needless_raw_string_hashes, reason = "expect-test writes them")]
use std::path::Path;

use drill::ledger::Event;
use drivers::store::fake::MemoryStore;
use expect_test::expect;

use super::*;
use crate::sample;

fn report(events: Vec<Event>) -> Report {
    let started = sample::started("orders", Path::new("/var/lib/muster/evidence"));
    Report::of(&sample::stamp(&started, events)).unwrap()
}

#[test]
fn a_failed_run_that_left_something() {
    expect![[r#"
        orders-20261122t021500z-j8y2   drill orders, fidelity production

          ✗ FAILED: check rows failed: public.orders has 12 rows and should have 13
          ! something is left over, see teardown

          started         2026-11-22 02:15:00Z, ended 2026-11-22 02:15:41Z
          drill file      /etc/muster/drills/orders.yaml, sha256 b764…d014
          labels          team=payments
          backup          orders, 1.2 GiB, from /backups/orders/20261121T200300Z
                          manifest sha256 05b3…657f, signed by backup.pub
                          taken 2026-11-21 20:03:00Z from 15.18 (Debian 15.18-0+deb12u1)
          recovery time   21.4 s of 30 m
          recovery point  6 h 12 m of 1 d
          boundaries cost 0.9 s

        Phases
          ✓ preflight      0.1 s   PostgreSQL 15.18, 3 extensions, 2 roles
          ✓ verify         0.9 s   1.2 GiB, signed by backup.pub
          ✓ sandbox        0.4 s   sandbox up
          ✓ probe          0.1 s   isolated: 1 probe closed, 1 control open
          ✓ restore       20.1 s   1,204 entries, 1 database
          ✓ lease          0.2 s   read-only role for 15 m
          ✓ validate       0.6 s   1 check
          ? teardown       0.3 s   directory runs/orders is busy
              what to do: end what uses it, then `muster reap`

        Checks
          ✗ rows on orders failed: 38 tables, 12,402,118 rows
              took 0.6 s, 0.0 s of CPU, 3.0 MiB of memory
            rows is builtin:row-count, sha256 5e68…5160, granted sql, baseline

        Findings
          ✗ rows on orders: public.orders: 12 rows, and 13 in the backup's baseline
              expected 13, found 12
          ! restore on orders: audit.remote: blocked by isolation: foreign table

        Isolation
            local, template sha256 5cde…6b40
            memory 4.0 GiB, by cgroup v1, for the whole sandbox
            processes 200, by rlimit, not for the sandbox as a whole
          ✓ closed  sandbox: TCP to the runner's listener (connect: network is unreachable)
          ✓ open    runner: TCP to its own listener (connected)

        Lease
            muster-orders-20261122t021500z-j8y2, for 15 m at a time
          ✓ could not create a table in orders (SQLSTATE 42501)

        Connections, as reported by the restored server
            muster-agent from 127.0.0.1 to orders

        Teardown
          ✗ storage  still there: directory runs/orders is busy
              what to do: end what uses it, then `muster reap`
          ✓ sandbox  no process is left
          ✓ lease    login refused with 28000
          ✓ agent    pid 4711 ended

        Evidence
          ✓ /var/lib/muster/evidence/orders-20261122t021500z-j8y2.dsse.json
              number 12 of the chain, sha256 ee8250fb76e094b34b471f13a73dbbe51d1ae142e9df59d7c0d31ec20f0a0a8e

        What to do next
            `muster reap` removes what is left over, and says what stands in its way
            compare the backup with its source before you rely on it
    "#]]
    .assert_eq(&text::text(&report(sample::failed()), Style::plain()));
}

#[test]
fn a_run_that_passed() {
    let text = text::text(&report(sample::passed()), Style::plain());
    assert!(text.contains("✓ PASSED: everything asked for was seen"), "{text}");
    assert!(!text.contains("What to do next") && !text.contains('✗'), "{text}");
}

#[test]
fn a_run_whose_process_died_early() {
    let events = sample::failed().into_iter().take(8).collect();
    expect![[r#"
        orders-20261122t021500z-j8y2   drill orders, fidelity production

          ? NO RESULT: the run has not come to its end

          started         2026-11-22 02:15:00Z, not ended
          drill file      /etc/muster/drills/orders.yaml, sha256 b764…d014
          labels          team=payments
          backup          orders, 1.2 GiB, from /backups/orders/20261121T200300Z
                          manifest sha256 05b3…657f, signed by backup.pub
                          taken 2026-11-21 20:03:00Z from 15.18 (Debian 15.18-0+deb12u1)
          recovery time   not measured of 30 m
          recovery point  not measured of 1 d

        Phases
          ✓ preflight      0.1 s   PostgreSQL 15.18, 3 extensions, 2 roles
          ✓ verify         0.9 s   1.2 GiB, signed by backup.pub

        Isolation
            local, template sha256 5cde…6b40
            memory 4.0 GiB, by cgroup v1, for the whole sandbox
            processes 200, by rlimit, not for the sandbox as a whole
          ? not probed: no backup byte was loaded

        Teardown
          ? storage  not released yet

        Evidence
          ? not written

        What to do next
            process 4711 ran it; where that is gone, `muster reap` cleans up and concludes the run
    "#]]
    .assert_eq(&text::text(&report(events), Style::plain()));
}

#[test]
#[expect(clippy::too_many_lines, reason = "it is one golden text")]
fn the_json_speaks_the_words_of_evidence() {
    expect![[r#"
        {
          "run": "orders-20261122t021500z-j8y2",
          "drill": {
            "name": "orders",
            "digest": "sha256:b76419d9ad059fdfdc06637cb4db8ac93be25deb5bdf3cd2a7bbedaffe99d014",
            "file": "/etc/muster/drills/orders.yaml",
            "labels": {
              "team": "payments"
            }
          },
          "musterVersion": "0.1.0",
          "started": "2026-11-22T02:15:00Z",
          "ended": "2026-11-22T02:15:41Z",
          "result": {
            "verdict": "failed",
            "reason": "check-failed",
            "message": "check rows failed: public.orders has 12 rows and should have 13",
            "advice": "compare the backup with its source before you rely on it",
            "leftovers": "some"
          },
          "recovery": {
            "fidelity": "production",
            "timeActualMilliseconds": 21400,
            "timeObjectiveMilliseconds": 1800000,
            "pointActualMilliseconds": 22320000,
            "pointObjectiveMilliseconds": 86400000,
            "boundaryOverheadMilliseconds": 900
          },
          "artifact": {
            "name": "orders",
            "digest": "sha256:05b3abf2579a5eb66403cd78be557fd860633a1fe2103c7642030defe32c657f",
            "location": "/backups/orders/20261121T200300Z",
            "vouchedBy": "signature",
            "signedBy": "backup.pub",
            "sizeBytes": 1288490189,
            "snapshotTime": "2026-11-21T20:03:00Z",
            "snapshotTimeFrom": "capture",
            "sourceVersion": "15.18 (Debian 15.18-0+deb12u1)",
            "databases": [
              "orders"
            ]
          },
          "quarantined": null,
          "phases": [
            {
              "phase": "preflight",
              "started": "2026-11-22T02:15:01Z",
              "milliseconds": 120,
              "outcome": "done",
              "note": "PostgreSQL 15.18, 3 extensions, 2 roles",
              "problem": null
            },
            {
              "phase": "verify",
              "started": "2026-11-22T02:15:06Z",
              "milliseconds": 930,
              "outcome": "done",
              "note": "1.2 GiB, signed by backup.pub",
              "problem": null
            },
            {
              "phase": "sandbox",
              "started": "2026-11-22T02:15:12Z",
              "milliseconds": 410,
              "outcome": "done",
              "note": "sandbox up",
              "problem": null
            },
            {
              "phase": "probe",
              "started": "2026-11-22T02:15:15Z",
              "milliseconds": 90,
              "outcome": "done",
              "note": "isolated: 1 probe closed, 1 control open",
              "problem": null
            },
            {
              "phase": "restore",
              "started": "2026-11-22T02:15:18Z",
              "milliseconds": 20060,
              "outcome": "done",
              "note": "1,204 entries, 1 database",
              "problem": null
            },
            {
              "phase": "lease",
              "started": "2026-11-22T02:15:23Z",
              "milliseconds": 230,
              "outcome": "done",
              "note": "read-only role for 15 m",
              "problem": null
            },
            {
              "phase": "validate",
              "started": "2026-11-22T02:15:28Z",
              "milliseconds": 640,
              "outcome": "done",
              "note": "1 check",
              "problem": null
            },
            {
              "phase": "teardown",
              "started": "2026-11-22T02:15:33Z",
              "milliseconds": 310,
              "outcome": "stopped",
              "note": null,
              "problem": {
                "reason": "internal",
                "message": "directory runs/orders is busy",
                "advice": "end what uses it, then `muster reap`"
              }
            }
          ],
          "checks": [
            {
              "check": "rows",
              "database": "orders",
              "outcome": "completed",
              "message": "38 tables, 12,402,118 rows",
              "limit": null,
              "usage": {
                "cpuMilliseconds": 40,
                "wallMilliseconds": 600,
                "memoryBytes": 3145728
              }
            }
          ],
          "findings": [
            {
              "source": "restore",
              "database": "orders",
              "severity": "warning",
              "subject": "audit.remote",
              "message": "blocked by isolation: foreign table",
              "details": []
            },
            {
              "source": "rows",
              "database": "orders",
              "severity": "failure",
              "subject": "public.orders",
              "message": "12 rows, and 13 in the backup's baseline",
              "details": [
                {
                  "name": "expected",
                  "value": "13"
                },
                {
                  "name": "found",
                  "value": "12"
                }
              ]
            }
          ],
          "plugins": [
            {
              "check": "rows",
              "from": "builtin:row-count",
              "digest": "sha256:5e689e2b01672bf33996e75d5e372ff60c536ce1599a1458e867cd8f4bef5160",
              "grants": [
                "sql",
                "baseline"
              ]
            }
          ],
          "isolation": {
            "template": {
              "isolation": "local",
              "digest": "sha256:5cde0f1298f41f7d1c8b907a36992a7a513225a2615bd6e307bf1a9149b06b40"
            },
            "limits": [
              {
                "what": "memory",
                "value": 4294967296,
                "enforcedBy": "cgroup v1",
                "total": true
              },
              {
                "what": "processes",
                "value": 200,
                "enforcedBy": "rlimit",
                "total": false
              }
            ],
            "probes": [
              {
                "name": "sandbox: TCP to the runner's listener",
                "expected": "closed",
                "observed": "closed",
                "detail": "connect: network is unreachable"
              },
              {
                "name": "runner: TCP to its own listener",
                "expected": "open",
                "observed": "open",
                "detail": "connected"
              }
            ]
          },
          "lease": {
            "role": "muster-orders-20261122t021500z-j8y2",
            "ttlMilliseconds": 900000,
            "attempts": [
              {
                "what": "create a table",
                "database": "orders",
                "held": true,
                "sqlstate": "42501"
              }
            ]
          },
          "teardown": [
            {
              "resource": "storage",
              "outcome": "still-owed",
              "observed": [],
              "problem": {
                "reason": "internal",
                "message": "directory runs/orders is busy",
                "advice": "end what uses it, then `muster reap`"
              }
            },
            {
              "resource": "sandbox",
              "outcome": "released",
              "observed": [
                "no process is left"
              ],
              "problem": null
            },
            {
              "resource": "lease",
              "outcome": "released",
              "observed": [
                "login refused with 28000"
              ],
              "problem": null
            },
            {
              "resource": "agent",
              "outcome": "released",
              "observed": [
                "pid 4711 ended"
              ],
              "problem": null
            }
          ],
          "connectionsReportedByRestoredServer": [
            "muster-agent from 127.0.0.1 to orders"
          ],
          "evidence": {
            "path": "/var/lib/muster/evidence/orders-20261122t021500z-j8y2.dsse.json",
            "digest": "sha256:ee8250fb76e094b34b471f13a73dbbe51d1ae142e9df59d7c0d31ec20f0a0a8e",
            "sequence": 12
          }
        }
    "#]]
    .assert_eq(&json::json(&report(sample::failed())).unwrap());
}

#[tokio::test]
async fn a_drill_stands_for_its_newest_run() {
    let store = MemoryStore::new();
    let started = sample::started("orders", Path::new("/evidence"));
    store.claim(&started).await.unwrap();
    for given in ["orders", started.run.as_str()] {
        assert_eq!(find(&store, given).await.unwrap().len(), 1, "{given}");
    }
    for given in ["stock", "orders-20261122t021500z-zzzz", "../etc", ""] {
        assert!(find(&store, given).await.unwrap_err().advice.is_some(), "{given}");
    }
}

fn page(events: Vec<Event>) -> String {
    html::html(&report(events)).unwrap()
}

#[test]
fn the_page_is_one_file_that_asks_for_nothing() {
    for events in [sample::passed(), sample::failed(), sample::hostile(), Vec::new()] {
        let page = page(events);
        assert!(page.contains("content=\"default-src 'none'; style-src 'unsafe-inline'"), "{page}");
        for forbidden in ["<script", "<link", "<img", "<iframe", "src=", "href=", "url(", "@import", "http:", "https:"]
        {
            assert!(!page.contains(forbidden), "{forbidden} is in\n{page}");
        }
    }
}

#[test]
fn the_page_says_all_that_the_text_says() {
    let page = page(sample::failed()).replace("&#39;", "'");
    for words in [
        "✗</span> FAILED",
        "something is left over, see teardown",
        "failure: public.orders</b>: 12 rows, and 13 in the backup's baseline",
        "expected 13, found 12",
        "recovery time 21.4 s of 30 m",
        "compare the backup with its source before you rely on it",
        "/backups/orders/20261121T200300Z",
        "signed by backup.pub",
        "closed: sandbox: TCP to the runner's listener",
        "could not create a table in orders (SQLSTATE 42501)",
        "storage: still there: directory runs/orders is busy",
        "lease: login refused with 28000",
        "memory 4.0 GiB, by cgroup v1, for the whole sandbox",
        "rows is builtin:row-count, granted sql, baseline",
        "muster-agent from 127.0.0.1 to orders",
        "muster evidence verify /var/lib/muster/evidence/orders-20261122t021500z-j8y2.dsse.json --trust",
        &drill::id::Sha256Digest::of(b"evidence").hex(),
        &drill::id::Sha256Digest::of(b"plugin").to_string(),
    ] {
        assert!(page.contains(words), "{words:?} is not in\n{page}");
    }
    let (failure, warning) = (page.find("failure: public.orders"), page.find("warning: audit.remote"));
    assert!(failure < warning, "failures come first");
}

#[test]
fn hostile_text_is_shown_and_does_nothing() {
    let (page, text) = (page(sample::hostile()), text::text(&report(sample::hostile()), Style::plain()));
    assert!(text.contains("<script>") && page.contains("&#60;script&#62;"), "it is not hidden either\n{page}");
    let json = json::json(&report(sample::hostile())).unwrap();
    let parsed: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(parsed["result"]["message"], sample::HOSTILE);
    for (shown, csi) in [(&page, "\\u{9b}31m"), (&text, "\\u{9b}31m"), (&json, "\\u009b31m")] {
        assert!(shown.contains(csi), "{shown}");
        let raw = shown.chars().find(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}');
        assert_eq!(raw, None, "{shown}");
    }
    // As many elements as with harmless text: nothing of it became one.
    let tags = |page: &str| page.matches('<').count();
    let harmless: Vec<Event> = sample::hostile();
    let harmless = serde_json::to_string(&harmless).unwrap();
    let hostile = serde_json::to_string(sample::HOSTILE).unwrap();
    let harmless = harmless.replace(hostile.trim_matches('"'), "harmless");
    assert_eq!(tags(&page), tags(&self::page(serde_json::from_str(&harmless).unwrap())));
}

#[test]
fn every_form_says_what_to_do_whatever_the_reason() {
    for reason in drill::verdict::Reason::ALL {
        let mut events = sample::passed();
        for event in &mut events {
            if let Event::Concluded(summary) = event {
                *summary = sample::summary(reason, "what happened");
            }
        }
        let passed = reason == drill::verdict::Reason::Proven;
        let report = report(events);
        for shown in [text::text(&report, Style::plain()), html::html(&report).unwrap()] {
            assert_eq!(shown.contains("What to do next"), !passed, "{reason:?}");
        }
    }
}

#[test]
fn a_narrow_terminal_breaks_between_words() {
    for columns in [40, 60] {
        let shown = text::text(&report(sample::failed()), Style::of_columns(columns));
        for line in shown.lines() {
            let long_word = line.split_whitespace().any(|word| word.len() > columns / 2);
            assert!(long_word || textwrap::core::display_width(line) <= columns, "{columns}: {line}");
        }
    }
}
