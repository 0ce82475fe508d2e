//! Where to connect, by libpq's rules: a connection string, then a service file, then PG* variables, then defaults.
//! See <https://www.postgresql.org/docs/current/libpq-connect.html>.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use drill::secret::Secret;
use drill::stop::Stop;
use drill::verdict::Reason;

use super::pgpass;

/// Parameters that muster understands, and the variable that hands each to libpq's own tools.
const PARAMETERS: [(&str, &str); 26] = [
    ("host", "PGHOST"),
    ("hostaddr", "PGHOSTADDR"),
    ("port", "PGPORT"),
    ("dbname", "PGDATABASE"),
    ("user", "PGUSER"),
    ("password", "PGPASSWORD"),
    ("passfile", "PGPASSFILE"),
    ("channel_binding", "PGCHANNELBINDING"),
    ("connect_timeout", "PGCONNECT_TIMEOUT"),
    ("client_encoding", "PGCLIENTENCODING"),
    ("options", "PGOPTIONS"),
    ("application_name", "PGAPPNAME"),
    ("sslmode", "PGSSLMODE"),
    ("sslcert", "PGSSLCERT"),
    ("sslkey", "PGSSLKEY"),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("sslcrl", "PGSSLCRL"),
    ("sslcrldir", "PGSSLCRLDIR"),
    ("sslsni", "PGSSLSNI"),
    ("sslcompression", "PGSSLCOMPRESSION"),
    ("requirepeer", "PGREQUIREPEER"),
    ("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION"),
    ("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION"),
    ("gssencmode", "PGGSSENCMODE"),
    ("target_session_attrs", "PGTARGETSESSIONATTRS"),
    ("service", "PGSERVICE"),
];

/// Known to libpq; they tune a connection, and capture works without them.
const TUNING: [&str; 9] = [
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
    "fallback_application_name",
    "krbsrvname",
    "gsslib",
    "load_balance_hosts",
];

/// The variables of a process, given as a value so that nothing reads them behind anybody's back.
#[derive(Debug, Clone, Default)]
pub struct Environment(pub BTreeMap<String, String>);

impl Environment {
    /// Variables that are not UTF-8 are left out.
    pub fn of_this_process() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self(std::env::vars_os().filter_map(text).collect())
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub(super) fn home(&self) -> Option<PathBuf> {
        self.get("HOME").map(PathBuf::from)
    }
}

/// One database, completely resolved.
#[derive(Clone)]
pub struct ConnInfo {
    parameters: BTreeMap<&'static str, String>,
    /// From a password file, which libpq's tools read by themselves.
    found_password: Option<Secret>,
    home: Option<PathBuf>,
}

impl ConnInfo {
    /// `text`: `host=… dbname=…`, `postgresql://…`, a bare database name, or nothing.
    pub fn resolve(text: &str, environment: &Environment) -> Result<Self, Stop> {
        let mut parameters = parse(text)?;
        let service = parameters.get("service").cloned().or_else(|| environment.get("PGSERVICE").map(str::to_owned));
        if let Some(service) = service {
            for (key, value) in read_service(&service, environment)? {
                parameters.entry(key).or_insert(value);
            }
        }
        parameters.remove("service");
        for (key, variable) in PARAMETERS {
            if let Some(value) = environment.get(variable)
                && key != "service"
            {
                parameters.entry(key).or_insert_with(|| value.to_owned());
            }
        }
        let mut info = Self { parameters, found_password: None, home: environment.home() };
        info.fill_defaults(environment)?;
        info.find_password();
        Ok(info)
    }

    fn fill_defaults(&mut self, environment: &Environment) -> Result<(), Stop> {
        let port = self.get("port").unwrap_or("5432").to_owned();
        if !self.parameters.contains_key("host") && !self.parameters.contains_key("hostaddr") {
            let directory = ["/var/run/postgresql", "/run/postgresql", "/tmp"]
                .into_iter()
                .find(|directory| Path::new(directory).join(format!(".s.PGSQL.{port}")).exists());
            self.parameters.insert("host", directory.unwrap_or("localhost").to_owned());
        }
        self.parameters.insert("port", port);
        if !self.parameters.contains_key("user") {
            let user = system_user().or_else(|| environment.get("USER").map(str::to_owned)).ok_or_else(|| {
                Stop::new(Reason::Internal, "this user has no name to log in with").advise("set PGUSER, or say user=…")
            })?;
            self.parameters.insert("user", user);
        }
        let user = self.parameters["user"].clone();
        self.parameters.entry("dbname").or_insert(user);
        Ok(())
    }

