//! Hands on what happens to whoever listens at the moment: the streams of the API. Nothing waits for a listener; one that is
//! too slow learns that it missed something.
use std::sync::Arc;

use tokio::sync::broadcast;

use crate::dispatcher::{Happening, Listener};

/// What a listener may be behind before it has missed something.
const KEPT: usize = 1_024;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Feed(broadcast::Sender<Arc<Happening>>);

impl Feed {
    pub fn new() -> Self {
        Self(broadcast::Sender::new(KEPT))
    }

    /// What happens from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Happening>> {
        self.0.subscribe()
    }
}

impl Default for Feed {
    fn default() -> Self {
        Self::new()
    }
}

impl Listener for Feed {
    fn heard(&self, happening: &Happening) {
        if self.0.receiver_count() > 0 {
            // Whoever listened may have gone meanwhile.
            let _ = self.0.send(Arc::new(happening.clone()));
        }
    }
}
