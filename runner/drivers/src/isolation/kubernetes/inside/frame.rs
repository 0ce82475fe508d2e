//! Pieces of a stream: a kind, a length, and that many bytes.
use std::io::{self, Read, Write};

/// Bytes of one frame.
pub(in super::super) const MAX: usize = 256 << 10;

/// To a command: its description comes first, as JSON.
pub(in super::super) const HEADER: u8 = b'h';
/// To a command, or to a receiver: bytes of its input, or of a file.
pub(in super::super) const DATA: u8 = b'd';
/// There is no more of that input.
pub(in super::super) const END: u8 = b'e';
pub(in super::super) const STDOUT: u8 = b'o';
pub(in super::super) const STDERR: u8 = b'r';
/// The last one, as JSON: what came of it.
pub(in super::super) const RESULT: u8 = b'x';

/// Kind and length.
pub(in super::super) const HEAD: usize = 5;

pub(in super::super) fn head(kind: u8, length: usize) -> io::Result<[u8; HEAD]> {
    let length = u32::try_from(length).ok().filter(|length| *length as usize <= MAX);
    let [a, b, c, d] = length.ok_or_else(|| io::Error::other("a frame is too long"))?.to_be_bytes();
    Ok([kind, a, b, c, d])
}

pub(in super::super) fn parse_head(head: [u8; HEAD]) -> io::Result<(u8, usize)> {
    let [kind, a, b, c, d] = head;
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length > MAX { Err(io::Error::other("a frame is too long")) } else { Ok((kind, length)) }
}

pub(super) fn write(to: &mut impl Write, kind: u8, payload: &[u8]) -> io::Result<()> {
    to.write_all(&head(kind, payload.len())?)?;
    to.write_all(payload)?;
    to.flush()
}

/// An end of the stream between frames is an error like one within: whoever writes says when it is over.
pub(super) fn read(from: &mut impl Read, payload: &mut Vec<u8>) -> io::Result<u8> {
    let mut head = [0; HEAD];
    from.read_exact(&mut head)?;
    let (kind, length) = parse_head(head)?;
    payload.resize(length, 0);
    from.read_exact(payload)?;
    Ok(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_frame_and_one_that_is_too_long_are_errors() {
        let mut bytes = Vec::new();
        write(&mut bytes, DATA, b"abc").expect("written");
        let mut payload = Vec::new();
        assert_eq!(read(&mut bytes.as_slice(), &mut payload).expect("whole"), DATA);
        assert_eq!(payload, b"abc");
        for cut in 0..bytes.len() {
            assert!(read(&mut &bytes[..cut], &mut payload).is_err(), "cut at {cut}");
        }
        assert!(read(&mut [DATA, 0xff, 0, 0, 0].as_slice(), &mut payload).is_err());
        assert!(write(&mut Vec::new(), DATA, &vec![0; MAX + 1]).is_err());
    }
}
