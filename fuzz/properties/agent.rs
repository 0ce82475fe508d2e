//! What the runner reads of an agent: frames in pieces of any size, and the messages in them.
use super::frame::{Decoder, Kind};

#[cfg(test)]
#[path = "replay.rs"]
mod replay;

pub(crate) fn holds(bytes: &[u8]) {
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
}

#[cfg(test)]
#[test]
fn it_holds_for_what_fuzzing_kept() {
    replay::replay(env!("CARGO_MANIFEST_DIR"), "agent", holds);
}
