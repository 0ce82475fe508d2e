//! Manifest, raw to checked. The bytes are signed by then; what they say is still checked, because a signer can be wrong.
use std::collections::BTreeSet;
use std::fmt;

use drill::manifest::{
    DumpFormat, FILE_NAME, FileEntry, Kind, Manifest, Part, SIGNATURE_FILE_NAME, SnapshotTimeFrom, VERSION,
};
use serde::Deserialize;

const MAX_FILES: usize = 100_000;
/// One pebibyte; so that no sum of sizes overflows.
const MAX_FILE_SIZE: u64 = 1 << 50;
/// One worker holds one chunk in memory.
const CHUNK_SIZES: std::ops::RangeInclusive<u64> = (64 << 10)..=(16 << 20);

/// Everything that is wrong with a manifest, at once.
#[derive(Debug, PartialEq, Eq)]
pub struct Unbelievable(pub Vec<String>);

impl fmt::Display for Unbelievable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

impl std::error::Error for Unbelievable {}

pub fn check(raw: &[u8]) -> Result<Manifest, Unbelievable> {
    let one = |problem: String| Unbelievable(vec![problem]);
    known(raw).map_err(one)?;
    let manifest: Manifest = serde_json::from_slice(raw).map_err(|error| one(plain(&error)))?;
    let problems = problems(&manifest);
    if problems.is_empty() { Ok(manifest) } else { Err(Unbelievable(problems)) }
}

/// What serde says quotes keys of the manifest.
fn plain(error: &serde_json::Error) -> String {
    error.to_string().replace(char::is_control, "\u{fffd}")
}

/// Says "a newer muster wrote this" before complaining about the keys that a newer muster writes.
fn known(raw: &[u8]) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Peek {
        version: u32,
    }
    let peek: Peek = serde_json::from_slice(raw).map_err(|error| plain(&error))?;
    if peek.version == VERSION {
        Ok(())
    } else {
        Err(format!("its version is {}, and this muster reads version {VERSION}", peek.version))
    }
}

fn problems(manifest: &Manifest) -> Vec<String> {
    let Kind::Logical = manifest.kind;
    let mut problems = Vec::new();
    let mut seen = BTreeSet::new();
    if manifest.name.is_empty() || manifest.name.chars().any(char::is_control) {
        problems.push("the backup has no usable name".to_owned());
    }
    if manifest.snapshot_time.is_none() != (manifest.snapshot_time_from == SnapshotTimeFrom::Unknown) {
        problems.push("`snapshotTime` and `snapshotTimeFrom` contradict each other".to_owned());
    }
    if manifest.parts.is_empty() {
        problems.push("it lists no database".to_owned());
    }
    let mut databases = BTreeSet::new();
    for part in &manifest.parts {
        if part.database.is_empty() || part.database.len() > 63 || part.database.contains('\0') {
            problems.push(format!("`{}` is not a database name", part.database.escape_debug()));
        }
        if !databases.insert(&part.database) {
            problems.push(format!("database `{}` is listed twice", part.database));
        }
        files(part, &mut problems);
    }
    if manifest.files().count() > MAX_FILES {
        problems.push(format!("it lists more than {MAX_FILES} files"));
        return problems;
    }
    for file in manifest.files() {
        entry(file, &mut problems);
        if !seen.insert(file.path.as_str()) {
            problems.push(format!("`{}` is listed twice", file.path.escape_debug()));
        }
    }
    for file in &seen {
        if let Some(parent) = file.match_indices('/').map(|(at, _)| &file[..at]).find(|parent| seen.contains(parent)) {
            let (parent, file) = (parent.escape_debug(), file.escape_debug());
            problems.push(format!("`{parent}` cannot be a file and the directory of `{file}`"));
        }
    }
    problems
}

/// A dump is one file, or the files of one directory.
fn files(part: &Part, problems: &mut Vec<String>) {
    let (database, count) = (part.database.escape_debug(), part.files.len());
    if part.format != DumpFormat::Directory {
        if count != 1 {
            problems.push(format!("a {} dump is one file, and `{database}` has {count}", part.format.as_str()));
        }
        return;
    }
    let parents: BTreeSet<Option<&str>> = part.files.iter().map(|file| Some(file.path.rsplit_once('/')?.0)).collect();
    if parents.len() != 1 || parents.contains(&None) || !part.files.iter().any(|file| file.path.ends_with("/toc.dat")) {
        problems.push(format!(
            "a directory dump is the files of one directory, toc.dat among them, and `{database}` is not"
        ));
    }
}

fn entry(file: &FileEntry, problems: &mut Vec<String>) {
    let shown = file.path.escape_debug();
    if !is_plain_path(&file.path) {
        problems.push(format!("`{shown}` is not a plain relative path"));
    }
    if [FILE_NAME, SIGNATURE_FILE_NAME].contains(&file.path.as_str()) {
        problems.push(format!("`{shown}` cannot vouch for itself"));
    }
    if file.size > MAX_FILE_SIZE {
        problems.push(format!("`{shown}` cannot have {} bytes", file.size));
    }
    if !CHUNK_SIZES.contains(&file.tree.chunk_size) || !file.tree.chunk_size.is_power_of_two() {
        problems.push(format!("the chunks of `{shown}` cannot have {} bytes", file.tree.chunk_size));
    }
}

