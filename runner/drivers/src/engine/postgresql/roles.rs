//! Which roles a dump needs, for a backup that came without its own.
use std::collections::BTreeSet;

/// More than any backup has; a hostile dump cannot make the runner hold more.
pub(super) const MOST: usize = 10_000;

/// Roles that one line of the dump's schema names: owners, grantees, policies, user mappings, default privileges. A function
/// body may look like such a line: then a role is stubbed in vain, which harms nothing.
pub(super) fn roles_in(line: &str) -> BTreeSet<String> {
    let line = line.trim();
    let mut roles = BTreeSet::new();
    let mut add = |text: Option<&str>| {
        if let Some(text) = text {
            roles.extend(names(text));
        }
    };
    if line.starts_with("ALTER DEFAULT PRIVILEGES") {
        add(after(line, " FOR ROLE "));
        add(last_after(line, " TO "));
        add(last_after(line, " FROM "));
    } else if line.starts_with("ALTER ") {
        add(last_after(line, " OWNER TO "));
    } else if line.starts_with("GRANT ") {
        add(last_after(line, " TO "));
    } else if line.starts_with("REVOKE ") {
        add(last_after(line, " FROM "));
    } else if line.starts_with("CREATE POLICY ") {
        add(after(line, " TO "));
    } else if line.starts_with("CREATE USER MAPPING FOR ") {
        add(after(line, "MAPPING FOR "));
    } else if line.starts_with("SET SESSION AUTHORIZATION ") {
        add(after(line, "AUTHORIZATION "));
    }
    roles
}

fn after<'a>(line: &'a str, mark: &str) -> Option<&'a str> {
    line.split_once(mark).map(|(_, rest)| rest)
}

fn last_after<'a>(line: &'a str, mark: &str) -> Option<&'a str> {
    line.rsplit_once(mark).map(|(_, rest)| rest)
}

/// A list of names with commas, up to the first word that is no name of the list.
fn names(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((name, quoted, after)) = name(rest) {
        let reserved = ["public", "current_user", "session_user", "current_role", "default", "none"];
        if quoted || !reserved.contains(&name.to_ascii_lowercase().as_str()) {
            found.push(name);
        }
        match after.trim_start().strip_prefix(',') {
            Some(next) => rest = next,
            None => break,
        }
    }
    found
}

fn name(text: &str) -> Option<(String, bool, &str)> {
    let text = text.trim_start();
    if let Some(inner) = text.strip_prefix('"') {
        let mut name = String::new();
        let mut chars = inner.char_indices().peekable();
        while let Some((index, c)) = chars.next() {
            match c {
                '"' if matches!(chars.peek(), Some((_, '"'))) => {
                    name.push('"');
                    chars.next();
                }
                '"' => return Some((name, true, &inner[index + 1..])),
                c => name.push(c),
            }
        }
        return None;
    }
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$')).unwrap_or(text.len());
    (end > 0).then(|| (text[..end].to_owned(), false, &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roles(line: &str) -> Vec<String> {
        roles_in(line).into_iter().collect()
    }

    #[test]
    fn owners_grantees_and_policies_are_found() {
        assert_eq!(roles("ALTER TABLE public.orders OWNER TO app;"), ["app"]);
        assert_eq!(roles("ALTER FUNCTION public.\"a OWNER TO b\"() OWNER TO \"Odd \"\"one\";"), ["Odd \"one"]);
        assert_eq!(roles("GRANT SELECT,INSERT ON TABLE public.orders TO reader WITH GRANT OPTION;"), ["reader"]);
        assert_eq!(roles("REVOKE ALL ON SCHEMA public FROM postgres;"), ["postgres"]);
        assert_eq!(roles("CREATE POLICY p ON public.t FOR SELECT TO a, \"B\" USING (true);"), ["B", "a"]);
        assert_eq!(roles("CREATE USER MAPPING FOR bob SERVER s OPTIONS ("), ["bob"]);
        assert_eq!(
            roles("ALTER DEFAULT PRIVILEGES FOR ROLE app IN SCHEMA public GRANT SELECT ON TABLES  TO reader;"),
            ["app", "reader"]
        );
    }

    #[test]
    fn keywords_are_no_roles() {
        assert_eq!(roles("GRANT ALL ON SCHEMA public TO PUBLIC;"), [""; 0]);
        assert_eq!(roles("CREATE USER MAPPING FOR PUBLIC SERVER s;"), [""; 0]);
        assert_eq!(roles("ALTER TABLE t OWNER TO \"unfinished"), [""; 0]);
        assert_eq!(roles("SELECT 'GRANT x TO y'"), [""; 0]);
    }
}
