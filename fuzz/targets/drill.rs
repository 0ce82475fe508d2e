//! A drill file: either a drill, or problems that can be drawn and steer no terminal.
#![no_main]
use drill::file::{Options, parse, render};

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Err(problems) = parse(text, Options::default()) {
        assert!(!problems.is_empty());
        let drawn = render(&problems, "drill.yaml", text, false);
        assert!(!drawn.contains(|c: char| c != '\n' && c.is_control()), "{drawn:?}");
    }
});
