//! A manifest: what is believed can be written again, and is believed again.
use super::checked::check;

#[cfg(test)]
#[path = "replay.rs"]
#[allow(clippy::duplicate_mod, reason = "each property brings it along, into whichever crate it is tested in")]
mod replay;

pub(crate) fn holds(bytes: &[u8]) {
    match check(bytes) {
        Ok(manifest) => {
            let again = serde_json::to_vec(&manifest).expect("a manifest can be written");
            assert_eq!(check(&again).as_ref(), Ok(&manifest));
            for file in manifest.files() {
                assert!(!file.path.starts_with('/') && file.path.split('/').all(|part| part != ".."), "{}", file.path);
            }
            let _ = manifest.total_size();
        }
        Err(unbelievable) => {
            assert!(!unbelievable.0.is_empty());
            assert!(!unbelievable.to_string().contains(char::is_control), "{unbelievable:?}");
        }
    }
}

#[cfg(test)]
#[test]
fn it_holds_for_what_fuzzing_kept() {
    replay::replay(env!("CARGO_MANIFEST_DIR"), "manifest", holds);
}
