//! SHA-256 of a file on all cores: over equal chunks, and over their digests in order.
//!
//! The root is SHA-256(`muster chunk tree v1\n`, digest of chunk 0, digest of chunk 1, …); an empty file has no chunk. The
//! digests of a file of more than one chunk are kept beside it as `<file>.chunks` (32 bytes each): the signed root vouches
//! for them, so they need no signature of their own, and they say where a file differs.
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use drill::id::Sha256Digest;
use drill::manifest::ChunkTree;
use sha2::{Digest, Sha256};

pub const CHUNK_SIZE: u64 = 4 << 20;
pub const SIDE_FILE_SUFFIX: &str = ".chunks";
const DOMAIN: &[u8] = b"muster chunk tree v1\n";
/// More do not make a disk faster, and each holds a chunk in memory.
const MAX_WORKERS: usize = 16;

/// Shared between who hashes and who waits.
#[derive(Debug, Default)]
pub struct Meter {
    pub done: AtomicU64,
    pub stop: AtomicBool,
}

/// What went wrong, and on which side.
#[derive(Debug)]
pub enum HashError {
    Read(io::Error),
    Write(io::Error),
    /// A chunk is not the one that was expected.
    Differs {
        chunk: usize,
    },
    Stopped,
}

/// The digests of the chunks of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunks(pub Vec<[u8; 32]>);

impl Chunks {
    pub fn root(&self) -> Sha256Digest {
        let mut hasher = Sha256::new_with_prefix(DOMAIN);
        for digest in &self.0 {
            hasher.update(digest);
        }
        Sha256Digest::from_bytes(hasher.finalize().into())
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.concat()
    }

    /// The content of a side file, where it is the one that the root vouches for.
    pub fn from_side_file(bytes: &[u8], tree: &ChunkTree) -> Option<Self> {
        let (digests, rest) = bytes.as_chunks::<32>();
        let chunks = Self(digests.to_vec());
        (rest.is_empty() && chunks.root() == tree.root).then_some(chunks)
    }
}

pub fn chunk_count(size: u64, chunk_size: u64) -> usize {
    usize::try_from(size.div_ceil(chunk_size)).expect("a file has fewer chunks than this machine has addresses")
}

/// Reads `size` bytes of `from` once, on all cores; what is hashed is written to `copy` at the same place. Ends early at the
/// first chunk that `expected` does not hold.
pub fn hash(
    from: &File,
    copy: Option<&File>,
    size: u64,
    chunk_size: u64,
    expected: Option<&Chunks>,
    meter: &Meter,
) -> Result<Chunks, HashError> {
    let count = chunk_count(size, chunk_size);
    let work = Work {
        from,
        copy,
        size,
        chunk_size,
        expected,
        meter,
        next: AtomicUsize::new(0),
        digests: Mutex::new(vec![[0; 32]; count]),
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_WORKERS).min(count);
    let results = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(|| work.run(count))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(HashError::Read(io::Error::other("a worker panicked")))))
            .collect::<Vec<_>>()
    });
    // The first in order of the file is the one to tell; an early end is only the echo of another worker's trouble.
    let mut worst: Option<HashError> = None;
    for error in results.into_iter().filter_map(Result::err) {
        worst = Some(match (worst, error) {
            (Some(HashError::Differs { chunk: a }), HashError::Differs { chunk: b }) => {
                HashError::Differs { chunk: a.min(b) }
            }
            (None | Some(HashError::Stopped), error) => error,
            (Some(first), _) => first,
        });
    }
    match worst {
        Some(error) => Err(error),
        None => Ok(Chunks(work.digests.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))),
    }
}

struct Work<'a> {
    from: &'a File,
    copy: Option<&'a File>,
    size: u64,
    chunk_size: u64,
    expected: Option<&'a Chunks>,
    meter: &'a Meter,
    next: AtomicUsize,
    digests: Mutex<Vec<[u8; 32]>>,
}

