//! Connections of muster's own to the source.
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use drill::stop::{Stop, chain};
use drill::verdict::Reason;
use futures_util::TryStreamExt;
use tokio::task::JoinHandle;
use tokio_postgres::config::{ChannelBinding, TargetSessionAttrs};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, CopyOutStream, SimpleQueryMessage};

use super::super::content::PINNED;
use super::conninfo::ConnInfo;
use super::{role, tls};

/// Beside [`PINNED`].
const OWN: [(&str, &str); 3] =
    [("statement_timeout", "0"), ("client_min_messages", "error"), ("default_transaction_deferrable", "off")];
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) struct Session {
    client: Client,
    connection: JoinHandle<()>,
    pub(super) version_number: u32,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Session {
    pub(super) async fn connect(info: &ConnInfo) -> Result<Self, Stop> {
        let (config, connector) = (config(info)?, tls::of(info)?.1);
        let tried = || format!("connecting to {}", info.shown());
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, config.connect(connector));
        let (client, connection) = connecting
            .await
            .map_err(|_| Stop::new(Reason::SourceUnreachable, format!("{}: no answer in 30 s", tried())))?
            .map_err(|error| refused(&error, &tried()))?;
        let connection = tokio::spawn(async move {
            // Its error reaches whoever waits for an answer.
            let _ = connection.await;
        });
        let mut session = Self { client, connection, version_number: 0 };
        session.version_number = session.cell("SHOW server_version_num").await?.parse().unwrap_or(0);
        if session.version_number >= 140_000 {
            // A count that nobody waits for any more ends by itself.
            session.run("SET client_connection_check_interval = '1s'").await?;
        }
        if session.version_number >= 170_000 {
            session.run("SET transaction_timeout = 0").await?;
        }
        Ok(session)
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) async fn run(&self, statements: &str) -> Result<(), Stop> {
        self.client.batch_execute(statements).await.map_err(|error| failed(&error, statements))
    }

    /// Like [`Self::run`], for errors that mean "try again".
    pub(super) async fn attempt(&self, statements: &str) -> Result<Result<(), SqlState>, Stop> {
        match self.client.batch_execute(statements).await {
            Ok(()) => Ok(Ok(())),
            Err(error) => match error.code() {
                Some(state) if is_passing(state) => Ok(Err(state.clone())),
                _ => Err(failed(&error, statements)),
            },
        }
    }

    /// Text cells; `columns` of each row.
    pub(super) async fn rows<const COLUMNS: usize>(&self, query: &str) -> Result<Vec<[Option<String>; COLUMNS]>, Stop> {
        let messages = self.client.simple_query(query).await.map_err(|error| failed(&error, query))?;
        let row = |message| match message {
            SimpleQueryMessage::Row(row) => {
                Some(std::array::from_fn(|column| row.try_get(column).ok().flatten().map(str::to_owned)))
            }
            _ => None,
        };
        Ok(messages.into_iter().filter_map(row).collect())
    }

    /// None: somebody holds, or waits for, a lock in its way.
    pub(super) async fn cell_unless_locked(&self, query: &str) -> Result<Option<String>, Stop> {
        match self.client.simple_query(query).await {
            Ok(messages) => Ok(messages.iter().find_map(|message| match message {
                SimpleQueryMessage::Row(row) => row.try_get(0).ok().flatten().map(str::to_owned),
                _ => None,
            })),
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => Ok(None),
            Err(error) => Err(failed(&error, query)),
        }
    }

    /// The messages of a COPY. None: somebody holds, or waits for, a lock in its way.
    pub(super) async fn copy(&self, statement: &str) -> Result<Option<Copy>, Stop> {
        match self.client.copy_out(statement).await {
            Ok(stream) => Ok(Some(Copy { stream: Box::pin(stream), statement: statement.to_owned() })),
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => Ok(None),
            Err(error) => Err(failed(&error, statement)),
        }
    }

    pub(super) async fn cell(&self, query: &str) -> Result<String, Stop> {
        let rows = self.rows::<1>(query).await?;
        rows.into_iter()
            .next()
            .and_then(|[cell]| cell)
            .ok_or_else(|| Stop::internal(format!("the server gave no answer to `{query}`")))
    }
}