    fn find_password(&mut self) {
        if self.parameters.contains_key("password") {
            return;
        }
        let file = self.get("passfile").map(PathBuf::from).or_else(|| Some(self.home.as_ref()?.join(".pgpass")));
        let host = self.get("host").or_else(|| self.get("hostaddr")).unwrap_or("localhost");
        let place = pgpass::Place {
            host: host.split(',').next().unwrap_or(host),
            port: self.get("port").and_then(|port| port.split(',').next()).unwrap_or("5432"),
            database: self.database(),
            user: self.user(),
        };
        self.found_password = file.and_then(|file| pgpass::look_up(&file, &place));
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.parameters.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub fn database(&self) -> &str {
        &self.parameters["dbname"]
    }

    pub fn user(&self) -> &str {
        &self.parameters["user"]
    }

    pub(super) fn password(&self) -> Option<&str> {
        self.get("password").or_else(|| self.found_password.as_ref().map(Secret::expose))
    }

    /// A file that libpq looks for in `~/.postgresql` where the parameter is not given.
    pub(super) fn file(&self, key: &str, default: &str) -> Option<PathBuf> {
        match self.get(key) {
            Some(path) => Some(PathBuf::from(path)),
            None => self.home.as_ref().map(|home| home.join(".postgresql").join(default)).filter(|path| path.exists()),
        }
    }

    /// Whom it is, for people: never a password.
    pub fn shown(&self) -> String {
        let host = self.get("host").or_else(|| self.get("hostaddr")).unwrap_or("localhost");
        format!("database `{}` at {host}, port {}, as {}", self.database(), self.parameters["port"], self.user())
    }

    /// The variables that make libpq's tools connect to the same place; passwords stay out of argument lists.
    pub(super) fn variables(&self) -> impl Iterator<Item = (&'static str, &str)> {
        PARAMETERS.iter().filter_map(|(key, variable)| Some((*variable, self.get(key)?)))
    }
}

impl std::fmt::Debug for ConnInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ConnInfo({})", self.shown())
    }
}

/// A value within a connection string.
pub(super) fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn bad(why: impl std::fmt::Display) -> Stop {
    Stop::new(Reason::Internal, format!("the connection string cannot be read: {why}")).advise(
        "write it as `host=db.example dbname=orders user=backup`, or as `postgresql://backup@db.example/orders`",
    )
}

fn known(key: &str) -> Result<Option<&'static str>, Stop> {
    if TUNING.contains(&key) {
        return Ok(None);
    }
    match PARAMETERS.iter().find(|(name, _)| *name == key) {
        Some((name, _)) => Ok(Some(name)),
        None => Err(bad(format!("`{}` is not a parameter that muster knows", key.escape_debug()))),
    }
}

fn parse(text: &str) -> Result<BTreeMap<&'static str, String>, Stop> {
    let pairs = if let Some(rest) = text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://")) {
        parse_uri(rest)?
    } else if text.contains('=') {
        parse_pairs(text)?
    } else if text.trim().is_empty() {
        Vec::new()
    } else {
        vec![("dbname".to_owned(), text.to_owned())]
    };
    let mut parameters = BTreeMap::new();
    for (key, value) in pairs {
        if let Some(key) = known(&key)? {
            parameters.insert(key, value);
        }
    }
    Ok(parameters)
}

/// `key = value`, values in single quotes where they hold blanks, backslash escapes.
fn parse_pairs(text: &str) -> Result<Vec<(String, String)>, Stop> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=').ok_or_else(|| bad("there is a word without `=`"))?;
        let key = key.trim();
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(bad("there is a word without `=`"));
        }
        let (value, after) = parse_value(after.trim_start())?;
        pairs.push((key.to_owned(), value));
        rest = after.trim_start();
    }
    Ok(pairs)
}

