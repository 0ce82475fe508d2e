//! `.pgpass`: `hostname:port:database:username:password`, `*` for any, `\` escapes.
//! See <https://www.postgresql.org/docs/current/libpq-pgpass.html>.
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use drill::secret::Secret;
use zeroize::Zeroizing;

pub(super) struct Place<'a> {
    pub(super) host: &'a str,
    pub(super) port: &'a str,
    pub(super) database: &'a str,
    pub(super) user: &'a str,
}

/// The first line that fits. Like libpq, a file that others can read counts for nothing.
pub(super) fn look_up(file: &Path, place: &Place<'_>) -> Option<Secret> {
    let metadata = file.metadata().ok()?;
    if !metadata.is_file() || metadata.permissions().mode() & 0o077 != 0 {
        return None;
    }
    let text = Zeroizing::new(std::fs::read_to_string(file).ok()?);
    find(&text, place)
}

fn find(text: &str, place: &Place<'_>) -> Option<Secret> {
    // A socket in the usual place is also called localhost.
    let socket = ["/var/run/postgresql", "/run/postgresql", "/tmp"].contains(&place.host);
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let fields = fields(line);
        let [host, port, database, user, password] = fields.as_slice() else { return None };
        let fits = |field: &(Zeroizing<String>, bool), value: &str| (field.1 && *field.0 == "*") || *field.0 == value;
        let fits_host = fits(host, place.host) || (socket && *host.0 == "localhost");
        let all = fits_host && fits(port, place.port) && fits(database, place.database) && fits(user, place.user);
        all.then(|| Secret::new(password.0.to_string()))
    })
}

/// The fields, unescaped, and whether each was written without an escape: `\*` is a star, not a wildcard.
fn fields(line: &str) -> Vec<(Zeroizing<String>, bool)> {
    let mut fields = vec![(Zeroizing::new(String::new()), true)];
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        // The password is the rest of the line, and a colon within it needs no escape in libpq either.
        let last = fields.len() == 5;
        let field = fields.last_mut().expect("there is always one");
        match character {
            '\\' => {
                field.0.extend(characters.next());
                field.1 = false;
            }
            ':' if !last => fields.push((Zeroizing::new(String::new()), true)),
            other => field.0.push(other),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(text: &str) -> Option<String> {
        let place = Place { host: "db", port: "5432", database: "a:b", user: "u" };
        find(text, &place).map(|secret| secret.expose().to_owned())
    }

    #[test]
    fn the_first_fitting_line_counts() {
        assert_eq!(look("# db:*:*:*:no\ndb:1:*:*:no\ndb:5432:a\\:b:u:yes\n*:*:*:*:late"), Some("yes".to_owned()));
        assert_eq!(look("*:*:*:*:p\\:a\\\\ss:word"), Some("p:a\\ss:word".to_owned()));
        assert_eq!(look("\\*:*:*:*:no"), None);
        assert_eq!(look("db:5432:a\\:b:u"), None);
        assert_eq!(look(""), None);
    }

    #[test]
    fn a_socket_is_localhost() {
        let place = Place { host: "/tmp", port: "5432", database: "d", user: "u" };
        assert!(find("localhost:*:*:*:x", &place).is_some());
        assert!(find("elsewhere:*:*:*:x", &place).is_none());
    }
}
