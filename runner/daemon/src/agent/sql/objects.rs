//! The schema's objects: those of the restored database as its catalogs tell them, in the run's one snapshot, and those of the
//! baseline as its file does. Neither side is ever whole in memory, and both are seen to be in order.
use std::collections::VecDeque;

use async_trait::async_trait;
use bytes::Bytes;
use drill::schema::{Object, Order, Reader, Taken};
use drivers::engine::postgresql::schema::{
    Completion, LargeObject, PutBack, Query, SETTINGS, queries, readable, with_bytes, with_state,
};
use plugin_host::backend::{self, Batch, Catalog, ColumnData, Error, Objects, Side};
use tokio::time::Instant;

use super::database::Opening;
use super::fault::{host, plugin};
use super::session::Session;

/// Rows that are asked for at a time.
const ROWS: u32 = 64;

/// Both sides, for one check.
pub(in crate::agent) struct Schemas {
    opening: Opening,
    baseline: Option<Bytes>,
    deadline: Instant,
}

impl Schemas {
    /// `baseline`: the blob of the baseline's schema.
    pub(super) fn new(opening: Opening, baseline: Option<Bytes>, deadline: Instant) -> Self {
        Self { opening, baseline, deadline }
    }

    fn baseline(&self) -> Result<Option<Baseline>, Error> {
        let read = |file: &Bytes| Baseline::new(file.clone(), self.opening.database()).map_err(|why| unreadable(&why));
        self.baseline.as_ref().map(read).transpose()
    }
}

#[async_trait]
impl Catalog for Schemas {
    async fn read(&self, side: Side) -> Result<Box<dyn Objects>, Error> {
        let baseline = self.baseline()?;
        match side {
            Side::Baseline => match baseline {
                Some(baseline) => Ok(Box::new(baseline)),
                None => Err(plugin("the backup has no schema baseline")),
            },
            Side::Restored => {
                let taken = baseline.as_ref().map(Baseline::taken).unwrap_or_default();
                Ok(Box::new(self.opening.restored(taken, self.deadline).await?))
            }
        }
    }
}

/// The baseline's side.
struct Baseline {
    reader: Reader<Bytes>,
}

impl Baseline {
    /// The error says what is wrong with the file.
    fn new(file: Bytes, database: &str) -> Result<Self, String> {
        let reader = Reader::new(file)?;
        if reader.header().database != database {
            return Err(format!("the schema file is of database `{}`, not of `{database}`", reader.header().database));
        }
        Ok(Self { reader })
    }

    /// What muster revoked from the restored database.
    fn taken(&self) -> &[Taken] {
        &self.reader.header().taken
    }
}

#[async_trait]
impl Objects for Baseline {
    async fn next(&mut self, max: u32, bytes: usize) -> Result<Vec<backend::Object>, Error> {
        let mut page = Page::new(max, bytes);
        while page.has_room() {
            match self.reader.next_object() {
                Some(object) => page.push(object.map_err(|why| unreadable(&why))?),
                None => break,
            }
        }
        Ok(page.objects)
    }
}

/// The restored side: a connection of its own.
pub(super) struct Restored {
    session: Session,
    deadline: Instant,
    queries: std::vec::IntoIter<Query>,
    /// The kind that is being read, and its result.
    current: Option<(Query, u64)>,
    held: VecDeque<Object>,
    order: Order,
    put_back: PutBack,
}

impl Restored {
    /// `session` is in the snapshot; nothing else was asked of it.
    pub(super) async fn open(mut session: Session, deadline: Instant, put_back: PutBack) -> Result<Self, Error> {
        // Pages of large objects come by their index; a heap without it would be sorted once an object.
        let settings = format!("{SETTINGS}; SET LOCAL enable_indexscan = on; SHOW server_version_num");
        let rows = session.run(&settings).await?;
        let version = rows.into_iter().flatten().flatten().next().and_then(|version| version.parse().ok());
        let queries = queries(version.ok_or_else(|| strange("its own version"))?).into_iter();
        let (current, held, order) = (None, VecDeque::new(), Order::default());
        Ok(Self { session, deadline, queries, current, held, order, put_back })
    }

