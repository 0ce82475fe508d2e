//! What restore errors mean. `pg_restore` and `psql` tell them as text only, in English because the sandbox's `lc_messages` is
//! `C`; the table (`rules`) was made from real messages and from those of the servers' sources.
//!
//! DETAIL and CONTEXT lines hold rows of the backup and are left out of everything.
mod rules;

use drill::verdict::Reason;

use self::rules::RULES;
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

/// What an error means; everything unknown is the dump's.
pub fn classify(error: &RestoreError) -> Class {
    RULES.iter().find(|rule| rule.fits(error)).map_or(Class::Dump { advice: None }, |rule| (rule.class)())
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
                open.command = Some(statement(command));
            }
            self.close();
        } else if let Some(rest) = line.strip_prefix("pg_restore: ") {
            self.close();
            self.pg_restore(rest);
        } else if let Some(command) = psql_statement(line) {
            if let Some(open) = &mut self.open {
                open.command = Some(statement(command));
            }
            self.close();
        } else if let Some((place, message)) = psql_error(line) {
            self.close();
            self.begin(message, Some(place));
        } else if line.starts_with("psql:") && !is_more_of_an_error(line) {
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
        return Some(("psql".to_owned(), message));
    }
    let rest = line.strip_prefix("psql:")?;
    let mark = |mark| rest.split_once(mark);
    let (place, message) = mark(": ERROR:  ").or_else(|| mark(": error: ")).or_else(|| mark(": FATAL:  "))?;
    let (file, line_number) =
        place.rsplit_once(':').filter(|(_, number)| number.chars().all(|c| c.is_ascii_digit()))?;
    // A packed script comes through a pipe.
    let file = if file == "<stdin>" { "script" } else { file.rsplit('/').next().unwrap_or(file) };
    Some((format!("{} line {line_number}", plain(file, 100)), message))
}

/// What `psql --echo-errors` tells after an error.
fn psql_statement(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("psql:")?;
    let (place, statement) = rest.split_once(": STATEMENT:  ")?;
    place.rsplit(':').next().filter(|number| number.chars().all(|c| c.is_ascii_digit()))?;
    Some(statement)
}

/// `DETAIL` and the like come between an error and its statement, with a place of their own or none.
fn is_more_of_an_error(line: &str) -> bool {
    [": DETAIL:", ": HINT:", ": CONTEXT:", ": LINE "].iter().any(|mark| line.contains(mark))
}

/// The first line of a statement, without the rows that an INSERT holds.
fn statement(text: &str) -> String {
    let text = match text.split_once(" VALUES ") {
        Some((before, _)) if text.starts_with("INSERT INTO ") => before,
        _ => text,
    };
    plain(text, MESSAGE)
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
    fn a_scripts_error_carries_its_statement_and_no_rows() {
        let errors = read(
            "psql:/backup/shop.sql:14: ERROR:  duplicate key value violates unique constraint \"t_pkey\"\n\
             DETAIL:  Key (card)=(4111 1111) already exists.\n\
             psql:/backup/shop.sql:14: STATEMENT:  INSERT INTO public.t VALUES ('4111 1111');\n\
             psql:<stdin>:15: ERROR:  relation \"public.t\" does not exist\n\
             psql:<stdin>:15: STATEMENT:  ALTER TABLE ONLY public.t DROP CONSTRAINT t_pkey;\n\
             psql:<stdin>:16: error: invalid command \\restrict\n\
             psql:<stdin>:17: ERROR:  unrecognized configuration parameter \"transaction_timeout\"\n\
             psql:<stdin>:17: STATEMENT:  SET transaction_timeout = 0;",
        );
        assert_eq!((errors.dump.total, errors.benign.total), (1, 3));
        assert_eq!(errors.dump.errors[0].command.as_deref(), Some("INSERT INTO public.t"));
        assert_eq!(errors.dump.errors[0].subject(), "shop.sql line 14");
        assert_eq!(errors.benign.errors[0].subject(), "script line 15");
        assert!(!format!("{errors:?}").contains("4111"));
    }

    /// Messages of the servers' and the tools' sources that one PostgreSQL here cannot be made to say.
    #[test]
    fn the_catalogue_knows_what_cannot_be_made_here() {
        let advice = |message: &str| match class(message) {
            Class::Dump { advice } => ("dump", advice.unwrap_or_default()),
            Class::Sandbox { advice, .. } => ("sandbox", advice),
            Class::BlockedByIsolation => ("blocked", String::new()),
            Class::Benign(why) => ("benign", why.to_owned()),
        };
        for (message, who, said) in [
            ("must be owner of extension plpgsql", "benign", "comment"),
            ("must be owner of large object 12", "dump", "session-authorization"),
            ("permission denied to create event trigger \"e\"", "dump", "session-authorization"),
            ("unrecognized configuration parameter \"transaction_timeout\"", "sandbox", "major"),
            ("could not connect to the publisher: connection refused", "blocked", ""),
            ("could not create replication slot \"s\"", "blocked", ""),
            ("could not open collator for locale \"xx\": U_FILE_ACCESS_ERROR", "sandbox", "ICU"),
            ("unsupported version (1.16) in file header", "sandbox", "major"),
            ("input file appears to be a text format dump. Please use psql.", "dump", "script"),
            ("COPY failed for table \"t\": ERROR:  relation \"t\" does not exist", "dump", "data-only"),
            ("column \"b\" of relation \"t\" does not exist", "dump", "schema and data"),
            ("required extension \"cube\" is not installed", "dump", "left out"),
            ("invalid byte sequence for encoding \"UTF8\": 0xff", "dump", "encoding"),
            ("no partition of relation \"t\" found for row", "dump", "load-via-partition-root"),
            ("corrupt tar header found in x", "dump", "damaged"),
        ] {
            let (found, advice) = advice(message);
            assert_eq!(found, who, "{message}");
            assert!(advice.contains(said), "{message}: {advice}");
        }
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
        assert_eq!(class("schema \"public\" already exists"), Class::Benign("every database has it"));
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
