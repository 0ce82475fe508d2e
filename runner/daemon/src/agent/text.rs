//! What comes out of the agent or the database, made fit for a person's eyes.

/// Bytes kept of one text.
pub(super) const MAX_TEXT: usize = 4 << 10;

/// One line without control characters or characters that turn the direction of text, at most [`MAX_TEXT`] bytes.
pub(super) fn clean(text: &str) -> String {
    bounded(text, MAX_TEXT)
}

pub(super) fn bounded(text: &str, max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(max));
    for c in text.chars() {
        let c = if matches!(c, '\n' | '\t') { ' ' } else { c };
        if c.is_control() || turns_direction(c) {
            continue;
        }
        if out.len() + c.len_utf8() > max.saturating_sub('…'.len_utf8()) {
            out.push('…');
            break;
        }
        out.push(c);
    }
    out
}

fn turns_direction(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_fool_a_terminal_is_gone() {
        assert_eq!(clean("a\u{1b}[31mb\nc\u{202e}d\u{7}\u{9b}e"), "a[31mb cde");
    }

    #[test]
    fn a_long_text_ends_in_an_ellipsis_within_its_bound() {
        let text = clean(&"é".repeat(MAX_TEXT));
        assert!(text.len() <= MAX_TEXT && text.ends_with("é…"));
        assert_eq!(bounded("abc", 6), "abc");
    }
}
