//! The server's messages, framed and bounded. Pure: bytes in, events out; nothing in here trusts a length.
use std::io;

use bytes::{Buf, Bytes, BytesMut};
use postgres_protocol::message::backend::{COPY_DATA_TAG, DATA_ROW_TAG, Message};

/// Bytes of all cells that one row may have: what a batch may hold.
pub(super) const MAX_CELLS: usize = 1 << 20;
/// The length word of up to 65,535 columns comes on top.
const MAX_ROW: usize = MAX_CELLS + 4 * 65_536;
const MAX_MESSAGE: usize = 1 << 20;
const HEADER: usize = 5;

pub(super) enum Event {
    /// The body of a `DataRow`: see [`cells`].
    Row(Bytes),
    /// A row that is too large to keep; it was read and thrown away.
    LargeRow {
        largest: usize,
        bytes: u64,
    },
    Other(Message),
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Malformed {
    #[error("the server sent a message of type {0:#04x} with {1} bytes, more than is allowed")]
    TooLarge(u8, usize),
    #[error("the server sent a row that contradicts its own lengths")]
    Row,
    #[error("the server sent a message that cannot be understood")]
    Message(#[from] io::Error),
}

/// Takes the messages of a COPY in pieces, so that none has to be held.
pub(in crate::agent) trait CopySink {
    fn feed(&mut self, bytes: &[u8]) -> Result<(), String>;

    /// The message is complete.
    fn end(&mut self) -> Result<(), String>;
}

/// Holds at most one message and one read.
#[derive(Default)]
pub(super) struct Decoder {
    pub(super) buffer: BytesMut,
    skipping: Option<Skip>,
    /// Bytes of the present `CopyData` that have not been seen.
    copying: Option<usize>,
}

impl Decoder {
    pub(super) fn next(&mut self) -> Result<Option<Event>, Malformed> {
        if let Some(skip) = &mut self.skipping {
            let Some(event) = skip.advance(&mut self.buffer)? else { return Ok(None) };
            self.skipping = None;
            return Ok(Some(event));
        }
        let Some((&[tag, a, b, c, d], _)) = self.buffer.split_first_chunk::<HEADER>() else { return Ok(None) };
        // The length counts itself.
        let size = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        let body = size.checked_sub(4).filter(|_| i32::try_from(size).is_ok()).ok_or(Malformed::TooLarge(tag, size))?;
        if tag == DATA_ROW_TAG {
            if body > MAX_ROW {
                self.buffer.advance(HEADER);
                self.skipping = Some(Skip::new(body));
                return self.next();
            }
            if self.buffer.len() < HEADER + body {
                return Ok(None);
            }
            self.buffer.advance(HEADER);
            return Ok(Some(Event::Row(self.buffer.split_to(body).freeze())));
        }
        if body > MAX_MESSAGE {
            return Err(Malformed::TooLarge(tag, body));
        }
        if self.buffer.len() < HEADER + body {
            return Ok(None);
        }
        let mut whole = self.buffer.split_to(HEADER + body);
        Ok(Message::parse(&mut whole)?.map(Event::Other))
    }
}

impl Decoder {
    /// Hands over what is here of `CopyData` messages. True: another message is next, or the beginning of one.
    pub(super) fn copy(&mut self, sink: &mut impl CopySink) -> Result<bool, String> {
        let mut at = 0;
        let other = loop {
            let here = &self.buffer[at..];
            if let Some(left) = self.copying {
                let (piece, _) = here.split_at(left.min(here.len()));
                sink.feed(piece)?;
                at += piece.len();
                if piece.len() < left {
                    self.copying = Some(left - piece.len());
                    break false;
                }
                self.copying = None;
                sink.end()?;
                continue;
            }
            let Some((&[tag, a, b, c, d], _)) = here.split_first_chunk::<HEADER>() else {
                break here.first().is_some_and(|tag| *tag != COPY_DATA_TAG);
            };
            if tag != COPY_DATA_TAG {
                break true;
            }
            let size = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok().and_then(|size| size.checked_sub(4));
            self.copying =
                Some(size.ok_or_else(|| "the server sent a message that contradicts its own length".to_owned())?);
            at += HEADER;
        };
        self.buffer.advance(at);
        Ok(other)
    }
}

/// The cells of a row: None is NULL. An error where the lengths do not add up or there are not `columns` of them.
pub(super) fn cells(body: &[u8], columns: usize) -> impl Iterator<Item = Result<Option<&[u8]>, Malformed>> {
    let (count, mut rest) = match body.split_first_chunk::<2>() {
        Some((count, rest)) => (usize::from(u16::from_be_bytes(*count)), rest),
        None => (usize::MAX, body),
    };
    let mut failed = count != columns;
    let mut done = 0;
    std::iter::from_fn(move || {
        if std::mem::take(&mut failed) {
            done = columns + 1;
            return Some(Err(Malformed::Row));
        }
        if done >= columns {
            return None;
        }
        done += 1;
        let cell = take_cell(&mut rest)
            .and_then(|cell| if done < columns || rest.is_empty() { Ok(cell) } else { Err(Malformed::Row) });
        if cell.is_err() {
            done = columns + 1;
        }
        Some(cell)
    })
}

fn take_cell<'a>(rest: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Malformed> {
    let (length, after) = rest.split_first_chunk::<4>().ok_or(Malformed::Row)?;
    *rest = after;
    let length = i32::from_be_bytes(*length);
    if length == -1 {
        return Ok(None);
    }
    let length = usize::try_from(length).map_err(|_| Malformed::Row)?;
    let (cell, after) = rest.split_at_checked(length).ok_or(Malformed::Row)?;
    *rest = after;
    Ok(Some(cell))
}

/// Reads over a row that is too large, to name its largest column and to find where the next message begins.
struct Skip {
    /// Bytes of the row that have not been seen.
    left: usize,
    columns: Option<u16>,
    column: usize,
    /// Bytes of the present cell that have not been seen.
    cell: usize,
    largest: (usize, u64),
}

impl Skip {
    fn new(left: usize) -> Self {
        Self { left, columns: None, column: 0, cell: 0, largest: (0, 0) }
    }

