//! One row of COPY's output at a time, in pieces of any size.
use sha2::{Digest, Sha256};

use super::first_eight;
use crate::baseline::{Bucketing, Form, Layout};

/// What a binary COPY begins with: <https://www.postgresql.org/docs/current/sql-copy.html>. No flags, no extension.
const HEADER: &[u8; 19] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// The field count that ends a binary COPY.
const TRAILER: [u8; 2] = [0xff; 2];

/// What COPY sent contradicts its format, or the layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("the layout contradicts itself")]
    Layout,
    #[error("a binary COPY does not begin with its signature")]
    Header,
    #[error("a row has another number of columns than was asked for")]
    Columns,
    #[error("a message does not hold exactly one row")]
    Length,
    #[error("rows follow the end of a COPY")]
    AfterEnd,
    #[error("a COPY ended in the middle")]
    Truncated,
}

/// One row, as far as it is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    /// Which block it belongs to.
    pub place: u64,
    pub digest: [u8; 32],
}

/// SHA-256 of a row's bytes, after a tag that says in which form they are.
#[derive(Clone)]
pub struct RowHasher(Sha256);

impl RowHasher {
    pub fn new(form: Form) -> Self {
        Self(tagged(match form {
            Form::Binary => "muster row v1 binary",
            Form::Text => "muster row v1 text",
        }))
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

/// Padded to a whole block of SHA-256, so that a clone for each row costs no compression.
fn tagged(tag: &str) -> Sha256 {
    let mut block = [0; 64];
    block[..tag.len()].copy_from_slice(tag.as_bytes());
    Sha256::new_with_prefix(block)
}

/// Reads one COPY. Each of its messages is fed in pieces and then [ended](Self::end); nothing of a row is kept but an integer
/// key, so that a row may have any size.
pub struct RowReader {
    /// The states after the tags; a row starts with clones of them.
    row_tag: RowHasher,
    key_tag: Sha256,
    form: Form,
    columns: u16,
    key: Key,
    row: RowHasher,
    /// The wire form of the key's fields, each with its length word or its delimiter: no two keys share one.
    key_hash: Sha256,
    integer: Small,
    state: State,
    /// Bytes of a header, a count or a length that came in pieces.
    partial: Small,
    column: u16,
}

enum Key {
    Range(u16),
    Hash(Vec<bool>),
    None,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first row of a binary COPY.
    Header,
    /// Between messages.
    Start,
    Length,
    Field {
        left: usize,
    },
    Text {
        escaped: bool,
    },
    RowEnd,
    /// The trailer has been seen in the present message, or before it.
    CopyEnd,
}

impl RowReader {
    pub fn new(layout: &Layout) -> Result<Self, Malformed> {
        let columns = u16::try_from(layout.columns.len()).map_err(|_| Malformed::Layout)?;
        let key = match &layout.bucketing {
            Bucketing::KeyRange { column } if *column < columns => Key::Range(*column),
            Bucketing::KeyHash { columns: keys } if !keys.is_empty() && keys.iter().all(|key| *key < columns) => {
                Key::Hash((0..columns).map(|column| keys.contains(&column)).collect())
            }
            Bucketing::RowDigest => Key::None,
            Bucketing::KeyRange { .. } | Bucketing::KeyHash { .. } => return Err(Malformed::Layout),
        };
        let (row_tag, key_tag) = (RowHasher::new(layout.form), tagged("muster key v1"));
        let state = match layout.form {
            Form::Binary => State::Header,
            // It would be empty lines; capture reads such a table in binary.
            Form::Text if columns == 0 => return Err(Malformed::Layout),
            Form::Text => State::Text { escaped: false },
        };
        Ok(Self {
            form: layout.form,
            row: row_tag.clone(),
            key_hash: key_tag.clone(),
            row_tag,
            key_tag,
            columns,
            key,
            integer: Small::default(),
            state,
            partial: Small::default(),
            column: 0,
        })
    }

    /// Some bytes of the present message.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Malformed> {
        if self.state == State::Header {
            if !self.partial.fill(&mut bytes, HEADER.len()) {
                return Ok(());
            }
            if self.partial.bytes() != HEADER {
                return Err(Malformed::Header);
            }
            self.partial.clear();
            self.state = State::Start;
        }
        self.row.update(bytes);
        match self.state {
            State::Text { escaped } => self.feed_text(bytes, escaped),
            _ => self.feed_binary(bytes),
        }
    }

    /// The message is complete. None: it held no row, but the beginning or the end of a binary COPY.
    pub fn end(&mut self) -> Result<Option<Row>, Malformed> {
        match self.state {
            State::Start if self.partial.length == 0 => return Ok(None),
            State::CopyEnd => return Ok(None),
            State::RowEnd => {}
            _ => return Err(Malformed::Length),
        }
        let digest = std::mem::replace(&mut self.row, self.row_tag.clone()).finish();
        let place = match self.key {
            Key::Range(_) => self.integer_key(),
            Key::Hash(_) => {
                let hash = std::mem::replace(&mut self.key_hash, self.key_tag.clone());
                first_eight(&hash.finalize())
            }
            Key::None => first_eight(&digest),
        };
        self.integer.clear();
        self.column = 0;
        self.state = match self.form {
            Form::Binary => State::Start,
            Form::Text => State::Text { escaped: false },
        };
        Ok(Some(Row { place, digest }))
    }

    /// The COPY is complete.
    pub fn finish(self) -> Result<(), Malformed> {
        match self.state {
            State::CopyEnd => Ok(()),
            State::Text { escaped: false } if self.column == 0 => Ok(()),
            _ => Err(Malformed::Truncated),
        }
    }

    fn feed_binary(&mut self, mut bytes: &[u8]) -> Result<(), Malformed> {
        if self.state == State::Start && self.partial.length == 0 && self.whole_row(bytes) {
            return Ok(());
        }
        while !bytes.is_empty() {
            match self.state {
                State::Start => {
                    if self.partial.fill(&mut bytes, 2) {
                        self.begin_row()?;
                    }
                }
                State::Length => {
                    if self.partial.fill(&mut bytes, 4) {
                        self.begin_field()?;
                    }
                }
                State::Field { left } => {
                    let (piece, rest) = bytes.split_at(left.min(bytes.len()));
                    self.key_bytes(piece);
                    bytes = rest;
                    self.state = State::Field { left: left - piece.len() };
                    if left == piece.len() {
                        self.end_field();
                    }
                }
                State::CopyEnd => return Err(Malformed::AfterEnd),
                State::RowEnd | State::Header | State::Text { .. } => return Err(Malformed::Length),
            }
        }
        Ok(())
    }

    /// Takes a row that came in one piece, as nearly all do, without a state for each of its fields. False: nothing was taken.
    fn whole_row(&mut self, bytes: &[u8]) -> bool {
        let Some((count, mut rest)) = bytes.split_first_chunk() else { return false };
        if *count == TRAILER || u16::from_be_bytes(*count) != self.columns {
            return false;
        }
        while self.column < self.columns {
            let Some((word, field, after)) = split_field(rest) else { break };
            self.key_word(word);
            self.key_bytes(field);
            self.column += 1;
            rest = after;
        }
        if self.column == self.columns && rest.is_empty() {
            self.state = State::RowEnd;
            return true;
        }
        self.key_hash = self.key_tag.clone();
        self.integer.clear();
        self.column = 0;
        false
    }

    fn begin_row(&mut self) -> Result<(), Malformed> {
        let count = [self.partial.bytes[0], self.partial.bytes[1]];
        self.partial.clear();
        self.state = match u16::from_be_bytes(count) {
            _ if count == TRAILER => State::CopyEnd,
            count if count != self.columns => return Err(Malformed::Columns),
            0 => State::RowEnd,
            _ => State::Length,
        };
        Ok(())
    }

    fn begin_field(&mut self) -> Result<(), Malformed> {
        let word = [self.partial.bytes[0], self.partial.bytes[1], self.partial.bytes[2], self.partial.bytes[3]];
        self.partial.clear();
        self.key_word(&word);
        match i32::from_be_bytes(word) {
            -1 | 0 => self.end_field(),
            length => {
                self.state = State::Field { left: usize::try_from(length).map_err(|_| Malformed::Length)? };
            }
        }
        Ok(())
    }

    fn end_field(&mut self) {
        self.column += 1;
        self.state = if self.column == self.columns { State::RowEnd } else { State::Length };
    }

    /// Tabs, newlines and backslashes within a field are escaped, so that the bare ones are COPY's own.
    fn feed_text(&mut self, bytes: &[u8], mut escaped: bool) -> Result<(), Malformed> {
        let mut begin = 0;
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'\t' => {
                    self.end_text_field(&bytes[begin..at])?;
                    begin = at + 1;
                }
                b'\n' => {
                    self.end_text_field(&bytes[begin..at])?;
                    if self.column != self.columns {
                        return Err(Malformed::Columns);
                    }
                    self.state = State::RowEnd;
                    return if at + 1 == bytes.len() { Ok(()) } else { Err(Malformed::Length) };
                }
                _ => {}
            }
        }
        self.state = State::Text { escaped };
        self.key_bytes(&bytes[begin..]);
        Ok(())
    }

    fn end_text_field(&mut self, rest: &[u8]) -> Result<(), Malformed> {
        if self.column >= self.columns {
            return Err(Malformed::Columns);
        }
        self.key_bytes(rest);
        self.key_word(b"\t");
        self.column += 1;
        Ok(())
    }

    fn key_bytes(&mut self, bytes: &[u8]) {
        match &self.key {
            Key::Range(column) if *column == self.column => self.integer.push(bytes),
            Key::Hash(keys) if keys.get(usize::from(self.column)) == Some(&true) => self.key_hash.update(bytes),
            _ => {}
        }
    }

    fn key_word(&mut self, bytes: &[u8]) {
        if let Key::Hash(keys) = &self.key
            && keys.get(usize::from(self.column)) == Some(&true)
        {
            self.key_hash.update(bytes);
        }
    }

    /// The sign bit is flipped, so that places sort as the keys do. A restored table may hold NULL or anything else where its
    /// source had an integer: that is a row like another, in the last place.
    fn integer_key(&self) -> u64 {
        let bytes = self.integer.bytes();
        let value = match (self.form, bytes.len()) {
            (Form::Text, _) => std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()),
            (Form::Binary, 2) => bytes.try_into().ok().map(|two| i64::from(i16::from_be_bytes(two))),
            (Form::Binary, 4) => bytes.try_into().ok().map(|four| i64::from(i32::from_be_bytes(four))),
            (Form::Binary, _) => bytes.try_into().ok().map(i64::from_be_bytes),
        };
        value.map_or(u64::MAX, |value: i64| value.cast_unsigned() ^ (1 << 63))
    }
}

