//! Frames: `u32` length (big-endian, of the payload, at most [`MAX_FRAME`]), `u8` kind, payload.
//!
//! Kind 1 is JSON, kind 2 raw bytes of a blob; any other is an error. The first frame of each side is a [`Hello`].
use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use drill::agent::{Hello, MAX_FRAME, PROTOCOL_VERSION};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const HEADER: usize = 5;
const READ: usize = 64 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Json = 1,
    Raw = 2,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: Kind,
    pub payload: Bytes,
}

#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {0} bytes is larger than the {MAX_FRAME} that the protocol allows")]
    TooLarge(usize),
    #[error("a frame has the unknown kind {0}")]
    UnknownKind(u8),
    #[error("the stream ended inside a frame")]
    Cut,
    #[error("a raw frame came where a message was due")]
    Unexpected,
    #[error("a message cannot be understood")]
    Message(#[source] serde_json::Error),
    #[error("a message cannot be written")]
    Encode(#[source] serde_json::Error),
    #[error("the other side speaks version {theirs} of the agent protocol, this one {PROTOCOL_VERSION}")]
    Version { theirs: u32 },
    #[error("the other side ended before it said hello")]
    NoHello,
    #[error("the stream failed")]
    Io(#[from] io::Error),
}

/// Bytes in, frames out. Holds at most one frame and one read. After an error the stream has no meaning any more.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
}

impl Decoder {
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, if it has come.
    pub fn take(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some((header, _)) = self.buffer.split_first_chunk::<HEADER>() else { return Ok(None) };
        let [a, b, c, d, kind] = *header;
        let length = u32::from_be_bytes([a, b, c, d]);
        let size = usize::try_from(length).unwrap_or(usize::MAX);
        if length > MAX_FRAME {
            return Err(FrameError::TooLarge(size));
        }
        let kind = match kind {
            1 => Kind::Json,
            2 => Kind::Raw,
            other => return Err(FrameError::UnknownKind(other)),
        };
        if self.buffer.len() < HEADER + size {
            return Ok(None);
        }
        self.buffer.advance(HEADER);
        Ok(Some(Frame { kind, payload: self.buffer.split_to(size).freeze() }))
    }

    /// Whether the stream may end here.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}

pub fn encode(kind: Kind, payload: &[u8], out: &mut BytesMut) -> Result<(), FrameError> {
    let length = u32::try_from(payload.len()).ok().filter(|length| *length <= MAX_FRAME);
    out.put_u32(length.ok_or(FrameError::TooLarge(payload.len()))?);
    out.put_u8(kind as u8);
    out.put_slice(payload);
    Ok(())
}

pub fn message<T: DeserializeOwned>(frame: &Frame) -> Result<T, FrameError> {
    match frame.kind {
        Kind::Json => serde_json::from_slice(&frame.payload).map_err(FrameError::Message),
        Kind::Raw => Err(FrameError::Unexpected),
    }
}

pub struct FrameReader<R> {
    source: R,
    decoder: Decoder,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub fn new(source: R) -> Self {
        Self { source, decoder: Decoder::default() }
    }

    /// None where the stream ended between two frames. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            if let Some(frame) = self.decoder.take()? {
                return Ok(Some(frame));
            }
            self.decoder.buffer.reserve(READ);
            if self.source.read_buf(&mut self.decoder.buffer).await? == 0 {
                return if self.decoder.is_empty() { Ok(None) } else { Err(FrameError::Cut) };
            }
        }
    }

    pub async fn hello(&mut self) -> Result<Hello, FrameError> {
        let hello: Hello = message(&self.next().await?.ok_or(FrameError::NoHello)?)?;
        if hello.version == PROTOCOL_VERSION { Ok(hello) } else { Err(FrameError::Version { theirs: hello.version }) }
    }
}

