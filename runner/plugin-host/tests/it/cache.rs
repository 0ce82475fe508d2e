//! Compiled code is taken from disk only if this user of this machine wrote it.
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use plugin_host::{Code, Compiler, HostError};

use crate::world::host;

const PLUGIN: &str = "checksum";

fn compile(directory: &Path) -> Code {
    Compiler::open(directory).unwrap().builtin(PLUGIN).unwrap().unwrap()
}

fn entry(directory: &Path) -> PathBuf {
    let is_entry = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "compiled");
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).find(is_entry).expect("an entry was written")
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
}

fn refusal(directory: &Path) -> String {
    let error = Compiler::open(directory).err().expect("refused");
    assert!(matches!(error, HostError::Cache { .. }), "{error}");
    std::error::Error::source(&error).expect("it says why").to_string()
}

#[test]
fn what_was_compiled_is_used_again_and_what_was_changed_is_not() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("plugins");
    let first = compile(&directory);
    assert!(!first.cached);
    let entry = entry(&directory);
    assert_eq!((mode(&directory), mode(&entry), mode(&directory.join("key"))), (0o700, 0o600, 0o600));

    let second = compile(&directory);
    assert!(second.cached && second.bytes == first.bytes, "it was not compiled again");

    let good = fs::read(&entry).unwrap();
    let middle = good.len() / 2;
    for damage in [vec![], good[..20].to_vec(), good[..middle].to_vec(), {
        let mut flipped = good.clone();
        flipped[middle] ^= 1;
        flipped
    }] {
        fs::write(&entry, &damage).unwrap();
        let again = compile(&directory);
        assert!(!again.cached && again.bytes == first.bytes, "it was compiled anew");
        assert!(compile(&directory).cached, "and written again");
    }
}

#[test]
fn code_of_another_component_or_under_another_key_is_not_trusted() {
    let parent = tempfile::tempdir().unwrap();
    let (ours, theirs) = (parent.path().join("ours"), parent.path().join("theirs"));
    compile(&theirs);
    let planted = entry(&theirs);
    // What they wrote under their key, where ours will be.
    let compiler = Compiler::open(&ours).unwrap();
    let target = ours.join(planted.file_name().unwrap());
    fs::copy(&planted, &target).unwrap();
    assert!(!compiler.builtin(PLUGIN).unwrap().unwrap().cached);
    // What we wrote ourselves, for another plugin.
    fs::copy(&target, parent.path().join("one")).unwrap();
    fs::remove_file(&target).unwrap();
    compiler.builtin("schema").unwrap().unwrap();
    fs::copy(entry(&ours), &target).unwrap();
    assert!(!compiler.builtin(PLUGIN).unwrap().unwrap().cached);
}

#[test]
fn a_directory_or_a_key_that_others_can_reach_is_refused() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("plugins");
    Compiler::open(&directory).unwrap();
    let set = |path: &Path, mode: u32| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();

    set(&directory.join("key"), 0o644);
    assert!(refusal(&directory).contains("key can be read or written by others"));
    set(&directory.join("key"), 0o600);
    for others in [0o770, 0o707, 0o755] {
        set(&directory, others);
        assert!(refusal(&directory).contains("plugins can be read or written by others"), "{others:o}");
    }
    set(&directory, 0o700);
    let link = parent.path().join("link");
    symlink(&directory, &link).unwrap();
    assert!(refusal(&link).contains("is a symbolic link"));
    assert!(Compiler::open(&directory).is_ok());
    // Only root can give something away.
    if chown(directory.join("key"), Some(65534), None).is_ok() {
        assert!(refusal(&directory).contains("key belongs to user 65534"));
        chown(&directory, Some(65534), None).unwrap();
        assert!(refusal(&directory).contains("plugins belongs to user 65534"));
    }
}

#[test]
#[expect(unsafe_code, reason = "compiled code is what is loaded")]
fn compiled_code_is_loaded_where_it_fits() {
    let parent = tempfile::tempdir().unwrap();
    let component = plugin_host::builtin(PLUGIN).unwrap();
    let code = compile(parent.path().join("plugins").as_path()).bytes;
    // SAFETY: the compiler's own.
    let loaded = unsafe { host().load_compiled(component, &code) }.unwrap();
    assert_eq!(loaded.digest(), host().load(component).unwrap().digest());

    // SAFETY: nothing of it is executed: what wasmtime writes into its own code is not there.
    let error = unsafe { host().load_compiled(component, &code[..64]) }.err().expect("refused");
    assert!(matches!(error, HostError::Incompatible { .. }), "{error}");
}