pub(super) struct Copy {
    stream: Pin<Box<CopyOutStream>>,
    statement: String,
}

impl Copy {
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Stop> {
        self.stream.try_next().await.map_err(|error| failed(&error, &self.statement))
    }
}

/// The object is gone or locked, or the lock table is full for the moment.
pub(super) fn is_passing(state: &SqlState) -> bool {
    [
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::UNDEFINED_TABLE,
        SqlState::INVALID_SCHEMA_NAME,
        SqlState::WRONG_OBJECT_TYPE,
        SqlState::T_R_DEADLOCK_DETECTED,
    ]
    .contains(state)
}

pub(super) fn failed(error: &tokio_postgres::Error, statement: &str) -> Stop {
    let statement: String = statement.chars().take(120).collect();
    let problem = format!("the server refused `{}`: {}", statement.trim(), shown(error));
    match error.code() {
        Some(state) if *state == SqlState::INSUFFICIENT_PRIVILEGE => {
            Stop::new(Reason::Credentials, problem).advise(role::advice())
        }
        Some(state) if *state == SqlState::OUT_OF_MEMORY => Stop::new(Reason::SandboxUnfit, problem)
            .advise("the server's lock table is too small for its tables: raise max_locks_per_transaction"),
        Some(_) => Stop::internal(problem),
        None => Stop::new(Reason::SourceUnreachable, problem),
    }
}

fn refused(error: &tokio_postgres::Error, tried: &str) -> Stop {
    let problem = format!("{tried}: {}", shown(error));
    let class = error.code().map_or("", |state| &state.code()[..2]);
    match class {
        "28" | "42" => Stop::new(Reason::Credentials, problem).advise(role::advice()),
        _ if problem.contains("password missing") => {
            Stop::new(Reason::Credentials, problem).advise("put the password into ~/.pgpass (0600), or set PGPASSWORD")
        }
        _ => Stop::new(Reason::SourceUnreachable, problem)
            .advise("name the server: --database 'host=… dbname=… user=…', or set PGHOST, PGDATABASE and PGUSER"),
    }
}

fn shown(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{} (SQLSTATE {})", db.message(), db.code().code()),
        None => chain(error),
    }
}

fn config(info: &ConnInfo) -> Result<Config, Stop> {
    let bad = |key: &str| Stop::new(Reason::Internal, format!("`{key}` of the connection cannot be used"));
    let mut config = Config::new();
    config.user(info.user()).dbname(info.database()).application_name("muster capture");
    config.connect_timeout(CONNECT_TIMEOUT).ssl_mode(tls::of(info)?.0);
    if let Some(password) = info.password() {
        config.password(password);
    }
    for host in info.get("host").into_iter().flat_map(|hosts| hosts.split(',')) {
        config.host(host);
    }
    for address in info.get("hostaddr").into_iter().flat_map(|addresses| addresses.split(',')) {
        config.hostaddr(address.parse().map_err(|_| bad("hostaddr"))?);
    }
    for port in info.get("port").into_iter().flat_map(|ports| ports.split(',')) {
        config.port(if port.is_empty() { 5432 } else { port.parse().map_err(|_| bad("port"))? });
    }
    let options = info.get("options").unwrap_or_default();
    // The last one wins. A blank within a value has a backslash.
    let pinned = PINNED.iter().chain(&OWN).map(|(name, value)| format!(" -c {name}={}", value.replace(' ', "\\ ")));
    config.options(format!("{options}{}", pinned.collect::<String>()));
    config.channel_binding(match info.get("channel_binding") {
        None | Some("prefer") => ChannelBinding::Prefer,
        Some("disable") => ChannelBinding::Disable,
        Some("require") => ChannelBinding::Require,
        Some(_) => return Err(bad("channel_binding")),
    });
    config.target_session_attrs(match info.get("target_session_attrs") {
        None | Some("any" | "prefer-standby") => TargetSessionAttrs::Any,
        Some("read-write" | "primary") => TargetSessionAttrs::ReadWrite,
        Some("read-only" | "standby") => TargetSessionAttrs::ReadOnly,
        Some(_) => return Err(bad("target_session_attrs")),
    });
    Ok(config)
}

/// For statements that hold a name.
pub(super) fn identifier(name: &str) -> String {
    postgres_protocol::escape::escape_identifier(name)
}
