//! What the runner reads of an agent: frames in pieces of any size, and the messages in them.
#![no_main]
#[expect(
    dead_code,
    unreachable_pub,
    reason = "the reader and the writer need a runtime; the decoder is what is fuzzed"
)]
#[path = "../../runner/daemon/src/agent/frame.rs"]
mod frame;

use frame::{Decoder, Kind};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((&piece, bytes)) = bytes.split_first() else { return };
    let mut decoder = Decoder::default();
    for part in bytes.chunks(usize::from(piece).max(1)) {
        decoder.feed(part);
        loop {
            match decoder.take() {
                Ok(Some(frame)) if frame.kind == Kind::Json => {
                    let _ = serde_json::from_slice::<drill::agent::FromAgent>(&frame.payload);
                    let _ = serde_json::from_slice::<drill::agent::ToAgent>(&frame.payload);
                    let _ = serde_json::from_slice::<drill::agent::Hello>(&frame.payload);
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                // After an error the stream has no meaning any more.
                Err(_) => return,
            }
        }
    }
});
