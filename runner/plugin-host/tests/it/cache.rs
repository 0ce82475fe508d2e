//! Compiled code is taken from disk only if this host wrote it.
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use plugin_host::{Host, HostConfig, HostError};

use crate::world::fixture;

fn open(directory: &Path) -> Result<Host, HostError> {
    Host::new(HostConfig { cache: Some(directory.to_owned()) })
}

fn entry(directory: &Path) -> PathBuf {
    let is_entry = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "compiled");
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).find(is_entry).expect("an entry was written")
}

#[test]
fn what_was_compiled_is_used_again_and_what_was_changed_is_not() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("plugins");
    let bytes = fixture("wants_digest");
    open(&directory).unwrap().load(&bytes).unwrap();
    let entry = entry(&directory);
    let private = |path: &Path| fs::metadata(path).unwrap().permissions().mode().trailing_zeros() >= 6;
    assert!(private(&directory) && private(&entry) && private(&directory.join("key")));

    let written = fs::metadata(&entry).unwrap().modified().unwrap();
    open(&directory).unwrap().load(&bytes).unwrap();
    assert_eq!(fs::metadata(&entry).unwrap().modified().unwrap(), written, "it was not written again");

    let good = fs::read(&entry).unwrap();
    let middle = good.len() / 2;
    for damage in [vec![], good[..20].to_vec(), good[..middle].to_vec(), {
        let mut flipped = good.clone();
        flipped[middle] ^= 1;
        flipped
    }] {
        fs::write(&entry, &damage).unwrap();
        open(&directory).unwrap().load(&bytes).unwrap();
        assert_ne!(fs::read(&entry).unwrap(), damage, "it was compiled anew and written again");
    }
}

#[test]
fn code_under_another_key_or_name_is_not_trusted() {
    let parent = tempfile::tempdir().unwrap();
    let (ours, theirs) = (parent.path().join("ours"), parent.path().join("theirs"));
    let bytes = fixture("wants_digest");
    open(&theirs).unwrap().load(&bytes).unwrap();
    let planted = entry(&theirs);
    let host = open(&ours).unwrap();
    let target = ours.join(planted.file_name().unwrap());
    fs::copy(&planted, &target).unwrap();
    host.load(&bytes).unwrap();
    assert_ne!(fs::read(&target).unwrap()[..32], fs::read(&planted).unwrap()[..32], "ours replaced it");
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path()).unwrap();
    fs::set_permissions(directory.path().join("key"), fs::Permissions::from_mode(0o644)).unwrap();
    let error = open(directory.path()).err().expect("refused");
    let source = std::error::Error::source(&error).expect("it says why").to_string();
    assert!(matches!(error, HostError::Cache { .. }) && source.contains("can be read by others"), "{source}");
}
