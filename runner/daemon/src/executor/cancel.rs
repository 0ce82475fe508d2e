use tokio_util::sync::CancellationToken;

/// How a person or the service manager ends a run early. It ends the work, never the teardown.
#[derive(Clone, Default)]
pub struct Cancel {
    asked: CancellationToken,
    insisted: CancellationToken,
}

impl Cancel {
    /// The first time: the phase stops and checks may still say what they saw. From the second time on nobody waits for them.
    pub fn signal(&self) {
        if self.asked.is_cancelled() {
            self.insisted.cancel();
        }
        self.asked.cancel();
    }

    pub fn is_asked(&self) -> bool {
        self.asked.is_cancelled()
    }

    pub async fn asked(&self) {
        self.asked.cancelled().await;
    }

    pub async fn insisted(&self) {
        self.insisted.cancelled().await;
    }
}
