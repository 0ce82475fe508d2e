//! A scanner of SQL scripts that follows `psql`'s own (`psqlscan.l`, `mainloop.c`, `copy.c`): statements, quotes of all kinds,
//! comments, data of `COPY`. Works byte by byte in bounded memory. Where versions of `psql` read something differently, and
//! `pg_dump` never writes it, it is refused.
mod effects;

use std::fmt;

use super::data::Data;

/// Bytes kept of a statement's beginning.
const HEAD: usize = 4 << 10;
/// Bytes kept of a statement's end, for `FROM stdin`.
const TAIL: usize = 32;
/// Of a comment or a command of `psql`.
const LINE: usize = 1 << 10;
const LONGEST_TAG: usize = 256;
/// The last lines of `pg_dump` and of `pg_dumpall`.
const COMPLETE: [&str; 2] = ["PostgreSQL database dump complete", "PostgreSQL database cluster dump complete"];
/// What a script holds, as far as anybody wants to know.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The text of a line comment.
    Comment(&'a str),
    /// The beginning of a statement: comments are left out, constants are not.
    Statement(&'a str),
    Connect(&'a str),
}

/// Why a script is not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub line: u64,
    pub why: String,
    pub advice: &'static str,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.why)
    }
}

impl std::error::Error for Refusal {}

const NOT_A_DUMP: &str = "restore only what pg_dump itself wrote; find out who changed this file, or dump again";
const CUT_SHORT: &str = "the dump was not written to its end: make it again, and look at pg_dump's exit code";

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Code,
    /// After one `-` or `/` of code.
    Dash,
    Slash,
    LineComment,
    BlockComment {
        depth: u32,
        last: u8,
    },
    /// Within `'…'`; `escapes` where a backslash takes the next byte with it.
    Quoted {
        escapes: bool,
        skip: bool,
    },
    /// After a `'` that ends it, or is the first of two.
    QuoteEnd {
        escapes: bool,
    },
    Identifier,
    /// After the `$` that may begin a dollar quote.
    Tag(Vec<u8>),
    /// Within `$tag$ … $tag$`; `at` bytes of the end have been seen.
    Dollar {
        end: Vec<u8>,
        at: usize,
    },
    Meta(Vec<u8>),
    /// After the semicolon of a `COPY … FROM stdin`.
    CopyHead,
    Copy(Data),
}

/// The word that the last bytes of code make.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Word {
    #[default]
    None,
    /// Its first byte in lower case, and whether that is all.
    Name {
        first: u8,
        alone: bool,
    },
    Number,
    /// `1e`: versions of `psql` differ on where it ends.
    Junk,
}

#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own about the bytes so far")]
pub struct Scanner<F> {
    tell: F,
    state: State,
    line: u64,
    line_start: bool,
    word: Word,
    after_escapes: bool,
    parentheses: u32,
    /// `standard_conforming_strings`.
    conforming: bool,
    statement: Vec<u8>,
    tail: Vec<u8>,
    /// Of the statement, and of the comment.
    began: u64,
    comment: Vec<u8>,
    connected: Option<String>,
    complete: bool,
}

