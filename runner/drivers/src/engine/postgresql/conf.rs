//! How the sandbox's server is configured. Everything lies in `/conf`, read-only and outside the data directory; what decides
//! who gets in stands on the command line too, where neither `ALTER SYSTEM` nor a file beneath `/data` can change it.
//!
//! At `fidelity: production` only what an operator would tune for a restore differs from the server's own defaults: memory
//! for index builds and the distance between checkpoints. Durability is the server's own, and so is the WAL level, because a
//! recovered server must be able to have replicas; autovacuum runs as it would. `fast` gives all of that up, and says so.
use std::collections::BTreeMap;
use std::net::IpAddr;

use drill::file::is_reserved_setting;
use drill::port::{InputFile, Template};
use drill::spec::Fidelity;
use drill::stop::Stop;
use drill::verdict::Reason;

use super::tls::Authority;
use super::{ADMIN_ROLE, PORT, SERVER_NAME, install::Install};

/// Refuses settings that are muster's own, and texts that could not stand in a configuration file.
pub fn check_settings(settings: &BTreeMap<String, String>) -> Result<(), Stop> {
    for (name, value) in settings {
        let unfit = |why: String, what: &str| Err(Stop::new(Reason::SandboxUnfit, why).advise(what.to_owned()));
        let well_formed = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.')
            && name.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
        if !well_formed {
            return unfit(format!("`{name}` is not the name of a PostgreSQL setting"), "correct it in engine.settings");
        }
        if is_reserved_setting(name) {
            return unfit(format!("muster sets `{name}` itself"), "remove it from engine.settings");
        }
        if value.chars().any(char::is_control) || value.len() > 4_096 {
            return unfit(
                format!("the value of `{name}` is too long or holds a line break"),
                "correct it in engine.settings",
            );
        }
    }
    Ok(())
}

/// The files of `/conf`.
pub fn files(
    install: &Install,
    authority: &Authority,
    fidelity: Fidelity,
    settings: &BTreeMap<String, String>,
) -> Result<Vec<InputFile>, Stop> {
    let mut files = certificate(authority, None)?;
    files.extend([
        plain("postgresql.conf", postgresql_conf(install.major, fidelity, settings)),
        plain("pg_hba.conf", hba()),
        plain("pg_ident.conf", format!("muster postgres {ADMIN_ROLE}\n")),
        plain("ca.crt", authority.ca()),
    ]);
    Ok(files)
}

/// The server's own. With an address of the sandbox where somebody outside connects to it.
pub fn certificate(authority: &Authority, address: Option<IpAddr>) -> Result<Vec<InputFile>, Stop> {
    let server = authority.server(address)?;
    let key = server.key.expose().as_bytes().to_vec();
    Ok(vec![
        plain("server.crt", server.certificate),
        InputFile { name: "server.key".to_owned(), contents: key, secret: true },
    ])
}

fn plain(name: &str, text: String) -> InputFile {
    InputFile { name: name.to_owned(), contents: text.into_bytes(), secret: false }
}

/// The administrator over the socket, for the tools inside; everybody else with a certificate of the run's CA whose name is
/// the role's. A password gives nothing, whoever sets it.
fn hba() -> String {
    format!(
        "local   all {ADMIN_ROLE} peer map=muster\n\
         hostssl all all 127.0.0.1/32 cert clientcert=verify-full\n\
         local   all all reject\n\
         host    all all all reject\n"
    )
}

fn postgresql_conf(major: u32, fidelity: Fidelity, settings: &BTreeMap<String, String>) -> String {
    let mut text = String::from("# Written by muster. Tuned for a restore; the drill's own settings follow.\n");
    let mut put = |name: &str, value: &str| {
        let value = value.replace('\\', "\\\\").replace('\'', "''");
        text.extend([name, " = '", &value, "'\n"]);
    };
    for (name, value) in tuned(fidelity) {
        put(name, value);
    }
    for (name, value) in settings {
        put(name, value);
    }
    for (name, value) in locked(major) {
        put(name, &value);
    }
    text
}

fn tuned(fidelity: Fidelity) -> Vec<(&'static str, &'static str)> {
    let mut tuned = vec![
        ("max_connections", "60"),
        // A check reads all tables in one transaction, which locks each of them and each of their indexes: room for 60,000.
        ("max_locks_per_transaction", "1024"),
        ("maintenance_work_mem", "128MB"),
        ("max_wal_size", "2GB"),
        ("checkpoint_timeout", "15min"),
        ("timezone", "UTC"),
        // Compiling a query costs more than it saves in checks that read everything once.
        ("jit", "off"),
        ("default_text_search_config", "pg_catalog.english"),
        ("log_min_messages", "warning"),
        // Logs hold no rows: neither statements nor the values in their errors.
        ("log_error_verbosity", "terse"),
    ];
    if fidelity == Fidelity::Fast {
        tuned.extend([
            ("fsync", "off"),
            ("full_page_writes", "off"),
            ("synchronous_commit", "off"),
            ("wal_level", "minimal"),
            ("max_wal_senders", "0"),
            ("autovacuum", "off"),
        ]);
    }
    tuned
}

