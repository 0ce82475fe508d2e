//! A drill file: either a drill, or problems that can be drawn and steer no terminal.
use drill::file::{Options, parse, render};

#[cfg(test)]
#[path = "replay.rs"]
mod replay;

pub(crate) fn holds(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Err(problems) = parse(text, Options::default()) {
        assert!(!problems.is_empty());
        let drawn = render(&problems, "drill.yaml", text, false);
        assert!(!drawn.contains(|c: char| c != '\n' && c.is_control()), "{drawn:?}");
    }
}

#[cfg(test)]
#[test]
fn it_holds_for_what_fuzzing_kept() {
    replay::replay(env!("CARGO_MANIFEST_DIR"), "drill", holds);
}
