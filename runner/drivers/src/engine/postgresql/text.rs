//! What comes out of a restored server is hostile text: bounded, on one line, without control characters.
use std::fmt::Write as _;

/// At most `limit` characters, control characters and line breaks replaced by spaces.
pub fn plain(text: &str, limit: usize) -> String {
    let mut out = String::new();
    for (index, c) in text.chars().enumerate() {
        if index == limit {
            out.push('…');
            break;
        }
        out.push(if is_unprintable(c) { ' ' } else { c });
    }
    out.trim().to_owned()
}

/// Controls, and what turns the direction of the text around it or is not seen at all.
fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// An SQL identifier, always quoted.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// An SQL string constant that `standard_conforming_strings` does not change.
pub fn literal(text: &str) -> String {
    let mut out = String::from(if text.contains('\\') { " E'" } else { "'" });
    for c in text.chars() {
        match c {
            '\'' => out.push_str("''"),
            '\\' => out.push_str("\\\\"),
            c => {
                let _ = write!(out, "{c}");
            }
        }
    }
    out.push('\'');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_stays_on_one_line_and_draws_nothing() {
        assert_eq!(plain("a\x1b[31mb\nc\u{202e}d", 100), "a [31mb c d");
        assert_eq!(plain("abcdef", 3), "abc…");
    }

    #[test]
    fn names_and_constants_cannot_leave_their_quotes() {
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\'b"), " E'a\\\\''b'");
    }
}
