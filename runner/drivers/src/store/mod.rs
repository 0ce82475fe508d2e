//! The durable memory: [`sqlite::SqliteStore`] and, for tests of whoever writes to a store, [`fake::MemoryStore`]. Both keep the
//! rules of `fold` and pass one contract.
#[cfg(test)]
mod contract;
pub mod fake;
mod fold;
mod news;
pub mod sqlite;

use std::path::Path;
use std::sync::Arc;

use drill::port::Store;
use drill::stop::Stop;

/// The store of a state directory, made where there is none.
pub fn open(state_directory: &Path) -> Result<Arc<dyn Store>, Stop> {
    let path = state_directory.join(sqlite::FILE_NAME);
    Ok(Arc::new(sqlite::SqliteStore::open(&path, sqlite::Mode::ReadWrite)?))
}

/// The same for looking; None where nothing was ever stored.
pub fn look(state_directory: &Path) -> Result<Option<Arc<dyn Store>>, Stop> {
    let path = state_directory.join(sqlite::FILE_NAME);
    match path.symlink_metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        // Whatever else is in the way is said by opening it.
        _ => Ok(Some(Arc::new(sqlite::SqliteStore::open(&path, sqlite::Mode::ReadOnly)?))),
    }
}
