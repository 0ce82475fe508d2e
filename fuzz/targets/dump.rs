#![no_main]
#[expect(dead_code, unreachable_pub, reason = "only its reading is fuzzed")]
#[path = "../../runner/drivers/src/engine/postgresql/dump_header.rs"]
mod dump_header;
#[path = "../properties/dump.rs"]
mod property;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| property::holds(bytes));
