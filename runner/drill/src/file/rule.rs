//! What text must be, by kind. A rule says what is wrong and what to do; the walker says where.
use std::sync::LazyLock;

use super::cron;
use crate::id::{DrillName, Sha256Digest};
use crate::spec::Plugin;

pub(super) struct TextRule {
    pub(super) check: fn(&str) -> Result<(), Complaint>,
    /// For the JSON Schema: necessary, not sufficient.
    pub(super) pattern: Option<&'static str>,
    pub(super) example: &'static str,
}

/// What is wrong with a piece of text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Complaint {
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Complaint {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    #[must_use]
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

pub(super) static DRILL_NAME: TextRule = TextRule {
    check: |text| {
        text.parse::<DrillName>().map(drop).map_err(|error| {
            let complaint = Complaint::new(error.to_string());
            match as_label(text, DrillName::MAX) {
                Some(name) => complaint.hint(format!("such as {name}")),
                None => complaint,
            }
        })
    },
    pattern: Some("^[a-z0-9]([a-z0-9-]{0,28}[a-z0-9])?$"),
    example: "orders-nightly",
};

/// What a name that is not a DNS label was perhaps meant to be.
pub(super) fn as_label(text: &str, max: usize) -> Option<String> {
    let label: String =
        text.chars().take(max).map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    let label = label.trim_matches('-');
    (!label.is_empty() && label != text).then(|| label.to_owned())
}

pub(super) static CHECK_NAME: TextRule = TextRule {
    check: |text| {
        let bad = || Complaint::new(format!("`{text}` is not a name of at most 63 characters (a-z, 0-9 and -)"));
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let label = !text.is_empty() && text.len() <= 63 && text.chars().all(inner);
        if label && !text.starts_with('-') && !text.ends_with('-') { Ok(()) } else { Err(bad()) }
    },
    pattern: Some("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"),
    example: "books-balance",
};

pub(super) static LABEL_NAME: TextRule = TextRule {
    check: |text| {
        let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
        if !text.is_empty() && text.len() <= 63 && text.chars().all(inner) {
            Ok(())
        } else {
            Err(Complaint::new(format!(
                "`{text}` is not a label name of at most 63 characters (letters, digits, - _ . /)"
            )))
        }
    },
    pattern: Some("^[A-Za-z0-9._/-]{1,63}$"),
    example: "team",
};

pub(super) static LABEL_VALUE: TextRule = TextRule {
    check: |text| {
        if text.chars().count() <= 200 && !text.chars().any(char::is_control) {
            Ok(())
        } else {
            Err(Complaint::new("a label's value has at most 200 characters on one line"))
        }
    },
    pattern: None,
    example: "payments",
};

pub(super) static CONTEXT: TextRule = TextRule {
    check: |text| {
        if !text.is_empty() && text.chars().count() <= 253 && !text.chars().any(char::is_control) {
            Ok(())
        } else {
            Err(Complaint::new("the name of a context has 1 to 253 characters on one line")
                .hint("`kubectl config get-contexts` lists them"))
        }
    },
    pattern: None,
    example: "staging",
};

/// By digest: what was tested is what runs.
pub(super) static IMAGE: TextRule = TextRule {
    check: |text| {
        let complaint = || Complaint::new(format!("`{text}` does not name an image by its digest"));
        let (name, digest) = text.rsplit_once('@').ok_or_else(|| complaint().hint("add @sha256: and its 64 digits"))?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "./:_-".contains(c);
        let named = !name.is_empty() && name.len() <= 255 && name.chars().all(plain);
        if named && digest.parse::<crate::id::Sha256Digest>().is_ok() {
            Ok(())
        } else {
            Err(complaint().hint("such as registry.example/postgres@sha256: and 64 hexadecimal digits"))
        }
    },
    pattern: Some("^[A-Za-z0-9./:_-]+@sha256:[0-9a-fA-F]{64}$"),
    example: "registry.example/postgres@sha256:0000000000000000000000000000000000000000000000000000000000000000",
};

pub(super) static CRON: TextRule =
    TextRule { check: cron::check, pattern: Some("^(@[a-z]+|\\S+(\\s+\\S+){4,5})$"), example: "15 2 * * *" };

pub(super) static TIME_ZONE: TextRule = TextRule { check: time_zone, pattern: None, example: "Europe/Berlin" };

pub(super) static PATH: TextRule = TextRule { check: path, pattern: None, example: "keys/backup.pub" };

pub(super) static VARIABLE: TextRule = TextRule {
    check: |text| {
        let inner = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if !text.is_empty()
            && text.len() <= 255
            && text.chars().all(inner)
            && !text.starts_with(|c: char| c.is_ascii_digit())
        {
            Ok(())
        } else {
            Err(Complaint::new(format!("`{text}` is not the name of an environment variable")))
        }
    },
    pattern: Some("^[A-Za-z_][A-Za-z0-9_]*$"),
    example: "WEBHOOK_SECRET",
};

pub(super) static MANIFEST_PATH: TextRule = TextRule {
    check: |text| {
        path(text)?;
        if text.rsplit('/').next() == Some(crate::manifest::FILE_NAME) {
            Ok(())
        } else {
            Err(Complaint::new(format!("`manifest` must name a file called {}", crate::manifest::FILE_NAME))
                .hint(format!("such as {}/{}", text.trim_end_matches('/'), crate::manifest::FILE_NAME)))
        }
    },
    pattern: Some("(^|/)manifest\\.json$"),
    example: "/backups/orders/latest/manifest.json",
};

pub(super) static SHA256: TextRule = TextRule {
    check: |text| {
        text.parse::<Sha256Digest>().map(drop).map_err(|error| {
            Complaint::new(error.to_string()).hint("`sha256sum FILE` prints the digits; write sha256: before them")
        })
    },
    pattern: Some("^sha256:[0-9a-f]{64}$"),
    example: "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
};

pub(super) static PUBLIC_KEY: TextRule = TextRule {
    check: |text| {
        let base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/');
        // 42 bytes: `Ed`, eight of the key's id, thirty-two of the key.
        if text.len() == 56 && text.starts_with("RW") && text.chars().all(base64) {
            Ok(())
        } else {
            Err(Complaint::new("`inline` is not the base64 line of a minisign public key")
                .hint("the second line of the .pub file: 56 characters, the first two are RW"))
        }
    },
    pattern: Some("^RW[A-Za-z0-9+/]{54}$"),
    example: "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3",
};

pub(super) static SETTING_NAME: TextRule = TextRule {
    check: |text| {
        let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
        let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if !starts || text.len() > 63 || !text.chars().all(inner) {
            return Err(Complaint::new(format!("`{text}` is not the name of a server setting")));
        }
        if is_reserved_setting(text) {
            return Err(
                Complaint::new(format!("`{text}` is muster's own to set: the sandbox depends on it")).hint("remove it")
            );
        }
        Ok(())
    },
    pattern: Some("^[A-Za-z_][A-Za-z0-9_.]{0,62}$"),
    example: "shared_buffers",
};

pub(super) static SETTING_VALUE: TextRule = TextRule {
    check: |text| {
        if text.len() <= 4096 && !text.chars().any(char::is_control) {
            Ok(())
        } else {
            Err(Complaint::new("a setting's value has at most 4096 bytes on one line"))
        }
    },
    pattern: None,
    example: "1GB",
};

pub(super) static PLUGIN: TextRule = TextRule {
    check: |text| plugin(text).map(drop),
    pattern: Some("^(builtin:[a-z0-9-]+|.+@sha256:[0-9a-f]{64})$"),
    example: "builtin:row-count",
};

/// Reads `builtin:NAME` or `PATH@sha256:DIGEST`.
pub(super) fn plugin(text: &str) -> Result<Plugin, Complaint> {
    if let Some(name) = text.strip_prefix("builtin:") {
        return if super::BUILTIN_PLUGINS.contains(&name) {
            Ok(Plugin::Builtin(name.to_owned()))
        } else {
            Err(Complaint::new(format!("no plugin `{name}` ships with muster"))
                .hint(suggest(name, super::BUILTIN_PLUGINS)))
        };
    }
    if text.starts_with("oci://") {
        return Err(Complaint::new("plugins from a registry are not offered by this version of muster")
            .hint("download the component and name it as PATH@sha256:DIGEST"));
    }
    let Some((path_text, digest)) = text.rsplit_once('@') else {
        return Err(if super::BUILTIN_PLUGINS.contains(&text) {
            Complaint::new(format!("`{text}` is neither a built-in plugin nor a pinned file"))
                .hint(format!("did you mean `builtin:{text}`?"))
        } else {
            Complaint::new("a plugin file must be pinned by its digest")
                .hint(format!("{text}@sha256:…; `sha256sum {text}` prints the digits"))
        });
    };
    path(path_text)?;
    let sha256: Sha256Digest = digest.parse().map_err(|error: crate::id::BadName| Complaint::new(error.to_string()))?;
    Ok(Plugin::File { path: path_text.to_owned(), sha256 })
}

/// Server settings that muster sets by itself, beside all that begin with `ssl`: where the server keeps its files, listens,
/// logs, runs commands, and whom it lets in. The sandbox's boundary leans on them.
const RESERVED_SETTINGS: [&str; 29] = [
    "allow_system_table_mods",
    "archive_command",
    "archive_library",
    "archive_mode",
    "config_file",
    "data_directory",
    "event_triggers",
    "external_pid_file",
    "hba_file",
    "ident_file",
    "include",
    "include_dir",
    "include_if_exists",
    "lc_messages",
    "listen_addresses",
    "log_connections",
    "log_destination",
    "log_line_prefix",
    "logging_collector",
    "port",
    "primary_conninfo",
    "restore_command",
    "unix_socket_directories",
    "unix_socket_group",
    "unix_socket_permissions",
    "password_encryption",
    "db_user_namespace",
    "krb_server_keyfile",
    "log_min_error_statement",
];

/// Whether a drill must not set it; `name` in any case.
pub fn is_reserved_setting(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    RESERVED_SETTINGS.contains(&name.as_str()) || name.starts_with("ssl")
}

fn path(text: &str) -> Result<(), Complaint> {
    if text.is_empty() || text.len() > 4096 || text.chars().any(char::is_control) {
        return Err(Complaint::new("a path has 1 to 4096 bytes on one line"));
    }
    if let Some((scheme, _)) = text.split_once("://") {
        return Err(Complaint::new(format!("`{scheme}://` is not offered by this version of muster"))
            .hint("name a file on this machine"));
    }
    Ok(())
}

/// Sorted, so that the nearest of two equally near names is the same on every machine.
static KNOWN: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut names: Vec<String> = jiff::tz::db().available().map(|name| name.as_str().to_owned()).collect();
    names.sort_unstable();
    names
});

