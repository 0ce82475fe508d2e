//! The daemon's tasks, each with a name and one owner.
use std::collections::HashMap;
use std::time::Duration;

use drill::stop::Stop;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// How long tasks may take to end after they were told to.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long runs that are cancelled may take for their teardown.
const WIND_DOWN: Duration = Duration::from_mins(6);

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

    /// Waits until `main` ends, then ends the others. Any other that ends first ends the daemon, as its fault: `wind_down` tells
    /// `main` to come to an end, which it gets time for.
    pub(super) async fn end(mut self, main: &str, wind_down: impl Future<Output = ()>) -> Result<(), Stop> {
        let Some(first) = self.next().await else { return Ok(()) };
        let result = match first {
            (name, Ok(())) if name == main => Ok(()),
            (name, Ok(())) => Err(Stop::internal(format!("muster's task `{name}` ended by itself"))),
            (name, Err(stop)) => Err(Stop { message: format!("{name}: {}", stop.message), ..stop }),
        };
        if self.names.values().any(|name| *name == main) {
            tracing::error!("muster ends because one of its tasks did; runs are cancelled and torn down");
            wind_down.await;
            let ended = tokio::time::timeout(WIND_DOWN, async {
                while let Some((name, _)) = self.next().await {
                    if name == main {
                        break;
                    }
                }
            });
            if ended.await.is_err() {
                tracing::error!("runs did not end in time; the next start recovers them");
            }
        }
        self.stop.cancel();
        let rest = async {
            while let Some((name, result)) = self.next().await {
                if let Err(stop) = result {
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

    async fn next(&mut self) -> Option<(&'static str, Result<(), Stop>)> {
        let joined = self.set.join_next_with_id().await?;
        Some(self.outcome(joined))
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
        assert_eq!(tasks.end("main", async {}).await, Ok(()));
        assert!(stop.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ends_by_itself_is_named() {
        let mut tasks = Tasks::new(CancellationToken::new());
        let (told, telling) = (CancellationToken::new(), CancellationToken::new());
        let (heard, ended) = (told.clone(), telling.clone());
        tasks.spawn("main", async move {
            heard.cancelled().await;
            ended.cancel();
            Ok(())
        });
        tasks.spawn("other", async { Ok(()) });
        assert!(
            tasks
                .end("main", async move { told.cancel() })
                .await
                .expect_err("it ends badly")
                .message
                .contains("`other`")
        );
        assert!(telling.is_cancelled(), "the main one was told, and had its time");
        let mut tasks = Tasks::new(CancellationToken::new());
        tasks.spawn_until_stop("main", std::future::pending());
        tasks.spawn("other", async { panic!("on purpose") });
        assert!(
            tasks
                .end("main", async {})
                .await
                .expect_err("it ends badly")
                .message
                .starts_with("other: it ended in a panic")
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_straggler_is_not_waited_for_for_ever() {
        let mut tasks = Tasks::new(CancellationToken::new());
        tasks.spawn("main", async { Ok(()) });
        tasks.spawn("deaf", std::future::pending());
        assert_eq!(tasks.end("main", async {}).await, Ok(()));
    }
}
