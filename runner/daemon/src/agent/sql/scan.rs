//! COPY in the run's one snapshot, over connections of its own.
use drill::baseline::Layout;
use drivers::engine::postgresql::content::{PageRange, copy_statement};
use plugin_host::backend::Error;
use postgres_protocol::escape::escape_literal;
use tokio::time::Instant;

use super::database::{Opening, in_time};
use super::fault::host;
use super::session::Session;
use super::tls::Door;
use super::wire::CopySink;

/// Makes connections that read whole tables.
pub(in crate::agent) struct Scans {
    opening: Opening,
    deadline: Instant,
}

impl Scans {
    pub(super) fn new(opening: Opening, deadline: Instant) -> Self {
        Self { opening, deadline }
    }

    pub(in crate::agent) async fn connect(&self) -> Result<Scan, Error> {
        let (door, session) = self.opening.open().await?;
        Ok(Scan { opening: self.opening.clone(), door, session, deadline: self.deadline })
    }
}

/// One connection. After an error it is of no use.
pub(in crate::agent) struct Scan {
    opening: Opening,
    door: Door,
    session: Session,
    deadline: Instant,
}

impl Scan {
    /// Pieces of a table that can be read side by side.
    pub(in crate::agent) async fn pieces(&mut self, schema: &str, table: &str) -> Result<Vec<PageRange>, Error> {
        const PAGE: u64 = 8192;
        self.opening.change_over(&mut self.door, &mut self.session).await?;
        let (schema, table) = (escape_literal(schema), escape_literal(table));
        let size = format!(
            "SELECT pg_catalog.pg_relation_size(c.oid) FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
WHERE n.nspname OPERATOR(pg_catalog.=) {schema}::pg_catalog.name AND c.relname OPERATOR(pg_catalog.=) {table}::pg_catalog.name"
        );
        let rows = in_time(self.session.run(&size)).await?;
        let size: u64 = rows.into_iter().flatten().flatten().next().and_then(|size| size.parse().ok()).unwrap_or(0);
        Ok(PageRange::split(u32::try_from(size / PAGE).unwrap_or(u32::MAX)))
    }

    pub(in crate::agent) async fn copy(
        &mut self,
        table: (&str, &str),
        layout: &Layout,
        range: PageRange,
        sink: &mut impl CopySink,
    ) -> Result<(), Error> {
        self.opening.change_over(&mut self.door, &mut self.session).await?;
        let statement = copy_statement(table.0, table.1, layout, range);
        let reading = self.session.copy(&statement, sink);
        let late = |_| host("the table was not read before the check's time was over");
        tokio::time::timeout_at(self.deadline, reading).await.map_err(late)?
    }
}