/// Writes whole frames. A future of it that is dropped may leave half a frame behind: then the stream is of no more use.
pub struct FrameWriter<W> {
    sink: W,
    buffer: BytesMut,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    pub fn new(sink: W) -> Self {
        Self { sink, buffer: BytesMut::new() }
    }

    pub async fn message(&mut self, message: &impl Serialize) -> Result<(), FrameError> {
        let json = serde_json::to_vec(message).map_err(FrameError::Encode)?;
        self.frame(Kind::Json, &json).await
    }

    pub async fn frame(&mut self, kind: Kind, payload: &[u8]) -> Result<(), FrameError> {
        self.buffer.clear();
        encode(kind, payload, &mut self.buffer)?;
        self.sink.write_all(&self.buffer).await?;
        self.sink.flush().await?;
        Ok(())
    }

    pub async fn hello(&mut self) -> Result<(), FrameError> {
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).map_err(|error| FrameError::Io(io::Error::other(error.to_string())))?;
        self.message(&Hello { version: PROTOCOL_VERSION, nonce: hex::encode(nonce) }).await
    }

    pub async fn close(&mut self) -> Result<(), FrameError> {
        Ok(self.sink.shutdown().await?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames_of(bytes: &[u8], cuts: &[usize]) -> Result<Vec<Frame>, FrameError> {
        let mut decoder = Decoder::default();
        let mut frames = Vec::new();
        let mut rest = bytes;
        let mut cuts = cuts.iter().cycle();
        while !rest.is_empty() {
            let cut = cuts.next().map_or(rest.len(), |cut| (*cut).clamp(1, rest.len()));
            let (piece, after) = rest.split_at(cut);
            decoder.feed(piece);
            while let Some(frame) = decoder.take()? {
                frames.push(frame);
            }
            rest = after;
        }
        if decoder.is_empty() { Ok(frames) } else { Err(FrameError::Cut) }
    }

    fn any_frame() -> impl Strategy<Value = Frame> {
        (any::<bool>(), prop::collection::vec(any::<u8>(), 0..200)).prop_map(|(json, payload)| Frame {
            kind: if json { Kind::Json } else { Kind::Raw },
            payload: payload.into(),
        })
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_frames(
            frames in prop::collection::vec(any_frame(), 0..8),
            cuts in prop::collection::vec(1_usize..50, 1..20),
        ) {
            let mut bytes = BytesMut::new();
            for frame in &frames {
                encode(frame.kind, &frame.payload, &mut bytes).expect("a small frame");
            }
            prop_assert_eq!(frames_of(&bytes, &cuts).expect("whole frames"), frames);
        }

        #[test]
        fn garbage_is_an_error_or_a_frame_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = frames_of(&bytes, &[7]);
        }
    }

    #[test]
    fn what_is_too_large_is_refused_by_its_header_alone() {
        let mut decoder = Decoder::default();
        let mut header = (MAX_FRAME + 1).to_be_bytes().to_vec();
        header.push(1);
        decoder.feed(&header);
        assert!(matches!(decoder.take(), Err(FrameError::TooLarge(_))));
        let payload = vec![0; MAX_FRAME as usize + 1];
        assert!(matches!(encode(Kind::Raw, &payload, &mut BytesMut::new()), Err(FrameError::TooLarge(_))));
    }

    #[test]
    fn an_unknown_kind_is_refused() {
        let mut decoder = Decoder::default();
        decoder.feed(&[0, 0, 0, 0, 3]);
        assert!(matches!(decoder.take(), Err(FrameError::UnknownKind(3))));
    }

    #[tokio::test]
    async fn versions_are_compared_before_anything_else() {
        let (ours, theirs) = tokio::io::duplex(1 << 10);
        let hello = Hello { version: PROTOCOL_VERSION + 1, nonce: String::new() };
        FrameWriter::new(theirs).message(&hello).await.expect("room for a hello");
        let error = FrameReader::new(ours).hello().await.expect_err("another version");
        assert_eq!(error.to_string(), "the other side speaks version 3 of the agent protocol, this one 2");
    }
}
