//! One transaction in the shared snapshot, with as many open results as the check wants.
//!
//! Every statement and every fetch is wrapped in a savepoint, so that an error of one leaves the transaction, its snapshot and
//! the other results as they were. Only statements that give rows are run, which leaves out everything that could end the
//! transaction; that it still stands is looked at after each one nevertheless.
use std::collections::HashMap;
use std::sync::Arc;

use plugin_host::backend::{Batch, ColumnInfo, Error, Value};
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;

use super::argument::argument;
use super::batch::{BatchBuilder, Pushed, too_large};
use super::connection::{Connection, TextRows, unexpected};
use super::fault::{host, plugin, server};
use super::portal::{Executing, Held, Portal, Stage};
use super::shape::Shape;
use super::wire::{CopySink, Event, cells};

const SAVEPOINT: &str = "muster_savepoint";
const RELEASE: &str = "muster_release";
const TYPES: &str = "muster_types";
const TYPES_SQL: &str = "SELECT pg_catalog.format_type(t.o, t.m) \
     FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog._oid), pg_catalog.unnest($2::pg_catalog._int4)) AS t (o, m)";
/// Bytes of fetched rows after which reading waits for the guest.
const HELD: usize = 4 << 20;
/// Bytes held when another result of the same check is wanted while one is still being sent.
const HELD_AT_MOST: usize = 64 << 20;
const MAX_TYPES: usize = 4096;

/// What a session reads in.
#[derive(Clone, Copy)]
pub(super) enum Snapshot<'a> {
    New,
    /// That of another session, which must live until this one has begun.
    Join(&'a str),
    /// The same, and others may join this one.
    HandOn(&'a str),
}

fn join(name: &str) -> Result<String, Error> {
    if name.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') {
        Ok(format!("SET TRANSACTION SNAPSHOT '{name}'"))
    } else {
        Err(host("the database gave a snapshot a name that none can have"))
    }
}

pub(super) struct Session {
    connection: Connection,
    portals: HashMap<u64, Portal>,
    next_portal: u64,
    executing: Option<Executing>,
    types: HashMap<(u32, i32), String>,
    /// Why nothing works any more.
    broken: Option<Error>,
}

