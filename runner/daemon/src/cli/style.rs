//! Text on its way to a person: colour where it carries meaning, and nothing that a hostile name can do to a terminal.
use std::fmt::Write as _;
use std::io::{ErrorKind, IsTerminal, Write};

use clap::builder::styling::{AnsiColor, Style as Ansi};
use drill::stop::Stop;
use drill::verdict::Verdict;
use serde::Serialize;

/// How a result is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Output {
    /// For people
    Text,
    /// JSON with stable field names
    Json,
}

/// Colours, or none. Words and signs say it too, so that colour is never alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    colour: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    Good,
    Bad,
    Unsure,
    Warning,
    None,
}

impl From<Verdict> for Mark {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Passed => Self::Good,
            Verdict::Inconclusive => Self::Unsure,
            Verdict::Failed => Self::Bad,
        }
    }
}

impl Style {
    /// Plain off a terminal, and where <https://no-color.org> asks for it.
    pub(super) fn of_stdout() -> Self {
        let asked_not_to = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { colour: std::io::stdout().is_terminal() && !asked_not_to }
    }

    #[cfg(test)]
    pub(super) fn plain() -> Self {
        Self { colour: false }
    }

    pub(super) fn paint(self, mark: Mark, text: &str) -> String {
        let colour = match mark {
            Mark::Good => AnsiColor::Green,
            Mark::Bad => AnsiColor::Red,
            Mark::Unsure | Mark::Warning => AnsiColor::Yellow,
            Mark::None => return text.to_owned(),
        };
        self.with(Ansi::new().fg_color(Some(colour.into())), text)
    }

    pub(super) fn heading(self, text: &str) -> String {
        self.with(Ansi::new().bold(), text)
    }

    pub(super) fn sign(self, mark: Mark) -> String {
        let sign = match mark {
            Mark::Good => "✓",
            Mark::Bad => "✗",
            Mark::Unsure => "?",
            Mark::Warning => "!",
            Mark::None => " ",
        };
        self.paint(mark, sign)
    }

    fn with(self, style: Ansi, text: &str) -> String {
        if self.colour { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }
}

/// What came out of a backup or a database, made harmless: control characters and those that turn the direction of text are
/// shown by their numbers. It stays on one line.
pub(super) fn clean(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            let _ = write!(shown, "{}", c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Whoever closed the stream has seen enough.
pub(super) fn print(text: &str) -> Result<(), Stop> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Stop::internal(format!("standard output cannot be written: {error}")))
        }
        _ => Ok(()),
    }
}

/// One line.
pub(super) fn json_line<T: Serialize>(value: &T) -> Result<String, Stop> {
    let text = serde_json::to_string(value);
    text.map(|text| text + "\n").map_err(|error| Stop::internal(format!("a result cannot be written as JSON: {error}")))
}

/// Columns as wide as their widest cell; the last is as long as it likes.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}   ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// To the second: `2026-11-22 02:15:00Z`.
pub(super) fn time(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_write_on_the_terminal() {
        assert_eq!(clean("a\u{1b}[31mb\r\n\u{202e}ü"), "a\\u{1b}[31mb\\u{d}\\u{a}\\u{202e}ü");
    }

    #[test]
    fn colour_is_only_where_it_was_asked_for() {
        assert_eq!(Style::plain().paint(Mark::Bad, "failed"), "failed");
        assert_eq!(Style { colour: true }.paint(Mark::Bad, "failed"), "\u{1b}[31mfailed\u{1b}[0m");
        assert_eq!(Style { colour: true }.paint(Mark::None, "x"), "x");
    }

    #[test]
    fn columns_line_up_and_nothing_trails() {
        let rows = [vec!["a".to_owned(), "bb".to_owned()], vec!["ccc".to_owned(), String::new()]];
        assert_eq!(table(&rows), "a     bb\nccc\n");
    }
}
