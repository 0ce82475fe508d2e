//! Pieces of the baseline that the agent asks the runner for while checks run.
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use drill::agent::{BaselinePart, FromAgent, MAX_PIECE};
use tokio::sync::oneshot;

use super::report::Outbox;

/// Of one piece.
const PATIENCE: Duration = Duration::from_mins(2);

/// Who waits for which piece. Shared by whoever asks and by whoever reads the runner's frames.
#[derive(Clone, Default)]
pub(super) struct Waiting(Arc<Mutex<Asked>>);

#[derive(Default)]
struct Asked {
    last: u64,
    by: HashMap<u64, oneshot::Sender<Bytes>>,
}

impl Waiting {
    fn ask(&self) -> (u64, oneshot::Receiver<Bytes>) {
        let (sender, receiver) = oneshot::channel();
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        asked.last += 1;
        let id = asked.last;
        asked.by.insert(id, sender);
        (id, receiver)
    }

    /// False where nobody asked for it.
    pub(super) fn deliver(&self, id: u64, piece: Bytes) -> bool {
        let waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner).by.remove(&id);
        // Whoever asked may have been cancelled since.
        waiting.map(|sender| drop(sender.send(piece))).is_some()
    }
}

/// Asks for pieces of one database's baseline.
#[derive(Clone)]
pub(super) struct Pieces {
    database: String,
    waiting: Waiting,
    outbox: Outbox,
}

impl Pieces {
    pub(super) fn new(database: &str, waiting: Waiting, outbox: Outbox) -> Self {
        Self { database: database.to_owned(), waiting, outbox }
    }

    /// Exactly `length` bytes from `at`. Whoever asks knows what they must be, and checks it.
    pub(super) async fn fetch(&self, part: BaselinePart, at: u64, length: u64) -> Result<Bytes, String> {
        let mut whole = BytesMut::new();
        let mut left = length;
        while left > 0 {
            let piece = self.fetch_one(part, at + (length - left), left.min(MAX_PIECE)).await?;
            left = left
                .checked_sub(piece.len() as u64)
                .ok_or("the runner gave more of the baseline than was asked for")?;
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }

    async fn fetch_one(&self, part: BaselinePart, at: u64, length: u64) -> Result<Bytes, String> {
        let (id, given) = self.waiting.ask();
        let database = self.database.clone();
        self.outbox.send(FromAgent::Want { id, database, part, at, length }).await;
        match tokio::time::timeout(PATIENCE, given).await {
            Ok(Ok(piece)) if !piece.is_empty() => Ok(piece),
            Ok(Ok(_)) => Err("the baseline is shorter than it says".to_owned()),
            Ok(Err(_)) | Err(_) => Err("the runner did not give a piece of the baseline in time".to_owned()),
        }
    }
}
