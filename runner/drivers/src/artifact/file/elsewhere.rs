//! Dumps without a manifest beside them that anybody believes: what a pod sees on a volume, against the manifest that the runner
//! verified. Here an entry too many is as bad as a wrong one, because tools take files by name: `pg_restore` reads an unlisted
//! `123.dat` before the `123.dat.gz` that was verified.
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use drill::manifest::{FILE_NAME, FileEntry, Manifest, SIGNATURE_FILE_NAME};
use drill::stop::Stop;
use drill::verdict::Reason;
use rustix::fs::FileType;

use super::super::beneath::Directory;
use super::super::fault;
use super::super::tree::{Meter, SIDE_FILE_SUFFIX};
use super::Inner;

/// Everything in `directory` is a file of the manifest, as it was backed up, and nothing that a restore needs is missing. Blocks.
pub(crate) fn verify(directory: &Path, manifest: Manifest, meter: &Meter) -> Result<(), Stop> {
    let directory = Directory::open(directory).map_err(|error| fault::reading(&error, "the backup's directory"))?;
    let inner = Inner { directory, manifest, location: PathBuf::new(), described: None, signed: None };
    let there = inner.only_listed()?;
    let baselines: BTreeSet<&str> = inner.manifest.baselines().map(|entry| entry.path.as_str()).collect();
    // The runner has the baselines that count; whoever keeps them here, too, keeps them whole.
    let wanted = |entry: &&FileEntry| !baselines.contains(entry.path.as_str()) || there.contains(&entry.path);
    let entries: Vec<&FileEntry> = inner.manifest.files().filter(wanted).collect();
    inner.read_entries(&entries, None, meter)?;
    inner.compare_all(None, meter)
}

impl Inner {
    /// The paths that are there. Beside what the manifest lists there may be itself and what says where a file differs: nobody reads
    /// them to restore.
    fn only_listed(&self) -> Result<BTreeSet<String>, Stop> {
        let mut files: BTreeSet<String> = [FILE_NAME, SIGNATURE_FILE_NAME].map(str::to_owned).into();
        let mut directories = BTreeSet::new();
        for entry in self.manifest.files() {
            files.insert(entry.path.clone());
            files.insert(format!("{}{SIDE_FILE_SUFFIX}", entry.path));
            directories.extend(entry.path.match_indices('/').map(|(at, _)| &entry.path[..at]));
        }
        let mut there = BTreeSet::new();
        // Only what the manifest knows is gone into, so this ends.
        let mut ahead = vec![String::new()];
        while let Some(below) = ahead.pop() {
            let shown = if below.is_empty() { "the backup's directory".to_owned() } else { format!("`{below}`") };
            for (name, kind) in self.directory.names(&below).map_err(|error| fault::reading(&error, &shown))? {
                let path = match (below.as_str(), name.to_string_lossy()) {
                    ("", name) => name.into_owned(),
                    (below, name) => format!("{below}/{name}"),
                };
                match kind {
                    FileType::RegularFile if files.contains(&path) => {
                        there.insert(path);
                    }
                    FileType::Directory if directories.contains(path.as_str()) => ahead.push(path),
                    _ => return Err(unlisted(&path, kind)),
                }
            }
        }
        Ok(there)
    }
}

fn unlisted(path: &str, kind: FileType) -> Stop {
    let kind = match kind {
        FileType::RegularFile => "a file",
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Unknown => "something",
    };
    let message = format!("`{}` is {kind} that the manifest does not list", path.escape_debug());
    Stop::new(Reason::ArtifactRefused, message)
        .advise("find out who put it there, and remove it: a restore could read it in place of what was verified")
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change<'a> = (&'a str, &'a dyn Fn(&Path));

    /// Hashes nothing: what is listed must be told from what is not before that.
    fn looked_at(change: impl Fn(&Path)) -> Result<BTreeSet<String>, Stop> {
        let place = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(place.path().join("orders")).expect("a directory");
        for file in ["orders/toc.dat", "orders/1.dat.gz", "orders/1.dat.gz.chunks", "globals.sql", "manifest.json"] {
            std::fs::write(place.path().join(file), "x").expect("a file");
        }
        change(place.path());
        let digest = format!("sha256:{}", "0".repeat(64));
        let entry = |path: &str| {
            let tree = serde_json::json!({ "chunkSize": 4_194_304, "root": digest });
            serde_json::json!({ "path": path, "size": 1, "sha256": digest, "tree": tree })
        };
        let manifest = serde_json::json!({
            "version": 1, "kind": "logical", "name": "orders", "snapshotTime": "2026-11-22T02:15:00Z",
            "source": { "engine": "postgresql", "version": "15.18", "versionNumber": 150_018, "tool": "pg_dump 15.18" },
            "globals": entry("globals.sql"),
            "parts": [{
                "database": "orders", "format": "directory", "files": [entry("orders/toc.dat"), entry("orders/1.dat.gz")],
                "baseline": entry("baseline-0.jsonl"), "locale": null, "extensions": [],
            }],
        });
        let manifest = crate::artifact::check(manifest.to_string().as_bytes()).expect("a manifest");
        let directory = Directory::open(place.path()).expect("opened");
        Inner { directory, manifest, location: PathBuf::new(), described: None, signed: None }.only_listed()
    }

    #[test]
    fn what_the_manifest_does_not_list_is_refused_whatever_it_is() {
        let there = looked_at(|_| ()).expect("all of it is listed");
        assert!(there.contains("orders/1.dat.gz") && !there.contains("baseline-0.jsonl"), "{there:?}");
        let changes: [Change; 7] = [
            ("`orders/1.dat` is a file", &|place| std::fs::write(place.join("orders/1.dat"), "x").expect("written")),
            ("`orders/1.dat.chunks` is a file", &|place| {
                std::fs::write(place.join("orders/1.dat.chunks"), "x").expect("written");
            }),
            ("`lost+found` is a directory", &|place| std::fs::create_dir(place.join("lost+found")).expect("made")),
            ("`orders/more` is a directory", &|place| std::fs::create_dir(place.join("orders/more")).expect("made")),
            ("`link` is a symbolic link", &|place| {
                std::os::unix::fs::symlink("globals.sql", place.join("link")).expect("made");
            }),
            ("`globals.sql` is a symbolic link", &|place| {
                std::fs::remove_file(place.join("globals.sql")).expect("removed");
                std::os::unix::fs::symlink("manifest.json", place.join("globals.sql")).expect("made");
            }),
            ("`pipe` is a pipe", &|place| {
                let mode = rustix::fs::Mode::from_raw_mode(0o644);
                rustix::fs::mkfifoat(rustix::fs::CWD, place.join("pipe"), mode).expect("made");
            }),
        ];
        for (said, change) in changes {
            let stop = looked_at(change).expect_err(said);
            assert_eq!(stop.reason, Reason::ArtifactRefused);
            assert!(stop.message.starts_with(said), "{said}: {stop:?}");
        }
    }
}