fn time_zone(text: &str) -> Result<(), Complaint> {
    if text == "UTC" || jiff::tz::TimeZone::get(text).is_ok() {
        return Ok(());
    }
    if KNOWN.is_empty() {
        return Err(Complaint::new(format!("`{text}` cannot be looked up: this machine has no time zone database"))
            .hint("install it (on Debian and Ubuntu: apt install tzdata), or write UTC"));
    }
    let known: Vec<&str> = KNOWN.iter().map(String::as_str).collect();
    let hint = nearest(text, &known).map_or_else(
        || "an IANA name such as `Europe/Berlin`, or `UTC`".to_owned(),
        |name| format!("did you mean `{name}`?"),
    );
    Err(Complaint::new(format!("unknown time zone `{text}`")).hint(hint))
}

/// The known name that was meant, where one is near enough.
pub(super) fn nearest<'a>(given: &str, known: &[&'a str]) -> Option<&'a str> {
    // Distances cost the product of the lengths; nobody means a known name by a text much longer than it.
    if given.len() > 64 {
        return None;
    }
    let plain = |text: &str| text.to_ascii_lowercase().replace(['-', '_', ' '], "");
    let wanted = plain(given);
    known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&wanted, &plain(name)), *name))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, name)| *distance <= (name.len() / 3).max(1))
        .map(|(_, name)| name)
}

/// The nearest name, else all of them.
pub(super) fn suggest(given: &str, known: &[&str]) -> String {
    if let Some(name) = nearest(given, known) {
        return format!("did you mean `{name}`?");
    }
    if known.is_empty() {
        return "nothing is known here".to_owned();
    }
    format!("known here: {}", quote(known, ", "))
}

pub(super) fn quote(names: &[&str], between: &str) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(between)
}