    fn advance(&mut self, buffer: &mut BytesMut) -> Result<Option<Event>, Malformed> {
        loop {
            let seen = self.cell.min(buffer.len());
            self.take(seen)?;
            buffer.advance(seen);
            self.cell -= seen;
            if self.cell > 0 {
                return Ok(None);
            }
            match self.columns {
                None => {
                    if buffer.len() < 2 {
                        return Ok(None);
                    }
                    self.take(2)?;
                    self.columns = Some(buffer.get_u16());
                }
                Some(columns) if self.column == usize::from(columns) => {
                    if self.left > 0 {
                        return Err(Malformed::Row);
                    }
                    let (largest, bytes) = self.largest;
                    return Ok(Some(Event::LargeRow { largest, bytes }));
                }
                Some(_) => {
                    if buffer.len() < 4 {
                        return Ok(None);
                    }
                    self.take(4)?;
                    let length = buffer.get_i32();
                    self.cell = if length == -1 { 0 } else { usize::try_from(length).map_err(|_| Malformed::Row)? };
                    if self.cell as u64 > self.largest.1 {
                        self.largest = (self.column, self.cell as u64);
                    }
                    self.column += 1;
                }
            }
        }
    }

    fn take(&mut self, bytes: usize) -> Result<(), Malformed> {
        self.left = self.left.checked_sub(bytes).ok_or(Malformed::Row)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;
    use proptest::prelude::*;

    use super::*;

    fn row(cells: &[Option<usize>]) -> BytesMut {
        let mut body = BytesMut::new();
        body.put_u16(u16::try_from(cells.len()).expect("few columns"));
        for cell in cells {
            match cell {
                None => body.put_i32(-1),
                Some(size) => {
                    body.put_i32(i32::try_from(*size).expect("small"));
                    body.put_bytes(b'x', *size);
                }
            }
        }
        let mut message = BytesMut::new();
        message.put_u8(b'D');
        message.put_u32(u32::try_from(body.len() + 4).expect("small"));
        message.put_slice(&body);
        message
    }

    #[derive(Default)]
    struct Kept {
        rows: Vec<Vec<u8>>,
        row: Vec<u8>,
    }

    impl CopySink for Kept {
        fn feed(&mut self, bytes: &[u8]) -> Result<(), String> {
            self.row.extend_from_slice(bytes);
            Ok(())
        }

        fn end(&mut self) -> Result<(), String> {
            self.rows.push(std::mem::take(&mut self.row));
            Ok(())
        }
    }

    proptest! {
        #[test]
        fn copied_rows_come_whole_however_they_are_cut(
            rows in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..20),
            cut in 1usize..50,
        ) {
            let mut bytes = BytesMut::new();
            for row in &rows {
                bytes.put_u8(b'd');
                bytes.put_u32(u32::try_from(row.len() + 4).expect("small"));
                bytes.put_slice(row);
            }
            bytes.put_slice(b"c\0\0\0\x04");
            let (mut decoder, mut kept, mut other) = (Decoder::default(), Kept::default(), false);
            for piece in bytes.chunks(cut) {
                prop_assert!(!other || decoder.buffer.len() < HEADER);
                decoder.buffer.extend_from_slice(piece);
                other = decoder.copy(&mut kept).expect("well formed");
                prop_assert!(decoder.buffer.len() < HEADER + 1, "nothing of a row is kept");
            }
            prop_assert!(other);
            prop_assert_eq!(kept.rows, rows);
            prop_assert!(matches!(decoder.next(), Ok(Some(Event::Other(Message::CopyDone)))));
        }
    }

