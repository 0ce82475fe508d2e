//! What a capture writes of the schema, and what it says cannot be in the backup.
use drill::schema::Reader;
use drivers::engine::postgresql::capture::LEAST_ROLE;

use super::{all_objects, connect};
use crate::capture::Place;
use crate::server::Server;

pub(super) async fn holds_the_schema_and_tells_what_it_cannot(server: &Server) {
    server.sql("postgres", &LEAST_ROLE.replace("\\\\password", "password"));
    server.sql(
        "objects",
        "GRANT SELECT ON LARGE OBJECT 4711, 4712 TO muster_capture;
         CREATE OPERATOR @@@@ (LEFTARG = pair, RIGHTARG = pair, FUNCTION = pair_gt, COMMUTATOR = @@@@@);
         SET allow_system_table_mods = on;
         CREATE FUNCTION pg_catalog.format(text, public.pair) RETURNS text LANGUAGE sql AS 'SELECT $1';
         UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'orders_lower'::regclass",
    );
    let place = Place::new();
    let captured = place.capture(vec![server.info_as("muster_capture", "objects")]).await.unwrap();
    place.verify().await.unwrap();
    let entry = captured.manifest.parts[0].schema.as_ref().expect("a schema");
    let mut reader = Reader::new(std::fs::read(captured.directory.join(&entry.path)).unwrap()).unwrap();
    assert_eq!(reader.header().database, "objects");
    let written: Vec<_> = std::iter::from_fn(|| reader.next_object()).map(Result::unwrap).collect();
    let read = all_objects(&connect(server, "objects").await).await;
    let written = written
        .into_iter()
        .map(|object| ((object.kind, object.identity), String::from(Box::<str>::from(object.content))));
    assert_eq!(written.collect::<super::Objects>(), read, "a reader sees what a superuser sees");
    for what in [
        "index public.orders_lower is invalid",
        "operator public.@@@@@(public.pair,public.pair) is a shell",
        "function format(text,public.pair) was put",
    ] {
        assert!(captured.warnings.iter().any(|warning| warning.starts_with(what)), "{what}: {:?}", captured.warnings);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_without_an_encoding_are_no_reason_not_to_have_a_backup() {
    let server = Server::start();
    server.sql("postgres", "CREATE DATABASE bytes ENCODING SQL_ASCII LOCALE 'C' TEMPLATE template0");
    server.sql("bytes", "SET client_encoding = SQL_ASCII; CREATE TABLE t (id int); COMMENT ON TABLE t IS E'caf\\xe9'");
    let place = Place::new();
    let captured = place.capture(vec![server.info("bytes")]).await.unwrap();
    place.verify().await.unwrap();
    assert_eq!(captured.manifest.parts[0].schema, None);
    assert!(captured.warnings.iter().any(|warning| warning.contains("in no encoding")), "{:?}", captured.warnings);

    // The bytes of KOI8-R have another order than those of UTF-8; SQL_ASCII may hold UTF-8 after all.
    for encoding in ["KOI8R", "WIN1251", "SQL_ASCII"] {
        server
            .sql("postgres", &format!("CREATE DATABASE {encoding} ENCODING {encoding} LOCALE 'C' TEMPLATE template0"));
        let database = encoding.to_lowercase();
        let client = if encoding == "SQL_ASCII" { encoding } else { "UTF8" };
        let table = |name: &str| format!("CREATE TABLE {name} (id int); COMMENT ON TABLE {name} IS '{name}';");
        let tables: String = ["ю", "а", "ё", "я"].map(table).concat();
        server.sql(&database, &format!("SET client_encoding = {client}; {tables}"));
        let place = Place::new();
        let captured = place.capture(vec![server.info(&database)]).await.unwrap();
        let entry = captured.manifest.parts[0].schema.as_ref().expect("a schema");
        let mut reader = Reader::new(std::fs::read(captured.directory.join(&entry.path)).unwrap()).unwrap();
        let objects = std::iter::from_fn(|| reader.next_object()).map(Result::unwrap);
        let names: Vec<String> =
            objects.filter(|object| object.kind == "relation").map(|object| object.identity).collect();
        assert_eq!(names, ["а", "ю", "я", "ё"].map(|name| format!("public.\"{name}\"")), "{encoding}");
    }
}
