//! One restored database: the connection that holds the snapshot, and the connections of the checks that join it.
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use drill::agent::ClientIdentity;
use drill::schema::Taken;
use drivers::engine::postgresql::schema::PutBack;
use plugin_host::backend::{Error, TableInfo};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::catalog;
use super::check::CheckSql;
use super::connection::Connection;
use super::fault::host;
use super::holder::Holder;
use super::objects::{Restored, Schemas};
use super::scan::Scans;
use super::session::{Session, Snapshot};
use super::tls::Door;

/// How long the tasks of a database may take to end.
const CLOSE: Duration = Duration::from_secs(10);
/// Of muster's own statements.
const CATALOG: Duration = Duration::from_mins(2);

/// The identity that connections are made with; a new lease replaces it.
pub(in crate::agent) type SharedIdentity = watch::Receiver<ClientIdentity>;

pub(in crate::agent) struct Database {
    holder: Holder,
    server_version: String,
    opening: Opening,
    tasks: TaskTracker,
    deadline: Instant,
    tables: Vec<TableInfo>,
}

/// All that a new connection into the snapshot needs.
#[derive(Clone)]
pub(super) struct Opening {
    socket: PathBuf,
    identity: SharedIdentity,
    database: String,
    /// What the names of the run's leases begin with.
    lease: String,
    encoding: &'static str,
    snapshot: watch::Receiver<String>,
    deadline: Instant,
}

impl Opening {
    /// With the certificate that is in force.
    pub(super) fn door(&self) -> Result<Door, Error> {
        Door::new(&self.socket, &self.identity.borrow())
    }

    /// Of the login that a connection would be made with now.
    pub(super) fn role(&self) -> String {
        self.identity.borrow().role.clone()
    }

    /// Resolves when the login is not `role`'s; never, where nobody will bring another.
    pub(super) async fn other_login(&mut self, role: &str) {
        if self.identity.wait_for(|identity| identity.role != role).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    pub(super) fn snapshot(&self) -> String {
        self.snapshot.borrow().clone()
    }

    pub(super) async fn connect(&self) -> Result<(Door, Connection), Error> {
        let door = self.door()?;
        let left = self.deadline.saturating_duration_since(Instant::now());
        let connection = Connection::open(&door, &self.database, self.encoding, left).await?;
        Ok((door, connection))
    }

    pub(super) async fn open(&self) -> Result<(Door, Session), Error> {
        let (door, connection) = self.connect().await?;
        let name = self.snapshot();
        let (session, _) = in_time(Session::begin(connection, Snapshot::Join(&name))).await?;
        Ok((door, session))
    }

    /// Goes on with the login that is in force, in the same snapshot: a session that was made as another ends with that one's
    /// lease. For between two statements, when nothing is open.
    pub(super) async fn change_over(&self, door: &mut Door, session: &mut Session) -> Result<(), Error> {
        if self.identity.borrow().role != door.role() {
            let (new_door, new_session) = self.open().await?;
            *door = new_door;
            std::mem::replace(session, new_session).close().await;
        }
        Ok(())
    }

    pub(super) fn database(&self) -> &str {
        &self.database
    }

    /// The schema of the restored database, read over a connection of its own until `deadline`. `taken` is what muster revoked
    /// before.
    pub(super) async fn restored(&self, taken: &[Taken], deadline: Instant) -> Result<Restored, Error> {
        let (_, session) = self.open().await?;
        in_time(Restored::open(session, deadline, PutBack::new(taken, &self.lease))).await
    }
}

impl Database {
    /// Logs in, takes the snapshot and reads which tables there are. `lease` is what the names of the run's leases begin with.
    pub(in crate::agent) async fn open(
        socket: &Path,
        identity: SharedIdentity,
        lease: &str,
        database: &str,
        deadline: Instant,
    ) -> Result<Self, Error> {
        let (names, snapshot) = watch::channel(String::new());
        let mut opening = Opening {
            socket: socket.to_owned(),
            identity,
            database: database.to_owned(),
            lease: lease.to_owned(),
            encoding: "UTF8",
            snapshot,
            deadline,
        };
        let (_, mut connection) = opening.connect().await?;
        if connection.server_encoding() == "SQL_ASCII" {
            // Its bytes have no encoding; asked for as UTF-8, the first byte beyond ASCII would fail.
            connection.close().await;
            opening.encoding = "SQL_ASCII";
            (_, connection) = opening.connect().await?;
        }
        let (mut session, name) = in_time(Session::begin(connection, Snapshot::New)).await?;
        names.send_replace(name);
        let tables = in_time(catalog::tables(&mut session)).await?;
        let server_version = session.connection().server_version().to_owned();
        let holder = Holder::new(session, opening.clone(), names);
        Ok(Self { holder, server_version, opening, tasks: TaskTracker::new(), deadline, tables })
    }

    pub(in crate::agent) fn server_version(&self) -> &str {
        &self.server_version
    }

    pub(in crate::agent) fn tables(&self) -> &[TableInfo] {
        &self.tables
    }

    /// The `sql` of one check, whose statements end at `deadline`.
    pub(in crate::agent) fn sql(&self, deadline: Instant) -> CheckSql {
        let (sql, task) = CheckSql::new(self.opening.clone(), deadline.min(self.deadline));
        self.tasks.spawn(task);
        sql
    }

    /// What reads whole tables for one check.
    pub(in crate::agent) fn scans(&self, deadline: Instant) -> Scans {
        Scans::new(self.opening.clone(), deadline.min(self.deadline))
    }

    /// Both sides of the schema, for one check whose statements end at `deadline`.
    pub(in crate::agent) fn schemas(&self, baseline: Option<Bytes>, deadline: Instant) -> Schemas {
        Schemas::new(self.opening.clone(), baseline, deadline.min(self.deadline))
    }

    /// Waits for the checks' connections, then lets the snapshot go.
    pub(in crate::agent) async fn close(self) {
        self.tasks.close();
        if tokio::time::timeout(CLOSE, self.tasks.wait()).await.is_err() {
            eprintln!("muster agent: a connection to {} did not end in time", self.opening.database);
        }
        self.holder.close().await;
    }
}

/// Whether a login works, for the probe: the database need not hold anything.
pub(in crate::agent) async fn login(socket: &Path, identity: &ClientIdentity, database: &str) -> Result<(), Error> {
    let door = Door::new(socket, identity)?;
    Connection::open(&door, database, "UTF8", CATALOG).await?.close().await;
    Ok(())
}

pub(super) async fn in_time<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let slow = || host(format!("the database did not answer within {}", drill::unit::duration(CATALOG)));
    tokio::time::timeout(CATALOG, work).await.map_err(|_| slow())?
}
