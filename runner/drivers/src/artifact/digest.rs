//! What a manifest says of one file.
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{SyncSender, sync_channel};

use drill::id::Sha256Digest;
use drill::manifest::{ChunkTree, FileEntry};
use sha2::{Digest as _, Sha256};

use super::tree::{CHUNK_SIZE, Chunks, HashError, Meter};

/// Chunks read ahead of each thread that hashes.
const AHEAD: usize = 2;

/// Reads the file once: what vouches for the digest of the whole vouches for the tree, too, even where somebody changes the
/// file meanwhile. Each byte that is hashed is written to `also`, in order.
pub fn entry(file: &File, path: &str, meter: &Meter, also: &mut dyn Write) -> Result<FileEntry, HashError> {
    let size = file.metadata().map_err(HashError::Read)?.len();
    let (sha256, chunks) = read_once(|bytes, offset| file.read_exact_at(bytes, offset), size, meter, also)?;
    let tree = ChunkTree { chunk_size: CHUNK_SIZE, root: chunks.root() };
    Ok(FileEntry { path: path.to_owned(), size, sha256, tree })
}

/// `read` fills a buffer from an offset; it is asked for each byte once, in order.
fn read_once(
    mut read: impl FnMut(&mut [u8], u64) -> io::Result<()>,
    size: u64,
    meter: &Meter,
    also: &mut dyn Write,
) -> Result<(Sha256Digest, Chunks), HashError> {
    std::thread::scope(|scope| {
        let (to_whole, whole) = sync_channel::<Arc<[u8]>>(AHEAD);
        let (to_tree, tree) = sync_channel::<Arc<[u8]>>(AHEAD);
        let whole = scope.spawn(move || {
            let mut hasher = Sha256::new();
            for chunk in &whole {
                hasher.update(&chunk);
            }
            Sha256Digest::from_bytes(hasher.finalize().into())
        });
        let tree = scope.spawn(move || Chunks(tree.iter().map(|chunk| Sha256::digest(&chunk).into()).collect()));
        let mut offset = 0;
        while offset < size {
            if meter.stop.load(Relaxed) {
                return Err(HashError::Stopped);
            }
            let length = (size - offset).min(CHUNK_SIZE);
            let mut chunk = vec![0; usize::try_from(length).expect("a chunk fits in memory")];
            read(&mut chunk, offset).map_err(HashError::Read)?;
            also.write_all(&chunk).map_err(HashError::Write)?;
            let chunk: Arc<[u8]> = chunk.into();
            send(&to_whole, &chunk)?;
            send(&to_tree, &chunk)?;
            offset += length;
            meter.done.fetch_add(length, Relaxed);
        }
        drop((to_whole, to_tree));
        match (whole.join(), tree.join()) {
            (Ok(whole), Ok(tree)) => Ok((whole, tree)),
            _ => Err(panicked()),
        }
    })
}

fn send(to: &SyncSender<Arc<[u8]>>, chunk: &Arc<[u8]>) -> Result<(), HashError> {
    to.send(Arc::clone(chunk)).map_err(|_| panicked())
}

fn panicked() -> HashError {
    HashError::Read(io::Error::other("a worker panicked"))
}

/// What `LC_ALL=C sha256sum *` prints in a directory, which stands for all of it.
pub fn listing(files: &[FileEntry]) -> String {
    let mut lines: Vec<(String, String)> = files
        .iter()
        .map(|file| (file.path.rsplit('/').next().unwrap_or_default().to_owned(), file.sha256.hex()))
        .collect();
    lines.sort();
    lines.iter().flat_map(|(name, hex)| [hex.as_str(), "  ", name.as_str(), "\n"]).collect()
}

/// The digest in a file of `sha256sum`, or the digest itself. `name` chooses among several lines.
pub fn expected(text: &str, name: &str) -> Result<Sha256Digest, String> {
    let text = text.trim();
    if let Ok(digest) = text.parse() {
        return Ok(digest);
    }
    let lines: Vec<(&str, &str)> = text
        .lines()
        .filter_map(|line| {
            let (hex, file) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
            (hex.len() == 64).then(|| (hex, file.trim_start_matches([' ', '*'])))
        })
        .collect();
    let named = |file: &str| file.trim_end_matches('/').rsplit('/').next() == Some(name);
    let chosen = match lines.as_slice() {
        [(hex, _)] => Some(*hex),
        several => several.iter().find(|(_, file)| named(file)).map(|(hex, _)| *hex),
    };
    let hex = chosen.ok_or_else(|| format!("it holds no SHA-256 digest of `{name}`"))?;
    format!("sha256:{}", hex.to_ascii_lowercase()).parse().map_err(|error: drill::id::BadName| error.to_string())
}

