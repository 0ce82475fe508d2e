//! Globs, as options of checks have them.

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
}
