//! Blobs that the runner sent: components and baselines, each known by its SHA-256.
use std::collections::HashMap;

use bytes::{Bytes, BytesMut};
use drill::agent::MAX_PIECE;
use drill::id::Sha256Digest;
use drill::unit;

pub(super) const MAX_COMPONENT: u64 = 16 << 20;
pub(super) const MAX_BASELINE: u64 = 256 << 20;
/// Everything together.
const MAX_TOTAL: u64 = 1 << 30;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum BlobError {
    #[error("a blob of {} is larger than the {} that is allowed", unit::size(*.0), unit::size(MAX_BASELINE))]
    TooLarge(u64),
    #[error("the blobs of this job are larger than {} together", unit::size(MAX_TOTAL))]
    TotalTooLarge,
    #[error("a blob was announced while another one was still coming")]
    Unfinished,
    #[error("raw bytes came that no blob had announced")]
    Unannounced,
    #[error("blob {} has other bytes than its digest says", .0.short())]
    WrongDigest(Sha256Digest),
}

#[derive(Default)]
pub(super) struct Blobs {
    whole: HashMap<Sha256Digest, Bytes>,
    total: u64,
    coming: Option<Coming>,
    /// Whole pieces that nobody took yet.
    pieces: Vec<(u64, Bytes)>,
}

struct Coming {
    /// Some: a piece that was asked for, and is handed on instead of kept.
    piece: Option<u64>,
    digest: Sha256Digest,
    size: u64,
    bytes: BytesMut,
}

impl Blobs {
    pub(super) fn announce(&mut self, digest: Sha256Digest, size: u64) -> Result<(), BlobError> {
        if self.coming.is_some() {
            return Err(BlobError::Unfinished);
        }
        if size > MAX_BASELINE {
            return Err(BlobError::TooLarge(size));
        }
        self.total = self.total.saturating_add(size);
        if self.total > MAX_TOTAL {
            return Err(BlobError::TotalTooLarge);
        }
        // Grows with what comes: an announced size allocates nothing.
        self.coming = Some(Coming { piece: None, digest, size, bytes: BytesMut::new() });
        self.settle()
    }

    pub(super) fn announce_piece(&mut self, id: u64, digest: Sha256Digest, size: u64) -> Result<(), BlobError> {
        if self.coming.is_some() {
            return Err(BlobError::Unfinished);
        }
        if size > MAX_PIECE {
            return Err(BlobError::TooLarge(size));
        }
        self.coming = Some(Coming { piece: Some(id), digest, size, bytes: BytesMut::new() });
        self.settle()
    }

    pub(super) fn take_pieces(&mut self) -> Vec<(u64, Bytes)> {
        std::mem::take(&mut self.pieces)
    }

    pub(super) fn chunk(&mut self, chunk: &[u8]) -> Result<(), BlobError> {
        let coming = self.coming.as_mut().ok_or(BlobError::Unannounced)?;
        if (coming.bytes.len() + chunk.len()) as u64 > coming.size {
            return Err(BlobError::WrongDigest(coming.digest));
        }
        coming.bytes.extend_from_slice(chunk);
        self.settle()
    }

    pub(super) fn is_coming(&self) -> bool {
        self.coming.is_some()
    }

    pub(super) fn get(&self, digest: &Sha256Digest) -> Option<Bytes> {
        self.whole.get(digest).cloned()
    }

    fn settle(&mut self) -> Result<(), BlobError> {
        let Some(coming) = self.coming.take_if(|coming| coming.bytes.len() as u64 == coming.size) else {
            return Ok(());
        };
        if Sha256Digest::of(&coming.bytes) != coming.digest {
            return Err(BlobError::WrongDigest(coming.digest));
        }
        match coming.piece {
            Some(id) => self.pieces.push((id, coming.bytes.freeze())),
            None => drop(self.whole.insert(coming.digest, coming.bytes.freeze())),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_there_when_its_last_chunk_came_and_its_digest_is_right() {
        let digest = Sha256Digest::of(b"abcdef");
        let mut blobs = Blobs::default();
        blobs.announce(digest, 6).expect("small");
        blobs.chunk(b"abc").expect("the first half");
        assert!(blobs.is_coming() && blobs.get(&digest).is_none());
        assert_eq!(blobs.announce(digest, 6), Err(BlobError::Unfinished));
        blobs.chunk(b"def").expect("the rest");
        assert_eq!(blobs.get(&digest).as_deref(), Some(b"abcdef".as_slice()));
        assert_eq!(blobs.chunk(b"x"), Err(BlobError::Unannounced));
    }

    #[test]
    fn wrong_bytes_and_wrong_sizes_are_refused() {
        let digest = Sha256Digest::of(b"abc");
        let mut blobs = Blobs::default();
        blobs.announce(digest, 3).expect("small");
        assert_eq!(blobs.chunk(b"abx"), Err(BlobError::WrongDigest(digest)));
        let mut blobs = Blobs::default();
        blobs.announce(digest, 3).expect("small");
        assert_eq!(blobs.chunk(b"abcd"), Err(BlobError::WrongDigest(digest)));
        assert_eq!(Blobs::default().announce(digest, MAX_BASELINE + 1), Err(BlobError::TooLarge(MAX_BASELINE + 1)));
        assert_eq!(Blobs::default().announce(digest, 0), Err(BlobError::WrongDigest(digest)));
    }
}
