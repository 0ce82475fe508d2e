//! Globs, as options of checks have them.

/// Whether one of the globs matches; no glob chooses all.
pub fn chooses(globs: &[String], label: &str) -> bool {
    globs.is_empty() || globs.iter().any(|pattern| glob(pattern, label))
}

/// The first glob that matches none of the labels: a misspelled one must not pass as a check that looked.
pub fn unmatched<'a>(globs: &'a [String], labels: &[String]) -> Option<&'a str> {
    globs.iter().map(String::as_str).find(|pattern| !labels.iter().any(|label| glob(pattern, label)))
}

/// `*` is any text, `?` any one character. Takes time in the product of the lengths at worst.
pub fn glob(pattern: &str, label: &str) -> bool {
    let (pattern, label): (Vec<char>, Vec<char>) = (pattern.chars().collect(), label.chars().collect());
    let (mut at, mut from) = (0, 0);
    // Where the last star stood, and how much of the label it has taken.
    let mut star: Option<(usize, usize)> = None;
    while from < label.len() {
        match (pattern.get(at), star) {
            (Some('*'), _) => {
                star = Some((at, from));
                at += 1;
            }
            (Some(&wanted), _) if wanted == '?' || wanted == label[from] => (at, from) = (at + 1, from + 1),
            (_, Some((position, taken))) => {
                star = Some((position, taken + 1));
                (at, from) = (position + 1, taken + 1);
            }
            (_, None) => return false,
        }
    }
    pattern[at..].iter().all(|&rest| rest == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_choose_tables() {
        for (pattern, label, chosen) in [
            ("*", "public.orders", true),
            ("public.*", "public.orders", true),
            ("public.*", "publicorders", false),
            ("*.order?", "public.orders", true),
            ("*.order?", "public.order", false),
            ("p*c.*s", "public.orders", true),
            ("p*c.*x", "public.orders", false),
            ("", "", true),
        ] {
            assert_eq!(glob(pattern, label), chosen, "{pattern} {label}");
        }
    }

    #[test]
    fn a_glob_that_matches_nothing_is_found() {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let labels = owned(&["public.orders", "public.lines"]);
        assert_eq!(unmatched(&owned(&["public.*", "*.oders", "x"]), &labels), Some("*.oders"));
        assert_eq!(unmatched(&owned(&["public.*"]), &labels), None);
        assert!(chooses(&[], "anything") && !chooses(&owned(&["a", "b"]), "c"));
    }
}
