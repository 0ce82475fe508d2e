use std::path::Path;

use async_trait::async_trait;

use crate::id::Sha256Digest;
use crate::ledger::Vouched;
use crate::manifest::Manifest;
use crate::port::Progress;
use crate::spec::Source;
use crate::stop::Stop;

/// Where backups are.
#[async_trait]
pub trait Artifacts: Send + Sync {
    /// Of a dump without a manifest one is made from what the dump says of itself. Resolves the location once, reads the manifest beneath it and checks its signature. Nothing else has been believed or
    /// read. `base` is the directory that relative paths of the source start from.
    async fn open(&self, source: &Source, base: &Path) -> Result<Opened, Stop>;
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
}
