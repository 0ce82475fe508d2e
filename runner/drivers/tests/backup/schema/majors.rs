//! A restore into another major. Where no second one is installed, this says so.
use std::path::PathBuf;
use std::process::Stdio;

use async_trait::async_trait;
use drill::port::{Rows, Session, SqlError};
use drill::schema::Reader;
use drivers::engine::postgresql::schema::translate;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::{Objects, ROLES, all_objects, connect, difference};
use crate::server::Server;

/// What the newer one may lack: extensions and ICU are packages of their own.
const PLAIN: &str = "
CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer text NOT NULL, total numeric(10, 2) DEFAULT 0);
CREATE TABLE lines (order_id bigint REFERENCES orders, part int, CHECK (part > 0));
CREATE INDEX lines_part ON lines (part) WHERE part > 7;
CREATE VIEW dear AS SELECT o.id, o.customer FROM orders o WHERE o.total > 10;
CREATE VIEW joined WITH (security_barrier) AS SELECT o.id, l.part FROM orders o JOIN lines l ON l.order_id = o.id;
CREATE VIEW counted (a, b) AS SELECT customer, count(*) FROM orders GROUP BY customer;
CREATE MATERIALIZED VIEW kept AS SELECT id, total FROM orders;
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE DOMAIN price AS numeric CHECK (VALUE > 0);
CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql IMMUTABLE RETURN n * 2;
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER stamp BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION note();
CREATE POLICY own ON orders TO bob USING (customer = CURRENT_USER);
GRANT SELECT ON orders TO bob; GRANT ALL ON lines TO alice WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES FOR ROLE alice GRANT ALL ON TABLES TO bob;
COMMENT ON VIEW dear IS 'more than ten';
";

/// Directories of programs, the oldest first; the variable names one that no package brought.
fn majors() -> Vec<PathBuf> {
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut found: Vec<PathBuf> = installed.map(|entry| entry.unwrap().path().join("bin")).collect();
    found.sort();
    found.extend(std::env::var_os("MUSTER_TEST_OTHER_POSTGRESQL").map(PathBuf::from));
    found.retain(|programs| programs.join("postgres").exists());
    found
}

struct Admin(Client);

#[async_trait]
impl Session for Admin {
    async fn run(&self, statements: &str) -> Result<Rows, SqlError> {
        let failed = |error: tokio_postgres::Error| SqlError { sqlstate: None, message: drill::stop::chain(&error) };
        let messages = self.0.simple_query(statements).await.map_err(failed)?;
        let cell = |message| match message {
            SimpleQueryMessage::Row(row) => Some(vec![row.get(0).map(str::to_owned)]),
            _ => None,
        };
        Ok(messages.into_iter().filter_map(cell).collect())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_major_tells_the_same_schema() {
    let majors = majors();
    let [old, .., new] = majors.as_slice() else {
        eprintln!("skipped: one major of PostgreSQL is installed, and this needs two");
        return;
    };
    let (source, target) = (Server::start_from(old), Server::start_from(new));
    for server in [&source, &target] {
        server.sql("postgres", ROLES);
    }
    source.sql("postgres", "CREATE DATABASE objects");
    source.sql("objects", PLAIN);
    let before = all_objects(&connect(&source, "objects").await).await;
    let mut dump = source.client("pg_dump", "objects").arg("--format=custom").stdout(Stdio::piped()).spawn().unwrap();
    // The newest client tools that there are: a server may come without any.
    let mut restore = target.client("pg_restore", "postgres");
    restore.args(["--create", "--exit-on-error", "--dbname=postgres"]).stdin(dump.stdout.take().unwrap());
    let restored = restore.output().unwrap();
    assert!(
        dump.wait().unwrap().success() && restored.status.success(),
        "{}",
        String::from_utf8_lossy(&restored.stderr)
    );
    let after = values(all_objects(&connect(&target, "objects").await).await);

    let mut file = r#"{"schema":1,"database":"objects"}"#.to_owned();
    for ((kind, identity), content) in &before {
        let (kind, identity) = (serde_json::json!(kind), serde_json::json!(identity));
        file += "\n";
        file += &[r#"{"kind":"#, &kind.to_string(), r#","identity":"#, &identity.to_string()].concat();
        file += &[r#","content":"#, content, "}"].concat();
    }
    let admin = Admin(connect(&target, "objects").await);
    let mut reader = Reader::new(translate(file.as_bytes(), Vec::new(), Some(&admin)).await.unwrap()).unwrap();
    let mut translated = Objects::new();
    while let Some(object) = reader.next_object() {
        let object = object.unwrap();
        translated.insert((object.kind, object.identity), String::from(Box::<str>::from(object.content)));
    }
    assert_eq!(difference(&values(translated), &after), [""; 0]);
    assert_ne!(difference(&values(before), &after), [""; 0], "views are told in other words");
}

/// Without the blanks that one of two writers leaves.
fn values(objects: Objects) -> Objects {
    let value = |content: &str| serde_json::from_str::<serde_json::Value>(content).unwrap().to_string();
    objects.into_iter().map(|(key, content)| (key, value(&content))).collect()
}
