//! PostgreSQL. Start at [`PostgresqlEngine`]: what is installed (`install`), whether a backup fits it (`plan`), the server inside a
//! sandbox (`conf`, `tls`, `server`, `client`), the restore into it (`restore`, `roles`, `classify`), what a dump says of itself
//! (`dump`, `dump_header`, `script`), and what is compared of a database (`content`, `schema`).
pub mod capture;
pub mod classify;
mod client;
pub mod conf;
pub mod content;
pub mod dump;
pub mod dump_header;
#[cfg(test)]
#[path = "../../../../../fuzz/properties/dump.rs"]
mod dump_property;
pub mod install;
mod log;
mod plan;
mod restore;
mod roles;
pub mod schema;
pub mod script;
mod server;
pub mod text;
pub mod tls;

use async_trait::async_trait;
use drill::manifest::Manifest;
use drill::port::{Engine, EnginePlan, Programs};
use drill::spec::Postgresql;
use drill::stop::Stop;

/// The sandbox's bootstrap superuser: a name that no backup's roles should have, so that `postgres` can be restored.
pub const ADMIN_ROLE: &str = "muster_sandbox";
/// Where the administrator works on what belongs to no database. No backup is restored into it.
pub const MAINTENANCE_DATABASE: &str = "template1";
/// The name in the server's certificate.
pub const SERVER_NAME: &str = "db.sandbox.muster";
/// On the sandbox's own loopback.
pub const PORT: u16 = 5432;
/// `pg_read_all_data` came with it.
pub const OLDEST_MAJOR: u32 = 14;

/// The majors that are installed on this machine.
#[derive(Debug, Default)]
pub struct PostgresqlEngine;

impl PostgresqlEngine {
    pub fn new() -> Self {
        Self
    }
}

#[async_trait]
impl Engine for PostgresqlEngine {
    fn name(&self) -> &'static str {
        "postgresql"
    }

    async fn plan(
        &self,
        manifest: &Manifest,
        wanted: &Postgresql,
        programs: Programs,
    ) -> Result<Box<dyn EnginePlan>, Stop> {
        if programs == Programs::OfImage {
            return Ok(Box::new(plan::plan_for_image(manifest, wanted)?));
        }
        let installs = tokio::task::spawn_blocking(install::installs)
            .await
            .map_err(|error| Stop::internal(format!("looking for PostgreSQL: {error}")))?;
        Ok(Box::new(plan::plan(&installs, manifest, wanted)?))
    }
}
