//! One connection: log in by certificate, send, receive. What it means is [`super::session`]'s.
use std::time::Duration;

use bytes::BytesMut;
use drivers::engine::postgresql::content::PINNED;
use plugin_host::backend::Error;
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::fault::{host, server};
use super::tls::{CONNECT, Door, Stream};
use super::wire::{CopySink, Decoder, Event, cells};

const READ: usize = 64 << 10;
/// Of one result that muster itself asked for.
const MAX_RESULT: usize = 128 << 20;

/// Beside what decides over the bytes of a row ([`PINNED`]).
const OWN: [(&str, &str); 2] = [("application_name", "muster-agent"), ("lock_timeout", "0")];

pub(super) struct Connection {
    stream: Stream,
    decoder: Decoder,
    /// What [`Connection::send`] will send.
    pub(super) out: BytesMut,
    key: (i32, i32),
    server_version: String,
    server_encoding: String,
}

pub(super) type TextRows = Vec<Vec<Option<String>>>;

impl Connection {
    /// `statement_timeout` is the server's own; whoever waits has a deadline too, because the server is not trusted.
    pub(super) async fn open(
        door: &Door,
        database: &str,
        encoding: &str,
        statement_timeout: Duration,
    ) -> Result<Self, Error> {
        let mut connection = Self {
            stream: door.enter().await?,
            decoder: Decoder::default(),
            out: BytesMut::new(),
            key: (0, 0),
            server_version: String::new(),
            server_encoding: String::new(),
        };
        let timeout = statement_timeout.as_millis().clamp(1, i32::MAX as u128).to_string();
        let given = [
            ("user", door.role()),
            ("database", database),
            ("client_encoding", encoding),
            ("statement_timeout", timeout.as_str()),
        ];
        frontend::startup_message(given.into_iter().chain(OWN).chain(PINNED), &mut connection.out)
            .map_err(|error| host(format!("failed to log in: {error}")))?;
        tokio::time::timeout(CONNECT, connection.log_in())
            .await
            .map_err(|_| host(format!("the database did not finish the login within {} s", CONNECT.as_secs())))??;
        Ok(connection)
    }

    async fn log_in(&mut self) -> Result<(), Error> {
        self.send().await?;
        match self.receive().await? {
            Event::Other(Message::AuthenticationOk) => {}
            Event::Other(Message::ErrorResponse(body)) => return Err(refused(&body)),
            // A password, even hashed, could be used by whoever plays the server; a certificate cannot.
            _ => return Err(host("the database asks for something else than the certificate")),
        }
        loop {
            match self.receive().await? {
                Event::Other(Message::BackendKeyData(body)) => self.key = (body.process_id(), body.secret_key()),
                Event::Other(Message::ReadyForQuery(_)) => return Ok(()),
                Event::Other(Message::ErrorResponse(body)) => return Err(refused(&body)),
                _ => return Err(unexpected()),
            }
        }
    }

    /// What a request to cancel must name.
    pub(super) fn key(&self) -> (i32, i32) {
        self.key
    }

    pub(super) fn server_version(&self) -> &str {
        &self.server_version
    }

    pub(super) fn server_encoding(&self) -> &str {
        &self.server_encoding
    }

    pub(super) async fn send(&mut self) -> Result<(), Error> {
        let lost = |error| host(format!("the connection to the database was lost: {error}"));
        self.stream.write_all(&self.out).await.map_err(lost)?;
        self.stream.flush().await.map_err(lost)?;
        self.out.clear();
        Ok(())
    }

    /// The next message that belongs to what was asked. Dropping the future loses nothing.
    pub(super) async fn receive(&mut self) -> Result<Event, Error> {
        loop {
            if let Some(event) = self.receive_any().await? {
                return Ok(event);
            }
        }
    }

