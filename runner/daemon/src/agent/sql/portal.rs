//! An open result, and the fetch that is filling it.
use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use plugin_host::backend::Error;
use postgres_protocol::message::backend::Message;

use super::connection::unexpected;
use super::fault::server;
use super::shape::Shape;
use super::wire::{Event, MAX_CELLS};

/// Rows asked for at a time: at first, and at most.
const FIRST: u32 = 32;
const MOST: u32 = 1024;

/// An open result.
pub(super) struct Portal {
    pub(super) shape: Arc<Shape>,
    pub(super) held: VecDeque<Held>,
    pub(super) bytes: usize,
    /// How many rows the next fetch asks for.
    pub(super) fetch: u32,
    /// The server has no more rows, or failed.
    pub(super) ended: bool,
    pub(super) failure: Option<Error>,
}

pub(super) enum Held {
    Row(Bytes),
    Large { column: usize, bytes: u64 },
}

/// A fetch whose answer has not been read to its end.
pub(super) struct Executing {
    pub(super) portal: u64,
    pub(super) stage: Stage,
    pub(super) failure: Option<Error>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Savepoint,
    Rows,
    Release,
}

impl Executing {
    /// An error where the server answers out of order.
    pub(super) fn take(&mut self, event: Event, open: Option<&mut Portal>) -> Result<(), Error> {
        match (self.stage, event) {
            (_, Event::Other(Message::ErrorResponse(body))) => self.failure = Some(server(&body)),
            (Stage::Savepoint, Event::Other(Message::CommandComplete(_))) => self.stage = Stage::Rows,
            (Stage::Savepoint, Event::Other(Message::BindComplete))
            | (Stage::Release, Event::Other(Message::BindComplete | Message::CommandComplete(_))) => {}
            (Stage::Rows, Event::Other(Message::PortalSuspended)) => self.stage = Stage::Release,
            (Stage::Rows, Event::Other(Message::CommandComplete(_) | Message::EmptyQueryResponse)) => {
                self.stage = Stage::Release;
                if let Some(open) = open {
                    open.ended = true;
                }
            }
            (Stage::Rows, Event::Row(body)) => {
                if let Some(open) = open {
                    open.hold(body);
                }
            }
            (Stage::Rows, Event::LargeRow { largest, bytes }) => {
                if let Some(open) = open {
                    open.fetch = 1;
                    open.held.push_back(Held::Large { column: largest, bytes });
                }
            }
            _ => return Err(unexpected()),
        }
        Ok(())
    }
}

impl Portal {
    pub(super) fn new(shape: Shape) -> Self {
        Self { shape: Arc::new(shape), held: VecDeque::new(), bytes: 0, fetch: FIRST, ended: false, failure: None }
    }

    fn hold(&mut self, body: Bytes) {
        // Few large rows at a time, once large rows were seen.
        let fitting = u32::try_from(MAX_CELLS / body.len().max(1)).unwrap_or(MOST);
        self.fetch = self.fetch.min(fitting.max(1));
        self.bytes += body.len() + size_of::<Held>();
        self.held.push_back(Held::Row(body));
    }

    pub(super) fn grow(&mut self) {
        self.fetch = self.fetch.saturating_mul(4).clamp(1, MOST);
    }
}