impl<F: FnMut(Event<'_>)> Scanner<F> {
    pub fn new(tell: F) -> Self {
        Self {
            tell,
            state: State::Code,
            line: 1,
            line_start: true,
            word: Word::None,
            after_escapes: false,
            parentheses: 0,
            conforming: true,
            statement: Vec::new(),
            tail: Vec::new(),
            began: 1,
            comment: Vec::new(),
            connected: None,
            complete: false,
        }
    }

    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        for &byte in bytes {
            self.step(byte)?;
            self.line_start = byte == b'\n';
            self.line += u64::from(byte == b'\n');
        }
        Ok(())
    }

    /// The end of the script: it must be one.
    pub fn finish(mut self) -> Result<(), Refusal> {
        match &self.state {
            // Every line of a dump is ended; the last one may have lost it.
            State::LineComment | State::Meta(_) => self.step(b'\n')?,
            _ => {}
        }
        let inside = match &self.state {
            State::Code if self.statement.iter().all(u8::is_ascii_whitespace) => None,
            State::Copy(_) | State::CopyHead => Some("the data of a COPY"),
            State::BlockComment { .. } => Some("a comment"),
            _ => Some("a statement"),
        };
        if let Some(inside) = inside {
            return Err(Refusal {
                line: self.line,
                why: format!("it ends in the middle of {inside} that began on line {}", self.began),
                advice: CUT_SHORT,
            });
        }
        if self.complete {
            return Ok(());
        }
        Err(Refusal {
            line: self.line,
            why: "it ends without the line that pg_dump writes last".to_owned(),
            advice: CUT_SHORT,
        })
    }

    fn refuse<T>(&self, why: impl Into<String>) -> Result<T, Refusal> {
        Err(Refusal { line: self.line, why: why.into(), advice: NOT_A_DUMP })
    }

    #[expect(clippy::too_many_lines, reason = "one arm a state: the machine is read in one place")]
    fn step(&mut self, byte: u8) -> Result<(), Refusal> {
        if byte == 0 {
            return Err(Refusal {
                line: self.line,
                why: "there is a zero byte in it: it is no text in an encoding of PostgreSQL's".to_owned(),
                advice: "a dump that went through the `>` of PowerShell is UTF-16: dump with `pg_dump --file` instead",
            });
        }
        match &mut self.state {
            State::Code => self.code(byte),
            State::Dash if byte == b'-' => {
                self.comment.clear();
                self.state = State::LineComment;
                Ok(())
            }
            State::Slash if byte == b'*' => {
                self.state = State::BlockComment { depth: 1, last: 0 };
                Ok(())
            }
            State::Dash | State::Slash => {
                let lone = if self.state == State::Dash { b'-' } else { b'/' };
                self.state = State::Code;
                self.keep(lone);
                self.plain_byte();
                self.code(byte)
            }
            State::LineComment => {
                if byte == b'\n' || byte == b'\r' {
                    self.state = State::Code;
                    self.end_comment();
                    return self.code(byte);
                }
                push_bounded(&mut self.comment, byte, LINE);
                Ok(())
            }
            State::BlockComment { depth, last } => {
                let (inner, outer) = ((*last, byte) == (b'/', b'*'), (*last, byte) == (b'*', b'/'));
                *depth = *depth + u32::from(inner) - u32::from(outer);
                *last = if inner || outer { 0 } else { byte };
                if *depth == 0 {
                    self.leave();
                    self.keep(b' ');
                }
                Ok(())
            }
            State::Quoted { escapes, skip } => {
                let escapes = *escapes;
                match byte {
                    _ if *skip => *skip = false,
                    b'\\' if escapes => *skip = true,
                    b'\'' => self.state = State::QuoteEnd { escapes },
                    _ => {}
                }
                self.keep(byte);
                Ok(())
            }
            State::QuoteEnd { escapes } => {
                let escapes = *escapes;
                if byte == b'\'' {
                    self.state = State::Quoted { escapes, skip: false };
                    self.keep(byte);
                    return Ok(());
                }
                self.leave();
                self.after_escapes = escapes;
                self.code(byte)
            }
            State::Identifier => {
                if byte == b'"' {
                    self.leave();
                }
                self.keep(byte);
                Ok(())
            }
            State::Tag(_) => self.tag(byte),
            State::Dollar { end, at } => {
                *at = if byte == end[*at] { *at + 1 } else { usize::from(byte == b'$') };
                if *at == end.len() {
                    self.leave();
                }
                self.keep(byte);
                Ok(())
            }
            State::Meta(text) => {
                if byte == b'\n' {
                    let text = std::mem::take(text);
                    self.state = State::Code;
                    return self.meta(&text);
                }
                if text.len() == LINE {
                    return self.refuse("a command of psql is longer than any that pg_dump writes");
                }
                text.push(byte);
                Ok(())
            }
            State::CopyHead => match byte {
                b'\n' => {
                    self.state = State::Copy(Data::LineStart);
                    Ok(())
                }
                b' ' | b'\t' | b'\r' => Ok(()),
                _ => self.refuse("something stands behind a COPY on its line, which pg_dump does not write"),
            },
            State::Copy(data) => match data.next(byte) {
                Ok(Some(next)) => {
                    *data = next;
                    Ok(())
                }
                Ok(None) => {
                    self.state = State::Code;
                    Ok(())
                }
                Err(why) => self.refuse(why),
            },
        }
    }

    /// Back to code, where no word has begun.
    fn leave(&mut self) {
        self.state = State::Code;
        self.word = Word::None;
    }

    fn code(&mut self, byte: u8) -> Result<(), Refusal> {
        match byte {
            b'-' => self.state = State::Dash,
            b'/' => self.state = State::Slash,
            b'\'' => return self.quote(),
            b'"' => {
                self.state = State::Identifier;
                self.plain_byte();
                self.keep(byte);
            }
            b'$' if matches!(self.word, Word::Name { .. }) => {
                self.extend_word(byte);
                self.keep(byte);
            }
            b'$' if self.word == Word::Junk => return self.ambiguous(),
            b'$' => {
                self.plain_byte();
                self.state = State::Tag(Vec::new());
            }
            b'\\' => {
                let pending = self.statement.iter().any(|byte| !byte.is_ascii_whitespace());
                self.state = State::Meta(Vec::new());
                if !self.line_start || pending {
                    return self.refuse("a backslash stands where pg_dump writes none");
                }
            }
            b';' if self.parentheses == 0 => {
                self.plain_byte();
                return self.end_statement();
            }
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => {
                self.word = Word::None;
                self.keep(byte);
            }
            _ => {
                self.after_escapes = false;
                match byte {
                    b'(' => self.parentheses += 1,
                    b')' => self.parentheses = self.parentheses.saturating_sub(1),
                    _ => {}
                }
                self.extend_word(byte);
                self.keep(byte);
            }
        }
        Ok(())
    }

    /// A byte of code that belongs to no word.
    fn plain_byte(&mut self) {
        self.word = Word::None;
        self.after_escapes = false;
    }

    fn extend_word(&mut self, byte: u8) {
        self.word = match (self.word, byte) {
            (Word::None | Word::Number, b'0'..=b'9') | (Word::Number, b'.') => Word::Number,
            (Word::Number | Word::Junk, _) if is_name_start(byte) || byte.is_ascii_digit() => Word::Junk,
            (Word::None, _) if is_name_start(byte) => Word::Name { first: byte.to_ascii_lowercase(), alone: true },
            (Word::Name { first, .. }, _) if is_name_start(byte) || byte.is_ascii_digit() || byte == b'$' => {
                Word::Name { first, alone: false }
            }
            _ => Word::None,
        };
    }

    fn ambiguous<T>(&self) -> Result<T, Refusal> {
        self.refuse("a number runs into a quote, which versions of psql read differently and pg_dump does not write")
    }

    fn quote(&mut self) -> Result<(), Refusal> {
        if self.after_escapes {
            return self.refuse("a constant with escapes is continued, which pg_dump does not write");
        }
        let escapes = match self.word {
            Word::Junk => return self.ambiguous(),
            Word::Name { first: b'e', alone: true } => true,
            Word::Name { first: b'b' | b'x', alone: true } => false,
            Word::None | Word::Number | Word::Name { .. } => !self.conforming,
        };
        self.state = State::Quoted { escapes, skip: false };
        self.word = Word::None;
        self.keep(b'\'');
        Ok(())
    }

    fn tag(&mut self, byte: u8) -> Result<(), Refusal> {
        let State::Tag(tag) = &mut self.state else { return Ok(()) };
        let fits = is_name_start(byte) || (byte.is_ascii_digit() && !tag.is_empty());
        if byte == b'$' || fits {
            if tag.len() == LONGEST_TAG {
                return self.refuse("a dollar quote is longer than any that pg_dump writes");
            }
            if fits {
                tag.push(byte);
                return Ok(());
            }
            let end = [b"$", tag.as_slice(), b"$"].concat();
            for &byte in &end {
                self.keep(byte);
            }
            self.state = State::Dollar { end, at: 0 };
            return Ok(());
        }
        // It was no quote: the dollar stands for itself, and what follows is read as if nothing had been.
        let tag = std::mem::take(tag);
        self.state = State::Code;
        self.keep(b'$');
        for byte in tag {
            self.code(byte)?;
        }
        self.code(byte)
    }

    fn end_comment(&mut self) {
        let comment = std::mem::take(&mut self.comment);
        let text = String::from_utf8_lossy(&comment);
        let text = text.trim();
        self.complete |= COMPLETE.contains(&text);
        (self.tell)(Event::Comment(text));
        self.comment = comment;
        self.word = Word::None;
    }

    fn keep(&mut self, byte: u8) {
        if self.statement.is_empty() {
            if byte.is_ascii_whitespace() {
                return;
            }
            self.began = self.line;
        }
        push_bounded(&mut self.statement, byte, HEAD);
        if self.tail.len() == TAIL {
            self.tail.remove(0);
        }
        self.tail.push(byte);
    }
}

fn push_bounded(bytes: &mut Vec<u8>, byte: u8, limit: usize) {
    if bytes.len() < limit {
        bytes.push(byte);
    }
}

fn is_name_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}
