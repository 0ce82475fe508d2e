//! The daemon's tasks, each with a name and one owner.
use std::collections::HashMap;
use std::time::Duration;

use drill::stop::Stop;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// How long tasks may take to end after they were told to.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) struct Tasks {
    set: JoinSet<Result<(), Stop>>,
    names: HashMap<Id, &'static str>,
    stop: CancellationToken,
}

impl Tasks {
    /// `stop` is cancelled when the daemon ends.
    pub(super) fn new(stop: CancellationToken) -> Self {
        Self { set: JoinSet::new(), names: HashMap::new(), stop }
    }

    /// One that ends by itself once it was told to.
    pub(super) fn spawn(&mut self, name: &'static str, task: impl Future<Output = Result<(), Stop>> + Send + 'static) {
        let task = self.set.spawn(task);
        self.names.insert(task.id(), name);
    }

    /// One that never ends and holds nothing that dropping it would spoil.
    pub(super) fn spawn_until_stop(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<(), Stop>> + Send + 'static,
    ) {
        let stop = self.stop.clone();
        self.spawn(name, async move { stop.run_until_cancelled(task).await.unwrap_or(Ok(())) });
    }

    /// Waits until `main` ends, then ends the others. Any other that ends first ends the daemon, as its fault.
    pub(super) async fn end(mut self, main: &str) -> Result<(), Stop> {
        let first = match self.set.join_next_with_id().await {
            Some(joined) => self.outcome(joined),
            None => return Ok(()),
        };
        let result = match first {
            (name, Ok(())) if name == main => Ok(()),
            (name, Ok(())) => Err(Stop::internal(format!("muster's task `{name}` ended by itself"))),
            (name, Err(stop)) => Err(Stop { message: format!("{name}: {}", stop.message), ..stop }),
        };
        self.stop.cancel();
        let rest = async {
            while let Some(joined) = self.set.join_next_with_id().await {
                if let (name, Err(stop)) = self.outcome(joined) {
                    tracing::error!(task = name, %stop, "a task ended badly");
                }
            }
        };
        if tokio::time::timeout(PATIENCE, rest).await.is_err() {
            let stragglers: Vec<_> = self.names.values().copied().collect();
            tracing::error!(?stragglers, "these tasks did not end in time");
            self.set.abort_all();
        }
        result
    }

    fn outcome(&mut self, joined: Result<(Id, Result<(), Stop>), JoinError>) -> (&'static str, Result<(), Stop>) {
        let (id, result) = match joined {
            Ok(joined) => joined,
            Err(error) => (error.id(), Err(Stop::internal(format!("it ended in a panic: {error}")))),
        };
        (self.names.remove(&id).unwrap_or("task"), result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_others_end_with_the_main_one() {
        let stop = CancellationToken::new();
        let mut tasks = Tasks::new(stop.clone());
        tasks.spawn("main", async { Ok(()) });
        tasks.spawn_until_stop("other", std::future::pending());
        assert_eq!(tasks.end("main").await, Ok(()));
        assert!(stop.is_cancelled());
    }

    #[tokio::test]
    async fn a_task_that_ends_by_itself_is_named() {
        let mut tasks = Tasks::new(CancellationToken::new());
        tasks.spawn_until_stop("main", std::future::pending());
        tasks.spawn("other", async { Ok(()) });
        assert!(tasks.end("main").await.expect_err("it ends badly").message.contains("`other`"));
        let mut tasks = Tasks::new(CancellationToken::new());
        tasks.spawn_until_stop("main", std::future::pending());
        tasks.spawn("other", async { panic!("on purpose") });
        assert!(tasks.end("main").await.expect_err("it ends badly").message.starts_with("other: it ended in a panic"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_straggler_is_not_waited_for_for_ever() {
        let mut tasks = Tasks::new(CancellationToken::new());
        tasks.spawn("main", async { Ok(()) });
        tasks.spawn("deaf", std::future::pending());
        assert_eq!(tasks.end("main").await, Ok(()));
    }
}
