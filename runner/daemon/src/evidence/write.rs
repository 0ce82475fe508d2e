//! Makes the evidence of a concluded run.
use std::path::{Path, PathBuf};

use drill::evidence::{Chain, Envelope, KeyOrigin, Making, evidence};
use drill::id::{RunId, Sha256Digest};
use drill::ledger::{Event, Stamped};
use drill::port::{ChainLink, Chained, Store};
use drill::stop::Stop;
use drivers::key::EvidenceKey;

use super::files;
use super::key::self_made;

/// How often another run may be faster.
const TRIES: u32 = 32;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    pub path: PathBuf,
    /// SHA-256 of the file.
    pub digest: Sha256Digest,
    pub sequence: u64,
    /// The signing key was made for it: whoever is told, should be told to keep `evidence.pub`.
    pub key_made: bool,
}

impl Written {
    /// For the ledger.
    pub fn event(&self) -> Event {
        Event::EvidenceWritten { path: self.path.display().to_string(), digest: self.digest, sequence: self.sequence }
    }
}

/// Writes `<evidence directory of the run>/<run>.dsse.json`, signed and chained, from the run's events up to its conclusion.
/// After a crash at any point, calling it again completes what was begun, and changes nothing where all was done.
///
/// Signs with `key`, or with the key of the state directory, which is made on first use.
pub async fn write(
    store: &dyn Store,
    run: &RunId,
    state_directory: &Path,
    key: Option<&EvidenceKey>,
) -> Result<Written, Stop> {
    if let Some(key) = key {
        return write_with(store, run, key, KeyOrigin::Configured).await;
    }
    let (key, key_made) = self_made(state_directory).await?;
    let written = write_with(store, run, &key, KeyOrigin::SelfMade).await?;
    Ok(Written { key_made, ..written })
}

pub(super) async fn write_with(
    store: &dyn Store,
    run: &RunId,
    key: &EvidenceKey,
    origin: KeyOrigin,
) -> Result<Written, Stop> {
    let events = store.events(run).await?;
    let Some(Event::Started(started)) = events.first().map(|first| &first.event) else {
        return Err(Stop::internal(format!("there is no run {run} to write evidence of")));
    };
    let path = files::path_of(Path::new(&started.evidence_directory), run);
    let work = Work { store, run, key, origin, store_id: store.id().await?, events };
    let mut tries = 0;
    loop {
        if let Some(written) = work.complete().await? {
            return Ok(written);
        }
        let head = store.chain_head().await?;
        let (sequence, previous) = head.as_ref().map_or((1, None), |head| (head.sequence + 1, Some(head.digest)));
        let bytes = work.seal(sequence, previous)?;
        let digest = Sha256Digest::of(&bytes);
        let pending = files::pending(&path, run, &digest);
        prepare(&path, &pending, bytes).await?;
        let link = ChainLink { sequence, run: run.clone(), digest, path: path.display().to_string() };
        let Err(stop) = store.extend_chain(&link).await else { continue };
        tries += 1;
        // Another run took this place in the chain, or this run's place is taken (then it is completed above). Where the
        // chain did not move, trying again helps nobody.
        if tries == TRIES || store.chain_head().await? == head {
            return Err(stop);
        }
    }
}

struct Work<'a> {
    store: &'a dyn Store,
    run: &'a RunId,
    key: &'a EvidenceKey,
    origin: KeyOrigin,
    store_id: String,
    events: Vec<Stamped>,
}

impl Work<'_> {
    fn seal(&self, sequence: u64, previous: Option<Sha256Digest>) -> Result<Vec<u8>, Stop> {
        let chain = Chain { store_id: self.store_id.clone(), sequence, previous };
        let statement = evidence(&self.events, Making { chain, key: self.origin })?;
        let payload = serde_json::to_vec(&statement)
            .map_err(|error| Stop::internal(format!("evidence of {} cannot be written: {error}", self.run)))?;
        Ok(Envelope::seal(&payload, &self.key.key_id(), |message| self.key.sign_raw(message)).to_bytes())
    }

    /// Sees to it that the file of this run's link exists; None where the run has no link.
    async fn complete(&self) -> Result<Option<Written>, Stop> {
        let Some(chained) = self.store.chained(self.run).await? else { return Ok(None) };
        let link = &chained.link;
        let path = PathBuf::from(&link.path);
        let pending = files::pending(&path, self.run, &link.digest);
        let found = digests(&path, &pending).await?;
        if found.0 != Some(link.digest) && found.1 != Some(link.digest) {
            self.again(&chained, &path, &pending).await?;
        }
        let (to, run) = (path.clone(), self.run.clone());
        blocking(move || files::publish(&to, &pending, &run)).await?;
        Ok(Some(Written { path, digest: link.digest, sequence: link.sequence, key_made: false }))
    }

    /// Its link is there and its file is lost: the same bytes are made again, or it is lost for good and that is said.
    async fn again(&self, Chained { link, previous }: &Chained, path: &Path, pending: &Path) -> Result<(), Stop> {
        let bytes = self.seal(link.sequence, *previous)?;
        if Sha256Digest::of(&bytes) != link.digest {
            return Err(Stop::internal(format!(
                "evidence {} of the chain, {}, is lost or was changed, and cannot be made again as it was",
                link.sequence,
                path.display()
            ))
            .advise(format!("put back a copy whose SHA-256 is {}", link.digest.hex())));
        }
        prepare(path, pending, bytes).await
    }
}

async fn prepare(path: &Path, pending: &Path, bytes: Vec<u8>) -> Result<(), Stop> {
    let (path, pending) = (path.to_owned(), pending.to_owned());
    blocking(move || files::prepare(&path, &pending, &bytes)).await
}

type Found = Option<Sha256Digest>;

async fn digests(path: &Path, pending: &Path) -> Result<(Found, Found), Stop> {
    let (path, pending) = (path.to_owned(), pending.to_owned());
    blocking(move || Ok((files::digest_of(&path)?, files::digest_of(&pending)?))).await
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Stop> + Send + 'static,
) -> Result<T, Stop> {
    let worked = tokio::task::spawn_blocking(work).await;
    worked.unwrap_or_else(|error| Err(Stop::internal(format!("writing evidence was cut off: {error}"))))
}
