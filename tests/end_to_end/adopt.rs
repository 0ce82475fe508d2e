//! Backups that muster did not make.
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;
use whole_program::{Muster, Place, Server, muster, programs};

const SQL: &str = r"
CREATE ROLE teller;
CREATE TABLE orders (id int PRIMARY KEY, note text);
INSERT INTO orders SELECT g, E'it''s \\ \n\\! touch /tmp/x ' || g FROM generate_series(1, 500) g;
ALTER TABLE orders OWNER TO teller;
CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $$ SELECT '\! id;'::text $$;
";

/// A database, and what `pg_dump` makes of it with `arguments`, in the place.
struct Source<'a> {
    place: &'a Place,
    server: Server,
}

impl<'a> Source<'a> {
    fn new(place: &'a Place) -> Self {
        let server = Server::start();
        server.psql("postgres", "CREATE DATABASE shop");
        server.psql("shop", SQL);
        Self { place, server }
    }

    fn run(&self, program: &str, file: &str, arguments: &[&str]) -> PathBuf {
        let path = self.place.path(file);
        let output = Command::new(programs().join(program))
            .args(["--host", &self.server.host(), "--username", "postgres", "--file"])
            .arg(&path)
            .args(arguments)
            .env("TZ", "UTC")
            .output()
            .expect("it starts");
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        path
    }

    fn dump(&self, file: &str, arguments: &[&str]) -> PathBuf {
        self.run("pg_dump", file, &[arguments, &["shop"]].concat())
    }
}

/// By the tools that everybody has.
fn pack(program: &str, path: &PathBuf) {
    assert!(Command::new(program).arg("-q").arg(path).status().expect("it is installed").success());
}

fn sha256sum(place: &Place, file: &str) -> String {
    let output = place.command("/usr/bin/sha256sum".as_ref()).arg(file).output().expect("it runs");
    String::from_utf8(output.stdout).expect("text")
}

fn drill_of(place: &Place, source: &str) -> String {
    let text = format!(
        "apiVersion: muster.dev/v1\nkind: Drill\nmetadata: {{ name: other }}\nspec:\n  source: {{ {source} }}\n"
    );
    place.write("other.yaml", &text);
    "other.yaml".to_owned()
}

#[test]
fn every_format_is_drilled_without_a_drill_file_and_says_that_nobody_signed() {
    let place = Place::new();
    let source = Source::new(&place);
    source.dump("custom.dump", &["--format=custom"]);
    source.dump("directory", &["--format=directory"]);
    source.dump("tar.tar", &["--format=tar"]);
    source.dump("plain.sql", &[]);
    pack("gzip", &source.dump("gzip.sql", &["--create", "--clean", "--verbose"]));
    source.dump("zstd.sql", &["--create", "--inserts"]);
    // The same content as zstd(1) would pack it.
    let packed = zstd(&fs::read(place.path("zstd.sql")).unwrap());
    fs::write(place.path("zstd.sql.zst"), packed).unwrap();

    for (file, time) in [
        ("custom.dump", "dump-header-read-as-utc"),
        ("directory", "dump-header-read-as-utc"),
        ("tar.tar", "dump-header-read-as-utc"),
        ("plain.sql", "unknown"),
        ("gzip.sql.gz", "dump-header"),
        ("zstd.sql.zst", "unknown"),
    ] {
        let run = muster(&place, &["run", "--dump", file, "--output", "json"]).expect(0);
        let findings = run.events("finding");
        assert!(findings.iter().any(|finding| finding["subject"] == "UNSIGNED"), "{file}: {findings:?}");
        let counts: Vec<_> = findings.iter().filter(|finding| finding["subject"] == "counts").collect();
        assert_eq!(counts[0]["details"], serde_json::json!([["public.orders", "500"]]), "{file}");
        let [artifact] = run.events("artifact").try_into().expect("one artifact");
        assert_eq!(artifact["vouched"]["by"], "nobody", "{file}");
        assert_eq!(artifact["snapshotTimeFrom"], time, "{file}");
        assert_eq!(run.result()["recoveryPointMilliseconds"].is_u64(), time != "unknown", "{file}: {}", run.result());
    }
    let run = muster(&place, &["run", "--dump", "custom.dump"]).expect(0);
    assert!(run.stdout.contains("UNSIGNED: nobody vouches for it"), "{}", run.stdout);
    assert!(run.stdout.contains("no baseline, 1 count compared"), "the last run is compared with: {}", run.stdout);
    let id = run.stdout.split_whitespace().find(|word| word.starts_with("custom-2")).expect("its name").to_owned();
    let report = muster(&place, &["report", &id]).expect(0);
    assert!(
        report.stdout.contains("UNSIGNED, vouched for by nobody") && report.stdout.contains("read as UTC"),
        "{}",
        report.stdout
    );

    source.server.psql("shop", "DELETE FROM orders WHERE id > 300");
    source.dump("custom.dump", &["--format=custom"]);
    let run = muster(&place, &["run", "--dump", "custom.dump", "--output", "json"]).expect(1);
    assert!(run.result()["message"].as_str().unwrap().contains("500 rows expected, 300 found"), "{}", run.result());

    // The same name elsewhere is another dump, and what grew is no failure.
    fs::create_dir(place.path("elsewhere")).unwrap();
    fs::copy(place.path("custom.dump"), place.path("elsewhere/custom.dump")).unwrap();
    let run = muster(&place, &["run", "--dump", "elsewhere/custom.dump"]).expect(0);
    assert!(run.stdout.contains("nothing else to compare with"), "{}", run.stdout);
    source.server.psql("shop", "INSERT INTO orders SELECT g FROM generate_series(1001, 9000) g");
    source.dump("elsewhere/custom.dump", &["--format=custom"]);
    let run = muster(&place, &["run", "--dump", "elsewhere/custom.dump"]).expect(0);
    assert!(run.stdout.contains("no baseline, 1 count compared"), "{}", run.stdout);
    place.assert_nothing_left();
}

