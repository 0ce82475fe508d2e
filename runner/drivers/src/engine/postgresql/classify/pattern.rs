//! How a rule of the catalogue fits an error. Messages and statements hold names and values of the backup, so that what excuses
//! an error is fixed at both ends of the message, where no name and no value can stand.
use super::RestoreError;

pub(super) enum Words {
    /// One of them is the whole message; a `*` is anything. For what keeps an error from being the dump's.
    Whole(&'static [&'static str]),
    /// All of them occur somewhere. For advice only.
    Parts(&'static [&'static str]),
}

impl Words {
    pub(super) fn fit(&self, error: &RestoreError) -> bool {
        match self {
            Self::Whole(patterns) => patterns.iter().any(|pattern| is_like(error.core(), pattern)),
            Self::Parts(parts) => parts.iter().all(|part| error.message.contains(part)),
        }
    }
}

/// Whether the statement begins as one of the patterns says.
pub(super) fn begins_like(error: &RestoreError, patterns: &[&str]) -> bool {
    if patterns.is_empty() {
        return true;
    }
    let command = without_names(error.command.as_deref().unwrap_or_default().trim_start());
    patterns.iter().any(|pattern| is_like(&command, &format!("{pattern}*")))
}

fn is_like(text: &str, pattern: &str) -> bool {
    let Some((begin, rest)) = pattern.split_once('*') else { return text == pattern };
    let (middle, end) = rest.rsplit_once('*').unwrap_or(("", rest));
    let inner = text.strip_prefix(begin).and_then(|text| text.strip_suffix(end));
    let Some(mut inner) = inner else { return false };
    for part in middle.split('*') {
        let Some(at) = inner.find(part) else { return false };
        inner = &inner[at + part.len()..];
    }
    true
}

/// Quoted names and constants lose what is between their quotes; one that is cut off ends the statement.
fn without_names(command: &str) -> String {
    let mut quote = None;
    let mut out = String::new();
    for c in command.chars() {
        match quote {
            Some(open) if c != open => {}
            Some(_) => {
                quote = None;
                out.push(c);
            }
            None => {
                quote = ['"', '\''].contains(&c).then_some(c);
                out.push(c);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_fixed_at_both_ends() {
        assert!(is_like("a b c", "a b c"));
        assert!(is_like("a b c", "a*c"));
        assert!(is_like("a b c d", "a*b*d"));
        assert!(is_like("abc", "*c") && is_like("abc", "a*") && is_like("abc", "*"));
        for pattern in ["a b", "b*", "*b", "a*b", "a*x*c", "a b c*c"] {
            assert!(!is_like("a b c", pattern), "{pattern}");
        }
    }

    #[test]
    fn what_stands_between_quotes_is_no_part_of_a_statement() {
        let error =
            |command: &str| RestoreError { message: String::new(), entry: None, command: Some(command.to_owned()) };
        let drops = |command: &str| begins_like(&error(command), &["ALTER * DROP "]);
        assert!(drops("ALTER TABLE IF EXISTS ONLY public.\"my table\" DROP CONSTRAINT a;"));
        assert!(!drops("ALTER TABLE ONLY public.\"a DROP b\" ADD CONSTRAINT c FOREIGN KEY (x) REFERENCES y(x);"));
        assert!(!drops("ALTER TABLE ONLY public.\"a\"\" DROP b\" ADD x int;"));
        assert!(!drops("ALTER TABLE t ALTER COLUMN a SET DEFAULT ' DROP ';"));
        assert!(!drops("ALTER TABLE t ADD CONSTRAINT \"cut off DROP x"));
    }
}