impl Work<'_> {
    fn run(&self, count: usize) -> Result<(), HashError> {
        let length = usize::try_from(self.chunk_size.min(self.size)).expect("a chunk fits in memory");
        let mut buffer = vec![0; length];
        loop {
            let chunk = self.next.fetch_add(1, Ordering::Relaxed);
            if chunk >= count {
                return Ok(());
            }
            if self.meter.stop.load(Ordering::Relaxed) {
                return Err(HashError::Stopped);
            }
            let result = self.one(chunk, &mut buffer);
            if result.is_err() {
                // The others need not go on. What they are doing now, they finish.
                self.next.store(count, Ordering::Relaxed);
                return result;
            }
        }
    }

    fn one(&self, chunk: usize, buffer: &mut [u8]) -> Result<(), HashError> {
        let offset = chunk as u64 * self.chunk_size;
        let length = usize::try_from((self.size - offset).min(self.chunk_size)).expect("a chunk fits in memory");
        let bytes = &mut buffer[..length];
        self.from.read_exact_at(bytes, offset).map_err(HashError::Read)?;
        let digest: [u8; 32] = Sha256::digest(&*bytes).into();
        if self.expected.is_some_and(|expected| expected.0.get(chunk) != Some(&digest)) {
            return Err(HashError::Differs { chunk });
        }
        if let Some(copy) = self.copy {
            copy.write_all_at(bytes, offset).map_err(HashError::Write)?;
        }
        self.digests.lock().unwrap_or_else(std::sync::PoisonError::into_inner)[chunk] = digest;
        self.meter.done.fetch_add(length as u64, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn file(content: &[u8]) -> File {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(content).expect("written");
        file
    }

    #[test]
    fn the_root_is_what_is_documented() {
        let content: Vec<u8> = (0..200_000u32).map(|n| n.to_le_bytes()[1]).collect();
        let chunks = hash(&file(&content), None, 200_000, 65_536, None, &Meter::default()).expect("hashed");
        let mut expected = Sha256::new();
        expected.update(b"muster chunk tree v1\n");
        for chunk in content.chunks(65_536) {
            expected.update(Sha256::digest(chunk));
        }
        assert_eq!(chunks.root().as_bytes().as_slice(), expected.finalize().as_slice());
        let empty = hash(&file(b""), None, 0, 65_536, None, &Meter::default()).expect("hashed");
        assert_eq!(empty.root(), Sha256Digest::of(b"muster chunk tree v1\n"));
    }

    #[test]
    fn the_copy_is_what_was_hashed_and_a_difference_is_located() {
        let mut content = vec![7; 300_000];
        let meter = Meter::default();
        let copy = file(b"");
        let chunks = hash(&file(&content), Some(&copy), 300_000, 65_536, None, &meter).expect("hashed");
        let mut copied = vec![0; 300_000];
        copy.read_exact_at(&mut copied, 0).expect("copied");
        assert_eq!(copied, content);
        assert_eq!(meter.done.load(Ordering::Relaxed), 300_000);

        let tree = ChunkTree { chunk_size: 65_536, root: chunks.root() };
        let side = Chunks::from_side_file(&chunks.to_bytes(), &tree).expect("its own side file");
        assert_eq!(Chunks::from_side_file(&chunks.to_bytes()[1..], &tree), None);
        content[150_000] ^= 1;
        let error = hash(&file(&content), None, 300_000, 65_536, Some(&side), &meter).expect_err("it differs");
        assert!(matches!(error, HashError::Differs { chunk: 2 }), "{error:?}");
    }

    #[test]
    fn a_file_that_ends_early_and_a_stop_are_errors() {
        let meter = Meter::default();
        assert!(matches!(hash(&file(b"abc"), None, 4, 65_536, None, &meter), Err(HashError::Read(_))));
        meter.stop.store(true, Ordering::Relaxed);
        assert!(matches!(hash(&file(b"abc"), None, 3, 65_536, None, &meter), Err(HashError::Stopped)));
    }
}
