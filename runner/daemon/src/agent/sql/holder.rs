//! Who keeps the run's one snapshot alive, also when another login takes the place of the first.
use std::collections::VecDeque;

use plugin_host::backend::Error;
use tokio::sync::{oneshot, watch};
use tokio_util::task::AbortOnDropHandle;

use super::database::{Opening, in_time};
use super::session::{Session, Snapshot};

/// Holders that have a successor. One that read the old name a moment ago may still be joining the old snapshot.
const PREDECESSORS: usize = 1;

/// A task that owns the sessions; they end when it is closed, or with it.
pub(super) struct Holder {
    close: oneshot::Sender<()>,
    task: AbortOnDropHandle<()>,
}

impl Holder {
    /// `session` has exported the snapshot that `opening` names; `names` is what new connections read it from.
    pub(super) fn new(session: Session, opening: Opening, names: watch::Sender<String>) -> Self {
        let (close, closed) = oneshot::channel();
        let task = AbortOnDropHandle::new(tokio::spawn(hold(session, opening, names, closed)));
        Self { close, task }
    }

    pub(super) async fn close(self) {
        let _ = self.close.send(());
        // One that ended in a panic holds nothing any more.
        let _ = self.task.await;
    }
}

async fn hold(session: Session, mut opening: Opening, names: watch::Sender<String>, mut closed: oneshot::Receiver<()>) {
    let mut role = opening.role();
    let mut sessions = VecDeque::from([session]);
    loop {
        tokio::select! {
            _ = &mut closed => break,
            () = opening.other_login(&role) => {}
        }
        match succeed(&opening).await {
            Ok((session, heir, name)) => {
                sessions.push_back(session);
                role = heir;
                names.send_replace(name);
            }
            // The old login's holder serves until its lease ends; then whoever connects says why that cannot be.
            Err(error) => {
                eprintln!("muster agent: the snapshot was not handed on to a new login: {}", error.message);
                role = opening.role();
            }
        }
        while sessions.len() > 1 + PREDECESSORS {
            if let Some(oldest) = sessions.pop_front() {
                oldest.close().await;
            }
        }
    }
    for session in sessions {
        session.close().await;
    }
}

/// Joins the snapshot with the new login and exports it under a new name, which lives as long as the new session.
async fn succeed(opening: &Opening) -> Result<(Session, String, String), Error> {
    let (door, connection) = opening.connect().await?;
    let name = opening.snapshot();
    let (session, name) = in_time(Session::begin(connection, Snapshot::HandOn(&name))).await?;
    Ok((session, door.role().to_owned(), name))
}
