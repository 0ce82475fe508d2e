//! What a manifest says of one file.
use std::fs::File;
use std::io::{self, Read, Write};

use drill::id::Sha256Digest;
use drill::manifest::{ChunkTree, FileEntry};
use sha2::{Digest as _, Sha256};

use super::tree::{self, CHUNK_SIZE, HashError, Meter};

/// Reads the file twice at the same time: for its tree on all cores, and from its beginning to its end.
pub fn entry(file: &File, path: &str, meter: &Meter) -> Result<FileEntry, HashError> {
    let size = file.metadata().map_err(HashError::Read)?.len();
    let (chunks, whole) = std::thread::scope(|scope| {
        let whole = scope.spawn(|| whole(file, size, meter));
        let chunks = tree::hash(file, None, size, CHUNK_SIZE, None, meter);
        (chunks, whole.join().unwrap_or_else(|_| Err(io::Error::other("a worker panicked"))))
    });
    let tree = ChunkTree { chunk_size: CHUNK_SIZE, root: chunks?.root() };
    Ok(FileEntry { path: path.to_owned(), size, sha256: whole.map_err(HashError::Read)?, tree })
}

fn whole(file: &File, size: u64, meter: &Meter) -> io::Result<Sha256Digest> {
    let mut hasher = Hasher(Sha256::new());
    copy(file, size, meter, &mut hasher)?;
    Ok(Sha256Digest::from_bytes(hasher.0.finalize().into()))
}

/// Does not move the file's own position.
pub(super) fn copy(file: &File, size: u64, meter: &Meter, to: &mut dyn Write) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    use std::sync::atomic::Ordering::Relaxed;
    let mut buffer = vec![0; 256 << 10];
    let mut offset = 0;
    while offset < size {
        if meter.stop.load(Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let wanted = usize::try_from(size - offset).unwrap_or(usize::MAX).min(buffer.len());
        file.read_exact_at(&mut buffer[..wanted], offset)?;
        to.write_all(&buffer[..wanted])?;
        offset += wanted as u64;
    }
    Ok(())
}

struct Hasher(Sha256);

impl Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&vec![7; 5 << 20]).expect("written");
        let entry = entry(&file, "x/y", &Meter::default()).expect("read");
        assert_eq!(entry.sha256, Sha256Digest::of(&vec![7; 5 << 20]));
        let chunks = tree::hash(&file, None, 5 << 20, CHUNK_SIZE, None, &Meter::default()).expect("read");
        assert_eq!(entry.tree.root, chunks.root());
        assert_eq!(listing(std::slice::from_ref(&entry)), format!("{}  y\n", entry.sha256.hex()));
    }
}
