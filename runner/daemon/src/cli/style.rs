//! Text on its way to a person: colour where it carries meaning, and nothing that a hostile name can do to a terminal.
use std::fmt::Write as _;
use std::io::{ErrorKind, Write};

use anstream::stream::RawStream;
use anstream::{AutoStream, ColorChoice};
use clap::builder::styling::{AnsiColor, Style as Ansi};
use drill::stop::Stop;
use drill::verdict::Verdict;
use rustix::fd::AsFd;
use serde::Serialize;
use textwrap::{Options, WordSplitter, WrapAlgorithm};

/// How a result is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    /// For people
    Text,
    /// JSON with stable field names
    Json,
}

/// Columns that text beside its lead must have; where there are fewer it goes on further to the left.
const NARROWEST_COLUMN: usize = 20;
/// Stands between facts that share a line while there is room.
const BETWEEN_FACTS: &str = "   ";

/// Colours, or none: words and signs say it too, so that colour is never alone. And the columns of the terminal, where there is
/// one: elsewhere no line is ever broken, so that what reads it finds one fact a line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    colour: bool,
    columns: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    Good,
    Bad,
    Unsure,
    Warning,
    None,
}

impl Mark {
    /// What is read where no colour is.
    pub(crate) fn sign(self) -> &'static str {
        match self {
            Self::Good => "✓",
            Self::Bad => "✗",
            Self::Unsure => "?",
            Self::Warning => "!",
            Self::None => " ",
        }
    }
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
    pub(crate) fn of_stdout() -> Self {
        Self::of(&std::io::stdout())
    }

    pub(crate) fn of_stderr() -> Self {
        Self::of(&std::io::stderr())
    }

    /// What `--help` decides by, too: `NO_COLOR` (<https://no-color.org>), `CLICOLOR`, `CLICOLOR_FORCE`, `TERM=dumb` and
    /// whether it is a terminal. The one place where it is decided.
    fn of(stream: &(impl RawStream + AsFd)) -> Self {
        let columns = rustix::termios::tcgetwinsize(stream).ok().map(|size| usize::from(size.ws_col));
        Self {
            colour: AutoStream::choice(stream) != ColorChoice::Never,
            // A terminal that does not know its own width says 0.
            columns: columns.filter(|columns| *columns > 0 && stream.is_terminal()),
        }
    }

    /// For a file.
    pub(crate) fn plain() -> Self {
        Self { colour: false, columns: None }
    }

    #[cfg(test)]
    pub(crate) fn of_columns(columns: usize) -> Self {
        Self { colour: false, columns: Some(columns) }
    }

    pub(crate) fn has_colour(self) -> bool {
        self.colour
    }

    /// Whether a bar beside the numbers would push them out of sight.
    pub(crate) fn is_narrow(self) -> bool {
        self.columns.is_some_and(|columns| columns < 72)
    }

    /// `text` after `lead`, broken between words where the terminal ends, and going on under its own beginning. Nothing is
    /// broken within a word, so that a path or a digest can still be copied.
    pub(crate) fn hang(self, lead: &str, text: &str) -> String {
        let Some(columns) = self.columns else { return format!("{lead}{text}") };
        let beside = textwrap::core::display_width(lead);
        if beside + textwrap::core::display_width(text) <= columns {
            return format!("{lead}{text}");
        }
        let room = columns.saturating_sub(beside) >= NARROWEST_COLUMN;
        let indent = " ".repeat(if room { beside } else { beside.min(4) });
        let lead = if room { lead.to_owned() } else { without_empty_columns(lead, &indent) };
        let options = Options::new(columns)
            .initial_indent(&lead)
            .subsequent_indent(&indent)
            .break_words(false)
            .word_splitter(WordSplitter::NoHyphenation)
            .wrap_algorithm(WrapAlgorithm::FirstFit);
        textwrap::wrap(&text.replace(BETWEEN_FACTS, "\n"), options).join("\n")
    }

    /// Columns as wide as their widest cell; the last is as long as it likes. `rows` begins with the names of the columns.
    /// Where the terminal is too narrow, each row becomes a few lines: its first cell, and under it the others by name.
    pub(crate) fn table(self, rows: &[Vec<String>]) -> String {
        let wide = wide_table(rows);
        let fits = |columns| wide.lines().all(|line| textwrap::core::display_width(line) <= columns);
        match (self.columns, rows.split_first()) {
            (Some(columns), Some((names, rows))) if !fits(columns) => self.narrow_table(names, rows),
            _ => wide,
        }
    }

    fn narrow_table(self, names: &[String], rows: &[Vec<String>]) -> String {
        let widest = names.iter().skip(1).map(|name| name.chars().count()).max().unwrap_or(0);
        let mut text = String::new();
        for row in rows {
            let mut cells = row.iter().zip(names);
            if let Some((title, _)) = cells.next() {
                let _ = writeln!(text, "{title}");
            }
            for (cell, name) in cells.filter(|(cell, _)| !cell.is_empty()) {
                let _ = writeln!(text, "{}", self.hang(&format!("  {name:<widest$}  "), cell));
            }
        }
        text
    }

    pub(crate) fn paint(self, mark: Mark, text: &str) -> String {
        let colour = match mark {
            Mark::Good => AnsiColor::Green,
            Mark::Bad => AnsiColor::Red,
            Mark::Unsure | Mark::Warning => AnsiColor::Yellow,
            Mark::None => return text.to_owned(),
        };
        self.with(Ansi::new().fg_color(Some(colour.into())), text)
    }

    pub(crate) fn heading(self, text: &str) -> String {
        self.with(Ansi::new().bold(), text)
    }

    pub(crate) fn sign(self, mark: Mark) -> String {
        self.paint(mark, mark.sign())
    }

    fn with(self, style: Ansi, text: &str) -> String {
        if self.colour { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }
}

