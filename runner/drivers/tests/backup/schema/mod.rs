//! The objects of a schema: every kind is seen, every change is seen as what it is, and a dump and restore changes none.
mod captured;
mod majors;
mod mutations;
mod restored;

use std::collections::BTreeMap;

use drivers::engine::postgresql::schema::read;
use tokio_postgres::{Client, NoTls};

use crate::server::Server;

/// Kind and identity; content.
type Objects = BTreeMap<(String, String), String>;

const ROLES: &str = "CREATE ROLE alice; CREATE ROLE bob;";

fn fixture() -> Server {
    let server = Server::start();
    server.sql("postgres", ROLES);
    server.sql("postgres", "CREATE DATABASE objects");
    let big = format!("SELECT '{}'", "x".repeat(300_000));
    let script = include_str!("fixture.sql").replace("SELECT 'BIG'", &big);
    server.sql("objects", &script);
    server
}

async fn connect(server: &Server, database: &str) -> Client {
    let host = server.socket().to_str().unwrap();
    // As capture pins them.
    let options =
        "-c search_path= -c enable_indexscan=off -c enable_indexonlyscan=off -c enable_bitmapscan=off -c jit=off";
    let config = format!("host={host} user=postgres dbname={database} options='{options}'");
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Inside the transaction that is open.
async fn objects(client: &Client) -> Objects {
    let version = client.simple_query("SHOW server_version_num").await.unwrap();
    let version = version.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    let mut objects = Objects::new();
    let count = read(client, version.unwrap().parse().unwrap(), |object| {
        objects.insert((object.kind.clone(), object.identity.clone()), object.content.get().to_owned());
        Ok(())
    });
    let count = count.await.unwrap_or_else(|error| panic!("{}", drill::stop::chain(&error)));
    assert_eq!(count, objects.len() as u64);
    objects
}

async fn all_objects(client: &Client) -> Objects {
    client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.unwrap();
    let objects = objects(client).await;
    client.batch_execute("ROLLBACK").await.unwrap();
    objects
}

/// `-` is missing, `+` is added, `~` is changed.
fn difference(before: &Objects, after: &Objects) -> Vec<String> {
    let keys = before.keys().chain(after.keys()).collect::<std::collections::BTreeSet<_>>();
    let told = keys.into_iter().filter_map(|key| {
        let sign = match (before.get(key), after.get(key)) {
            (Some(_), None) => "-",
            (None, Some(_)) => "+",
            (before, after) if before != after => "~",
            _ => return None,
        };
        Some(format!("{sign} {} {}", key.0, key.1))
    });
    told.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_is_there_and_every_change_is_seen_and_a_restore_makes_none() {
    let server = fixture();
    let client = connect(&server, "objects").await;
    let before = all_objects(&client).await;
    let there: std::collections::BTreeSet<&str> = before.keys().map(|(kind, _)| kind.as_str()).collect();
    let absent: Vec<&str> = drivers::engine::postgresql::schema::queries(150_000)
        .iter()
        .map(|query| query.kind)
        .filter(|kind| !there.contains(kind))
        .collect();
    assert_eq!(absent, ["function in pg_catalog", "security label"], "kinds without an object to change");
    secrets_are_not_read(&before);
    large_things_are_known_by_their_digest(&before);
    mutations::all_are_seen(&client, &before).await;
    drop(client);
    restored::agrees(&server, &before).await;
    captured::holds_the_schema_and_tells_what_it_cannot(&server).await;
}

fn secrets_are_not_read(objects: &Objects) {
    assert!(objects.values().all(|content| !content.contains("hunter2")), "no password is read");
}

fn large_things_are_known_by_their_digest(objects: &Objects) {
    let content = |kind: &str, identity: &str| &objects[&(kind.to_owned(), identity.to_owned())];
    assert!(content("function", "public.big()").contains("\"length\": 300"), "{}", content("function", "public.big()"));
    let bytes: serde_json::Value = serde_json::from_str(content("large object", "4711")).unwrap();
    assert_eq!(bytes["size"], 10);
    assert_eq!(bytes["sha256"], drill::id::Sha256Digest::of(b"some bytes").to_string().replace("sha256:", ""));
    let sparse: serde_json::Value = serde_json::from_str(content("large object", "4712")).unwrap();
    let mut all = vec![0; 1_000_000];
    all.extend_from_slice(b"the end");
    assert_eq!(sparse["sha256"], drill::id::Sha256Digest::of(&all).to_string().replace("sha256:", ""));
}
