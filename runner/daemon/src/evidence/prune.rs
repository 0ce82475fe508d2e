//! Forgets old runs and deletes their evidence. A signed tombstone, with the digests at the ends of what is gone, takes its
//! place in the chain, and is there before the first file goes.
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use drill::evidence::{Envelope, FILE_SUFFIX, MAX_SIZE, Tombstone, block, merge, tombstone};
use drill::port::{Chained, Store};
use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;
use drivers::key::EvidenceKey;
use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};

use super::files;
use super::key::self_made;
use super::write::blocking;

/// Within the state directory; held while something is forgotten.
const LOCK: &str = "prune.lock";

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forgotten {
    pub runs: u64,
    /// Files that were deleted.
    pub evidence: u64,
    /// Files that are not what muster wrote there: they stay.
    pub strange: Vec<PathBuf>,
    /// Whether there is more to forget.
    pub more: bool,
}

/// Forgets one portion: see [`Store::prune`]. What an earlier call did not finish, it finishes first.
pub async fn prune(
    store: &dyn Store,
    state_directory: &Path,
    key: Option<&EvidenceKey>,
    before: Option<Timestamp>,
    keep: Option<u32>,
) -> Result<Forgotten, Stop> {
    let lock = state_directory.join(LOCK);
    let _lock = blocking(move || take(&lock)).await?;
    let mut forgotten = Forgotten::default();
    bury(store, state_directory, key, &mut forgotten).await?;
    let pruned = store.prune(before, keep).await?;
    forgotten.runs = pruned.runs;
    forgotten.more = pruned.more;
    bury(store, state_directory, key, &mut forgotten).await?;
    Ok(forgotten)
}

/// Two that write one tombstone would each know half of it.
fn take(path: &Path) -> Result<File, Stop> {
    let tried = format!("locking {}", path.display());
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path).or_stop(Reason::Internal, &tried)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err(Stop::new(Reason::AlreadyRunning, "another muster is forgetting old runs").advise("wait for it to end"))
        }
        Err(error) => Err(Stop::internal(format!("{tried}: {error}"))),
    }
}

/// Tombstones first, then the files, newest first, then the links. After a crash at any point the next call begins with the
/// same links.
async fn bury(
    store: &dyn Store,
    state_directory: &Path,
    key: Option<&EvidenceKey>,
    forgotten: &mut Forgotten,
) -> Result<(), Stop> {
    loop {
        let links = store.pruned_links().await?;
        if links.is_empty() {
            return Ok(());
        }
        let mut blocks: BTreeMap<u64, Vec<Chained>> = BTreeMap::new();
        for link in links {
            blocks.entry(*block(link.link.sequence).start()).or_default().push(link);
        }
        for links in blocks.into_values() {
            let (store_id, part) = (store.id().await?, block(links[0].link.sequence));
            let name = format!("tombstone-{store_id}-{}{FILE_SUFFIX}", part.start());
            let mut deleted = store.deleted_evidence(part).await?;
            deleted.extend(links.iter().map(Chained::stretch));
            let tombstone = Tombstone {
                store_id,
                deleted: merge(deleted),
                made: Timestamp::now(),
                muster_version: env!("CARGO_PKG_VERSION").to_owned(),
            };
            let bytes = match key {
                Some(key) => seal(tombstone, key)?,
                None => seal(tombstone, &self_made(state_directory).await?.0)?,
            };
            let gone = links.clone();
            let (deleted, strange) = blocking(move || delete(&gone, &name, &bytes)).await?;
            forgotten.evidence += deleted;
            forgotten.strange.extend(strange);
            store.evidence_deleted(&links).await?;
        }
    }
}

fn seal(said: Tombstone, key: &EvidenceKey) -> Result<Vec<u8>, Stop> {
    let payload = serde_json::to_vec(&tombstone(said))
        .map_err(|error| Stop::internal(format!("a tombstone cannot be written: {error}")))?;
    let bytes = Envelope::seal(&payload, &key.key_id(), |message| key.sign_raw(message)).to_bytes();
    if bytes.len() as u64 > MAX_SIZE {
        return Err(Stop::internal(format!("a tombstone has {} bytes, and {MAX_SIZE} are allowed", bytes.len())));
    }
    Ok(bytes)
}

/// How many files it deleted, and which it left alone because they are not what the chain says.
fn delete(links: &[Chained], name: &str, tombstone: &[u8]) -> Result<(u64, Vec<PathBuf>), Stop> {
    let paths: Vec<_> = links.iter().map(|link| (PathBuf::from(&link.link.path), link.link.digest)).collect();
    let directories: BTreeSet<_> = paths.iter().filter_map(|(path, _)| path.parent().map(Path::to_owned)).collect();
    for directory in &directories {
        // Where a whole directory is gone there is nothing beside which a tombstone could lie.
        if directory.is_dir() {
            files::replace(&directory.join(name), tombstone)?;
        }
    }
    let (mut deleted, mut strange) = (0, Vec::new());
    for (path, digest) in paths.into_iter().rev() {
        match files::digest_of(&path)? {
            None => {}
            Some(found) if found == digest => {
                files::delete(&path)?;
                deleted += 1;
            }
            Some(_) => strange.push(path),
        }
    }
    for directory in directories.iter().filter(|directory| directory.is_dir()) {
        files::sync(directory)?;
    }
    Ok((deleted, strange))
}