fn parse_value(text: &str) -> Result<(String, &str), Stop> {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut characters = text.char_indices().skip(usize::from(quoted));
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            '\'' if quoted => return Ok((value, &text[at + 1..])),
            blank if !quoted && blank.is_whitespace() => return Ok((value, &text[at..])),
            other => value.push(other),
        }
    }
    if quoted { Err(bad("a quote is not closed")) } else { Ok((value, "")) }
}

/// `[user[:password]@][host[:port],…][/dbname][?key=value&…]`
fn parse_uri(text: &str) -> Result<Vec<(String, String)>, Stop> {
    let (text, query) = text.split_once('?').unwrap_or((text, ""));
    let (authority, database) = text.split_once('/').unwrap_or((text, ""));
    let mut pairs = Vec::new();
    let mut push = |key: &str, value: &str| -> Result<(), Stop> {
        if !value.is_empty() {
            pairs.push((key.to_owned(), percent_decode(value)?));
        }
        Ok(())
    };
    let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    push("user", user)?;
    push("password", password)?;
    let split = |host: &str| -> (String, String) {
        if let Some(v6) = host.strip_prefix('[') {
            let (address, port) = v6.split_once(']').unwrap_or((v6, ""));
            return (address.to_owned(), port.trim_start_matches(':').to_owned());
        }
        let (host, port) = host.split_once(':').unwrap_or((host, ""));
        (host.to_owned(), port.to_owned())
    };
    let hosts: Vec<_> = hosts.split(',').map(split).collect();
    let join = |values: Vec<&str>| if values.iter().all(|v| v.is_empty()) { String::new() } else { values.join(",") };
    push("host", &join(hosts.iter().map(|(host, _)| host.as_str()).collect()))?;
    push("port", &join(hosts.iter().map(|(_, port)| port.as_str()).collect()))?;
    push("dbname", database)?;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or_else(|| bad("there is a word without `=` after `?`"))?;
        match key {
            "ssl" if value == "true" => push("sslmode", "require")?,
            key => push(key, value)?,
        }
    }
    Ok(pairs)
}

fn percent_decode(text: &str) -> Result<String, Stop> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first == b'%' {
            let digits = rest.get(..2).and_then(|digits| hex::decode(digits).ok());
            bytes.extend(digits.ok_or_else(|| bad("`%` is not followed by two hexadecimal digits"))?);
            rest = &rest[2..];
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0')).ok_or_else(|| bad("it is not UTF-8"))
}

/// `PGSERVICEFILE`, else `~/.pg_service.conf`; then `PGSYSCONFDIR/pg_service.conf`.
fn read_service(service: &str, environment: &Environment) -> Result<Vec<(&'static str, String)>, Stop> {
    let own = environment
        .get("PGSERVICEFILE")
        .map(PathBuf::from)
        .or_else(|| Some(environment.home()?.join(".pg_service.conf")));
    let directory = environment.get("PGSYSCONFDIR").unwrap_or("/etc/postgresql-common");
    let files = own.into_iter().chain([Path::new(directory).join("pg_service.conf")]);
    for file in files {
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        if let Some(pairs) = service_section(&text, service) {
            let mut known_pairs = Vec::new();
            for (key, value) in pairs {
                if let Some(key) = known(&key)? {
                    known_pairs.push((key, value));
                }
            }
            return Ok(known_pairs);
        }
    }
    Err(Stop::new(Reason::Internal, format!("no service file defines the service `{}`", service.escape_debug()))
        .advise("set PGSERVICEFILE to the file that does, or write ~/.pg_service.conf"))
}

