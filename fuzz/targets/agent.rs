#![no_main]
#[expect(
    dead_code,
    unreachable_pub,
    reason = "the reader and the writer need a runtime; the decoder is what is fuzzed"
)]
#[path = "../../runner/daemon/src/agent/frame.rs"]
mod frame;
#[path = "../properties/agent.rs"]
mod property;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| property::holds(bytes));