/// The length word of a binary field, its bytes (none of NULL) and what follows. None: it is not whole, or its length is below -1.
fn split_field(bytes: &[u8]) -> Option<(&[u8; 4], &[u8], &[u8])> {
    let (word, rest) = bytes.split_first_chunk()?;
    let length = match i32::from_be_bytes(*word) {
        -1 => 0,
        length => usize::try_from(length).ok()?,
    };
    let (field, rest) = rest.split_at_checked(length)?;
    Some((word, field, rest))
}

/// Room for a header, or for the longest integer in text.
#[derive(Default)]
struct Small {
    bytes: [u8; 20],
    length: usize,
}

impl Small {
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn clear(&mut self) {
        self.length = 0;
    }

    /// What finds no room is left out.
    fn push(&mut self, more: &[u8]) {
        let room = &mut self.bytes[self.length..];
        let fits = more.len().min(room.len());
        room[..fits].copy_from_slice(&more[..fits]);
        self.length += fits;
    }

    /// Takes from `bytes` until there are `wanted`; false: there are not enough.
    fn fill(&mut self, bytes: &mut &[u8], wanted: usize) -> bool {
        let (piece, rest) = bytes.split_at((wanted - self.length).min(bytes.len()));
        self.bytes[self.length..self.length + piece.len()].copy_from_slice(piece);
        self.length += piece.len();
        *bytes = rest;
        self.length == wanted
    }
}
