//! What fuzzing found worth keeping, given to a property by the tests of the crate that it is about: no fuzzer is needed.
use std::fs;
use std::path::Path;

/// `crate_directory` is that of a crate under `runner/`.
pub(crate) fn replay(crate_directory: &str, target: &str, property: impl Fn(&[u8])) {
    let corpus = Path::new(crate_directory).join("../../fuzz/corpus").join(target);
    let mut replayed = 0;
    for entry in fs::read_dir(&corpus).expect("the corpus is there") {
        let path = entry.expect("an entry").path();
        // Shown where the property does not hold.
        eprintln!("{}", path.display());
        property(&fs::read(&path).expect("it can be read"));
        replayed += 1;
    }
    assert!(replayed >= 10, "{}: {replayed} inputs", corpus.display());
}