    #[test]
    fn a_large_row_is_skipped_and_its_largest_column_named() {
        let mut bytes = row(&[Some(10), None, Some(MAX_ROW), Some(3)]);
        bytes.extend_from_slice(&row(&[Some(1)]));
        let mut decoder = Decoder::default();
        let mut seen = Vec::new();
        for piece in bytes.chunks(1000) {
            decoder.buffer.extend_from_slice(piece);
            assert!(decoder.buffer.len() < 8 << 10, "what is skipped is not kept");
            while let Some(event) = decoder.next().expect("well formed") {
                seen.push(match event {
                    Event::LargeRow { largest, bytes } => format!("large {largest} {bytes}"),
                    Event::Row(body) => format!("row {}", body.len()),
                    Event::Other(_) => "other".to_owned(),
                });
            }
        }
        assert_eq!(seen, [format!("large 2 {MAX_ROW}"), "row 7".to_owned()]);
    }

    #[test]
    fn rows_whose_lengths_lie_are_refused() {
        let collect = |body: &[u8], columns| cells(body, columns).collect::<Result<Vec<_>, _>>().is_ok();
        assert!(collect(&[0, 1, 0, 0, 0, 1, 7], 1));
        assert!(collect(&[0, 0], 0));
        for (body, columns) in [
            (&[0, 1, 0, 0, 0, 2, 7][..], 1),
            (&[0, 1, 0, 0, 0, 0, 7], 1),
            (&[0, 1, 0xff, 0xff, 0xff, 0xfe], 1),
            (&[0, 2, 0, 0, 0, 1, 7], 2),
            (&[0, 1, 0, 0, 0, 1, 7], 2),
            (&[0], 1),
            (&[], 0),
        ] {
            assert!(!collect(body, columns), "{body:?}");
        }
    }

    #[test]
    fn an_announced_size_beyond_the_bound_is_refused_before_it_comes() {
        for length in [0_u32, 3, 2 << 20, u32::MAX] {
            let mut decoder = Decoder::default();
            decoder.buffer.put_u8(b'E');
            decoder.buffer.put_u32(length);
            assert!(decoder.next().is_err(), "{length}");
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics_and_never_grows(
            tag in prop::sample::select(b"123ACcdDEGHIKnNRsStTZ?".to_vec()),
            length in prop_oneof![0_u32..64, Just(u32::MAX), (1_u32 << 20)..(1 << 22)],
            bytes in prop::collection::vec(any::<u8>(), 0..400),
            cut in 1_usize..40,
        ) {
            let mut decoder = Decoder::default();
            decoder.buffer.put_u8(tag);
            decoder.buffer.put_u32(length);
            'pieces: for piece in bytes.chunks(cut) {
                decoder.buffer.extend_from_slice(piece);
                loop {
                    match decoder.next() {
                        Err(_) => break 'pieces,
                        Ok(None) => break,
                        Ok(Some(Event::Row(body))) => {
                            for columns in [0, 1, 3] {
                                let _ = cells(&body, columns).count();
                            }
                        }
                        Ok(Some(Event::Other(message))) => super::super::shape::touch(&message),
                        Ok(Some(Event::LargeRow { .. })) => {}
                    }
                }
            }
            prop_assert!(decoder.buffer.capacity() <= 4096);
        }
    }
}
