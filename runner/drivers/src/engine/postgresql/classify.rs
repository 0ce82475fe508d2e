//! What restore errors mean. `pg_restore` and `psql` tell them as text only, in English because the sandbox's `lc_messages` is
//! `C`; the table below was made from real messages.
//!
//! DETAIL and CONTEXT lines hold rows of the backup and are left out of everything.
use drill::verdict::Reason;

use super::text::plain;

const MESSAGE: usize = 300;
/// Errors kept of each kind; the rest is counted.
const KEPT: usize = 50;

/// One error as the tools tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreError {
    /// Without `ERROR:`.
    pub message: String,
    /// The archive's entry, such as `TABLE orders app`, or the place in a script.
    pub entry: Option<String>,
    /// The first line of the statement.
    pub command: Option<String>,
}

impl RestoreError {
    /// The object in question, for a person.
    pub fn subject(&self) -> String {
        self.entry.clone().or_else(|| self.command.clone()).unwrap_or_else(|| "restore".to_owned())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Class {
    /// Listed, and no more: why it does no harm.
    Benign(&'static str),
    /// The sandbox reaches nothing, by design.
    BlockedByIsolation,
    /// What the sandbox lacks: says nothing of the backup.
    Sandbox { reason: Reason, advice: String },
    /// The dump cannot be restored as it is.
    Dump { advice: Option<String> },
}

struct Rule {
    /// All of them occur in the message.
    all: &'static [&'static str],
    class: fn() -> Class,
}

fn unfit(advice: &str) -> Class {
    Class::Sandbox { reason: Reason::SandboxUnfit, advice: advice.to_owned() }
}

fn limit(advice: &str) -> Class {
    Class::Sandbox { reason: Reason::LimitReached, advice: advice.to_owned() }
}

fn dump(advice: &str) -> Class {
    Class::Dump { advice: Some(advice.to_owned()) }
}

/// The first that fits.
const RULES: &[Rule] = &[
    // What every cluster has already.
    Rule { all: &["schema \"public\" already exists"], class: || Class::Benign("every database has this schema") },
    Rule {
        all: &["extension \"plpgsql\" already exists"],
        class: || Class::Benign("every database has this extension"),
    },
    Rule { all: &["language \"plpgsql\" already exists"], class: || Class::Benign("every database has this language") },
    Rule { all: &["database \"template1\" already exists"], class: || Class::Benign("every server has this database") },
    Rule {
        all: &["role \"muster_sandbox\" already exists"],
        class: || unfit("the backup has a role of muster's own name: rename `muster_sandbox` at the source"),
    },
    // The sandbox's limits, and its end.
    Rule { all: &["No space left on device"], class: || limit("raise the sandbox's disk limit, or make room") },
    Rule { all: &["could not resize shared memory segment"], class: || limit("raise the sandbox's memory limit") },
    Rule {
        all: &["out of shared memory"],
        class: || unfit("set `max_locks_per_transaction: 1024` in engine.settings"),
    },
    Rule { all: &["out of memory"], class: || limit("raise the sandbox's memory limit") },
    Rule { all: &["could not fork"], class: || limit("raise the sandbox's limit on processes") },
    Rule { all: &["Cannot allocate memory"], class: || limit("raise the sandbox's memory limit") },
    Rule { all: &["too many clients already"], class: || unfit("lower engine.jobs, or raise `max_connections`") },
    Rule { all: &["server closed the connection unexpectedly"], class: || unfit("see the server's last words") },
    Rule { all: &["terminating connection"], class: || unfit("see the server's last words") },
    Rule { all: &["the database system is"], class: || unfit("see the server's last words") },
    Rule { all: &["connection to server on socket"], class: || unfit("see the server's last words") },
    Rule { all: &["no connection to the server"], class: || unfit("see the server's last words") },
    // What this installation lacks.
    Rule { all: &["extension \"", "\" is not available"], class: || unfit("install the extension's package here") },
    Rule { all: &["could not open extension control file"], class: || unfit("install the extension's package here") },
    Rule {
        all: &["extension \"", "has no installation script"],
        class: || unfit("install the extension's package here"),
    },
    Rule {
        all: &["could not access file", "No such file"],
        class: || unfit("install the library that the function needs"),
    },
    Rule { all: &["could not load library"], class: || unfit("install the library that the function needs") },
    Rule {
        all: &["loaded via shared_preload_libraries"],
        class: || unfit("name the library in `shared_preload_libraries` of engine.settings"),
    },
    Rule {
        all: &["loaded via \"shared_preload_libraries\""],
        class: || unfit("name the library in `shared_preload_libraries` of engine.settings"),
    },
    Rule {
        all: &["unsupported version", "in file header"],
        class: || unfit("restore with the major whose pg_dump made the file"),
    },
    Rule { all: &["invalid LC_COLLATE locale name"], class: || unfit("make the locale: `localedef`") },
    Rule { all: &["invalid LC_CTYPE locale name"], class: || unfit("make the locale: `localedef`") },
    Rule { all: &["invalid locale name"], class: || unfit("make the locale: `localedef`") },
    Rule { all: &["could not create locale"], class: || unfit("make the locale: `localedef`") },
    Rule {
        all: &["ICU is not supported in this build"],
        class: || unfit("install a PostgreSQL that was built with ICU"),
    },
    Rule {
        all: &["compression method", "not supported"],
        class: || unfit("install a PostgreSQL that was built with lz4 and zstd"),
    },
    Rule { all: &["unsupported XML feature"], class: || unfit("install a PostgreSQL that was built with libxml") },
    Rule {
        all: &["unrecognized configuration parameter"],
        class: || unfit("restore with the major that knows the setting"),
    },
    Rule {
        all: &["tablespace \"", "does not exist"],
        class: || unfit("capture with `--no-tablespaces`: a sandbox has none"),
    },
    // Where isolation stood in the way.
    Rule { all: &["could not connect to server"], class: || Class::BlockedByIsolation },
    Rule { all: &["could not establish connection"], class: || Class::BlockedByIsolation },
    Rule { all: &["could not connect to the publisher"], class: || Class::BlockedByIsolation },
    Rule { all: &["could not translate host name"], class: || Class::BlockedByIsolation },
    Rule { all: &["Network is unreachable"], class: || Class::BlockedByIsolation },
    Rule { all: &["Temporary failure in name resolution"], class: || Class::BlockedByIsolation },
    // The dump's own faults.
    Rule {
        all: &["role \"", "does not exist"],
        class: || dump("the backup's globals.sql lacks the role: capture with a role that may read all roles"),
    },
    Rule {
        all: &["could not read from input file"],
        class: || dump("the dump is cut short or damaged: make a new backup"),
    },
    Rule { all: &["could not uncompress data"], class: || dump("the dump is damaged: make a new backup") },
    Rule { all: &["does not appear to be a valid archive"], class: || dump("the file is no archive of pg_dump") },
    Rule {
        all: &["is not present in table"],
        class: || dump("rows that a foreign key needs are missing from the dump"),
    },
    Rule {
        all: &["violates foreign key constraint"],
        class: || dump("rows that a foreign key needs are missing from the dump"),
    },
    Rule {
        all: &["could not create unique index"],
        class: || dump("the source holds rows that its unique index forbids: reindex it there"),
    },
    Rule { all: &["duplicate key value"], class: || dump("the dump holds rows twice") },
];

/// What an error means; everything unknown is the dump's.
pub fn classify(error: &RestoreError) -> Class {
    let fits = |rule: &&Rule| rule.all.iter().all(|part| error.message.contains(part));
    RULES.iter().find(fits).map_or(Class::Dump { advice: None }, |rule| (rule.class)())
}

/// Reads what the tools print, line by line, and keeps what it means in bounded memory.
#[derive(Debug, Default)]
pub struct Errors {
    entry: Option<String>,
    open: Option<RestoreError>,
    pub benign: Kept,
    pub blocked: Kept,
    pub sandbox: Option<(RestoreError, Reason, String)>,
    pub dump: Kept,
    /// The advice of the first of the dump's errors that has any.
    pub advice: Option<String>,
}

#[derive(Debug, Default)]
pub struct Kept {
    pub errors: Vec<RestoreError>,
    pub total: u64,
}

impl Kept {
    fn push(&mut self, error: RestoreError) {
        self.total += 1;
        if self.errors.len() < KEPT {
            self.errors.push(error);
        }
    }
}

impl Errors {
    /// One line of stderr. True where it tells of progress.
    pub fn line(&mut self, line: &str) {
        if let Some(command) = line.strip_prefix("Command was: ") {
            if let Some(open) = &mut self.open {
                open.command = Some(plain(command, MESSAGE));
            }
            self.close();
        } else if let Some(rest) = line.strip_prefix("pg_restore: ") {
            self.close();
            self.pg_restore(rest);
        } else if let Some((place, message)) = psql_error(line) {
            self.close();
            self.begin(message, Some(place));
        } else if line.starts_with("psql:") {
            self.close();
        }
    }

    pub fn finish(&mut self) {
        self.close();
    }

    pub fn is_empty(&self) -> bool {
        self.dump.total == 0 && self.sandbox.is_none() && self.blocked.total == 0 && self.benign.total == 0
    }

    fn pg_restore(&mut self, rest: &str) {
        if let Some(entry) = rest.strip_prefix("from TOC entry ") {
            // `203; 1259 16386 TABLE orders app`: the numbers say nothing to a person.
            let words = entry.split_once("; ").map_or(entry, |(_, words)| words);
            self.entry = Some(plain(words.splitn(3, ' ').nth(2).unwrap_or(words), MESSAGE));
        } else if let Some(message) = rest.strip_prefix("error: ") {
            let entry = self.entry.take();
            self.begin(message, entry);
        }
    }

    fn begin(&mut self, message: &str, entry: Option<String>) {
        let message = message.strip_prefix("could not execute query: ").unwrap_or(message);
        let message = message.strip_prefix("ERROR:  ").or_else(|| message.strip_prefix("FATAL:  ")).unwrap_or(message);
        self.open = Some(RestoreError { message: plain(message, MESSAGE), entry, command: None });
    }

    fn close(&mut self) {
        let Some(error) = self.open.take() else { return };
        match classify(&error) {
            Class::Benign(_) => self.benign.push(error),
            Class::BlockedByIsolation => self.blocked.push(error),
            Class::Sandbox { reason, advice } => {
                // A limit explains what came after it.
                self.sandbox.get_or_insert((error, reason, advice));
            }
            Class::Dump { advice } => {
                self.advice = self.advice.take().or(advice);
                self.dump.push(error);
            }
        }
    }
}

/// `psql:/backup/globals.sql:12: ERROR:  …` and `psql: error: …`.
fn psql_error(line: &str) -> Option<(String, &str)> {
    if let Some(message) = line.strip_prefix("psql: error: ") {
        return Some(("globals".to_owned(), message));
    }
    let rest = line.strip_prefix("psql:")?;
    let (place, message) = rest.split_once(": ERROR:  ").or_else(|| rest.split_once(": error: "))?;
    let line_number = place.rsplit(':').next().filter(|text| text.chars().all(|c| c.is_ascii_digit()))?;
    Some((format!("globals.sql line {line_number}"), message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Errors {
        let mut errors = Errors::default();
        text.lines().for_each(|line| errors.line(line));
        errors.finish();
        errors
    }

    fn class(message: &str) -> Class {
        classify(&RestoreError { message: message.to_owned(), entry: None, command: None })
    }

    #[test]
    fn an_error_carries_its_entry_and_its_statement_and_no_rows() {
        let errors = read(
            "pg_restore: while PROCESSING TOC:\n\
             pg_restore: from TOC entry 3325; 2606 16394 CONSTRAINT t t_pkey app\n\
             pg_restore: error: could not execute query: ERROR:  could not create unique index \"t_pkey\"\n\
             DETAIL:  Key (card)=(4111 1111) is duplicated.\n\
             Command was: ALTER TABLE ONLY public.t\n    ADD CONSTRAINT t_pkey PRIMARY KEY (card);\n\n\
             pg_restore: warning: errors ignored on restore: 1",
        );
        assert_eq!(errors.dump.total, 1);
        let error = &errors.dump.errors[0];
        assert_eq!(error.message, "could not create unique index \"t_pkey\"");
        assert_eq!(error.subject(), "CONSTRAINT t t_pkey app");
        assert_eq!(error.command.as_deref(), Some("ALTER TABLE ONLY public.t"));
        assert!(errors.advice.is_some_and(|advice| advice.contains("reindex")));
    }

    #[test]
    fn a_copy_that_fails_has_no_statement() {
        let errors = read(
            "pg_restore: processing data for table \"public.t\"\n\
             pg_restore: from TOC entry 3323; 0 16389 TABLE DATA t app\n\
             pg_restore: error: COPY failed for table \"t\": ERROR:  invalid input syntax for type integer: \"x\"\n\
             CONTEXT:  COPY t, line 1, column a: \"x\"\n\
             pg_restore: creating INDEX \"public.i\"",
        );
        assert_eq!(errors.dump.errors[0].subject(), "TABLE DATA t app");
        assert_eq!(errors.dump.errors[0].command, None);
    }

    #[test]
    fn globals_are_read_from_psql() {
        let errors = read(
            "psql:/backup/globals.sql:14: ERROR:  role \"muster_sandbox\" already exists\n\
             psql:/backup/globals.sql:15: NOTICE:  nothing\n\
             psql:/backup/globals.sql:19: ERROR:  role \"gone\" does not exist",
        );
        assert_eq!(errors.sandbox.as_ref().map(|(error, ..)| error.subject()).as_deref(), Some("globals.sql line 14"));
        assert_eq!(errors.dump.total, 1);
    }

    #[test]
    fn what_the_sandbox_lacks_is_no_verdict_on_the_backup() {
        let lacking = [
            "extension \"postgis\" is not available",
            "could not extend file \"base/5/1\": No space left on device",
            "could not access file \"$libdir/postgis-3\": No such file or directory",
            "server closed the connection unexpectedly",
            "pg_cron can only be loaded via shared_preload_libraries",
            "invalid LC_COLLATE locale name: \"de_DE.UTF-8\"",
            "unsupported version (1.16) in file header",
            "tablespace \"fast\" does not exist",
        ];
        for message in lacking {
            assert!(matches!(class(message), Class::Sandbox { .. }), "{message}");
        }
    }

    #[test]
    fn isolation_is_told_from_faults_of_the_dump() {
        assert_eq!(class("could not connect to server \"remote\""), Class::BlockedByIsolation);
        assert_eq!(class("could not establish connection"), Class::BlockedByIsolation);
        assert_eq!(class("schema \"public\" already exists"), Class::Benign("every database has this schema"));
        let faults = [
            "role \"bob\" does not exist",
            "relation \"t\" already exists",
            "column \"x\" does not exist",
            "anything else",
        ];
        for message in faults {
            assert!(matches!(class(message), Class::Dump { .. }), "{message}");
        }
    }

    #[test]
    fn a_flood_of_errors_is_counted_and_not_kept() {
        let mut errors = Errors::default();
        for index in 0..100_000 {
            errors.line(&format!("pg_restore: error: could not execute query: ERROR:  bad {index}"));
        }
        errors.finish();
        assert_eq!((errors.dump.total, errors.dump.errors.len()), (100_000, KEPT));
    }
}