/// One frame of raw blocks (RFC 8878): what matters here is that it is unpacked inside.
fn zstd(content: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0b0000_0000, 0x38];
    let mut blocks = content.chunks(100_000).peekable();
    while let Some(block) = blocks.next() {
        let header = (u32::try_from(block.len()).unwrap() << 3) | u32::from(blocks.peek().is_none());
        frame.extend(&header.to_le_bytes()[..3]);
        frame.extend(block);
    }
    frame
}

#[test]
fn a_dump_is_what_its_drill_pins_or_what_was_signed() {
    let place = Place::new();
    let source = Source::new(&place);
    let dump = source.dump("shop.dump", &["--format=custom"]);
    let digest = sha256sum(&place, "shop.dump").split_whitespace().next().unwrap().to_owned();
    let pinned = format!("dump: shop.dump, sha256: \"sha256:{digest}\"");
    let run = muster(&place, &["run", &drill_of(&place, &pinned), "--output", "json"]).expect(0);
    assert_eq!(run.events("artifact")[0]["vouched"]["by"], "sha256");
    muster(&place, &["run", "--dump", "shop.dump", "--sha256", &digest]).expect(0);

    muster(&place, &["key", "generate", "backup"]).expect(0);
    let signed = "dump: shop.dump, trustedKeys: [{ file: backup.pub }]";
    let run = muster(&place, &["run", &drill_of(&place, signed), "--output", "json"]).expect(1);
    assert!(run.result()["message"].as_str().unwrap().contains("shop.dump.minisig"), "{}", run.result());

    let mut bytes = fs::read(&dump).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&dump, bytes).unwrap();
    for (arguments, code) in [
        (vec!["run", "--dump", "shop.dump", "--sha256", &digest, "--output", "json"], 1),
        (vec!["run", &drill_of(&place, &pinned), "--output", "json"], 1),
    ] {
        let run = muster(&place, &arguments).expect(code);
        assert_eq!(run.result()["reason"], "artifact-refused");
        assert!(
            run.result()["message"].as_str().unwrap().contains("is not the dump that the drill pins"),
            "{}",
            run.result()
        );
        assert!(run.events("phase-started").iter().all(|event| event["phase"] != "restore"));
    }
    place.assert_nothing_left();
}

#[test]
fn an_adopted_backup_is_verified_and_drilled_and_shows_where_its_time_came_from() {
    let place = Place::new();
    let source = Source::new(&place);
    source.dump("shop.dump", &["--format=custom"]);
    source.dump("shop", &["--format=directory"]);
    source.run("pg_dumpall", "globals.sql", &["--globals-only"]);
    muster(&place, &["key", "generate", "backup"]).expect(0);
    place.write("SHA256SUMS", &sha256sum(&place, "shop.dump"));
    for (dump, out) in [("shop.dump", "adopted-file"), ("shop", "adopted-directory")] {
        let mut arguments = vec!["adopt", dump, "--key", "backup.key", "--out", out, "--globals", "globals.sql"];
        arguments.extend(["--timezone", "Europe/Berlin"].iter().filter(|_| out == "adopted-directory"));
        arguments.extend(["--sha256", "SHA256SUMS"].iter().filter(|_| out == "adopted-file"));
        let adopted = muster(&place, &arguments).expect(0);
        assert!(adopted.stdout.contains("by the dump's own header"), "{}", adopted.stdout);
        let verified = muster(&place, &["verify", out, "--trust", "backup.pub"]).expect(0);
        assert!(verified.stdout.contains("by the dump's own header"), "{}", verified.stdout);

        let signed = format!("manifest: {out}/latest/manifest.json, trustedKeys: [{{ file: backup.pub }}]");
        let run = muster(&place, &["run", &drill_of(&place, &signed), "--output", "json"]).expect(0);
        let expected = if out == "adopted-file" { "dump-header-read-as-utc" } else { "dump-header-in-named-zone" };
        assert_eq!(run.events("artifact")[0]["snapshotTimeFrom"], expected);
        assert_eq!(run.events("artifact")[0]["vouched"]["by"], "signature");
        let evidence = fs::read_to_string(run.result()["evidence"]["path"].as_str().unwrap()).unwrap();
        assert!(evidence.contains("payload"), "{evidence}");
        let warnings: Vec<_> =
            run.events("finding").into_iter().filter(|finding| finding["source"] == "restore").collect();
        assert_eq!(warnings, Vec::<serde_json::Value>::new(), "the roles are there");
    }

    fs::write(place.path("SHA256SUMS"), "0".repeat(64)).unwrap();
    let refused =
        muster(&place, &["adopt", "shop.dump", "--key", "backup.key", "--out", "no", "--sha256", "SHA256SUMS"])
            .expect(1);
    assert!(refused.stderr.contains("is not the dump that was expected"), "{}", refused.stderr);
    assert_eq!(fs::read_dir(place.path("no")).unwrap().count(), 0, "nothing is left of it");
    place.assert_nothing_left();
}

