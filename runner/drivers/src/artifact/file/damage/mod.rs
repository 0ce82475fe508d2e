//! A copy of a backup with one thing wrong with it, for a self-test. The original is read and never written.
//!
//! What touches the artifact leaves manifest and signature as they were: the drill's own keys must refuse it. A damaged
//! baseline ([`baseline`]) is described and signed anew with a key that nobody else knows, so that only a check can notice.
mod baseline;

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use drill::ledger::{Answer, Damage, Damaged};
use drill::manifest::{FILE_NAME, FileEntry, SIGNATURE_FILE_NAME};
use drill::port::{DamagedCopy, LookedAt};
use drill::spec::TrustedKey;
use drill::stop::{OrStop, Stop};
use drill::unit;
use drill::verdict::Reason;

use super::super::tree::{Meter, SIDE_FILE_SUFFIX};
use super::super::{digest, fault};
use super::Inner;
use super::read::create;
use crate::key::SigningKey;

/// Bytes that are copied at once.
const PORTION: usize = 1 << 20;
/// Bytes that are cut off, unless the dump has fewer.
const TAIL: u64 = 512;

impl Inner {
    pub(super) fn damaged_copy(
        &self,
        damage: Damage,
        copy: &Path,
        looked_at: &LookedAt,
        meter: &Meter,
    ) -> Result<DamagedCopy, Stop> {
        let Some(signed) = &self.signed else {
            let message = "a dump without a manifest has nothing that a self-test could damage";
            return Err(Stop::new(Reason::SelfTestInconclusive, message));
        };
        for entry in self.manifest.files() {
            self.copy_file(entry, copy, meter)?;
        }
        write(copy, FILE_NAME, &signed.raw)?;
        write(copy, SIGNATURE_FILE_NAME, &signed.signature)?;
        let (damaged, trusted_keys) = match damage {
            Damage::Byte => (flip_a_bit(copy, self.dump()?)?, None),
            Damage::Truncated => (cut_off(copy, self.dump()?)?, None),
            Damage::Signature => (other_signature(copy, &signed.signature)?, None),
            Damage::BaselineRows | Damage::BaselineDigest | Damage::BaselineColumn => {
                let mut manifest = self.manifest.clone();
                let damaged = baseline::damage(damage, &mut manifest, copy, looked_at, meter)?;
                let key = SigningKey::throwaway()?;
                let content = serde_json::to_vec_pretty(&manifest).or_stop(Reason::Internal, "writing a manifest")?;
                let signature = key.sign_detached(&content, "muster self-test")?;
                write(copy, FILE_NAME, &content)?;
                write(copy, SIGNATURE_FILE_NAME, signature.as_bytes())?;
                (damaged, Some(vec![TrustedKey::Inline(key.public().to_base64())]))
            }
        };
        Ok(DamagedCopy { damaged, manifest: copy.join(FILE_NAME), trusted_keys })
    }

    /// Byte by byte: a copy that shared blocks with the original would be a copy of nothing.
    fn copy_file(&self, entry: &FileEntry, copy: &Path, meter: &Meter) -> Result<(), Stop> {
        let (mut from, _) = self.open(entry)?;
        let mut to = create(copy, &entry.path)?;
        let mut portion = vec![0; PORTION];
        loop {
            if meter.stop.load(Ordering::Relaxed) {
                return Err(Stop::new(Reason::Interrupted, "copying the backup was interrupted"));
            }
            let read = from.read(&mut portion).map_err(|error| fault::reading(&error, format!("`{}`", entry.path)))?;
            if read == 0 {
                break;
            }
            to.write_all(&portion[..read]).map_err(|error| fault::staging(&error, format!("`{}`", entry.path)))?;
        }
        // It says where a file differs; a backup without it is whole.
        let side = format!("{}{SIDE_FILE_SUFFIX}", entry.path);
        if let Ok(mut from) = self.directory.file(&side) {
            let mut to = create(copy, &side)?;
            std::io::copy(&mut (&mut from).take(entry.size), &mut to)
                .map_err(|error| fault::staging(&error, format!("`{side}`")))?;
        }
        Ok(())
    }