/// Reads no more than a list of digests may have.
pub fn read_expected(path: &std::path::Path, name: &str) -> Result<Sha256Digest, String> {
    const MAX: u64 = 1 << 20;
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX).read_to_string(&mut text));
    read.map_err(|error| format!("reading `{}`: {error}", path.display()))?;
    expected(&text, name).map_err(|why| format!("`{}`: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::super::tree;
    use super::*;

    #[test]
    fn digests_are_read_as_people_have_them() {
        let hex = "0a".repeat(32);
        let digest: Sha256Digest = format!("sha256:{hex}").parse().expect("a digest");
        for text in [
            format!("sha256:{hex}\n"),
            hex.clone(),
            format!("{}  orders.dump\n", hex.to_uppercase()),
            format!("{hex} *backups/other.dump\n"),
            format!("{}  a\n{hex}  backups/orders.dump\n", "11".repeat(32)),
        ] {
            assert_eq!(expected(&text, "orders.dump"), Ok(digest), "{text}");
        }
        for text in ["", "hello", &format!("{hex}  a\n{hex}  b\n"), &"0a".repeat(31), &"zz".repeat(32)] {
            assert!(expected(text, "orders.dump").is_err(), "{text}");
        }
    }

    #[test]
    fn an_entry_is_what_sha256sum_and_the_tree_say() {
        for size in [0, 1, 5 << 20, 8 << 20] {
            let content = vec![7; size];
            let mut file = tempfile::tempfile().expect("a file");
            file.write_all(&content).expect("written");
            let mut also = Vec::new();
            let entry = entry(&file, "x/y", &Meter::default(), &mut also).expect("read");
            assert_eq!(entry.sha256, Sha256Digest::of(&content));
            let chunks = tree::hash(&file, None, size as u64, CHUNK_SIZE, None, &Meter::default()).expect("read");
            assert_eq!(entry.tree.root, chunks.root());
            assert_eq!(also, content);
            assert_eq!(listing(std::slice::from_ref(&entry)), format!("{}  y\n", entry.sha256.hex()));
        }
    }

    /// Whoever may write the file could show one content to the digest that is pinned and another to the tree that is restored.
    #[test]
    fn a_file_that_changes_between_reads_has_one_content_here() {
        let size = CHUNK_SIZE * 2 + 1;
        let mut reads = std::collections::BTreeMap::new();
        let mut also = Vec::new();
        let good_then_evil = |bytes: &mut [u8], offset: u64| {
            let seen = reads.entry(offset).or_insert(0_u8);
            bytes.fill(*seen);
            *seen += 1;
            Ok(())
        };
        let (whole, chunks) = read_once(good_then_evil, size, &Meter::default(), &mut also).expect("read");
        let good = vec![0; usize::try_from(size).expect("it is small")];
        assert_eq!(whole, Sha256Digest::of(&good));
        assert_eq!(
            chunks.0,
            good.chunks(4 << 20).map(|chunk| <[u8; 32]>::from(Sha256::digest(chunk))).collect::<Vec<_>>()
        );
        assert_eq!(also, good);
        assert!(reads.values().all(|times| *times == 1), "{reads:?}");
    }

    #[test]
    fn a_file_that_ends_early_and_a_stop_are_errors() {
        let ends = |_: &mut [u8], _| Err(io::ErrorKind::UnexpectedEof.into());
        let meter = Meter::default();
        assert!(matches!(read_once(ends, 4, &meter, &mut io::sink()), Err(HashError::Read(_))));
        meter.stop.store(true, Relaxed);
        assert!(matches!(read_once(|_, _| Ok(()), 4, &meter, &mut io::sink()), Err(HashError::Stopped)));
    }
}
