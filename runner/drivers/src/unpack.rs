//! Packed scripts, read as a stream: memory is bounded whatever a file says of itself.
use std::io::{self, BufReader, Read};

use drill::manifest::Packing;

/// What `zstd --ultra -22` asks for; it is held in memory.
const LARGEST_WINDOW: u64 = 128 << 20;
const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// How the file that begins so is packed.
pub fn packing(head: &[u8]) -> Packing {
    if head.starts_with(&GZIP) {
        Packing::Gzip
    } else if head.starts_with(&ZSTD) {
        Packing::Zstd
    } else {
        Packing::None
    }
}

/// The content of `packed`. A file of several gzip members or zstd frames is their contents in order, as for `gzip` and `zstd`.
pub fn unpack<'a>(packing: Packing, packed: impl Read + Send + 'a) -> Box<dyn Read + Send + 'a> {
    let packed = BufReader::with_capacity(128 << 10, packed);
    match packing {
        Packing::None => Box::new(packed),
        Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(packed)),
        Packing::Zstd => {
            let mut decoder = ruzstd::decoding::FrameDecoder::new();
            decoder.set_max_window_size(LARGEST_WINDOW);
            Box::new(Frames { packed, decoder, open: false })
        }
    }
}

/// Frames one after the other. `ruzstd` itself bounds the window that a frame may ask for.
struct Frames<R> {
    packed: BufReader<R>,
    decoder: ruzstd::decoding::FrameDecoder,
    open: bool,
}

impl<R: Read> Frames<R> {
    /// False at the end of the file. Skippable frames are passed over.
    fn next(&mut self) -> io::Result<bool> {
        use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
        use std::io::BufRead as _;
        loop {
            if self.packed.fill_buf()?.is_empty() {
                return Ok(false);
            }
            match self.decoder.reset(&mut self.packed) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let skipped = io::copy(&mut (&mut self.packed).take(length.into()), &mut io::sink())?;
                    if skipped < length.into() {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(io::Error::other(error.to_string())),
            }
        }
    }
}

impl<R: Read> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        use ruzstd::decoding::BlockDecodingStrategy;
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.open && !self.next()? {
                return Ok(0);
            }
            self.open = true;
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                let strategy = BlockDecodingStrategy::UptoBytes(128 << 10);
                let decoded = self.decoder.decode_blocks(&mut self.packed, strategy);
                decoded.map_err(|error| io::Error::other(error.to_string()))?;
            }
            let read = self.decoder.read(buffer)?;
            if read > 0 {
                return Ok(read);
            }
            self.checksum()?;
            self.open = false;
        }
    }
}

impl<R> Frames<R> {
    fn checksum(&self) -> io::Result<()> {
        match (self.decoder.get_checksum_from_data(), self.decoder.get_calculated_checksum()) {
            (Some(expected), Some(found)) if expected != found => {
                Err(io::Error::other("the checksum of its content is wrong"))
            }
            _ => Ok(()),
        }
    }
}

/// Fails once more than `left` bytes came out: a small file may stand for more than any disk holds.
pub struct Bounded<R> {
    inner: R,
    left: u64,
}

/// What [`Bounded`] fails with.
#[derive(Debug, thiserror::Error)]
#[error("it unpacks to more than {0} bytes")]
pub struct TooLarge(pub u64);

impl<R> Bounded<R> {
    pub fn new(inner: R, limit: u64) -> (Self, TooLarge) {
        (Self { inner, left: limit }, TooLarge(limit))
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(read as u64).ok_or(io::ErrorKind::FileTooLarge)?;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).expect("written");
        encoder.finish().expect("packed")
    }

    fn zstd(content: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(content, ruzstd::encoding::CompressionLevel::Fastest)
    }

    fn unpacked(packed: &[u8]) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        unpack(packing(packed), packed).read_to_end(&mut content).map(|_| content)
    }

    #[test]
    fn files_of_several_members_are_read_to_their_end() {
        let text = b"select 1;\n".repeat(100_000);
        for pack in [gzip, zstd] {
            let two = [pack(&text), pack(b"end")].concat();
            assert_eq!(unpacked(&two).expect("unpacked"), [text.as_slice(), b"end"].concat());
        }
        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3], zstd(b"x").as_slice()].concat();
        let mut content = Vec::new();
        unpack(Packing::Zstd, skippable.as_slice()).read_to_end(&mut content).expect("unpacked");
        assert_eq!(content, b"x");
        assert_eq!(unpacked(b"plain").expect("as it is"), b"plain");
    }

    #[test]
    fn what_is_cut_short_or_damaged_is_an_error() {
        let text: Vec<u8> = (0..200_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        for pack in [gzip, zstd] {
            let packed = pack(&text);
            assert!(unpacked(&packed[..packed.len() / 2]).is_err());
            assert!(unpacked(&packed[..packed.len() - 1]).is_err());
            let mut damaged = packed.clone();
            let middle = damaged.len() / 2;
            damaged[middle] ^= 1;
            assert!(unpacked(&damaged).is_err());
        }
    }

    #[test]
    fn a_bomb_ends_at_the_limit() {
        for packed in [gzip(&vec![0; 3 << 20]), zstd(&vec![0; 3 << 20])] {
            assert!(packed.len() < 20_000);
            let (mut bounded, why) = Bounded::new(unpack(packing(&packed), packed.as_slice()), 1 << 20);
            let error = io::copy(&mut bounded, &mut io::sink()).expect_err("too much");
            assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
            assert!(why.to_string().contains("1048576"));
        }
    }
}