/// Relative, without `.`, `..`, empty steps or control characters, and no step that an option could be mistaken for.
fn is_plain_path(path: &str) -> bool {
    let plain = |step: &str| {
        !step.is_empty()
            && step.len() <= 255
            && step != "."
            && step != ".."
            && !step.starts_with('-')
            && !step.chars().any(|c| c.is_control() || c == '\\')
    };
    path.len() <= 1024 && path.split('/').all(plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn entry(path: &str) -> Value {
        let digest = format!("sha256:{}", "0".repeat(64));
        json!({"path": path, "size": 1, "sha256": digest, "tree": {"chunkSize": 4_194_304, "root": digest}})
    }

    fn manifest() -> Value {
        json!({
            "version": 1, "kind": "logical", "name": "orders", "snapshotTime": "2026-11-22T02:15:00Z",
            "source": {"engine": "postgresql", "version": "15.18", "versionNumber": 150_018, "tool": "pg_dump 15.18"},
            "globals": entry("globals.sql"),
            "parts": [{
                "database": "orders", "format": "custom", "files": [entry("orders.dump")], "baseline": entry("baseline-0.jsonl"),
                "locale": {"encoding": "UTF8", "collate": "C", "ctype": "C", "provider": "libc"}, "extensions": []
            }]
        })
    }

    fn with(pointer: &str, value: Value) -> Result<Manifest, Unbelievable> {
        let mut json = manifest();
        *json.pointer_mut(pointer).expect("it exists") = value;
        check(json.to_string().as_bytes())
    }

    #[test]
    fn a_good_manifest_is_believed() {
        check(manifest().to_string().as_bytes()).expect("it is good");
        assert!(with("/parts/0/files/0/path", json!("sub/orders.dump")).is_ok());
        let mut directory = manifest();
        directory["snapshotTime"] = json!(null);
        directory["snapshotTimeFrom"] = json!("unknown");
        directory["parts"][0]["locale"] = json!(null);
        directory["parts"][0]["format"] = json!("directory");
        directory["parts"][0]["files"] = json!([entry("orders/toc.dat"), entry("orders/1.dat.gz")]);
        check(directory.to_string().as_bytes()).expect("it is good");
    }

    #[test]
    fn what_cannot_be_is_refused_and_said() {
        for (pointer, value, said) in [
            ("/version", json!(2), "version is 2"),
            ("/kind", json!("physical"), "physical"),
            ("/name", json!(""), "no usable name"),
            ("/parts", json!([]), "no database"),
            ("/parts/0/files", json!([]), "one file"),
            ("/parts/0/files/0/size", json!(u64::MAX), "cannot have"),
            ("/parts/0/files/0/tree/chunkSize", json!(1u64 << 40), "chunks"),
            ("/parts/0/files/0/tree/chunkSize", json!(0), "chunks"),
            ("/parts/0/files/0/path", json!("globals.sql"), "listed twice"),
            ("/parts/0/files/0/path", json!("globals.sql/x"), "cannot be a file and the directory"),
            ("/parts/0/files/0/path", json!("manifest.json"), "vouch for itself"),
            ("/parts/0/format", json!("directory"), "toc.dat among them"),
            ("/parts/0/format", json!("zip"), "zip"),
            ("/snapshotTime", json!(null), "contradict"),
            ("/parts/0/database", json!("a\u{0}b"), "not a database name"),
        ] {
            let problem = with(pointer, value.clone()).expect_err(pointer).to_string();
            assert!(problem.contains(said), "{pointer} {value}: {problem}");
        }
        let mut unknown = manifest();
        unknown["parts"][0]["surprise"] = json!(1);
        assert!(check(unknown.to_string().as_bytes()).expect_err("unknown key").to_string().contains("surprise"));
        let twice = manifest().to_string().replacen('{', "{\"name\":\"a\",", 1);
        assert!(check(twice.as_bytes()).expect_err("duplicate key").to_string().contains("duplicate"));
    }

    #[test]
    fn all_problems_are_said_at_once() {
        let mut json = manifest();
        json["name"] = json!("");
        json["globals"]["path"] = json!("../globals.sql");
        assert_eq!(check(json.to_string().as_bytes()).expect_err("two problems").0.len(), 2);
    }

    proptest! {
        #[test]
        fn no_path_leaves_the_directory(path in "(/|\\.\\.|\\.|a|-|\\\\|\u{0}|é){0,8}") {
            if with("/globals/path", json!(path)).is_ok() {
                let normal = std::path::Path::new(&path)
                    .components()
                    .all(|step| matches!(step, std::path::Component::Normal(_)));
                prop_assert!(normal && !path.is_empty(), "{path}");
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = check(&bytes);
        }
    }
}
