//! What a drill does to the two sides of a schema before they are compared.
use std::time::Duration;

use drill::ledger::Resource;
use drill::port::{Credentials as _, Inside, LeaseRequest, Server, Session};
use drill::schema::{Object, Reader};
use drivers::credentials::embedded::Embedded;
use drivers::engine::postgresql::ADMIN_ROLE;
use drivers::engine::postgresql::schema::{PutBack, queries, translate};

use crate::ask;

/// Whoever reads the schema with the lease can tell what the privileges were before.
pub(crate) async fn what_is_taken_is_known(embedded: &Embedded, request: &LeaseRequest, inside: Inside<'_>) {
    let server = inside.server;
    let admin = server.identity(ADMIN_ROLE, Duration::from_mins(5)).expect("a certificate");
    let mut differs = 0;
    let mut before = Vec::new();
    for database in &request.databases {
        let session = server.login(&admin, database).await.expect("it logs in");
        before.push(objects(session.as_ref(), &mut PutBack::default()).await);
    }
    let lease = embedded.issue(request, inside).await.expect("a lease");
    for (database, before) in request.databases.iter().zip(before) {
        let session = server.login(&lease.grant.identity, database).await.expect("it logs in");
        differs += usize::from(objects(session.as_ref(), &mut PutBack::default()).await != before);
        let mut put_back = PutBack::new(&lease.taken[database], &Resource::lease_role(&request.run));
        let after = objects(session.as_ref(), &mut put_back).await;
        for (after, before) in after.iter().zip(&before) {
            assert_eq!(after, before, "in {database}");
        }
        assert_eq!(after.len(), before.len(), "in {database}");
    }
    assert_eq!(differs, 2, "without putting back, both databases look otherwise");
    embedded.revoke(request, Some(&lease), Some(inside)).await.expect("revoked");
}

/// Kind, identity and content, in order.
async fn objects(session: &dyn Session, put_back: &mut PutBack) -> Vec<(String, String, serde_json::Value)> {
    let mut objects = Vec::new();
    let mut take = |object: Object| {
        let content = serde_json::from_str(object.content.get()).expect("JSON");
        objects.push((object.kind, object.identity, content));
    };
    for query in queries(150_000) {
        for row in session.run(&query.sql).await.expect("it reads") {
            let [Some(identity), Some(content)] = row.as_slice() else { panic!("{row:?}") };
            let object = Object::new(query.kind, identity.clone(), content.clone()).expect("an object");
            while let Some(gone) = put_back.gone(Some(&object)).expect("an object") {
                take(gone);
            }
            put_back.put_back(object).expect("an object").into_iter().for_each(&mut take);
        }
    }
    while let Some(gone) = put_back.gone(None).expect("an object") {
        take(gone);
    }
    objects
}

/// As it is done where the backup is of another major.
pub(crate) async fn views_are_told_in_the_servers_words(server: &dyn Server, database: &str) {
    let admin = server.identity(ADMIN_ROLE, Duration::from_mins(5)).expect("a certificate");
    let session = server.login(&admin, database).await.expect("it logs in");
    let file = [
        r#"{"schema":1,"database":"vault"}"#,
        r#"{"kind":"relation","identity":"a","content":{"definition":"select a from public.columns;","kind":"view"}}"#,
        r#"{"kind":"relation","identity":"b","content":{"definition":"select a from public.absent;","kind":"view"}}"#,
        r#"{"kind":"relation","identity":"c","content":{"definition":"select 1; commit; drop table public.columns","kind":"view"}}"#,
        r#"{"kind":"relation","identity":"d","content":{"kind":"table"}}"#,
        r#"{"kind":"relation","identity":"e","content":{"kind":"view","length":300000,"sha256":"00"}}"#,
    ]
    .join("\n");
    let translated = translate(file.as_bytes(), Vec::new(), Some(session.as_ref())).await.expect("a file");
    let mut reader = Reader::new(translated).expect("a file");
    let contents: Vec<serde_json::Value> = std::iter::from_fn(|| reader.next_object())
        .map(|object| serde_json::from_str(object.expect("an object").content.get()).expect("JSON"))
        .collect();
    let words = contents[0]["definition"].as_str().expect("a text");
    assert!(words.starts_with(" SELECT ") && words.contains("FROM public.columns;"), "{words}");
    let why = |number: usize| contents[number]["untranslated"].as_str().unwrap_or_default();
    assert_eq!([why(0), why(3)], ["", ""]);
    assert!(why(1).contains("does not exist"), "{}", why(1));
    assert!(why(2).contains("transaction"), "{}", why(2));
    assert_eq!(why(4), "it is too long");
    assert_eq!(
        ask(server, database, "SELECT pg_catalog.to_regclass('public.columns')").await,
        "public.columns",
        "and it is still there"
    );
}