    /// Reads some more; false at the end.
    async fn fill(&mut self) -> Result<bool, Error> {
        let Some((query, portal)) = self.current.take() else {
            let Some(query) = self.queries.next() else { return self.end() };
            let (portal, _) = self.session.query(&query.sql, &[]).await?;
            self.current = Some((query, portal));
            return Ok(true);
        };
        match self.session.next(portal, ROWS).await? {
            None => self.session.close_portal(portal).await?,
            Some(batch) => {
                for (identity, content) in pairs(&batch)? {
                    let content = self.complete(&query, &identity, content).await?;
                    self.take(Object::new(query.kind, identity, content).map_err(|why| strange(&why))?)?;
                }
                self.current = Some((query, portal));
            }
        }
        Ok(true)
    }

    fn take(&mut self, object: Object) -> Result<(), Error> {
        self.order.follows(&object).map_err(|why| strange(&why))?;
        while let Some(gone) = self.put_back.gone(Some(&object)).map_err(|why| strange(&why))? {
            self.held.push_back(gone);
        }
        self.held.extend(self.put_back.put_back(object).map_err(|why| strange(&why))?);
        Ok(())
    }

    fn end(&mut self) -> Result<bool, Error> {
        let gone = self.put_back.gone(None).map_err(|why| strange(&why))?;
        let more = gone.is_some();
        self.held.extend(gone);
        Ok(more)
    }

    async fn complete(&mut self, query: &Query, identity: &str, content: String) -> Result<String, Error> {
        let strange = || strange(&format!("{} {identity}", query.kind));
        match query.completion {
            Some(Completion::Sequence) if readable(&content) => {
                let (portal, _) = self.session.query(&Completion::Sequence.statement(identity), &[]).await?;
                let batch = self.session.next(portal, 1).await?.ok_or_else(strange)?;
                self.session.close_portal(portal).await?;
                let (last, called) = pairs(&batch)?.into_iter().next().ok_or_else(strange)?;
                with_state(&content, &last, &called).ok_or_else(strange)
            }
            Some(Completion::LargeObject) => {
                let bytes = self.bytes(&Completion::LargeObject.statement(identity)).await?;
                bytes.and_then(|bytes| with_bytes(&content, bytes)).ok_or_else(strange)
            }
            Some(Completion::Sequence) | None => Ok(content),
        }
    }

    /// None where the pages make no large object.
    async fn bytes(&mut self, statement: &str) -> Result<Option<LargeObject>, Error> {
        let mut object = LargeObject::default();
        let (portal, _) = self.session.query(statement, &[]).await?;
        while let Some(batch) = self.session.next(portal, 512).await? {
            let [number, data] = batch.columns.as_slice() else { return Ok(None) };
            let (ColumnData::Integers(numbers), ColumnData::Binaries(pages)) = (&number.data, &data.data) else {
                return Ok(None);
            };
            let mut from = 0;
            for (number, end) in numbers.iter().zip(&pages.ends) {
                let end = usize::try_from(*end).unwrap_or(usize::MAX);
                let bytes = pages.data.get(from..end).unwrap_or_default();
                if !u32::try_from(*number).is_ok_and(|number| object.page(number, bytes)) {
                    return Ok(None);
                }
                from = end;
                while object.step() {
                    tokio::task::yield_now().await;
                }
            }
        }
        self.session.close_portal(portal).await?;
        Ok(Some(object))
    }
}

/// After an error, or when the future was dropped, nothing more can be read.
#[async_trait]
impl Objects for Restored {
    async fn next(&mut self, max: u32, bytes: usize) -> Result<Vec<backend::Object>, Error> {
        let deadline = self.deadline;
        let read = async {
            let mut page = Page::new(max, bytes);
            while page.has_room() {
                match self.held.pop_front() {
                    Some(object) => page.push(object),
                    None if !self.fill().await? => break,
                    None => {}
                }
            }
            Ok(page.objects)
        };
        let slow = || host("reading the restored schema took longer than the check has");
        tokio::time::timeout_at(deadline, read).await.map_err(|_| slow())?
    }
}

