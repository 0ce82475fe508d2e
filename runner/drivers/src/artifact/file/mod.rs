//! A backup directory on a file system. Start at [`FileArtifacts`]; [`FileBackup::verify`] is the gate without a copy.
mod adopt;
mod compare;
mod damage;
mod dump;
mod elsewhere;
mod newest;
mod read;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use drill::id::Sha256Digest;
use drill::ledger::{Damage, Vouched};
use drill::manifest::{MAX_SIZE, Manifest, SIGNATURE_FILE_NAME};
use drill::port::{Artifact, Artifacts, DamagedCopy, LookedAt, Opened, Progress};
use drill::spec::Source;
use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;

pub use adopt::{AdoptRequest, Adopted, adopt};
pub use compare::{CLOCK_TOLERANCE, dump_agrees};
pub(crate) use elsewhere::verify as verify_elsewhere;

use self::read::Which;
use super::beneath::Directory;
use super::tree::Meter;
use super::{check, fault};
use crate::engine::postgresql::dump::Description;
use crate::key::{Signer, Trust};

/// Bytes a signature file may have; real ones have about 300.
const MAX_SIGNATURE: u64 = 4096;

/// Backups on a file system that is mounted here.
#[derive(Debug, Default, Clone, Copy)]
pub struct FileArtifacts;

/// One backup whose manifest is believed; nothing else has been read yet.
#[derive(Debug)]
pub struct FileBackup {
    inner: Arc<Inner>,
    pub manifest: Manifest,
    /// SHA-256 of the manifest's bytes.
    pub digest: Sha256Digest,
    pub location: PathBuf,
    pub vouched: Vouched,
    /// Of the manifest, or of a dump without one.
    pub signer: Option<Signer>,
}

#[derive(Debug)]
struct Inner {
    directory: Directory,
    manifest: Manifest,
    location: PathBuf,
    /// What a dump without a manifest said of itself when it was opened.
    described: Option<Description>,
    /// None of a dump without a manifest.
    signed: Option<Signed>,
}

/// The manifest's bytes and its signature file, as they were believed.
#[derive(Debug)]
struct Signed {
    raw: Vec<u8>,
    signature: Vec<u8>,
}

impl FileBackup {
    /// `manifest` is the path of `manifest.json`. Blocks on the file system.
    pub fn open(manifest: &Path, trust: &Trust) -> Result<Self, Stop> {
        let name = manifest
            .file_name()
            .and_then(|name| name.to_str())
            .ok_or_else(|| Stop::new(Reason::ArtifactRefused, format!("`{}` names no manifest", manifest.display())))?;
        let parent = match manifest.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let (directory, location) = newest::resolve(parent)?;
        let raw = read_bounded(&directory, name, MAX_SIZE, &location)?;
        let signature_name = format!("{name}.minisig");
        let signature = read_bounded(&directory, &signature_name, MAX_SIGNATURE, &location)
            .map_err(|stop| Stop { message: format!("{}, so nobody vouches for it", stop.message), ..stop })?;
        let shown = location.join(name);
        let shown = format!("`{}`", shown.display());
        // The signature comes first: what is not signed is not even parsed.
        let signer = trust.verify(&raw, &String::from_utf8_lossy(&signature), &shown)?;
        let manifest = check(&raw).or_stop(Reason::ArtifactRefused, format!("believing {shown}"))?;
        let digest = Sha256Digest::of(&raw);
        let believed = Some(Signed { raw, signature });
        let inner = Inner {
            directory,
            manifest: manifest.clone(),
            location: location.clone(),
            described: None,
            signed: believed,
        };
        let vouched = Vouched::Signature { key: signer.name.clone() };
        Ok(Self { inner: Arc::new(inner), manifest, digest, location, vouched, signer: Some(signer) })
    }

    /// Hashes every file and compares the dumps' headers with the manifest, without a copy.
    pub async fn verify(&self, progress: &dyn Progress) -> Result<(), Stop> {
        self.inner.clone().read_all(Which::All, None, progress).await
    }
}

