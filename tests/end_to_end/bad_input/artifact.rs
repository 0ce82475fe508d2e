//! Backups that are damaged, forged, replayed, swapped, or need what is not here.
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use whole_program::{Backup, Place, muster, sample};

use super::{Answer, edit_manifest, run};

/// What is done to a backup before it is drilled.
type Damage = fn(&Place, &Backup<'_>);

/// Every one is drilled, and all that answer otherwise are told together.
fn table(cases: &[(&str, Damage, Answer)]) {
    let place = Place::new();
    let mut wrong = Vec::new();
    for (nth, (case, damage, answer)) in cases.iter().enumerate() {
        // A backup of its own: one that was refused is in quarantine by its name.
        let backup = sample(&place, &format!("shop-{nth}"));
        damage(&place, &backup);
        wrong.extend(answer.differs(case, &run(&place, &backup.drill())));
        place.assert_nothing_left();
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn truncate(backup: &Backup<'_>, suffix: &str) {
    let path = backup.file(suffix);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
}

fn append(backup: &Backup<'_>, suffix: &str) {
    let path = backup.file(suffix);
    let mut bytes = fs::read(&path).unwrap();
    bytes.push(b'\n');
    fs::write(&path, bytes).unwrap();
}

#[test]
fn what_is_not_the_signed_backup_is_refused() {
    table(&[
        ("a truncated dump", |_, backup| truncate(backup, ".dump"), Answer::refused(&["shop.dump", "bytes"])),
        ("a truncated baseline", |_, backup| truncate(backup, "0.jsonl"), Answer::refused(&["baseline-0.jsonl"])),
        ("a truncated manifest", |_, backup| truncate(backup, "manifest.json"), Answer::refused(&["manifest.json"])),
        (
            "a truncated signature",
            |_, backup| truncate(backup, ".minisig"),
            Answer::refused(&["manifest.json", "not a minisign signature"]),
        ),
        ("bytes after the dump", |_, backup| append(backup, ".dump"), Answer::refused(&["shop.dump"])),
        ("bytes after the manifest", |_, backup| append(backup, "manifest.json"), Answer::refused(&["manifest.json"])),
        (
            "a manifest that another key signed",
            |place, backup| {
                muster(place, &["key", "generate", "stranger"]).expect(0);
                let directory = backup.directory().display().to_string();
                muster(place, &["manifest", "sign", &directory, "--key", "stranger.key"]).expect(0);
            },
            Answer::refused(&["manifest.json", "trusted is only backup.pub"]),
        ),
        (
            "the valid signature of another backup",
            |place, backup| {
                let other = sample(place, "other");
                edit_manifest(place, &other, |manifest| manifest["name"] = "other".into());
                fs::copy(other.file(".minisig"), backup.file(".minisig")).unwrap();
            },
            Answer::refused(&["manifest.json"]),
        ),
        (
            "an older backup behind latest",
            |_, backup| {
                let (newest, latest) = (backup.directory(), backup.directory().with_file_name("latest"));
                let older = newest.with_file_name("20200101T000000Z");
                assert!(Command::new("cp").arg("-a").args([&newest, &older]).status().unwrap().success());
                fs::remove_file(&latest).unwrap();
                symlink("20200101T000000Z", &latest).unwrap();
            },
            Answer::refused(&["not the newest"]),
        ),
        (
            "an older backup in the directory of the newest, beside a newer one",
            |_, backup| {
                let newer = backup.directory().with_file_name("20990101T000000Z");
                assert!(Command::new("cp").arg("-a").args([&backup.directory(), &newer]).status().unwrap().success());
            },
            Answer::refused(&["20990101T000000Z", "not the newest"]),
        ),
        (
            "a path through ..",
            |place, backup| {
                edit_manifest(place, backup, |manifest| {
                    manifest["parts"][0]["files"][0]["path"] = "../shop.dump".into();
                });
            },
            Answer::refused(&["../shop.dump", "not a plain relative path"]),
        ),
        (
            "an absolute path",
            |place, backup| edit_manifest(place, backup, |manifest| manifest["globals"]["path"] = "/etc/passwd".into()),
            Answer::refused(&["/etc/passwd", "not a plain relative path"]),
        ),
        (
            "a key that no manifest has",
            |place, backup| edit_manifest(place, backup, |manifest| manifest["\u{1b}[2Jtrust"] = "all".into()),
            Answer::refused(&["manifest.json", "unknown field"]),
        ),
        (
            "a manifest of a gigabyte",
            |_, backup| {
                fs::File::options().write(true).open(backup.file("manifest.json")).unwrap().set_len(1 << 30).unwrap();
            },
            Answer::refused(&["manifest.json", "16"]),
        ),
        (
            "a dump of which the manifest says a petabyte",
            |place, backup| {
                edit_manifest(place, backup, |manifest| {
                    manifest["parts"][0]["files"][0]["size"] = json!(1_u64 << 50);
                });
            },
            // Nothing is read for it: there is no room, whoever is right.
            Answer::unfit(&["5120 TiB of disk", "free some space"]),
        ),
    ]);
}

/// A flip is found wherever it is. (The first line of a signature is minisign's untrusted comment, which means nothing.)
#[test]
fn one_flipped_byte_is_found_wherever_it_is() {
    let place = Place::new();
    let backup = sample(&place, "shop");
    let directory = backup.directory();
    let verify = |code| muster(&place, &["verify", directory.to_str().unwrap(), "--trust", "backup.pub"]).expect(code);
    verify(0);
    for suffix in [".dump", "globals.sql", "baseline-0.jsonl", "schema-0.jsonl", "manifest.json", ".minisig"] {
        let path = backup.file(suffix);
        let intact = fs::read(&path).unwrap();
        let first = if suffix == ".minisig" { intact.iter().position(|byte| *byte == b'\n').unwrap() + 1 } else { 0 };
        let rest = intact.len() - first;
        for at in [first, first + 7, first + rest / 3, first + rest / 2, first + rest * 5 / 6, intact.len() - 2] {
            let mut bytes = intact.clone();
            bytes[at] ^= 0x10;
            fs::write(&path, &bytes).unwrap();
            let refused = verify(1);
            let name = path.file_name().unwrap().to_str().unwrap().trim_end_matches(".minisig");
            assert!(refused.stderr.contains(name), "{name} at {at}: {}", refused.stderr);
        }
        fs::write(&path, intact).unwrap();
    }
    verify(0);
}

type Make = fn(&Path);

/// None of them may be waited for, or read without end.
#[test]
fn what_is_no_regular_file_is_refused() {
    let place = Place::new();
    let make: [(&str, Make, &[&str]); 5] = [
        ("a symlink", |path| symlink("kept", path).unwrap(), &["symbolic link"]),
        ("a symlink to a device", |path| symlink("/dev/zero", path).unwrap(), &["symbolic link"]),
        (
            "a FIFO",
            |path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success()),
            &["not a regular file"],
        ),
        ("a directory", |path| fs::create_dir(path).unwrap(), &["not a regular file"]),
        // /dev/zero: readable, and without an end.
        (
            "a device",
            |path| assert!(Command::new("mknod").arg(path).args(["c", "1", "5"]).status().unwrap().success()),
            &["not a regular file"],
        ),
    ];
    let root = rustix::process::geteuid().is_root();
    let mut wrong = Vec::new();
    for (kind, (case, make, says)) in make.iter().enumerate().filter(|(kind, _)| root || *kind < 4) {
        for suffix in [".dump", "globals.sql", "baseline-0.jsonl", "manifest.json", ".minisig"] {
            let backup = sample(&place, &format!("shop-{kind}-{}", suffix.trim_start_matches('.').replace('.', "-")));
            let path = backup.file(suffix);
            fs::rename(&path, path.with_file_name("kept")).unwrap();
            make(&path);
            let answer = Answer::refused(says);
            wrong.extend(answer.differs(&format!("{case} in place of {suffix}"), &run(&place, &backup.drill())));
        }
        place.assert_nothing_left();
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A backup of a newer PostgreSQL, honest in itself: dump and manifest say so.
fn of_postgresql_99(place: &Place, backup: &Backup<'_>) {
    let path = backup.file(".dump");
    let mut bytes = fs::read(&path).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(backup.file("manifest.json")).unwrap()).unwrap();
    let version = manifest["source"]["version"].as_str().unwrap().to_owned();
    let needle = version.as_bytes();
    let header = &mut bytes[..1000];
    let places: Vec<usize> = (0..header.len() - needle.len()).filter(|at| header[*at..].starts_with(needle)).collect();
    assert_eq!(places.len(), 2, "the versions of server and pg_dump");
    for at in places {
        header[at..at + 2].copy_from_slice(b"99");
    }
    fs::write(&path, bytes).unwrap();
    backup.sign_again();
    edit_manifest(place, backup, |manifest| {
        manifest["source"]["version"] = format!("99{}", &version[2..]).into();
        manifest["source"]["versionNumber"] = 990_018.into();
        manifest["source"]["tool"] = format!("pg_dump (PostgreSQL) 99{}", &version[2..]).into();
    });
}

#[test]
fn what_this_machine_lacks_is_no_verdict_on_the_backup() {
    table(&[
        ("a newer major", of_postgresql_99, Answer::unfit(&["PostgreSQL 99 is not installed", "postgresql-99"])),
        (
            "an extension",
            |place, backup| {
                edit_manifest(place, backup, |manifest| {
                    let extension = json!({ "name": "timescaledb", "version": "2.17", "schema": "public" });
                    manifest["parts"][0]["extensions"].as_array_mut().unwrap().push(extension);
                });
            },
            Answer::unfit(&["extension timescaledb (database shop)", "apt-cache search postgresql-"]),
        ),
        (
            "a locale",
            |place, backup| {
                edit_manifest(place, backup, |manifest| {
                    manifest["parts"][0]["locale"]["collate"] = "tlh_QO.UTF-8".into();
                });
            },
            Answer::unfit(&["locale tlh_QO.UTF-8 (database shop)", "localedef"]),
        ),
        (
            "another engine",
            |place, backup| edit_manifest(place, backup, |manifest| manifest["source"]["engine"] = "mysql".into()),
            Answer::unfit(&["`mysql`"]),
        ),
    ]);
}

/// Intact and signed, and bad all the same.
#[test]
fn a_signed_backup_that_cannot_be_restored_fails() {
    table(&[
        (
            "a dump that was truncated before it was signed",
            |_, backup| {
                truncate(backup, ".dump");
                backup.sign_again();
            },
            Answer {
                code: 1,
                reason: "restore-failed",
                says: &["could not read from input file", "the dump is cut short or damaged"],
            },
        ),
        (
            "a role that the dump needs and the roles lack",
            |_, backup| {
                let path = backup.file("globals.sql");
                let text = fs::read_to_string(&path).unwrap();
                let without: Vec<&str> = text.lines().filter(|line| !line.contains("shop_app")).collect();
                fs::write(&path, without.join("\n") + "\n").unwrap();
                backup.sign_again();
            },
            Answer { code: 1, reason: "restore-failed", says: &["role \"shop_app\" does not exist", "globals.sql"] },
        ),
    ]);
}

/// What a manifest's error quotes of the manifest is shown without steering the terminal.
#[test]
fn an_error_that_quotes_the_manifest_reaches_no_terminal_as_it_is() {
    let place = Place::new();
    let backup = sample(&place, "shop");
    edit_manifest(&place, &backup, |manifest| manifest["\u{1b}[2J\u{202e}trust"] = "all".into());
    let run = muster(&place, &["run", &backup.drill()]).expect(1);
    let verify = muster(&place, &["verify", backup.directory().to_str().unwrap(), "--trust", "backup.pub"]).expect(1);
    for shown in [run.stdout, run.stderr, verify.stdout, verify.stderr] {
        assert!(!shown.contains(|c: char| c != '\n' && (c.is_control() || c == '\u{202e}')), "{shown:?}");
    }
}

#[test]
fn a_drill_file_that_grows_is_refused_before_anything_begins() {
    let place = Place::new();
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..30 {
        let below = level - 1;
        writeln!(bomb, "a{level}: &a{level} [*a{below}, *a{below}, *a{below}, *a{below}, *a{below}, *a{below}]")
            .expect("a string takes it");
    }
    for (case, text) in [
        ("aliases", bomb),
        ("nesting", "[".repeat(100_000)),
        ("size", format!("# {}\n", "x".repeat(20 << 20))),
        ("an alias of itself", "a: &a [*a]\n".to_owned()),
    ] {
        place.write("bomb.yaml", &text);
        let refused = muster(&place, &["run", "bomb.yaml"]).expect(3);
        assert!(refused.stderr.contains("bomb.yaml") && refused.stderr.len() < 4_000, "{case}: {}", refused.stderr);
        assert_eq!(refused.stdout, "", "{case}");
    }
    place.assert_nothing_left();
}