/// Two columns of text.
fn pairs(batch: &Batch) -> Result<Vec<(String, String)>, Error> {
    let [left, right] = batch.columns.as_slice() else { return Err(strange("a row")) };
    let texts = |column: &ColumnData| -> Option<Vec<String>> {
        let ColumnData::Texts(cells) = column else { return None };
        let mut from = 0;
        let text = |end: &u32| {
            let end = usize::try_from(*end).ok()?;
            let text = String::from_utf8(cells.data.get(std::mem::replace(&mut from, end)..end)?.to_vec());
            text.ok()
        };
        cells.ends.iter().map(text).collect()
    };
    let (left, right) = texts(&left.data).zip(texts(&right.data)).ok_or_else(|| strange("a row"))?;
    Ok(left.into_iter().zip(right).collect())
}

fn strange(what: &str) -> Error {
    host(format!("the restored database described its schema in a way that PostgreSQL would not: {what}"))
}

fn unreadable(why: &str) -> Error {
    host(format!("the baseline cannot be read: {why}"))
}

/// Full at so many objects or bytes; one object more may go over the latter.
struct Page {
    objects: Vec<backend::Object>,
    bytes: usize,
    most: (usize, usize),
}

impl Page {
    fn new(max: u32, bytes: usize) -> Self {
        Self { objects: Vec::new(), bytes: 0, most: (usize::try_from(max.max(1)).unwrap_or(usize::MAX), bytes.max(1)) }
    }

    fn has_room(&self) -> bool {
        self.objects.len() < self.most.0 && self.bytes < self.most.1
    }

    fn push(&mut self, object: Object) {
        let content = String::from(Box::<str>::from(object.content));
        self.bytes += object.kind.len() + object.identity.len() + content.len();
        self.objects.push(backend::Object { kind: object.kind, identity: object.identity, content });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(objects: usize) -> Bytes {
        let header = r#"{"schema":1,"database":"orders"}"#.to_owned();
        let object = |number| {
            let content = "x".repeat(1000);
            format!(r#"{{"kind":"comment","identity":"{number:06}","content":{{"text":"{content}"}}}}"#)
        };
        let lines: Vec<String> = std::iter::once(header).chain((0..objects).map(object)).collect();
        lines.join("\n").into()
    }

    #[tokio::test]
    async fn a_baseline_is_read_in_pages_that_are_never_large() {
        let mut baseline = Baseline::new(file(1000), "orders").expect("a file");
        assert_eq!(baseline.taken(), []);
        assert_eq!(baseline.next(3, usize::MAX).await.expect("objects").len(), 3);
        let page = baseline.next(u32::MAX, 100_000).await.expect("objects");
        let bytes: usize = page.iter().map(|object| object.content.len()).sum();
        assert!((95_000..102_000).contains(&bytes), "{bytes}");
        let mut seen = 3 + page.len();
        loop {
            let page = baseline.next(500, usize::MAX).await.expect("objects");
            seen += page.len();
            if page.is_empty() {
                break;
            }
        }
        assert_eq!(seen, 1000);
    }

    #[tokio::test]
    async fn a_baseline_that_is_another_databases_or_damaged_is_refused() {
        let wrong = Baseline::new(file(1), "other").err().expect("refused");
        assert_eq!(wrong, "the schema file is of database `orders`, not of `other`");
        let damaged = file(2).iter().copied().filter(|byte| *byte != b'x').chain(*b"\n{").collect::<Bytes>();
        let mut baseline = Baseline::new(damaged, "orders").expect("a header");
        assert!(baseline.next(9, usize::MAX).await.expect_err("damaged").message.contains("line 4 of the schema file"));
    }
}
