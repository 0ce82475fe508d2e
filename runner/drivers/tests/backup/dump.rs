//! Dumps without a manifest: who vouches for them, and what becomes of a file that is not what it was.
use std::fs;
use std::path::Path;

use drill::port::{Artifacts as _, Opened};
use drill::spec::{DumpSignature, DumpSource, Source, TrustedKey};
use drill::stop::Stop;
use drill::verdict::Reason;
use drivers::artifact::file::FileArtifacts;
use drivers::key::{SigningKey, generate};

use crate::capture::Silent;

const SCRIPT: &str = "--\n-- PostgreSQL database dump\n--\n\n-- Dumped from database version 15.18\n-- Dumped by pg_dump version 15.18\n\n\
    SET client_encoding = 'UTF8';\nSELECT 1;\n\n--\n-- PostgreSQL database dump complete\n--\n";

fn signed(path: &str) -> DumpSource {
    let trusted_keys = vec![TrustedKey::File("backup.pub".to_owned())];
    let signature = DumpSignature { path: format!("{path}.minisig"), trusted_keys };
    DumpSource { path: path.to_owned(), sha256: None, signature: Some(signature), timezone: None }
}

async fn open(source: DumpSource, base: &Path) -> Result<Opened, Stop> {
    FileArtifacts.open(&Source::Dump(source), base).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_vouches_for_a_file_and_for_a_directory() {
    let place = tempfile::tempdir().unwrap();
    let base = place.path();
    generate(&base.join("backup"), None).unwrap();
    let key = SigningKey::load(&base.join("backup.key"), None).unwrap();
    let sign =
        |name: &str, content: &[u8]| fs::write(base.join(name), key.sign_detached(content, "x").unwrap()).unwrap();
    fs::write(base.join("shop.sql"), SCRIPT).unwrap();
    let absent = open(signed("shop.sql"), base).await.err().unwrap();
    assert!(absent.message.contains("nobody vouches for the dump"), "{absent}");

    sign("shop.sql.minisig", SCRIPT.as_bytes());
    let opened = open(signed("shop.sql"), base).await.unwrap();
    assert_eq!(opened.vouched.key(), Some("backup.pub"));
    assert_eq!(opened.manifest.parts[0].database, "shop");
    assert_eq!(opened.digest, drill::id::Sha256Digest::of(SCRIPT.as_bytes()));
    let staging = base.join("staging");
    fs::create_dir(&staging).unwrap();
    opened.artifact.stage(&staging, &Silent).await.unwrap();
    assert_eq!(fs::read_to_string(staging.join("shop.sql")).unwrap(), SCRIPT);

    // Changed after it was opened, and before.
    let changed = SCRIPT.replace("SELECT 1", "SELECT 2");
    let opened = open(signed("shop.sql"), base).await.unwrap();
    fs::write(base.join("shop.sql"), &changed).unwrap();
    fs::remove_file(staging.join("shop.sql")).unwrap();
    let stop = opened.artifact.stage(&staging, &Silent).await.unwrap_err();
    assert_eq!(stop.reason, Reason::ArtifactRefused, "{stop}");
    let stop = open(signed("shop.sql"), base).await.err().unwrap();
    assert!(stop.message.contains("is not what backup.pub signed"), "{stop}");

    // A directory is signed by the list of its files, which is no dump here; so far it does not come without the right list.
    fs::create_dir(base.join("shop")).unwrap();
    fs::write(base.join("shop/toc.dat"), "no archive").unwrap();
    sign("shop.minisig", b"0000  toc.dat\n");
    let stop = open(signed("shop"), base).await.err().unwrap();
    assert!(stop.message.contains("is not what backup.pub signed"), "{stop}");
    let digest = drill::id::Sha256Digest::of(b"no archive").hex();
    sign("shop.minisig", format!("{digest}  toc.dat\n").as_bytes());
    let stop = open(signed("shop"), base).await.err().unwrap();
    assert!(stop.message.contains("PGDMP"), "{stop}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_beside_it_is_followed_and_one_within_is_not() {
    let place = tempfile::tempdir().unwrap();
    let base = place.path();
    let source = |path: &str| DumpSource { path: path.to_owned(), sha256: None, signature: None, timezone: None };
    fs::write(base.join("shop-1.sql"), SCRIPT).unwrap();
    std::os::unix::fs::symlink("shop-1.sql", base.join("latest.sql")).unwrap();
    let opened = open(source("latest.sql"), base).await.unwrap();
    assert!(opened.location.ends_with("shop-1.sql"), "{}", opened.location);
    fs::create_dir(base.join("directory")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", base.join("directory/toc.dat")).unwrap();
    let stop = open(source("directory"), base).await.err().unwrap();
    assert!(stop.message.contains("symbolic link"), "{stop}");
    let stop = open(source("absent.sql"), base).await.err().unwrap();
    assert!(stop.message.contains("does not exist"), "{stop}");
}
