//! Compiled code on disk. Compiled code is trusted blindly by whoever loads it, so a file counts only with a MAC under a key
//! that lies beside it, in a directory that nobody else may write to; any other file is compiled anew.
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use drill::id::Sha256Digest;
use sha2::{Digest, Sha256};
use wasmtime::Engine;

const MAC: usize = 32;
/// Compiled, 16 MiB of WebAssembly are about this at most.
const MAX_ENTRY: u64 = 256 << 20;
const MAX_ENTRIES: usize = 32;

pub(crate) struct Cache {
    directory: PathBuf,
    key: [u8; MAC],
    /// Stands for this wasmtime, its configuration and the processor.
    engine: [u8; 32],
}

impl Cache {
    /// Makes the directory and its key on first use. Fails where others could have read the key, or put another in its place.
    pub(crate) fn open(directory: &Path, engine: &Engine) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        is_ours(&fs::symlink_metadata(directory)?, directory)?;
        let mut hasher = EngineHasher(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Self { directory: directory.to_owned(), key: key(directory)?, engine: hasher.0.finalize().into() })
    }

    /// None where there is no entry, or none that [`Cache::store`] wrote for this component and this engine.
    pub(crate) fn load(&self, digest: &Sha256Digest) -> Option<Vec<u8>> {
        let name = self.name(digest);
        let mut bytes = Vec::new();
        File::open(self.directory.join(&name)).ok()?.take(MAX_ENTRY).read_to_end(&mut bytes).ok()?;
        let (mac, code) = bytes.split_at_checked(MAC)?;
        if !same(mac, &self.mac(&name, code)) {
            return None;
        }
        bytes.drain(..MAC);
        Some(bytes)
    }

    /// A cache that cannot be written costs time, nothing else: errors are dropped.
    pub(crate) fn store(&self, digest: &Sha256Digest, code: &[u8]) {
        let name = self.name(digest);
        let written = write_private(&self.directory.join(&name), &[&self.mac(&name, code), code]);
        if written.is_ok() {
            self.prune();
        }
    }

    fn name(&self, digest: &Sha256Digest) -> String {
        let mut hasher = Sha256::new();
        hasher.update(b"muster plugin 1\0");
        hasher.update(self.engine);
        hasher.update(digest.to_string());
        format!("{}.compiled", hex::encode(hasher.finalize()))
    }

    fn mac(&self, name: &str, code: &[u8]) -> [u8; MAC] {
        hmac_sha256(&self.key, &[name.as_bytes(), b"\0", code])
    }

    /// Keeps the entries written last.
    fn prune(&self) {
        let Ok(entries) = fs::read_dir(&self.directory) else { return };
        let mut compiled: Vec<(SystemTime, PathBuf)> = entries
            .filter_map(Result::ok)
            .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "compiled"))
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        compiled.sort();
        for (_, path) in compiled.iter().rev().skip(MAX_ENTRIES) {
            let _ = fs::remove_file(path);
        }
    }
}

/// Reads the key, or makes one. Two that start together agree on whichever was linked first.
fn key(directory: &Path) -> io::Result<[u8; MAC]> {
    let path = directory.join("key");
    if !path.try_exists()? {
        let mut fresh = [0; MAC];
        File::open("/dev/urandom")?.read_exact(&mut fresh)?;
        let candidate = directory.join(format!("key.{}", unique()));
        write_private(&candidate, &[&fresh])?;
        let linked = fs::hard_link(&candidate, &path);
        fs::remove_file(&candidate)?;
        linked.or_else(|error| if error.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(error) })?;
    }
    let mut file = File::open(&path)?;
    is_ours(&file.metadata()?, &path)?;
    let mut key = [0; MAC];
    file.read_exact(&mut key)?;
    Ok(key)
}

/// Whoever can write here decides what the agent executes; whoever can read the key can as well.
fn is_ours(found: &Metadata, path: &Path) -> io::Result<()> {
    let (user, me) = (found.uid(), rustix::process::geteuid().as_raw());
    let why = if found.is_symlink() {
        "is a symbolic link".to_owned()
    } else if user != me {
        format!("belongs to user {user}, and this is user {me}")
    } else if found.mode() & 0o077 != 0 {
        "can be read or written by others than its owner".to_owned()
    } else {
        return Ok(());
    };
    Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("{} {why}: delete the directory", path.display())))
}

/// A daemon has many runs in one process.
fn unique() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Whole or not at all.
fn write_private(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let partial = path.with_extension(format!("{}.partial", unique()));
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
        parts.iter().try_for_each(|part| file.write_all(part))?;
        fs::rename(&partial, path)
    };
    write().inspect_err(|_| drop(fs::remove_file(&partial)))
}

/// RFC 2104 for keys that are not longer than a block.
fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; MAC] {
    const BLOCK: usize = 64;
    let pad = |byte: u8| {
        let mut block = [byte; BLOCK];
        block.iter_mut().zip(key).for_each(|(pad, key)| *pad ^= key);
        block
    };
    let mut inner = Sha256::new();
    inner.update(pad(0x36));
    for part in parts {
        inner.update(part);
    }
    let mut outer = Sha256::new();
    outer.update(pad(0x5c));
    outer.update(inner.finalize());
    outer.finalize().into()
}

/// Takes the same time wherever they differ.
fn same(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.iter().zip(right).fold(0, |seen, (left, right)| seen | (left ^ right)) == 0
}

/// The engine gives its hash only as something to hash: 64 bits of it would be too few.
struct EngineHasher(Sha256);

impl Hasher for EngineHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hmac_agrees_with_rfc_4231() {
        let mac = hmac_sha256(b"Jefe", &[b"what do ya want ", b"for nothing?"]);
        assert_eq!(hex::encode(mac), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }
}
