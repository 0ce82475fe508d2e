use crate::ledger::event::Resource;
use crate::ledger::state::{Held, State};

/// Whether the restored database can still be asked to revoke a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Database {
    Serving,
    /// It went with its sandbox, or never served.
    Gone,
}

/// What is still owed, in the order in which it must go. Never undoes what the ledger shows as gone.
///
/// Checks stop first; a lease is revoked while its database lives, so that the refusal of its login can be seen; where the
/// database is gone, the lease is gone as soon as the sandbox is. Storage goes last: nothing may still write to it.
pub fn plan_teardown(state: &State, database: Database) -> Vec<Resource> {
    let order = match database {
        Database::Serving => [Resource::Agent, Resource::Lease, Resource::Sandbox, Resource::Storage],
        Database::Gone => [Resource::Agent, Resource::Sandbox, Resource::Lease, Resource::Storage],
    };
    order.into_iter().filter(|resource| state.held.get(resource).is_some_and(Held::is_owed)).collect()
}
