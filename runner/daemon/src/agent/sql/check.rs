//! One check's connection, owned by a task of its own: a guest that is stopped in the middle of a statement drops a future, and
//! that must neither lose the place in the protocol nor leave the statement running.
use std::time::Duration;

use async_trait::async_trait;
use plugin_host::backend::{Batch, ColumnInfo, Error, Rows, Sql, Value};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::database::Opening;
use super::fault::host;
use super::session::Session;

/// How long a statement may take to end after it was cancelled.
const CANCEL_GRACE: Duration = Duration::from_secs(5);

type Reply<T> = oneshot::Sender<Result<T, Error>>;

enum Request {
    Query { statement: String, arguments: Vec<Value>, reply: Reply<(u64, Vec<ColumnInfo>)> },
    Next { portal: u64, max_rows: u32, reply: Reply<Option<Batch>> },
    Close { portal: u64 },
}

/// What a check is given as its `sql`. The connection is made by the first statement.
pub(in crate::agent) struct CheckSql {
    /// Unbounded, because dropping a result must not wait; the host bounds how many there are.
    requests: mpsc::UnboundedSender<Request>,
}

impl CheckSql {
    /// The future is the task that serves it; it ends soon after the last handle is dropped.
    pub(super) fn new(opening: Opening, deadline: Instant) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (requests, receiver) = mpsc::unbounded_channel();
        (Self { requests }, serve(opening, deadline, receiver))
    }
}

#[async_trait]
impl Sql for CheckSql {
    async fn query(&self, statement: &str, arguments: Vec<Value>) -> Result<Box<dyn Rows>, Error> {
        let statement = statement.to_owned();
        let (portal, columns) = ask(&self.requests, |reply| Request::Query { statement, arguments, reply }).await?;
        Ok(Box::new(CheckRows { requests: self.requests.clone(), portal, columns }))
    }
}

struct CheckRows {
    requests: mpsc::UnboundedSender<Request>,
    portal: u64,
    columns: Vec<ColumnInfo>,
}

#[async_trait]
impl Rows for CheckRows {
    fn columns(&self) -> &[ColumnInfo] {
        &self.columns
    }

    async fn next(&mut self, max_rows: u32) -> Result<Option<Batch>, Error> {
        let portal = self.portal;
        ask(&self.requests, |reply| Request::Next { portal, max_rows, reply }).await
    }
}

impl Drop for CheckRows {
    fn drop(&mut self) {
        let _ = self.requests.send(Request::Close { portal: self.portal });
    }
}

async fn ask<T>(requests: &mpsc::UnboundedSender<Request>, make: impl FnOnce(Reply<T>) -> Request) -> Result<T, Error> {
    let gone = || host("the connection to the database cannot be used any more: a statement was cancelled");
    let (reply, answer) = oneshot::channel();
    requests.send(make(reply)).map_err(|_| gone())?;
    answer.await.map_err(|_| gone())?
}

async fn serve(opening: Opening, deadline: Instant, mut requests: mpsc::UnboundedReceiver<Request>) {
    let Some(mut first) = requests.recv().await else { return };
    let (mut door, mut session) = match opening.open().await {
        Ok(opened) => opened,
        Err(error) => {
            refuse_all(&error, first, requests).await;
            return;
        }
    };
    loop {
        if matches!(first, Request::Query { .. })
            && session.is_idle()
            && let Err(error) = opening.change_over(&mut door, &mut session).await
        {
            // The old one may serve a little longer, and the next statement tries again.
            eprintln!("muster agent: a check keeps its old login: {}", error.message);
        }
        let key = session.key();
        let guard = Guard { opening: &opening, key, deadline };
        let stopped = match first {
            Request::Query { statement, arguments, mut reply } => {
                let outcome = guard.watch(session.query(&statement, &arguments), reply.closed()).await;
                answer(&mut session, outcome, reply)
            }
            Request::Next { portal, max_rows, mut reply } => {
                let outcome = guard.watch(session.next(portal, max_rows), reply.closed()).await;
                answer(&mut session, outcome, reply)
            }
            Request::Close { portal } => {
                // An error is remembered by the session, and told with the next statement.
                let outcome = guard.watch(session.close_portal(portal), std::future::pending()).await;
                matches!(outcome, Outcome::Stopped(_))
            }
        };
        if stopped {
            // The place in the protocol is lost, or nobody listens.
            return;
        }
        match requests.recv().await {
            Some(next) => first = next,
            None => break,
        }
    }
    session.close().await;
}

async fn refuse_all(error: &Error, first: Request, mut requests: mpsc::UnboundedReceiver<Request>) {
    let mut next = Some(first);
    while let Some(request) = next {
        match request {
            Request::Query { reply, .. } => drop(reply.send(Err(error.clone()))),
            Request::Next { reply, .. } => drop(reply.send(Err(error.clone()))),
            Request::Close { .. } => {}
        }
        next = requests.recv().await;
    }
}

/// Hands the outcome to the guest. True where the session is over.
fn answer<T>(session: &mut Session, outcome: Outcome<T>, reply: Reply<T>) -> bool {
    match outcome {
        Outcome::Ended(result) => {
            let _ = reply.send(result);
            false
        }
        Outcome::Stopped(error) => {
            session.give_up(error.clone());
            let _ = reply.send(Err(error));
            true
        }
    }
}

enum Outcome<T> {
    Ended(Result<T, Error>),
    /// It was cancelled, and the session with it.
    Stopped(Error),
}

/// What stands beside a statement while it runs.
struct Guard<'a> {
    opening: &'a Opening,
    key: (i32, i32),
    deadline: Instant,
}

impl Guard<'_> {
    /// Runs `work` until its end, its deadline, or until nobody waits for it; then has the server cancel it.
    async fn watch<T>(
        &self,
        work: impl Future<Output = Result<T, Error>>,
        unwanted: impl Future<Output = ()>,
    ) -> Outcome<T> {
        tokio::pin!(work);
        let why = tokio::select! {
            outcome = &mut work => return Outcome::Ended(outcome),
            () = unwanted => host("the statement was cancelled"),
            () = tokio::time::sleep_until(self.deadline) => host("the statement ran past the time that the check has"),
        };
        // The server is asked while the answer is still being read: it may be stuck in sending. And by the login that is in force:
        // the certificate that the statement came with may have ended.
        let cancel = async { self.opening.door()?.cancel(self.key).await };
        let _ = tokio::time::timeout(CANCEL_GRACE, async { tokio::join!(cancel, work) }).await;
        Outcome::Stopped(why)
    }
}
