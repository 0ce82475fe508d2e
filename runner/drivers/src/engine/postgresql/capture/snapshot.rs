//! One snapshot of one database: list, lock, snapshot, list again.
//!
//! TRUNCATE is not MVCC-safe, so every table is locked in ACCESS SHARE mode before the snapshot exists; a table that came or
//! went in between shows in the second list, and everything is done again.
use std::sync::Arc;

use drill::stop::Stop;
use drill::verdict::Reason;

use super::conninfo::ConnInfo;
use super::session::{Session, identifier};

const ATTEMPTS: u32 = 3;
/// Tables in one LOCK statement.
const BATCH: usize = 200;

/// Views and sequences hold nothing to count. Members of an extension come back with the extension, except its configuration.
const LIST: &str = "
SELECT c.oid, c.relkind, n.nspname, c.relname, c.relpersistence, c.relispopulated
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'm', 'f') AND c.relpersistence <> 't'
  AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
    WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e'
      AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
      AND NOT coalesce(c.oid = ANY (e.extconfig), false))
ORDER BY c.oid";

/// On a standby that is behind, or is not connected, the data is as old as the last transaction it replayed.
const SNAPSHOT: &str = "
SELECT pg_catalog.pg_export_snapshot(), pg_catalog.pg_is_in_recovery(),
  CASE WHEN pg_catalog.pg_is_in_recovery()
         AND (pg_catalog.pg_last_wal_receive_lsn() IS DISTINCT FROM pg_catalog.pg_last_wal_replay_lsn()
              OR NOT EXISTS (SELECT FROM pg_catalog.pg_stat_wal_receiver))
       THEN least(pg_catalog.pg_last_xact_replay_timestamp(), pg_catalog.statement_timestamp())
       ELSE pg_catalog.statement_timestamp() END";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Relation {
    pub(super) oid: u32,
    pub(super) kind: Kind,
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) unlogged: bool,
    pub(super) populated: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Table,
    Partitioned,
    Matview,
    Foreign,
}

impl Relation {
    pub(super) fn quoted(&self) -> String {
        format!("{}.{}", identifier(&self.schema), identifier(&self.name))
    }

    /// LOCK TABLE takes no other kind.
    fn lockable(&self) -> bool {
        matches!(self.kind, Kind::Table | Kind::Partitioned)
    }
}

/// A transaction that holds the locks and the snapshot until it is dropped.
pub(super) struct Snapshot {
    pub(super) session: Arc<Session>,
    pub(super) id: String,
    pub(super) time: jiff::Timestamp,
    pub(super) in_recovery: bool,
    pub(super) relations: Vec<Relation>,
}

pub(super) async fn take(info: &ConnInfo, lock_timeout: std::time::Duration) -> Result<Snapshot, Stop> {
    let mut why = String::new();
    let mut session = Session::connect(info).await?;
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            session = Session::connect(info).await?;
        }
        session = match attempt_one(session, lock_timeout).await? {
            Ok(snapshot) => return Ok(snapshot),
            Err((session, reason)) => {
                why = reason;
                session
            }
        };
    }
    let problem = format!("tables were created, dropped or locked during all of {ATTEMPTS} attempts ({why})");
    Err(Stop::new(Reason::SandboxUnfit, problem).advise("capture when no migration runs"))
}

async fn attempt_one(
    session: Session,
    lock_timeout: std::time::Duration,
) -> Result<Result<Snapshot, (Session, String)>, Stop> {
    let before = list(&session).await?;
    session
        .run(&format!(
            "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET LOCAL lock_timeout = {}",
            lock_timeout.as_millis().max(1)
        ))
        .await?;
    let lockable: Vec<&Relation> = before.iter().filter(|relation| relation.lockable()).collect();
    for batch in lockable.chunks(BATCH) {
        let names: Vec<String> = batch.iter().map(|relation| format!("ONLY {}", relation.quoted())).collect();
        let locked = session.attempt(&format!("LOCK TABLE {} IN ACCESS SHARE MODE", names.join(", "))).await?;
        if let Err(state) = locked {
            return Ok(Err((session, format!("SQLSTATE {} while locking", state.code()))));
        }
    }
    let [[id, in_recovery, time]] = session.rows::<3>(SNAPSHOT).await?.try_into().map_err(|_| no_snapshot())?;
    let relations = list(&session).await?;
    let same = |a: &Relation, b: &Relation| (a.oid, a.kind, &a.schema, &a.name) == (b.oid, b.kind, &b.schema, &b.name);
    if before.len() != relations.len() || !before.iter().zip(&relations).all(|(a, b)| same(a, b)) {
        return Ok(Err((session, "the list of tables changed".to_owned())));
    }
    let time = time.and_then(|time| time.parse().ok()).ok_or_else(no_snapshot)?;
    let id = id.ok_or_else(no_snapshot)?;
    let in_recovery = in_recovery.as_deref() == Some("t");
    Ok(Ok(Snapshot { session: Arc::new(session), id, time, in_recovery, relations }))
}

fn no_snapshot() -> Stop {
    Stop::internal("the server exported no snapshot, or one without a time")
}

async fn list(session: &Session) -> Result<Vec<Relation>, Stop> {
    let relation = |row: [Option<String>; 6]| {
        let [Some(oid), Some(kind), Some(schema), Some(name), Some(persistence), populated] = row else {
            return Err(Stop::internal("the catalog holds a table without a name"));
        };
        Ok(Relation {
            oid: oid.parse().map_err(|_| Stop::internal("the catalog holds an OID that is no number"))?,
            kind: match kind.as_str() {
                "p" => Kind::Partitioned,
                "m" => Kind::Matview,
                "f" => Kind::Foreign,
                _ => Kind::Table,
            },
            schema,
            name,
            unlogged: persistence == "u",
            populated: populated.as_deref() == Some("t"),
        })
    };
    session.rows::<6>(LIST).await?.into_iter().map(relation).collect()
}
