//! Scripts: `psql` runs them. They were read to their end before, outside, and hold no command of `psql` but those of `pg_dump`.
use std::sync::Arc;

use drill::finding::Finding;
use drill::manifest::{Packing, Part};
use drill::port::{FEED, PROGRAM, Server as _};
use drill::stop::Stop;

use super::super::server::PostgresqlServer;
use super::super::text::identifier;
use super::{MAINTENANCE_DATABASE, dump, judge, make_room, run, trouble};

/// Lines of a script that may name a role. What looks like one in a row of data costs a role that nobody needs.
const ROLE_LINES: &str = "^(ALTER|GRANT|REVOKE|CREATE POLICY|CREATE USER MAPPING|SET SESSION AUTHORIZATION) ";

/// One database. A script that makes none gets one; its own statements run in it.
pub(super) async fn restore(server: &PostgresqlServer, part: &Part, packing: Packing) -> Result<Vec<Finding>, Stop> {
    let database = if part.makes_its_database() {
        make_room(server, part).await?;
        MAINTENANCE_DATABASE
    } else {
        make_database(server, part).await?;
        part.database.as_str()
    };
    let mut psql = vec![server.install.program("psql"), "-X".to_owned(), "-q".to_owned(), "--echo-errors".to_owned()];
    psql.extend(["-v", "ON_ERROR_STOP=0", "-d", database, "-o", "/dev/null"].map(str::to_owned));
    let path = dump(part)?;
    let argv = if packing == Packing::None {
        psql.extend(["-f".to_owned(), path]);
        psql
    } else {
        psql.extend(["-f".to_owned(), "-".to_owned()]);
        fed(packing, path, psql)
    };
    let (output, errors) = run(server, argv, Arc::new(|_, _| ()), || ()).await?;
    // With ON_ERROR_STOP=0 psql ends with 0 unless it could not begin, or lost its server (2).
    judge(server, &format!("database {}", part.database), Some(&part.database), &output, errors, &[0]).await
}

pub(super) fn role_lines(part: &Part, packing: Packing) -> Result<Vec<String>, Stop> {
    let grep = ["/usr/bin/grep", "--text", "--extended-regexp", "--regexp", ROLE_LINES].map(str::to_owned);
    Ok(fed(packing, dump(part)?, grep.into()))
}

/// muster itself unpacks, inside, into the command's standard input.
fn fed(packing: Packing, path: String, command: Vec<String>) -> Vec<String> {
    let mut argv = vec![PROGRAM.to_owned(), FEED.to_owned(), packing.as_str().to_owned(), path];
    argv.extend(command);
    argv
}

async fn make_database(server: &PostgresqlServer, part: &Part) -> Result<(), Stop> {
    make_room(server, part).await?;
    let name = identifier(&part.database);
    let statement = format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8'");
    match server.admin(MAINTENANCE_DATABASE, &statement).await {
        Ok(_) => Ok(()),
        Err(error) => Err(trouble(server, format!("making database {}: {error}", part.database)).await),
    }
}
