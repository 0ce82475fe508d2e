use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;

use crate::id::Sha256Digest;
use crate::ledger::{Damage, Damaged, Vouched};
use crate::manifest::Manifest;
use crate::port::Progress;
use crate::spec::{Source, TrustedKey};
use crate::stop::Stop;

/// Where backups are.
#[async_trait]
pub trait Artifacts: Send + Sync {
    /// Of a dump without a manifest one is made from what the dump says of itself. Resolves the location once, reads the manifest beneath it and checks its signature. Nothing else has been believed or
    /// read. `base` is the directory that relative paths of the source start from.
    ///
    /// Fallbacks are other sources: see [`Source::places`].
    async fn open(&self, source: &Source, base: &Path) -> Result<Opened, Stop>;

    /// Whether a manifest and its signature, or a dump, can be read there, whatever they say: tells a source that is gone from
    /// one that is refused.
    async fn is_there(&self, source: &Source, base: &Path) -> bool;
}

pub struct Opened {
    pub artifact: Box<dyn Artifact>,
    pub manifest: Manifest,
    /// SHA-256 of the manifest's bytes; of a dump without a manifest, the dump's own.
    pub digest: Sha256Digest,
    /// The directory that `latest` led to.
    pub location: String,
    pub vouched: Vouched,
}

/// One backup, held open: what is hashed is what is staged.
#[async_trait]
pub trait Artifact: Send + Sync {
    /// Copies every file of the manifest into `staging` while hashing it, then compares the dump's own header with the
    /// manifest. On an error nothing in `staging` may be used. The staged names are the manifest's paths.
    async fn stage(&self, staging: &Path, progress: &dyn Progress) -> Result<(), Stop>;

    /// The same for the baselines alone, of a backup whose dumps lie elsewhere: see [`Isolation::verify`](super::Isolation::verify).
    async fn stage_baselines(&self, staging: &Path, progress: &dyn Progress) -> Result<(), Stop>;

    /// Copies every file into the empty directory `copy` and does `damage` to the copy. The original is not written, and the
    /// copy shares nothing with it. Damage to the baseline is done to something that `looked_at` says yes to.
    async fn damaged_copy(&self, damage: Damage, copy: &Path, looked_at: &LookedAt) -> Result<DamagedCopy, Stop>;
}

/// Whether the drill's checks look at a table (`schema.table`, None), or at a column (its identity, its table).
pub type LookedAt = Arc<dyn Fn(&str, Option<&str>) -> bool + Send + Sync>;

pub struct DamagedCopy {
    pub damaged: Damaged,
    /// Path of the copy's manifest.
    pub manifest: PathBuf,
    /// Who vouches for the copy and for nothing else; None: whoever vouched for the original.
    pub trusted_keys: Option<Vec<TrustedKey>>,
}
