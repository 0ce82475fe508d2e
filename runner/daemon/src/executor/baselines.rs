//! What a backup says that its databases held, kept by the runner from the moment it was verified: it is taken out of the
//! staging directory, because nothing in the sandbox needs it.
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use drill::agent::BaselinePart;
use drill::id::Sha256Digest;
use drill::manifest::{FileEntry, Manifest};
use drill::stop::{OrStop, Stop};
use drill::unit;
use drill::verdict::Reason;

use crate::agent::BaselinePieces;

/// Bytes of one file that is read and sent whole.
const MAX_WHOLE: u64 = 256 << 20;

/// Each database's baseline, as it was staged and verified.
#[derive(Default)]
pub(super) struct Baselines(BTreeMap<String, Baseline>);

pub(super) struct Baseline {
    pub(super) tables: Option<Vec<u8>>,
    pub(super) schema: Option<Vec<u8>>,
    blocks: Option<Arc<File>>,
    row_digests: Option<Arc<File>>,
}

impl Baselines {
    /// Reads, or holds open, what was staged, and removes its names before the directory is handed to the sandbox.
    pub(super) fn take(manifest: &Manifest, staging: &Path) -> Result<Self, Stop> {
        let mut all = BTreeMap::new();
        for part in &manifest.parts {
            let baseline = Baseline {
                tables: part.baseline.as_ref().map(|entry| whole(staging, entry)).transpose()?,
                schema: part.schema.as_ref().map(|entry| whole(staging, entry)).transpose()?,
                blocks: part.blocks.as_ref().map(|entry| open(staging, entry)).transpose()?,
                row_digests: part.row_digests.as_ref().map(|entry| open(staging, entry)).transpose()?,
            };
            all.insert(part.database.clone(), baseline);
            let files = [&part.baseline, &part.schema, &part.blocks, &part.row_digests];
            for entry in files.into_iter().flatten() {
                let path = staging.join(&entry.path);
                std::fs::remove_file(&path).or_stop(Reason::Internal, "taking the baseline out of what is restored")?;
            }
        }
        Ok(Self(all))
    }

    pub(super) fn has_tables(&self, database: &str) -> bool {
        self.get(database).is_some_and(|baseline| baseline.tables.is_some())
    }

    pub(super) fn get(&self, database: &str) -> Option<&Baseline> {
        self.0.get(database)
    }
}

#[async_trait]
impl BaselinePieces for Baselines {
    async fn piece(&self, database: &str, part: BaselinePart, at: u64, length: u64) -> Result<Vec<u8>, Stop> {
        let baseline = self.get(database);
        let file = baseline.and_then(|baseline| match part {
            BaselinePart::Blocks => baseline.blocks.clone(),
            BaselinePart::RowDigests => baseline.row_digests.clone(),
        });
        let Some(file) = file else {
            let message = "the agent asked for a part of the baseline that the backup does not have";
            return Err(Stop::new(Reason::CheckInconclusive, message));
        };
        let read = tokio::task::spawn_blocking(move || read_at(&file, at, length));
        read.await.or_stop(Reason::Internal, "reading the baseline")?.or_stop(Reason::Internal, "reading the baseline")
    }
}

fn read_at(file: &File, mut at: u64, length: u64) -> std::io::Result<Vec<u8>> {
    let end = file.metadata()?.len().min(at.saturating_add(length));
    let size = usize::try_from(end.saturating_sub(at)).map_err(std::io::Error::other)?;
    let mut bytes = vec![0; size];
    let mut filled = 0;
    while filled < size {
        match file.read_at(&mut bytes[filled..], at)? {
            0 => break,
            read => {
                filled += read;
                at += read as u64;
            }
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

fn open(staging: &Path, entry: &FileEntry) -> Result<Arc<File>, Stop> {
    File::open(staging.join(&entry.path)).map(Arc::new).or_stop(Reason::Internal, "opening the staged baseline")
}

fn whole(staging: &Path, entry: &FileEntry) -> Result<Vec<u8>, Stop> {
    if entry.size > MAX_WHOLE {
        let (size, most) = (unit::size(entry.size), unit::size(MAX_WHOLE));
        let message = format!("`{}` has {size}, and this version of muster reads {most}", entry.path);
        return Err(Stop::new(Reason::SandboxUnfit, message));
    }
    let mut bytes = Vec::new();
    let file = File::open(staging.join(&entry.path)).or_stop(Reason::Internal, "opening the staged baseline")?;
    file.take(MAX_WHOLE).read_to_end(&mut bytes).or_stop(Reason::Internal, "reading the staged baseline")?;
    if Sha256Digest::of(&bytes) != entry.sha256 {
        // Its chunk tree agreed, so whoever signed the manifest wrote another digest beside it.
        let message = format!("`{}` is not what the manifest's sha256 says", entry.path);
        return Err(Stop::new(Reason::ArtifactRefused, message));
    }
    Ok(bytes)
}