#[async_trait]
impl Artifacts for FileArtifacts {
    async fn open(&self, source: &Source, base: &Path) -> Result<Opened, Stop> {
        let (source, base) = (source.clone(), base.to_owned());
        let meter = Arc::new(Meter::default());
        // Whoever stops waiting stops the reading of a dump, too.
        let _guard = StopWhenDropped(meter.clone());
        let opened = tokio::task::spawn_blocking(move || match source {
            Source::Manifest { path, trusted_keys, .. } => {
                FileBackup::open(&base.join(path), &Trust::load(&trusted_keys, &base)?)
            }
            Source::Dump(dump) => FileBackup::open_dump(&dump, &base, &meter),
        });
        let backup = opened.await.or_stop(Reason::Internal, "opening a backup")??;
        Ok(Opened {
            manifest: backup.manifest.clone(),
            digest: backup.digest,
            location: backup.location.display().to_string(),
            vouched: backup.vouched.clone(),
            artifact: Box::new(backup),
        })
    }

    async fn is_there(&self, source: &Source, base: &Path) -> bool {
        let path = match source {
            Source::Manifest { path, .. } => base.join(path),
            Source::Dump(dump) => base.join(&dump.path),
        };
        let is_manifest = matches!(source, Source::Manifest { .. });
        let looking = tokio::task::spawn_blocking(move || {
            let signature = path.with_file_name(SIGNATURE_FILE_NAME);
            can_be_read(&path) || (is_manifest && can_be_read(&signature))
        });
        looking.await.unwrap_or(false)
    }
}

fn can_be_read(path: &Path) -> bool {
    use std::os::unix::fs::OpenOptionsExt as _;
    // A pipe would wait for whoever writes to it.
    let open = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    open.is_ok_and(|mut file| match file.metadata() {
        Ok(metadata) if metadata.is_file() => file.read(&mut [0]).is_ok(),
        Ok(_) | Err(_) => false,
    })
}

#[async_trait]
impl Artifact for FileBackup {
    async fn stage(&self, staging: &Path, progress: &dyn Progress) -> Result<(), Stop> {
        self.inner.clone().read_all(Which::All, Some(staging.to_owned()), progress).await
    }

    async fn stage_baselines(&self, staging: &Path, progress: &dyn Progress) -> Result<(), Stop> {
        self.inner.clone().read_all(Which::Baselines, Some(staging.to_owned()), progress).await
    }

    async fn damaged_copy(&self, damage: Damage, copy: &Path, looked_at: &LookedAt) -> Result<DamagedCopy, Stop> {
        self.copy_with(damage, copy, looked_at).await
    }
}

impl Inner {
    async fn read_all(
        self: Arc<Self>,
        which: Which,
        staging: Option<PathBuf>,
        progress: &dyn Progress,
    ) -> Result<(), Stop> {
        use std::sync::atomic::Ordering::Relaxed;
        let total: u64 = which.of(&self.manifest).iter().map(|entry| entry.size).sum();
        let meter = Arc::new(Meter::default());
        // Whoever stops waiting stops the workers, too.
        let guard = StopWhenDropped(meter.clone());
        let mut work =
            tokio::task::spawn_blocking(move || self.read_files(which, staging.as_deref(), &guard.0.clone()));
        let stopper = StopWhenDropped(meter.clone());
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        let result = loop {
            tokio::select! {
                done = &mut work => break done,
                _ = tick.tick() => progress.set(meter.done.load(Relaxed), Some(total), "bytes"),
            }
        };
        progress.set(meter.done.load(Relaxed), Some(total), "bytes");
        drop(stopper);
        result.or_stop(Reason::Internal, "reading a backup")?
    }
}

struct StopWhenDropped(Arc<Meter>);

impl Drop for StopWhenDropped {
    fn drop(&mut self) {
        self.0.stop.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

fn read_bounded(directory: &Directory, name: &str, limit: u64, location: &Path) -> Result<Vec<u8>, Stop> {
    let shown = format!("`{}`", location.join(name).display());
    let file = directory.file(name).map_err(|error| fault::reading(&error, &shown))?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|error| fault::reading(&error, &shown))?;
    if bytes.len() as u64 > limit {
        return Err(Stop::new(Reason::ArtifactRefused, format!("{shown} has more than {limit} bytes")));
    }
    Ok(bytes)
}
