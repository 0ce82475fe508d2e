//! Logins over the sandbox's byte stream. The other side is hostile: every wait has a deadline and every answer a bound.
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use drill::agent::ClientIdentity;
use drill::port::{ByteStream, Rows, Sandbox, Session, SqlError};
use futures_util::StreamExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::config::{ChannelBinding, SslMode};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};
use tokio_util::task::AbortOnDropHandle;

use super::conf;
use super::text::plain;

const CONNECT_DEADLINE: Duration = Duration::from_secs(15);
/// The server's own deadline for a statement is a little shorter, so that it says so itself where it still can.
const STATEMENT_DEADLINE: Duration = Duration::from_secs(130);
const STATEMENT_TIMEOUT: &str = "120s";
/// Bytes that one answer may have on the wire.
const MAX_ANSWER: u64 = 32 << 20;
const MAX_ROWS: usize = 100_000;
const MAX_MESSAGE: usize = 500;

/// Pinned in the startup packet, where they beat `ALTER DATABASE … SET` and `ALTER ROLE … SET` of the backup.
const PINNED: [(&str, &str); 12] = [
    ("search_path", "pg_catalog,pg_temp"),
    ("role", "none"),
    ("default_transaction_read_only", "off"),
    ("default_transaction_isolation", "read\\ committed"),
    ("default_transaction_deferrable", "off"),
    ("statement_timeout", STATEMENT_TIMEOUT),
    ("lock_timeout", "60s"),
    ("idle_in_transaction_session_timeout", "0"),
    ("standard_conforming_strings", "on"),
    ("client_min_messages", "error"),
    ("row_security", "on"),
    ("DateStyle", "ISO"),
];

/// Pinned for the administrator only: a backup's library must not be loaded, nor its triggers fire, into muster's own sessions.
const PINNED_FOR_ADMIN: [(&str, &str); 4] = [
    ("session_preload_libraries", ""),
    ("local_preload_libraries", ""),
    ("session_replication_role", "replica"),
    ("lc_messages", "C"),
];

/// Whom a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// A superuser of a server of this major.
    Admin {
        major: u32,
    },
    Other,
}

pub(super) struct Connection {
    client: Client,
    budget: Arc<AtomicU64>,
    driver: AbortOnDropHandle<()>,
}

impl Connection {
    pub(super) async fn open(
        sandbox: &dyn Sandbox,
        identity: &ClientIdentity,
        database: &str,
        who: Who,
    ) -> Result<Self, SqlError> {
        let opening = Self::open_now(sandbox, identity, database, who);
        tokio::time::timeout(CONNECT_DEADLINE, opening)
            .await
            .unwrap_or_else(|_| Err(failed(&format!("no answer to a login in {} s", CONNECT_DEADLINE.as_secs()))))
    }

    async fn open_now(
        sandbox: &dyn Sandbox,
        identity: &ClientIdentity,
        database: &str,
        who: Who,
    ) -> Result<Self, SqlError> {
        let config = super::tls::client_config(identity).map_err(|why| failed(&format!("cannot use {why}")))?;
        let (stream, budget) = dial(sandbox).await?;
        let mut tls = MakeRustlsConnect::new(config);
        let tls = MakeTlsConnect::<Bounded>::make_tls_connect(&mut tls, &identity.server_name)
            .map_err(|error| failed(&error.to_string()))?;
        let (client, connection) =
            login(&identity.role, database, who).connect_raw(stream, tls).await.map_err(|error| sql_error(&error))?;
        let driver = AbortOnDropHandle::new(tokio::spawn(async move {
            // Its error comes to whoever waits for an answer.
            let _ = connection.await;
        }));
        Ok(Self { client, budget, driver })
    }

    pub(super) fn is_open(&self) -> bool {
        !self.client.is_closed() && !self.driver.is_finished()
    }

    /// Runs statements; a connection whose answer was cut off is closed.
    pub(super) async fn run(&self, statements: &str) -> Result<Rows, SqlError> {
        self.budget.store(MAX_ANSWER, Ordering::Relaxed);
        let answer = tokio::time::timeout(STATEMENT_DEADLINE, self.collect(statements)).await.unwrap_or_else(|_| {
            Err(failed(&format!("no answer to a statement in {} s", STATEMENT_DEADLINE.as_secs())))
        });
        if answer.as_ref().is_err_and(|error| error.sqlstate.is_none()) {
            self.driver.abort();
        }
        answer
    }

    async fn collect(&self, statements: &str) -> Result<Rows, SqlError> {
        let mut stream = pin!(self.client.simple_query_raw(statements).await.map_err(|error| sql_error(&error))?);
        let mut last = Rows::new();
        let mut fresh = true;
        while let Some(message) = stream.next().await {
            match message.map_err(|error| sql_error(&error))? {
                SimpleQueryMessage::Row(row) => {
                    if std::mem::take(&mut fresh) {
                        last.clear();
                    }
                    if last.len() == MAX_ROWS {
                        return Err(failed(&format!("an answer has more than {MAX_ROWS} rows")));
                    }
                    let cells = (0..row.len()).map(|index| row.try_get(index).map(|cell| cell.map(str::to_owned)));
                    last.push(cells.collect::<Result<_, _>>().map_err(|error| sql_error(&error))?);
                }
                _ => fresh = true,
            }
        }
        Ok(last)
    }
}

