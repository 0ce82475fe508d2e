//! What `CREATE DATABASE` and `CREATE EXTENSION` of a dump say, as `pg_dump` writes them.
use drill::manifest::{Extension, Locale};

/// None where the statement does not say it all.
pub(super) fn locale(statement: &str) -> Option<Locale> {
    let encoding = option(statement, "ENCODING")?;
    let both = option(statement, "LOCALE");
    let collate = option(statement, "LC_COLLATE").or_else(|| both.clone())?;
    let ctype = option(statement, "LC_CTYPE").or(both)?;
    let provider = option(statement, "LOCALE_PROVIDER").unwrap_or_else(|| "libc".to_owned());
    let icu_locale = option(statement, "ICU_LOCALE");
    Some(Locale { encoding, collate, ctype, provider, icu_locale })
}

/// `CREATE EXTENSION IF NOT EXISTS name WITH SCHEMA schema`. No version is in a dump.
pub(super) fn extension(statement: &str) -> Option<Extension> {
    let rest = statement.strip_prefix("CREATE EXTENSION ")?;
    let (extension, rest) = name(rest.strip_prefix("IF NOT EXISTS ").unwrap_or(rest))?;
    let (schema, _) = name(rest.trim_start().strip_prefix("WITH SCHEMA ")?)?;
    Some(Extension { name: extension, version: None, schema })
}

/// `KEY = 'value'` or `KEY = value`, where the key begins a word.
fn option(statement: &str, key: &str) -> Option<String> {
    let mark = format!(" {key} = ");
    let rest = &statement[statement.find(&mark)? + mark.len()..];
    let Some(quoted) = rest.strip_prefix('\'') else {
        return rest.split([' ', ';', '\n']).next().filter(|word| !word.is_empty()).map(str::to_owned);
    };
    let mut value = String::new();
    let mut chars = quoted.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\'' if chars.peek() == Some(&'\'') => value.extend(chars.next()),
            '\'' => return Some(value),
            c => value.push(c),
        }
    }
    None
}

/// An identifier and what follows it.
fn name(text: &str) -> Option<(String, &str)> {
    if let Some(inner) = text.strip_prefix('"') {
        let mut name = String::new();
        let mut chars = inner.char_indices().peekable();
        while let Some((index, c)) = chars.next() {
            match c {
                '"' if matches!(chars.peek(), Some((_, '"'))) => name.extend(chars.next().map(|(_, c)| c)),
                '"' => return Some((name, &inner[index + 1..])),
                c => name.push(c),
            }
        }
        return None;
    }
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$')).unwrap_or(text.len());
    (end > 0).then(|| (text[..end].to_owned(), &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_of_all_majors_say_their_locale() {
        let old =
            "CREATE DATABASE x WITH TEMPLATE = template0 ENCODING = 'UTF8' LC_COLLATE = 'de_DE.UTF-8' LC_CTYPE = 'C'";
        let old = locale(old).expect("a locale");
        assert_eq!((old.collate.as_str(), old.ctype.as_str(), old.provider.as_str()), ("de_DE.UTF-8", "C", "libc"));
        let new = "CREATE DATABASE \"a \"\"b\" WITH TEMPLATE = template0 ENCODING = 'LATIN1' LOCALE_PROVIDER = icu LOCALE = 'C' ICU_LOCALE = 'de'";
        let new = locale(new).expect("a locale");
        assert_eq!(
            (new.encoding.as_str(), new.provider.as_str(), new.icu_locale.as_deref()),
            ("LATIN1", "icu", Some("de"))
        );
        assert_eq!(locale("CREATE DATABASE x"), None);
        assert_eq!(locale("CREATE DATABASE x ENCODING = 'UTF8"), None);
    }

    #[test]
    fn extensions_are_named() {
        let found =
            extension("CREATE EXTENSION IF NOT EXISTS \"uuid-ossp\" WITH SCHEMA public;").expect("an extension");
        assert_eq!((found.name.as_str(), found.schema.as_str(), found.version), ("uuid-ossp", "public", None));
        assert_eq!(extension("CREATE EXTENSIONS x"), None);
    }
}
