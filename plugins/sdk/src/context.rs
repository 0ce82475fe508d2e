//! What is being checked. Needs no grant.
pub use crate::bindings::muster::check::context::{
    Table, columns, database, databases, drill, engine, recovery_point_objective, remaining, run, server_version,
    snapshot_time, started_at,
};

/// The restored relations that hold rows, or whose partitions do, by schema and name.
pub fn tables() -> impl Iterator<Item = Table> {
    crate::paged(crate::bindings::muster::check::context::tables)
}
