//! What restore errors mean. `pg_restore` and `psql` tell them as text only, in English because the sandbox's `lc_messages` is
//! `C`; the table (`rules`) was made from real messages and from those of the servers' sources.
//!
//! DETAIL and CONTEXT lines hold rows of the backup and are left out of everything.
mod pattern;
mod rules;

use drill::verdict::Reason;

pub(super) use self::rules::MAKE_ROOM;
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

    /// What the server, or the connection to it, says of rows.
    fn of_rows(&self) -> Option<&str> {
        let (_, told) = self.message.strip_prefix("COPY failed for table \"")?.split_once("\": ")?;
        Some(without_severity(told))
    }

    /// The message without what `pg_restore` writes before it.
    fn core(&self) -> &str {
        let told = |what: &str| self.message.strip_prefix(what);
        let put = || told("error returned by PQputCopyData: ").or_else(|| told("error returned by PQputCopyEnd: "));
        self.of_rows().or_else(put).unwrap_or(&self.message)
    }

    /// Rows of the backup were not restored.
    fn loses_rows(&self) -> bool {
        let begins = |text: &Option<String>, words: &[&str]| {
            text.as_deref().is_some_and(|text| words.iter().any(|word| text.trim_start().starts_with(word)))
        };
        // What psql says itself is of its own commands.
        !self.message.starts_with("invalid command \\")
            && (self.of_rows().is_some()
                || begins(&self.entry, &["TABLE DATA "])
                || begins(&self.command, &["COPY ", "INSERT INTO "]))
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
    /// A process of `pg_restore` is gone: by an error that it told before, or because something killed it.
    WorkerEnded,
    /// The dump cannot be restored as it is.
    Dump { advice: Option<String> },
}

/// What an error means; everything unknown is the dump's. Rows that are missing are never passed over.
pub fn classify(error: &RestoreError) -> Class {
    let loses_rows = error.loses_rows();
    let mut classes = RULES.iter().filter(|rule| rule.fits(error)).map(|rule| (rule.class)());
    match classes.find(|class| !(loses_rows && matches!(class, Class::Benign(_)))) {
        Some(Class::BlockedByIsolation) if loses_rows => Class::Sandbox {
            reason: Reason::SandboxUnfit,
            advice: "rows that another server holds cannot be restored in isolation: dump without \
                     `--include-foreign-data`"
                .to_owned(),
        },
        Some(class) => class,
        None => Class::Dump { advice: None },
    }
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
        self.open = Some(RestoreError { message: plain(without_severity(message), MESSAGE), entry, command: None });
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
            Class::WorkerEnded if self.dump.total > 0 => {}
            Class::WorkerEnded => {
                let advice = "raise the sandbox's memory limit, or lower engine.jobs".to_owned();
                self.sandbox.get_or_insert((error, Reason::LimitReached, advice));
            }
            Class::Dump { advice } => {
                self.advice = self.advice.take().or(advice);
                self.dump.push(error);
            }
        }
    }
}

/// What `psql` tells with a place of its own: `psql:/backup/globals.sql:12: ERROR:  …`.
struct Told<'a> {
    place: &'a str,
    line: &'a str,
    kind: &'a str,
    message: &'a str,
}

impl<'a> Told<'a> {
    fn of(text: &'a str) -> Option<Self> {
        let rest = text.strip_prefix("psql:")?;
        rest.match_indices(": ").find_map(|(at, mark)| {
            let (place, line) = rest[..at].rsplit_once(':')?;
            let numbered = !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_digit());
            let (kind, message) = rest[at + mark.len()..].split_once(':')?;
            numbered.then_some(Self { place, line, kind, message })
        })
    }

    fn is(&self, kinds: &[&str]) -> bool {
        kinds
            .iter()
            .any(|kind| self.kind.eq_ignore_ascii_case(kind) || (*kind == "LINE" && self.kind.starts_with("LINE ")))
    }

    /// The server's kinds stand before two spaces, in whatever language it speaks; `psql`'s own before one.
    fn error(&self) -> Option<&'a str> {
        const NO_ERRORS: [&str; 5] = ["NOTICE", "WARNING", "INFO", "LOG", "DEBUG"];
        if self.is(&NO_ERRORS) || self.is(&MORE) || self.is(&["STATEMENT"]) {
            return None;
        }
        let own = || self.message.strip_prefix(' ').filter(|_| self.is(&["error", "fatal"]));
        self.message.strip_prefix("  ").or_else(own)
    }

    fn place(&self) -> String {
        // A packed script comes through a pipe.
        let file = if self.place == "<stdin>" { "script" } else { self.place.rsplit('/').next().unwrap_or(self.place) };
        format!("{} line {}", plain(file, 100), self.line)
    }
}

/// Comes between an error and its statement, with a place of its own or none.
const MORE: [&str; 4] = ["DETAIL", "HINT", "CONTEXT", "LINE"];

fn psql_error(line: &str) -> Option<(String, &str)> {
    if let Some(message) = line.strip_prefix("psql: error: ") {
        return Some(("psql".to_owned(), message));
    }
    let told = Told::of(line)?;
    told.error().map(|message| (told.place(), message))
}

/// What `psql --echo-errors` tells after an error.
fn psql_statement(line: &str) -> Option<&str> {
    Told::of(line).filter(|told| told.kind == "STATEMENT").and_then(|told| told.message.strip_prefix("  "))
}

fn is_more_of_an_error(line: &str) -> bool {
    Told::of(line).is_some_and(|told| told.is(&MORE))
}

/// `ERROR:  `, in whatever language the server says it: one word before a colon and two spaces.
fn without_severity(message: &str) -> &str {
    match message.split_once(":  ") {
        Some((word, rest)) if !word.is_empty() && !word.contains([' ', '"', ':']) => rest,
        _ => message,
    }
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
mod tests;