/// An INI file: `[service]`, then `key=value` lines; `#` begins a comment.
fn service_section(text: &str, service: &str) -> Option<Vec<(String, String)>> {
    let mut pairs = None;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            if pairs.is_some() {
                break;
            }
            if name == service {
                pairs = Some(Vec::new());
            }
        } else if let (Some(pairs), Some((key, value))) = (pairs.as_mut(), line.split_once('=')) {
            pairs.push((key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    pairs
}

fn system_user() -> Option<String> {
    let uid = rustix::process::geteuid().as_raw().to_string();
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        Environment(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    }

    fn resolve(text: &str, pairs: &[(&str, &str)]) -> ConnInfo {
        ConnInfo::resolve(text, &environment(pairs)).expect("it is readable")
    }

    #[test]
    fn all_three_notations_are_read() {
        let pairs = resolve(r"host = db.example port=5433 dbname='my \'db\\' user=backup", &[]);
        assert_eq!((pairs.get("host"), pairs.get("port")), (Some("db.example"), Some("5433")));
        assert_eq!((pairs.database(), pairs.user()), (r"my 'db\", "backup"));
        let uri = resolve("postgresql://back%20up:s%3Acret@[::1]:5433,b.example/or%2Fders?sslmode=verify-full", &[]);
        assert_eq!((uri.get("host"), uri.get("port")), (Some("::1,b.example"), Some("5433,")));
        assert_eq!((uri.user(), uri.password(), uri.database()), ("back up", Some("s:cret"), "or/ders"));
        assert_eq!(uri.get("sslmode"), Some("verify-full"));
        assert_eq!(resolve("orders", &[("PGUSER", "u")]).database(), "orders");
        assert_eq!(resolve("", &[("PGUSER", "u")]).database(), "u");
    }

    #[test]
    fn what_is_given_beats_a_service_and_a_service_beats_the_environment() {
        let place = tempfile::tempdir().expect("a directory");
        let file = place.path().join("service.conf");
        let text = "# x\n[other]\nhost=no\n[orders]\nhost=from-service\nport = 6000\n\n[last]\nuser=no\n";
        std::fs::write(&file, text).expect("a file");
        let file = file.to_str().expect("a path");
        let given = [("PGSERVICEFILE", file), ("PGSERVICE", "orders"), ("PGPORT", "1"), ("PGUSER", "env")];
        let info = resolve("host=given", &given);
        assert_eq!((info.get("host"), info.get("port"), info.user()), (Some("given"), Some("6000"), "env"));
        assert_eq!(resolve("service=orders", &given).get("host"), Some("from-service"));
        assert!(info.variables().all(|(name, _)| name != "PGSERVICE"));
        let stop = ConnInfo::resolve("service=absent", &environment(&given)).expect_err("no such service");
        assert!(stop.message.contains("absent"), "{stop}");
    }

    #[test]
    fn a_password_is_found_but_never_shown() {
        use std::os::unix::fs::PermissionsExt;
        let place = tempfile::tempdir().expect("a directory");
        let file = place.path().join(".pgpass");
        std::fs::write(&file, "h:5432:*:u:from-file\n").expect("a file");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("chmod");
        let home = [("HOME", place.path().to_str().expect("a path"))];
        let info = resolve("host=h user=u dbname=d", &home);
        assert_eq!(info.password(), Some("from-file"));
        assert!(info.variables().all(|(_, value)| value != "from-file"));
        let given = resolve("host=h user=u dbname=d password=given", &home);
        assert_eq!(given.password(), Some("given"));
        assert!(!format!("{given:?}").contains("given"));
    }

    #[test]
    fn what_cannot_be_read_is_said_without_its_values() {
        for bad in ["host=a secret", "password='secret", "secrets=1", "postgresql://u:secret%zz@h/d", "=secret"] {
            let stop = ConnInfo::resolve(bad, &Environment::default()).expect_err(bad);
            assert!(!stop.message.contains("secret`") && !stop.message.contains("secret "), "{bad}: {stop}");
        }
    }

    proptest! {
        #[test]
        fn a_quoted_value_is_read_back(value in "[^\0]{0,20}") {
            let text = format!("dbname={} user=u", quote(&value));
            let pairs = parse_pairs(&text).expect("it is readable");
            prop_assert_eq!(&pairs[0].1, &value);
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,40}") {
            let _ = parse(&text);
            let _ = parse(&format!("postgresql://{text}"));
            let _ = service_section(&text, "x");
        }
    }
}
