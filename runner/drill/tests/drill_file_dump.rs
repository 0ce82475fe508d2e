//! Drills of a dump without a file of their own.
use drill::file::{Options, of_dump};
use drill::spec::{DumpSource, Source};

#[test]
fn a_dump_without_a_file_gets_a_drill_of_its_own_name() {
    let of = |path: &str| {
        let dump = DumpSource { path: path.to_owned(), sha256: None, signature: None, timezone: None };
        let drill = of_dump(dump.clone(), Options::default());
        assert_eq!(drill.source, Source::Dump(dump));
        assert_eq!(drill.checks.len(), 3);
        drill.name.to_string()
    };
    for (path, name) in [
        ("/b/Orders_2026.sql.gz", "orders-2026"),
        ("orders", "orders"),
        ("/b/dir/", "dir"),
        ("/b/.hidden.dump", "hidden"),
        ("/b/___.dump", "dump"),
        ("/b/\u{8a9e}.dump", "dump"),
        ("/b/a-very-long-name-of-thirty-one-charact.dump", "a-very-long-name-of-thirty-one"),
    ] {
        assert_eq!(of(path), name, "{path}");
    }
    assert_ne!(
        of_dump(DumpSource { path: "a".to_owned(), sha256: None, signature: None, timezone: None }, Options::default())
            .digest,
        of_dump(DumpSource { path: "b".to_owned(), sha256: None, signature: None, timezone: None }, Options::default())
            .digest,
    );
}