const SCRIPT_BEGIN: &str = "--\n-- PostgreSQL database dump\n--\n\n-- Dumped from database version 15.18\n\
    -- Dumped by pg_dump version 15.18\n\nSET client_encoding = 'UTF8';\n";
const SCRIPT_END: &str = "\n--\n-- PostgreSQL database dump complete\n--\n";

fn names(directory: PathBuf) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn an_adoption_that_is_interrupted_leaves_nothing() {
    let place = Place::new();
    muster(&place, &["key", "generate", "backup"]).expect(0);
    // Long enough to be read for a while: it is read to its end before anything is adopted.
    let long = "SELECT 'a line of a script that is read to its end';\n".repeat(2_000_000);
    place.write("shop.sql", &format!("{SCRIPT_BEGIN}{long}{SCRIPT_END}"));
    for signal in [Signal::INT, Signal::TERM] {
        let adopting = Muster::start(&place, &["adopt", "shop.sql", "--key", "backup.key", "--out", "out"]);
        while !names(place.path("out")).iter().any(|name| name.starts_with(".tmp-")) {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        adopting.signal(signal);
        let ended = adopting.wait().expect(2);
        assert!(ended.stderr.contains("interrupted"), "{}", ended.stderr);
        assert_eq!(names(place.path("out")), Vec::<String>::new());
    }
    place.assert_nothing_left();
}

#[test]
fn adopted_roles_are_a_regular_file_and_their_copy_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    muster(&place, &["key", "generate", "backup"]).expect(0);
    place.write("shop.sql", &format!("{SCRIPT_BEGIN}SELECT 1;\n{SCRIPT_END}"));
    let roles = "CREATE ROLE teller;\n--\n-- PostgreSQL database cluster dump complete\n--\n";
    let roles = place.write("roles.sql", roles);
    fs::set_permissions(&roles, fs::Permissions::from_mode(0o666)).unwrap();
    assert!(Command::new("mkfifo").arg(place.path("pipe.sql")).status().unwrap().success());
    fs::create_dir(place.path("directory.sql")).unwrap();
    let adopt =
        |globals| muster(&place, &["adopt", "shop.sql", "--key", "backup.key", "--out", "out", "--globals", globals]);
    for (globals, said) in [("pipe.sql", "not a regular file"), ("directory.sql", "it is a directory")] {
        let refused = adopt(globals).expect(1);
        assert!(refused.stderr.contains(said), "{}", refused.stderr);
        assert_eq!(names(place.path("out")), Vec::<String>::new());
    }
    adopt("roles.sql").expect(0);
    let copy = place.path("out/latest/globals.sql").metadata().unwrap();
    assert_eq!(copy.permissions().mode() & 0o777, 0o600);
    place.assert_nothing_left();
}

#[test]
fn a_script_with_commands_of_psql_is_refused_with_the_line() {
    let place = Place::new();
    let source = Source::new(&place);
    let dump = source.dump("shop.sql", &[]);
    let script = fs::read_to_string(&dump).unwrap();
    let (start, end) = script.split_once("CREATE TABLE").unwrap();
    let line = start.matches('\n').count() + 1;
    for command in ["\\! touch /tmp/x", "\\o /tmp/x", "\\copy orders from program 'id'"] {
        fs::write(&dump, format!("{start}{command}\nCREATE TABLE{end}")).unwrap();
        let run = muster(&place, &["run", "--dump", "shop.sql", "--output", "json"]).expect(1);
        assert_eq!(run.result()["reason"], "artifact-refused");
        let word = command.split_whitespace().next().unwrap();
        let said = format!("line {line}: `{word}` is a command of psql that pg_dump does not write");
        assert!(run.result()["message"].as_str().unwrap().contains(&said), "{}", run.result());
        let started = run.events("phase-started");
        assert!(started.iter().all(|event| event["phase"] != "restore"), "{started:?}");
    }
    fs::write(&dump, &script[..script.len() / 2]).unwrap();
    let run = muster(&place, &["run", "--dump", "shop.sql", "--output", "json"]).expect(1);
    assert!(run.result()["message"].as_str().unwrap().contains("it ends"), "{}", run.result());
    fs::write(&dump, "hello").unwrap();
    let run = muster(&place, &["run", "--dump", "shop.sql", "--output", "json"]).expect(1);
    assert!(run.result()["message"].as_str().unwrap().contains("no dump of pg_dump"), "{}", run.result());
    place.assert_nothing_left();
}