    /// The largest file of the first database's dump.
    fn dump(&self) -> Result<&FileEntry, Stop> {
        let files = self.manifest.parts.iter().take(1).flat_map(|part| &part.files);
        files
            .max_by_key(|file| file.size)
            .filter(|file| file.size > 0)
            .ok_or_else(|| Stop::new(Reason::SelfTestInconclusive, "the backup has no dump with a byte to damage"))
    }
}

fn flip_a_bit(copy: &Path, entry: &FileEntry) -> Result<Damaged, Stop> {
    let tried = format!("damaging the copy of `{}`", entry.path);
    let file = open(copy, &entry.path).or_stop(Reason::Internal, &tried)?;
    let at = entry.size / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).or_stop(Reason::Internal, &tried)?;
    file.write_all_at(&[byte[0] ^ 1], at).or_stop(Reason::Internal, &tried)?;
    Ok(refused(format!("one changed bit in byte {} of {}", unit::count(at), entry.path), &entry.path))
}

fn cut_off(copy: &Path, entry: &FileEntry) -> Result<Damaged, Stop> {
    let tried = format!("cutting off the end of the copy of `{}`", entry.path);
    let cut = TAIL.min(entry.size.div_ceil(2));
    let file = open(copy, &entry.path).or_stop(Reason::Internal, &tried)?;
    file.set_len(entry.size - cut).or_stop(Reason::Internal, &tried)?;
    Ok(refused(format!("the missing last {} of {}", unit::plural(cut, "byte"), entry.path), &entry.path))
}

/// One bit of the signature itself: the rest of the file still reads as one.
fn other_signature(copy: &Path, signature: &[u8]) -> Result<Damaged, Stop> {
    let bad = || Stop::internal("the signature of the backup could be checked, and cannot be read");
    let text = String::from_utf8(signature.to_vec()).map_err(|_| bad())?;
    let line = text.lines().nth(1).ok_or_else(bad)?;
    let mut bytes = STANDARD.decode(line.trim()).map_err(|_| bad())?;
    *bytes.last_mut().ok_or_else(bad)? ^= 1;
    write(copy, SIGNATURE_FILE_NAME, text.replacen(line, &STANDARD.encode(bytes), 1).as_bytes())?;
    Ok(refused(format!("one changed bit in {SIGNATURE_FILE_NAME}"), FILE_NAME))
}

fn refused(what: String, file: &str) -> Damaged {
    Damaged { what, answer: Answer::Refused { file: file.to_owned() } }
}

fn open(copy: &Path, path: &str) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).open(copy.join(path))
}

fn write(copy: &Path, path: &str, content: &[u8]) -> Result<(), Stop> {
    std::fs::write(copy.join(path), content).map_err(|error| fault::staging(&error, format!("`{path}`")))
}

/// What the manifest says of a file of the copy that was changed. A side file would speak of the file as it was.
fn describe(copy: &Path, entry: &mut FileEntry, meter: &Meter) -> Result<(), Stop> {
    let tried = format!("describing the copy of `{}`", entry.path);
    let file = open(copy, &entry.path).or_stop(Reason::Internal, &tried)?;
    *entry = digest::entry(&file, &entry.path, meter, &mut std::io::sink())
        .map_err(|error| Stop::internal(format!("{tried}: {error:?}")))?;
    match std::fs::remove_file(copy.join(format!("{}{SIDE_FILE_SUFFIX}", entry.path))) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).or_stop(Reason::Internal, tried),
        Ok(()) | Err(_) => Ok(()),
    }
}

impl super::FileBackup {
    /// Whoever stops waiting stops the copying, too.
    pub(super) async fn copy_with(
        &self,
        damage: Damage,
        copy: &Path,
        looked_at: &LookedAt,
    ) -> Result<DamagedCopy, Stop> {
        let (inner, copy, looked_at) = (self.inner.clone(), copy.to_owned(), Arc::clone(looked_at));
        let meter = Arc::new(Meter::default());
        let guard = super::StopWhenDropped(Arc::clone(&meter));
        let work = tokio::task::spawn_blocking(move || inner.damaged_copy(damage, &copy, &looked_at, &meter));
        let done = work.await.or_stop(Reason::Internal, "copying a backup")?;
        drop(guard);
        done
    }
}