    /// None: the message says nothing of what was asked.
    async fn receive_any(&mut self) -> Result<Option<Event>, Error> {
        loop {
            match self.decoder.next().map_err(|error| host(drill::stop::chain(&error)))? {
                Some(Event::Other(Message::NoticeResponse(_) | Message::NotificationResponse(_))) => return Ok(None),
                Some(Event::Other(Message::ParameterStatus(body))) => {
                    if let (Ok(name), Ok(value)) = (body.name(), body.value()) {
                        match name {
                            "server_version" => self.server_version = crate::agent::text::bounded(value, 256),
                            "server_encoding" => self.server_encoding = crate::agent::text::bounded(value, 64),
                            _ => {}
                        }
                    }
                    return Ok(None);
                }
                Some(event) => return Ok(Some(event)),
                None => self.read().await?,
            }
        }
    }

    /// Runs statements that muster itself wrote; rows of all of them, as text.
    pub(super) async fn run(&mut self, statements: &str) -> Result<TextRows, Error> {
        frontend::query(statements, &mut self.out).map_err(|error| host(error.to_string()))?;
        self.send().await?;
        let (mut columns, mut rows, mut bytes, mut failure) = (0, TextRows::new(), 0, None);
        loop {
            match self.receive().await? {
                Event::Other(Message::RowDescription(body)) => {
                    columns = super::shape::Shape::read(&body)?.fields.len();
                }
                Event::Row(body) => {
                    bytes += body.len() + 64;
                    if bytes > MAX_RESULT {
                        return Err(host("the database's catalog is larger than muster reads"));
                    }
                    rows.push(texts(&body, columns)?);
                }
                Event::Other(Message::ErrorResponse(body)) => failure = Some(server(&body)),
                Event::Other(Message::CommandComplete(_) | Message::EmptyQueryResponse) => {}
                Event::Other(Message::ReadyForQuery(_)) => return failure.map_or(Ok(rows), Err),
                Event::Other(_) | Event::LargeRow { .. } => return Err(unexpected()),
            }
        }
    }

    /// Runs one `COPY … TO STDOUT`. After an error the connection is of no use.
    pub(super) async fn copy(&mut self, statement: &str, sink: &mut impl CopySink) -> Result<(), Error> {
        frontend::query(statement, &mut self.out).map_err(|error| host(error.to_string()))?;
        self.send().await?;
        let mut failure = None;
        loop {
            if !self.decoder.copy(sink).map_err(host)? {
                self.read().await?;
                continue;
            }
            // One message at a time: rows may follow a notice, and only the decoder's `copy` takes rows of any size.
            match self.receive_any().await? {
                None
                | Some(Event::Other(Message::CopyOutResponse(_) | Message::CopyDone | Message::CommandComplete(_))) => {
                }
                Some(Event::Other(Message::ErrorResponse(body))) => failure = Some(server(&body)),
                Some(Event::Other(Message::ReadyForQuery(_))) => return failure.map_or(Ok(()), Err),
                Some(Event::Other(_) | Event::Row(_) | Event::LargeRow { .. }) => return Err(unexpected()),
            }
        }
    }

    async fn read(&mut self) -> Result<(), Error> {
        self.decoder.buffer.reserve(READ);
        match self.stream.read_buf(&mut self.decoder.buffer).await {
            Ok(0) => Err(host("the database closed the connection")),
            Ok(_) => Ok(()),
            Err(error) => Err(host(format!("the connection to the database was lost: {error}"))),
        }
    }

    /// Says goodbye; the server need not answer.
    pub(super) async fn close(mut self) {
        self.out.clear();
        frontend::terminate(&mut self.out);
        let _ = tokio::time::timeout(Duration::from_secs(1), async {
            let _ = self.send().await;
            self.stream.shutdown().await
        })
        .await;
    }
}

pub(super) fn unexpected() -> Error {
    host("the database sent a message that has no meaning here")
}

fn refused(body: &postgres_protocol::message::backend::ErrorResponseBody) -> Error {
    let error = server(body);
    Error { code: error.code, ..host(format!("the database refused the login: {}", error.message)) }
}

fn texts(body: &[u8], columns: usize) -> Result<Vec<Option<String>>, Error> {
    cells(body, columns)
        .map(|cell| {
            let cell = cell.map_err(|error| host(error.to_string()))?;
            cell.map(|bytes| String::from_utf8(bytes.to_vec()))
                .transpose()
                .map_err(|_| host("the database's catalog holds a text that is not UTF-8"))
        })
        .collect()
}