#[async_trait]
impl Session for Connection {
    async fn run(&self, statements: &str) -> Result<Rows, SqlError> {
        Connection::run(self, statements).await
    }
}

fn login(role: &str, database: &str, who: Who) -> Config {
    let mut config = Config::new();
    config
        .user(role)
        .dbname(database)
        .application_name("muster")
        .options(options(who))
        .ssl_mode(SslMode::Require)
        // The `cert` method has no SCRAM exchange to bind; see `tls`.
        .channel_binding(ChannelBinding::Prefer);
    config
}

/// Pinned for `psql` and `pg_restore` inside, as `PGOPTIONS`.
pub(super) fn tool_options(major: u32) -> String {
    const PINNED_FOR_TOOLS: [(&str, &str); 8] = [
        ("role", "none"),
        ("default_transaction_read_only", "off"),
        ("statement_timeout", "0"),
        ("lock_timeout", "0"),
        ("idle_in_transaction_session_timeout", "0"),
        ("session_preload_libraries", ""),
        ("client_min_messages", "warning"),
        // What they print is read.
        ("lc_messages", "C"),
    ];
    written(PINNED_FOR_TOOLS.iter().chain(without_event_triggers(major)))
}

fn options(who: Who) -> String {
    match who {
        Who::Admin { major } => written(PINNED.iter().chain(&PINNED_FOR_ADMIN).chain(without_event_triggers(major))),
        Who::Other => written(PINNED.iter()),
    }
}

fn written<'a>(pairs: impl Iterator<Item = &'a (&'a str, &'a str)>) -> String {
    pairs.map(|(name, value)| format!("-c {name}={value}")).collect::<Vec<_>>().join(" ")
}

/// The server has them off, and `ALTER DATABASE … SET` of a backup would turn them on: one at login would run as the superuser
/// who logs in, keep him out, or never end.
fn without_event_triggers(major: u32) -> Option<&'static (&'static str, &'static str)> {
    (major >= conf::FIRST_WITH_LOGIN_TRIGGERS).then_some(&("event_triggers", "off"))
}

/// Asks for a login without TLS: it must be refused.
pub(super) async fn open_in_plaintext(sandbox: &dyn Sandbox, role: &str) -> Result<(), SqlError> {
    let opening = async {
        let (stream, _) = dial(sandbox).await?;
        let mut config = login(role, super::MAINTENANCE_DATABASE, Who::Other);
        config.ssl_mode(SslMode::Disable);
        config.connect_raw(stream, tokio_postgres::NoTls).await.map(drop).map_err(|error| sql_error(&error))
    };
    tokio::time::timeout(CONNECT_DEADLINE, opening).await.unwrap_or_else(|_| Err(failed("no answer")))
}

async fn dial(sandbox: &dyn Sandbox) -> Result<(Bounded, Arc<AtomicU64>), SqlError> {
    let stream = sandbox.dial().await.map_err(|stop| failed(&stop.message))?;
    let budget = Arc::new(AtomicU64::new(MAX_ANSWER));
    Ok((Bounded { inner: stream.compat(), budget: Arc::clone(&budget) }, budget))
}

/// Reads no more than its budget: a hostile server may announce a message of two gigabytes, and the decoder would wait for it
/// in memory.
struct Bounded {
    inner: Compat<Box<dyn ByteStream>>,
    budget: Arc<AtomicU64>,
}

impl AsyncRead for Bounded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        std::task::ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        let read = u64::try_from(buf.filled().len() - before).unwrap_or(u64::MAX);
        let left = self.budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(read));
        Poll::Ready(left.map(drop).map_err(|_| io::Error::other("the server's answer is longer than 32 MiB")))
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

fn failed(message: &str) -> SqlError {
    SqlError { sqlstate: None, message: plain(message, MAX_MESSAGE) }
}

/// The server's own words are hostile; its details may hold rows and are left out.
fn sql_error(error: &tokio_postgres::Error) -> SqlError {
    match error.as_db_error() {
        Some(db) => SqlError { sqlstate: Some(plain(db.code().code(), 5)), message: plain(db.message(), MAX_MESSAGE) },
        None => failed(&drill::stop::chain(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the tools print is read by its English words, and `ALTER DATABASE … SET lc_messages` would change them.
    #[test]
    fn no_setting_of_the_backup_changes_the_language_of_errors() {
        assert!(tool_options(15).contains("-c lc_messages=C"));
        assert!(options(Who::Admin { major: 15 }).contains("-c lc_messages=C"));
        // Only a superuser may set it.
        assert!(!options(Who::Other).contains("lc_messages"));
    }

    /// 16 and older refuse a login that names the setting; from 17 on, only a superuser may name it.
    #[test]
    fn event_triggers_are_off_for_superusers_where_they_could_fire_at_login() {
        let says_so = |options: String| options.contains("-c event_triggers=off");
        assert!(says_so(tool_options(17)) && says_so(options(Who::Admin { major: 17 })));
        assert!(
            !says_so(tool_options(16)) && !says_so(options(Who::Admin { major: 16 })) && !says_so(options(Who::Other))
        );
    }
}
