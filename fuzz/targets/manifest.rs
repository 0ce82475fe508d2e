#![no_main]
#[path = "../../runner/drivers/src/artifact/checked.rs"]
mod checked;
#[path = "../properties/manifest.rs"]
mod property;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| property::holds(bytes));
