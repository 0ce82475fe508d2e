//! What the signed manifest says the database held when the backup was made. The grant `baseline`.
pub use crate::bindings::muster::check::baseline::{Table, available};

/// The tables of which rows were counted, by schema and name.
pub fn tables() -> impl Iterator<Item = Table> {
    crate::paged(crate::bindings::muster::check::baseline::tables)
}