impl Session {
    /// Returns the name under which others can join the session's snapshot.
    pub(super) async fn begin(mut connection: Connection, snapshot: Snapshot<'_>) -> Result<(Self, String), Error> {
        const EXPORT: &str = "SELECT pg_catalog.pg_export_snapshot()";
        let statements = match snapshot {
            Snapshot::New => EXPORT.to_owned(),
            Snapshot::Join(name) => join(name)?,
            Snapshot::HandOn(name) => format!("{}; {EXPORT}", join(name)?),
        };
        let rows = connection.run(&format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {statements}")).await?;
        let exported = rows.into_iter().flatten().flatten().next().unwrap_or_default();
        let name = match snapshot {
            Snapshot::Join(name) => name.to_owned(),
            Snapshot::New | Snapshot::HandOn(_) => exported,
        };
        let mut session = Self {
            connection,
            portals: HashMap::new(),
            next_portal: 0,
            executing: None,
            types: HashMap::new(),
            broken: None,
        };
        session.prepare().await?;
        Ok((session, name))
    }

    async fn prepare(&mut self) -> Result<(), Error> {
        let savepoint = format!("SAVEPOINT {SAVEPOINT}");
        let release = format!("RELEASE SAVEPOINT {SAVEPOINT}");
        let statements = [(SAVEPOINT, savepoint.as_str()), (RELEASE, release.as_str()), (TYPES, TYPES_SQL)];
        for (name, statement) in statements {
            frontend::parse(name, statement, [], &mut self.connection.out).map_err(|error| host(error.to_string()))?;
        }
        let mut parsed = 0;
        self.exchange(|event| match event {
            Event::Other(Message::ParseComplete) => {
                parsed += 1;
                Ok(())
            }
            _ => Err(unexpected()),
        })
        .await?;
        if parsed == statements.len() { Ok(()) } else { Err(unexpected()) }
    }

    /// What a request to cancel must name.
    pub(super) fn key(&self) -> (i32, i32) {
        self.connection.key()
    }

    /// Whether it can be left without losing anything.
    pub(super) fn is_idle(&self) -> bool {
        self.portals.is_empty() && self.executing.is_none() && self.broken.is_none()
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Nothing of this session can be used after this.
    pub(super) fn give_up(&mut self, why: Error) {
        self.broken.get_or_insert(why);
    }

    pub(super) async fn close(self) {
        self.connection.close().await;
    }

    /// Text rows of a statement that muster itself wrote.
    pub(super) async fn run(&mut self, statement: &str) -> Result<TextRows, Error> {
        self.connection.run(statement).await
    }

    /// Runs a COPY that muster itself wrote. After an error nothing of this session can be used.
    pub(super) async fn copy(&mut self, statement: &str, sink: &mut impl CopySink) -> Result<(), Error> {
        let copied = self.connection.copy(statement, sink).await;
        self.note(copied)
    }

    /// Opens a result. The statement begins to run when its first rows are asked for.
    pub(super) async fn query(
        &mut self,
        statement: &str,
        arguments: &[Value],
    ) -> Result<(u64, Vec<ColumnInfo>), Error> {
        self.ready().await?;
        if statement.contains('\0') {
            return Err(plugin("the statement contains a NUL character"));
        }
        let shape = self.parse(statement).await?;
        let names = self.type_names(&shape).await?;
        let portal = self.next_portal;
        self.next_portal += 1;
        self.bind(portal, arguments, &shape).await?;
        let infos = shape.infos(names);
        self.portals.insert(portal, Portal::new(shape));
        Ok((portal, infos))
    }

    async fn parse(&mut self, statement: &str) -> Result<Shape, Error> {
        self.step(SAVEPOINT)?;
        frontend::parse("", statement, [], &mut self.connection.out).map_err(|error| plugin(error.to_string()))?;
        frontend::describe(b'S', "", &mut self.connection.out).map_err(|error| host(error.to_string()))?;
        let mut shape = None;
        self.exchange(|event| match event {
            Event::Other(Message::RowDescription(body)) => {
                shape = Some(Shape::read(&body)?);
                Ok(())
            }
            Event::Other(
                Message::BindComplete
                | Message::CommandComplete(_)
                | Message::ParseComplete
                | Message::ParameterDescription(_)
                | Message::NoData,
            ) => Ok(()),
            _ => Err(unexpected()),
        })
        .await?;
        if let Some(shape) = shape {
            return Ok(shape);
        }
        self.release().await?;
        Err(plugin("only a statement that gives rows can be run, and this one gives none"))
    }

    async fn bind(&mut self, portal: u64, arguments: &[Value], shape: &Shape) -> Result<(), Error> {
        let formats = shape.fields.iter().map(|field| field.kind.format());
        let out = &mut self.connection.out;
        let bound = frontend::bind(&portal_name(portal), "", [], arguments, argument, formats, out);
        if bound.is_err() {
            self.connection.out.clear();
            self.release().await?;
            return Err(plugin("the arguments cannot be sent: there are too many, or they are too large"));
        }
        self.step(RELEASE)?;
        self.exchange(|event| match event {
            Event::Other(Message::BindComplete | Message::CommandComplete(_)) => Ok(()),
            _ => Err(unexpected()),
        })
        .await
    }

    /// The server's own names of the columns' types. Runs inside the savepoint of the statement that was parsed.
    async fn type_names(&mut self, shape: &Shape) -> Result<Vec<String>, Error> {
        if self.types.len() > MAX_TYPES {
            self.types.clear();
        }
        let mut unknown: Vec<_> = shape.fields.iter().map(|field| (field.oid, field.modifier)).collect();
        unknown.sort_unstable();
        unknown.dedup();
        unknown.retain(|key| !self.types.contains_key(key));
        if !unknown.is_empty() {
            let list = |items: Vec<String>| Value::Text(format!("{{{}}}", items.join(",")));
            let arguments = [
                list(unknown.iter().map(|(oid, _)| oid.to_string()).collect()),
                list(unknown.iter().map(|(_, modifier)| modifier.to_string()).collect()),
            ];
            let out = &mut self.connection.out;
            frontend::bind("", TYPES, [], &arguments, argument, [0], out).map_err(|_| host("too many columns"))?;
            frontend::execute("", 0, out).map_err(|error| host(error.to_string()))?;
            let mut names = Vec::new();
            self.exchange(|event| match event {
                Event::Row(body) => {
                    let cell = cells(&body, 1).next().and_then(Result::ok).flatten().ok_or_else(unexpected)?;
                    names.push(crate::agent::text::bounded(&String::from_utf8_lossy(cell), 512));
                    Ok(())
                }
                Event::Other(Message::BindComplete | Message::CommandComplete(_)) => Ok(()),
                _ => Err(unexpected()),
            })
            .await?;
            self.types.extend(unknown.into_iter().zip(names));
        }
        let name = |key: (u32, i32)| self.types.get(&key).cloned().unwrap_or_else(|| "unknown".to_owned());
        Ok(shape.fields.iter().map(|field| name((field.oid, field.modifier))).collect())
    }

    /// At most `max_rows` and at most 1 MiB; None at the end.
    pub(super) async fn next(&mut self, portal: u64, max_rows: u32) -> Result<Option<Batch>, Error> {
        if max_rows == 0 {
            return Err(plugin("a batch needs room for at least one row"));
        }
        let open = self.portals.get(&portal).ok_or_else(|| host("there is no such result"))?;
        let shape = Arc::clone(&open.shape);
        let mut batch = BatchBuilder::new(&shape);
        loop {
            if self.drain(portal, &mut batch, max_rows)? {
                return Ok(Some(batch.finish()));
            }
            let open = self.portal(portal)?;
            if open.ended {
                return match (batch.rows(), open.failure.clone()) {
                    (0, Some(error)) => Err(error),
                    (0, None) => Ok(None),
                    _ => Ok(Some(batch.finish())),
                };
            }
            self.fetch(portal, max_rows - batch.rows()).await?;
        }
    }

    /// Moves held rows into the batch. True where the batch is as full as it will be.
    fn drain(&mut self, portal: u64, batch: &mut BatchBuilder<'_>, max_rows: u32) -> Result<bool, Error> {
        let open = self.portal(portal)?;
        while batch.rows() < max_rows {
            let Some(held) = open.held.front() else { return Ok(false) };
            let pushed = match held {
                Held::Row(body) => batch.push(body),
                Held::Large { column, bytes } => Err(too_large(&open.shape, *column, *bytes)),
            };
            match pushed {
                Ok(Pushed::Taken) => {}
                // What came before the bad row is given first.
                Ok(Pushed::Full) => return Ok(true),
                Err(_) if batch.rows() > 0 => return Ok(true),
                Err(error) => {
                    open.ended = true;
                    open.held.clear();
                    open.failure = Some(error.clone());
                    return Err(error);
                }
            }
            if let Some(Held::Row(body)) = open.held.pop_front() {
                open.bytes = open.bytes.saturating_sub(body.len());
            }
        }
        Ok(true)
    }

    async fn fetch(&mut self, portal: u64, wanted: u32) -> Result<(), Error> {
        if self.executing.as_ref().is_none_or(|executing| executing.portal != portal) {
            self.ready().await?;
            let rows = self.portal(portal)?.fetch.min(wanted);
            self.step(SAVEPOINT)?;
            frontend::execute(&portal_name(portal), i32::try_from(rows).unwrap_or(i32::MAX), &mut self.connection.out)
                .map_err(|error| host(error.to_string()))?;
            self.step(RELEASE)?;
            frontend::sync(&mut self.connection.out);
            self.executing = Some(Executing { portal, stage: Stage::Savepoint, failure: None });
            let sent = self.connection.send().await;
            self.note(sent)?;
        }
        self.pump(HELD).await.map(|_| ())
    }

    /// Reads what is being sent, until its end (true) or until `room` bytes are held (false).
    async fn pump(&mut self, room: usize) -> Result<bool, Error> {
        while let Some(executing) = &mut self.executing {
            let event = self.connection.receive().await;
            let Self { portals, broken, .. } = self;
            // A result that the guest dropped meanwhile has no portal any more: its rows are read and thrown away.
            let open = portals.get_mut(&executing.portal);
            match event {
                Ok(Event::Other(Message::ReadyForQuery(body))) => {
                    let Executing { portal, failure, .. } =
                        self.executing.take().unwrap_or(Executing { portal: 0, stage: Stage::Rows, failure: None });
                    self.settle(body.status()).await?;
                    if let Some(open) = self.portals.get_mut(&portal) {
                        open.grow();
                        if let Some(error) = failure {
                            open.ended = true;
                            open.failure = Some(error);
                        }
                    }
                    return Ok(true);
                }
                Ok(event) => {
                    if let Err(error) = executing.take(event, open) {
                        *broken = Some(error.clone());
                        return Err(error);
                    }
                }
                Err(error) => {
                    *broken = Some(error.clone());
                    return Err(error);
                }
            }
            if self.executing.as_ref().and_then(|e| self.portals.get(&e.portal)).is_some_and(|open| open.bytes >= room)
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Closes a result. What the server was still sending of it is read away before the next statement.
    pub(super) async fn close_portal(&mut self, portal: u64) -> Result<(), Error> {
        if self.portals.remove(&portal).is_none() {
            return Ok(());
        }
        self.ready().await?;
        frontend::close(b'P', &portal_name(portal), &mut self.connection.out)
            .map_err(|error| host(error.to_string()))?;
        self.exchange(|event| match event {
            Event::Other(Message::CloseComplete) => Ok(()),
            _ => Err(unexpected()),
        })
        .await
    }

    /// Nothing may be in flight when something new is sent.
    async fn ready(&mut self) -> Result<(), Error> {
        if let Some(error) = &self.broken {
            return Err(host(format!("the connection to the database cannot be used any more: {}", error.message)));
        }
        if !self.pump(HELD_AT_MOST).await? {
            let error = host("too much of one result is still to be read before another statement can run");
            self.give_up(error.clone());
            return Err(error);
        }
        Ok(())
    }

    fn portal(&mut self, portal: u64) -> Result<&mut Portal, Error> {
        self.portals.get_mut(&portal).ok_or_else(|| host("there is no such result"))
    }

    /// Adds the execution of one of muster's own prepared statements.
    fn step(&mut self, statement: &str) -> Result<(), Error> {
        let out = &mut self.connection.out;
        let none: [Value; 0] = [];
        frontend::bind("", statement, [], &none, argument, [], out).map_err(|_| host("failed to bind"))?;
        frontend::execute("", 1, out).map_err(|error| host(error.to_string()))
    }

    async fn release(&mut self) -> Result<(), Error> {
        self.step(RELEASE)?;
        self.exchange(|_| Ok(())).await
    }

    /// Sends with a `Sync` and hands each answer to `take`. A refusal of the server undoes the statement alone.
    async fn exchange(&mut self, mut take: impl FnMut(Event) -> Result<(), Error>) -> Result<(), Error> {
        frontend::sync(&mut self.connection.out);
        let sent = self.connection.send().await;
        self.note(sent)?;
        let mut refusal = None;
        loop {
            let event = self.connection.receive().await;
            let outcome = match self.note(event)? {
                Event::Other(Message::ErrorResponse(body)) => {
                    refusal = Some(server(&body));
                    Ok(())
                }
                Event::Other(Message::ReadyForQuery(body)) => {
                    self.settle(body.status()).await?;
                    return refusal.map_or(Ok(()), Err);
                }
                event => take(event),
            };
            self.note(outcome)?;
        }
    }

    /// An error on the wire, as opposed to a refusal of the server, is the end of the session.
    fn note<T>(&mut self, outcome: Result<T, Error>) -> Result<T, Error> {
        outcome.inspect_err(|error| self.give_up(error.clone()))
    }

    /// Looks whether the transaction still stands, and undoes a failed statement.
    async fn settle(&mut self, status: u8) -> Result<(), Error> {
        match status {
            b'T' => Ok(()),
            b'E' => {
                let undo = format!("ROLLBACK TO SAVEPOINT {SAVEPOINT}; RELEASE SAVEPOINT {SAVEPOINT}");
                let undone = self.connection.run(&undo).await.map(|_| ());
                self.note(undone)
            }
            _ => {
                let error = plugin("the statement ended the transaction that holds the snapshot");
                self.note(Err(error))
            }
        }
    }
}

fn portal_name(portal: u64) -> String {
    format!("muster_{portal}")
}
