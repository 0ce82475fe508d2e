//! Reads the objects of the database that a client is connected to. The agent, which trusts its server less, has a reader of its
//! own.
use std::pin::pin;

use drill::schema::{Object, Order};
use futures_util::StreamExt;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::{Completion, LargeObject, Query, SETTINGS, queries, readable, with_bytes, with_state};

/// Rows that are fetched at a time; one has 256 KiB at most, and hardly any has more than one.
const FETCH: u32 = 64;
/// No index may answer for the heap, except for the order of a large object's pages: without it, all of them would be sorted
/// once an object.
const BY_INDEX: &str = "SET LOCAL enable_indexscan = on";
const BY_HEAP: &str = "SET LOCAL enable_indexscan = off";

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("reading every {kind}")]
    Server { kind: &'static str, source: tokio_postgres::Error },
    #[error("the server described the schema in a way that it never should: {0}")]
    Strange(String),
    #[error(transparent)]
    Sink(#[from] std::io::Error),
}

/// Gives every object to `each`, in order. Must be called inside a transaction, with an empty search path.
pub async fn read(
    client: &Client,
    version: u32,
    mut each: impl FnMut(&Object) -> std::io::Result<()>,
) -> Result<u64, ReadError> {
    let mut reader = ObjectReader { client, order: Order::default(), count: 0, each: &mut each };
    for query in queries(version) {
        reader.kind(&query).await?;
    }
    Ok(reader.count)
}

struct ObjectReader<'a, F> {
    client: &'a Client,
    order: Order,
    count: u64,
    each: &'a mut F,
}

impl<F: FnMut(&Object) -> std::io::Result<()>> ObjectReader<'_, F> {
    async fn kind(&mut self, query: &Query) -> Result<(), ReadError> {
        let failed = |source| ReadError::Server { kind: query.kind, source };
        let declare = format!(
            "{SETTINGS}; SET LOCAL cursor_tuple_fraction = 1; DECLARE muster_schema NO SCROLL CURSOR FOR {}",
            query.sql
        );
        self.client.batch_execute(&declare).await.map_err(failed)?;
        loop {
            let fetch = format!("FETCH {FETCH} FROM muster_schema");
            let rows = self.client.simple_query(&fetch).await.map_err(failed)?;
            let before = self.count;
            for row in rows {
                let SimpleQueryMessage::Row(row) = row else { continue };
                let cell = |column| row.try_get(column).map(|cell| cell.unwrap_or_default().to_owned());
                self.object(query, cell(0).map_err(failed)?, cell(1).map_err(failed)?).await?;
            }
            if self.count == before {
                break;
            }
        }
        self.client.batch_execute("CLOSE muster_schema").await.map_err(failed)
    }

    async fn object(&mut self, query: &Query, identity: String, content: String) -> Result<(), ReadError> {
        let content = self.complete(query, &identity, content).await?;
        let object = Object::new(query.kind, identity, content).map_err(ReadError::Strange)?;
        self.order.follows(&object).map_err(ReadError::Strange)?;
        self.count += 1;
        Ok((self.each)(&object)?)
    }

    async fn complete(&self, query: &Query, identity: &str, content: String) -> Result<String, ReadError> {
        let strange = || ReadError::Strange(format!("what it says of {} {identity} has no meaning", query.kind));
        match query.completion {
            Some(completion @ Completion::Sequence) if readable(&content) => {
                let rows = self.client.simple_query(&completion.statement(identity)).await;
                let rows = rows.map_err(|source| ReadError::Server { kind: query.kind, source })?;
                let state = rows.iter().find_map(|row| match row {
                    SimpleQueryMessage::Row(row) => row.get(0).zip(row.get(1)),
                    _ => None,
                });
                state.and_then(|(last, called)| with_state(&content, last, called)).ok_or_else(strange)
            }
            Some(completion @ Completion::LargeObject) => {
                let bytes = self.bytes(query.kind, &completion.statement(identity)).await?;
                bytes.and_then(|bytes| with_bytes(&content, bytes)).ok_or_else(strange)
            }
            Some(Completion::Sequence) | None => Ok(content),
        }
    }

    /// None where the server's pages make no large object.
    async fn bytes(&self, kind: &'static str, statement: &str) -> Result<Option<LargeObject>, ReadError> {
        let failed = |source| ReadError::Server { kind, source };
        self.client.batch_execute(BY_INDEX).await.map_err(failed)?;
        let mut object = LargeObject::default();
        let mut pages = pin!(self.client.query_raw(statement, [] as [&str; 0]).await.map_err(failed)?);
        while let Some(page) = pages.next().await {
            let page = page.map_err(failed)?;
            let number: i32 = page.try_get(0).map_err(failed)?;
            let bytes: &[u8] = page.try_get(1).map_err(failed)?;
            if !u32::try_from(number).is_ok_and(|number| object.page(number, bytes)) {
                return Ok(None);
            }
            while object.step() {
                tokio::task::yield_now().await;
            }
        }
        self.client.batch_execute(BY_HEAP).await.map_err(failed)?;
        Ok(Some(object))
    }
}
