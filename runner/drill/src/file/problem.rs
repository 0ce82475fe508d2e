use std::fmt::Write as _;

/// One thing that is wrong with a file, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong, without a full stop.
    pub message: String,
    /// None where it is about the file as a whole.
    pub place: Option<Place>,
    /// What to do about it.
    pub hint: Option<String>,
}

/// A stretch of one line. Everything is counted in characters; lines and columns from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub line: usize,
    pub column: usize,
    pub length: usize,
}

impl Problem {
    pub(super) fn at(place: Place, message: impl Into<String>) -> Self {
        Self { message: message.into(), place: Some(place), hint: None }
    }

    pub(super) fn whole_file(message: impl Into<String>) -> Self {
        Self { message: message.into(), place: None, hint: None }
    }

    #[must_use]
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// All problems of a file in the order of their places; never empty where parsing failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
#[error("{} in the drill file", crate::unit::plural(self.total(), "problem"))]
pub struct Problems {
    list: Vec<Problem>,
    omitted: u64,
}

impl Problems {
    /// Kept at most; a file with more than this is not read to the end by anybody.
    const MAX: usize = 50;

    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.list.iter()
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many there are, those beyond the bound included.
    pub fn total(&self) -> u64 {
        self.list.len() as u64 + self.omitted
    }

    pub(super) fn push(&mut self, problem: Problem) {
        if self.list.len() < Self::MAX {
            self.list.push(problem);
        } else {
            self.omitted += 1;
        }
    }

    pub(super) fn sort(&mut self) {
        self.list.sort_by_key(|problem| problem.place);
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self { list: vec![problem], omitted: 0 }
    }
}

/// What a person reads: each problem, the line it is on, and carets under it. `source` is the text that was parsed.
pub fn render(problems: &Problems, file_name: &str, source: &str, color: bool) -> String {
    let (red, bold, plain) = if color { ("\x1b[31m", "\x1b[1m", "\x1b[0m") } else { ("", "", "") };
    let lines = lines(source);
    let last_line = problems.iter().filter_map(|problem| problem.place).map(|place| place.line).max().unwrap_or(0);
    let gutter = last_line.to_string().len().max(2);
    let count = crate::unit::plural(problems.total(), "problem");

    let mut text = format!("{red}{bold}error{plain}{bold}: {count} in {}{plain}\n", visible(file_name));
    for problem in problems.iter() {
        let _ = writeln!(text, "\n  {}", visible(&problem.message));
        let hint = problem.hint.as_deref().map(visible);
        match problem.place.and_then(|place| Some((place, lines.get(place.line.checked_sub(1)?)?))) {
            Some((place, line)) => {
                let excerpt = Excerpt::new(line, place);
                let hint = hint.map(|hint| format!(" {hint}")).unwrap_or_default();
                let _ = writeln!(text, "  {:>gutter$} | {}", place.line, excerpt.line);
                let _ = writeln!(text, "  {:>gutter$} | {}{red}{}{plain}{hint}", "", excerpt.indent, excerpt.carets);
            }
            None => {
                if let Some(hint) = hint {
                    let _ = writeln!(text, "  {hint}");
                }
            }
        }
    }
    if problems.omitted > 0 {
        let _ = writeln!(text, "\n  and {} more", crate::unit::count(problems.omitted));
    }
    text
}

/// As YAML counts them: a lone carriage return ends a line too.
fn lines(source: &str) -> Vec<&str> {
    let source = source.strip_prefix('\u{feff}').unwrap_or(source);
    source
        .strip_suffix('\n')
        .unwrap_or(source)
        .split('\n')
        .flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'))
        .collect()
}

/// One line as it can be shown, and where the carets go. A long line is cut to a window around its place.
struct Excerpt {
    line: String,
    indent: String,
    carets: String,
}

impl Excerpt {
    /// Characters shown of a line, and those of them that come before the place where the line is cut.
    const WINDOW: usize = 110;
    const BEFORE: usize = 40;

    fn new(line: &str, place: Place) -> Self {
        let characters: Vec<char> = line.chars().collect();
        let column = (place.column.max(1) - 1).min(characters.len());
        let cut = if characters.len() > Self::WINDOW { column.saturating_sub(Self::BEFORE) } else { 0 };
        let end = characters.len().min(cut + Self::WINDOW);
        let marked_end = column.saturating_add(place.length).clamp(column, end);

        let columns = |range: &[char]| range.iter().copied().map(width).sum::<usize>();
        let left = if cut > 0 { "…" } else { "" };
        let right = if end < characters.len() { "…" } else { "" };
        let mut line = left.to_owned();
        draw(&characters[cut..end], &mut line);
        line.push_str(right);
        Self {
            line,
            indent: " ".repeat(columns(&characters[cut..column]) + left.chars().count()),
            carets: "^".repeat(columns(&characters[column..marked_end]).max(1)),
        }
    }
}

/// What a file says must not steer the terminal that shows it.
fn visible(text: &str) -> String {
    text.chars().map(|c| if is_unsafe(c) { '\u{fffd}' } else { c }).collect()
}

fn is_unsafe(c: char) -> bool {
    // Direction overrides make a line read other than it is.
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// As it is drawn: a tab as four spaces, so that its width is the same everywhere.
fn draw(range: &[char], into: &mut String) {
    for &c in range {
        match c {
            '\t' => into.push_str("    "),
            c if is_unsafe(c) => into.push('\u{fffd}'),
            c => into.push(c),
        }
    }
}

/// Columns that a terminal gives it (Unicode UAX #11, the blocks that matter; combining marks take none).
fn width(c: char) -> usize {
    match u32::from(c) {
        0x09 => 4,
        0x300..=0x36f | 0x200b..=0x200d | 0xfe00..=0xfe0f => 0,
        0x1100..=0x115f
        | 0x2e80..=0x303e
        | 0x3041..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1f64f
        | 0x1f900..=0x1f9ff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}