/// What came out of a backup or a database, made harmless: control characters, those that turn the direction of text, those
/// that end a line and those that nobody sees are shown by their numbers. It stays on one line.
pub(crate) fn clean(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_deceptive(c) {
            let _ = write!(shown, "{}", c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Direction marks, separators of lines, and blanks without width.
fn is_deceptive(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

/// Whoever closed the stream has seen enough.
pub(crate) fn print(text: &str) -> Result<(), Stop> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Stop::internal(format!("standard output cannot be written: {error}")))
        }
        _ => Ok(()),
    }
}

/// One line.
pub(crate) fn json_line<T: Serialize>(value: &T) -> Result<String, Stop> {
    let text = serde_json::to_string(value);
    text.map(|text| clean_json(&text) + "\n")
        .map_err(|error| Stop::internal(format!("a result cannot be written as JSON: {error}")))
}

/// The same JSON without what a terminal would act on, for whoever prints it on one: JSON's own rules leave DEL, the C1
/// controls and direction overrides as they are. In JSON they stand in strings only, where an escape means the same.
pub(crate) fn clean_json(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for c in json.chars() {
        if (c.is_control() && c != '\n') || is_deceptive(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(shown, "\\u{unit:04x}");
            }
        } else {
            shown.push(c);
        }
    }
    shown
}

/// A lead of nothing but a sign stands under another line's columns: where there is no room they are only in the way.
fn without_empty_columns(lead: &str, indent: &str) -> String {
    let sign = lead.trim_end();
    match textwrap::core::display_width(sign.trim_start()) {
        0 => indent.to_owned(),
        1 => format!("{sign} "),
        _ => lead.to_owned(),
    }
}

fn wide_table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let display_width = |cell: &String| textwrap::core::display_width(cell);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(display_width).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell}{}   ", " ".repeat(width - display_width(cell)));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// To the second: `2026-11-22 02:15:00Z`.
pub(crate) fn time(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLOURED: Style = Style { colour: true, columns: None };

    #[test]
    fn a_name_cannot_write_on_the_terminal() {
        assert_eq!(clean("a\u{1b}[31mb\r\n\u{202e}ü"), "a\\u{1b}[31mb\\u{d}\\u{a}\\u{202e}ü");
        assert_eq!(clean("\u{9b}2J\0\u{2028}\u{200b}"), "\\u{9b}2J\\u{0}\\u{2028}\\u{200b}");
        let family = "日本 שלום 👩\u{200d}👩";
        assert_eq!(clean(family), family);
    }

    #[test]
    fn json_cannot_either_and_means_the_same() {
        let hostile = "\u{9b}2J\u{7f}\u{202e}\u{e0041}\n\0ü";
        let line = json_line(&hostile).expect("a string is JSON");
        assert_eq!(line, "\"\\u009b2J\\u007f\\u202e\\udb40\\udc41\\n\\u0000ü\"\n");
        assert_eq!(serde_json::from_str::<String>(&line).expect("it is JSON"), hostile);
    }

    #[test]
    fn colour_is_only_where_it_was_asked_for() {
        assert_eq!(Style::plain().paint(Mark::Bad, "failed"), "failed");
        assert_eq!(COLOURED.paint(Mark::Bad, "failed"), "\u{1b}[31mfailed\u{1b}[0m");
        assert_eq!(COLOURED.paint(Mark::None, "x"), "x");
    }

    #[test]
    fn a_long_line_goes_on_under_its_beginning() {
        let words = "bytes 4194304 to 8388607 are not what was signed, and nothing of it was restored";
        assert_eq!(Style::plain().hang("  ✗ verify   ", words), format!("  ✗ verify   {words}"));
        let sixty = Style::of_columns(60).hang("  ✗ verify   ", words);
        assert_eq!(
            sixty,
            "  ✗ verify   bytes 4194304 to 8388607 are not what was\n             signed, and nothing of it was restored"
        );
        let forty = Style { columns: Some(40), ..COLOURED };
        let lead = format!("  {} verify   ", forty.sign(Mark::Bad));
        assert_eq!(
            forty.hang(&lead, words),
            format!(
                "{lead}bytes 4194304 to 8388607\n             are not what was signed,\n             and nothing of it was\n             restored"
            )
        );
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_but_for_one_word() {
        let path = "/var/lib/muster/evidence/orders-nightly-20261122t021500z-k7x2.dsse.json";
        let shown =
            Style::of_columns(40).hang("  ", &format!("evidence {path} 日本語の表 日本語の表 日本語の表 日本語の表"));
        for line in shown.lines() {
            assert!(line.trim() == path || textwrap::core::display_width(line) <= 40, "{line:?}");
        }
        assert!(shown.lines().any(|line| line.trim() == path), "{shown}");
    }

    #[test]
    fn columns_line_up_and_nothing_trails() {
        let rows = [vec!["日".to_owned(), "bb".to_owned()], vec!["ccc".to_owned(), String::new()]];
        assert_eq!(Style::plain().table(&rows), "日    bb\nccc\n");
        assert_eq!(Style::of_columns(8).table(&rows), "日    bb\nccc\n");
        assert_eq!(Style::of_columns(5).table(&[rows[1].clone(), rows[0].clone()]), "日\n    bb\n");
    }
}
