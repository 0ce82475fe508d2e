//! A manifest: what is believed can be written again, and is believed again.
#![no_main]
#[path = "../../runner/drivers/src/artifact/checked.rs"]
mod checked;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    match checked::check(bytes) {
        Ok(manifest) => {
            let again = serde_json::to_vec(&manifest).expect("a manifest can be written");
            assert_eq!(checked::check(&again).as_ref(), Ok(&manifest));
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
});
