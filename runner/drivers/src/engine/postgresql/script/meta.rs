//! The commands of `psql` that `pg_dump` writes: `\connect`, and `\restrict` and `\unrestrict` since 15.14, 16.10 and 17.6.

/// A command that may stand in a dump.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meta {
    Connect(String),
    /// `\restrict` and `\unrestrict`: from here on `psql` itself refuses what it is not used for.
    Restrict,
}

/// `line` begins after the backslash. None where `pg_dump` does not write it.
pub(super) fn parse(line: &str) -> Option<Meta> {
    let line = line.trim_end();
    let (command, rest) = line.split_once(' ')?;
    match command {
        "connect" => database(rest).map(Meta::Connect),
        "restrict" | "unrestrict" => {
            let token = !rest.is_empty() && rest.len() <= 256 && rest.chars().all(|c| c.is_ascii_alphanumeric());
            token.then_some(Meta::Restrict)
        }
        _ => None,
    }
}

/// `orders`, `"Orders"`, or `-reuse-previous=on "dbname='my orders'"`, as `appendPsqlMetaConnect` writes them.
fn database(text: &str) -> Option<String> {
    if let Some(conninfo) = text.strip_prefix("-reuse-previous=on ") {
        let inner = conninfo.strip_prefix("\"dbname='")?.strip_suffix("'\"")?;
        return value(inner);
    }
    match text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        Some(quoted) => {
            let name = quoted.replace("\"\"", "");
            let plain = !quoted.is_empty() && !name.contains('"') && name.chars().all(is_plain);
            plain.then(|| quoted.replace("\"\"", "\""))
        }
        None => {
            (!text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')).then(|| text.to_owned())
        }
    }
}

/// Nothing that `psql` would read as more than a name: no backtick, no variable, no backslash.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | ' ') || !c.is_ascii()
}

/// The value of a connection string within double quotes of `psql`: `\'` and `\\` are its escapes, `""` is a double quote.
fn value(inner: &str) -> Option<String> {
    let mut name = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => name.push(chars.next().filter(|next| matches!(next, '\'' | '\\'))?),
            '"' => name.push(chars.next().filter(|next| *next == '"')?),
            '\'' => return None,
            c if c.is_control() => return None,
            c => name.push(c),
        }
    }
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_pg_dump_writes_is_understood() {
        let connect = |name: &str| Some(Meta::Connect(name.to_owned()));
        assert_eq!(parse("connect orders"), connect("orders"));
        assert_eq!(parse("connect \"Orders\""), connect("Orders"));
        assert_eq!(parse("connect -reuse-previous=on \"dbname='my \\'orders'\""), connect("my 'orders"));
        assert_eq!(parse("restrict a1B2"), Some(Meta::Restrict));
        assert_eq!(parse("unrestrict a1B2\r"), Some(Meta::Restrict));
        for bad in [
            "! id",
            "o /tmp/x",
            "copy t from program 'id'",
            "connect `id`",
            "connect \"`id`\"",
            "connect :x",
            "connect a b",
            "connect -reuse-previous=on \"dbname='x' host=y\"",
            "connect postgresql://h/d",
            "connect",
            "connect a \\! id",
            "restrict a \\! id",
            "restrict",
            "i x",
            "gexec",
            "",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
