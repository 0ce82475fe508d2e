//! Which tables' rows are digested.
use std::convert::Infallible;
use std::str::FromStr;

/// `all`, `none`, or a pattern of `schema.table`: `*` is any number of characters, `?` is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Digests {
    All,
    None,
    Matching(String),
}

impl FromStr for Digests {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "all" => Self::All,
            "none" => Self::None,
            pattern => Self::Matching(pattern.to_owned()),
        })
    }
}

impl Digests {
    pub(super) fn includes(&self, schema: &str, table: &str) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Matching(pattern) => matches(pattern, &format!("{schema}.{table}")),
        }
    }
}

/// As the checks' options have it. Where the rest does not match, the last `*` takes one character more.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(wanted) if *wanted == '?' || *wanted == name[n] => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((at, taken)) = star else { return false };
                star = Some((at, taken + 1));
                (p, n) = (at + 1, taken + 1);
            }
        }
    }
    pattern[p..].iter().all(|rest| *rest == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_of_the_whole_name() {
        for (pattern, name, wanted) in [
            ("public.*", "public.orders", true),
            ("public.*", "publicx.orders", false),
            ("*.orders", "a.b.orders", true),
            ("*orders*_2?", "public.orders_of_20", true),
            ("*a*b*c", "xaxbxbxc", true),
            ("*a*b*c", "xaxbxbx", false),
            ("?.t", "ä.t", true),
            ("public.orders", "public.order", false),
            ("public.order", "public.orders", false),
            ("**", "", true),
            ("", "", true),
            ("*", "public.orders", true),
            ("*.order?", "public.order", false),
            ("p*c.*s", "public.orders", true),
            ("p*c.*x", "public.orders", false),
        ] {
            assert_eq!(matches(pattern, name), wanted, "{pattern} {name}");
        }
        assert_eq!("all".parse(), Ok(Digests::All));
        assert!(!Digests::None.includes("a", "b"));
    }
}