/// And with the setting that turns event triggers off.
pub(super) const FIRST_WITH_LOGIN_TRIGGERS: u32 = 17;

/// What must be so, whatever the drill and the backup say.
fn locked(major: u32) -> Vec<(&'static str, String)> {
    let mut locked = vec![
        ("hba_file", "/conf/pg_hba.conf".to_owned()),
        ("ident_file", "/conf/pg_ident.conf".to_owned()),
        ("listen_addresses", "127.0.0.1".to_owned()),
        ("port", PORT.to_string()),
        ("unix_socket_directories", "/tmp".to_owned()),
        ("ssl", "on".to_owned()),
        ("ssl_cert_file", "/conf/server.crt".to_owned()),
        ("ssl_key_file", "/conf/server.key".to_owned()),
        ("ssl_ca_file", "/conf/ca.crt".to_owned()),
        ("ssl_min_protocol_version", "TLSv1.3".to_owned()),
        ("archive_mode", "off".to_owned()),
        ("log_destination", "stderr".to_owned()),
        ("logging_collector", "off".to_owned()),
        ("log_connections", "on".to_owned()),
        ("log_line_prefix", "%m [%p] ".to_owned()),
        ("log_min_error_statement", "panic".to_owned()),
        // Errors are told apart by their text.
        ("lc_messages", "C".to_owned()),
    ];
    if major >= FIRST_WITH_LOGIN_TRIGGERS {
        // A login event trigger would run as whoever logs in. 16 and older do not start with this setting.
        locked.push(("event_triggers", "off".to_owned()));
        // NOTIFY asks no privilege; this bounds what it can leave on disk.
        locked.push(("max_notify_queue_pages", "64".to_owned()));
    }
    locked
}

/// The server's command line.
pub fn serve_argv(install: &Install) -> Vec<String> {
    let mut argv = vec![install.program("postgres"), "-D".to_owned(), "/data".to_owned()];
    let mut set = |name: &str, value: &str| argv.extend(["-c".to_owned(), format!("{name}={value}")]);
    set("config_file", "/conf/postgresql.conf");
    for (name, value) in locked(install.major) {
        set(name, &value);
    }
    argv
}

/// A cluster that can take databases of every encoding and locale: those are made from `template0`.
pub fn template(install: &Install) -> Template {
    let user = format!("--username={ADMIN_ROLE}");
    let arguments =
        ["-D", "/data", &user, "--auth=reject", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"];
    let mut argv = vec![install.program("initdb")];
    argv.extend(arguments.map(str::to_owned));
    Template { key: format!("postgresql-{}-{}", install.version, fingerprint(&argv)), argv }
}

/// A template made by another command line is another template.
fn fingerprint(argv: &[String]) -> String {
    drill::id::Sha256Digest::of(argv.join("\0").as_bytes()).hex()[..12].to_owned()
}

/// The name that the server's certificate carries.
pub fn authority() -> Result<Authority, Stop> {
    Authority::new(SERVER_NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_drill_cannot_set_what_decides_who_gets_in() {
        for name in ["ssl", "SSL_CA_FILE", "hba_file", "Listen_Addresses", "x y", "", "include", "a\nb"] {
            assert!(check_settings(&settings(&[(name, "x")])).is_err(), "{name}");
        }
        assert!(check_settings(&settings(&[("work_mem", "64MB\nssl=off")])).is_err());
        check_settings(&settings(&[("work_mem", "64MB"), ("auto_explain.log_min_duration", "1s")])).expect("allowed");
    }

    #[test]
    fn musters_own_settings_come_last_and_values_stay_in_their_quotes() {
        let text = postgresql_conf(15, Fidelity::Production, &settings(&[("search_path", "it's")]));
        assert!(text.contains("search_path = 'it''s'\n"));
        assert!(text.find("ssl = 'on'") > text.find("search_path"));
        assert!(!text.contains("fsync"));
        assert!(postgresql_conf(15, Fidelity::Fast, &BTreeMap::new()).contains("fsync = 'off'"));
    }

    #[test]
    fn older_servers_are_not_given_settings_that_they_do_not_know() {
        assert!(!locked(15).iter().any(|(name, _)| *name == "event_triggers"));
        assert!(locked(17).iter().any(|(name, _)| *name == "event_triggers"));
    }
}
