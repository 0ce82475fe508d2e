//! A dump and restore into another database changes nothing but what the specification of a dump says.
use std::process::Stdio;

use super::{Objects, all_objects, connect, difference};
use crate::server::Server;

/// The restored database has the name of the one that it was made from.
pub(super) async fn agrees(server: &Server, before: &Objects) {
    let directory = tempfile::tempdir().unwrap();
    let dump = directory.path().join("dump");
    let dumped = server.client("pg_dump", "objects").args(["--format=custom", "--file"]).arg(&dump).output().unwrap();
    assert!(dumped.status.success(), "{}", String::from_utf8_lossy(&dumped.stderr));
    // In a sandbox the superuser has another name than where the backup was made.
    server.sql("postgres", "ALTER DATABASE objects RENAME TO source; CREATE ROLE restorer SUPERUSER LOGIN");
    let mut restore = server.client("pg_restore", "postgres");
    let restored = restore
        .env("PGUSER", "restorer")
        .args(["--create", "--dbname=postgres"])
        .arg(&dump)
        .stdout(Stdio::null())
        .output()
        .unwrap();
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    let after = all_objects(&connect(server, "objects").await).await;
    assert_eq!(difference(before, &after), [""; 0]);
}
