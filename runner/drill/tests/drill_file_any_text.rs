//! Text that was never meant to be a drill file is answered, too.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#[path = "../../../fuzz/properties/drill.rs"]
mod property;

use std::path::{Path, PathBuf};

use drill::file::{Options, parse, render};
use proptest::prelude::*;

fn shipped() -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schedules");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text_is_answered(text in any::<String>()) {
        answered(&text);
    }

    #[test]
    fn text_of_yaml_and_drill_words_is_answered(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "spec", "source", "metadata", "checks", "limits", ": ", ":", "\n", "\n  ", "\n    ", "- ", "{", "}", "[", "]", ", ", "\"", "'",
                "&a ", "*a", "? ", "| ", "> ", "!!str ", "<<", "~", "#", "\t", "\r", "1h", "4GiB", "0", "-1", ".inf", "\u{0}", "ü", "---", "...",
                "%YAML 1.2", "@daily", "`",
            ]),
            0..60,
        )
    ) {
        answered(&words.concat());
    }

    #[test]
    fn a_valid_file_with_a_mutation_is_answered(
        file in 0..3_usize,
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..4_usize, "[ -~\n\t:{}\\[\\]&*!|>'\"%@`ü\u{1f600}]{0,4}"), 1..5),
    ) {
        let mut text: Vec<char> = shipped()[file].1.chars().collect();
        for (at, cut, put) in edits {
            let at = at.index(text.len() + 1);
            let end = (at + cut).min(text.len());
            text.splice(at..end, put.chars());
        }
        answered(&text.into_iter().collect::<String>());
    }
}

/// Either a drill or problems that can be drawn; never a panic, never an empty list.
fn answered(text: &str) {
    if let Err(problems) = parse(text, Options::default()) {
        assert!(!problems.is_empty());
        for color in [false, true] {
            let drawn = render(&problems, "drill.yaml", text, color);
            assert!(drawn.contains("problem") && drawn.lines().count() > 2, "{drawn}");
        }
        let places: Vec<_> = problems.iter().map(|problem| problem.place).collect();
        assert!(places.is_sorted());
    }
}
