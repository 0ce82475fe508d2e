//! What the gate refuses, and that it names what is wrong.
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use drill::manifest::Manifest;
use drill::port::{Artifacts, Progress};
use drill::spec::{Source, TrustedKey};
use drill::stop::Stop;
use drill::verdict::Reason;
use drivers::artifact::file::{FileArtifacts, FileBackup};
use drivers::key::{SigningKey, generate};

use crate::capture::{Place, SAMPLE, Silent};
use crate::server::Server;

/// A backup with a dump of several chunks, made once; the tests below work on it one after the other.
struct Backup {
    place: Place,
    directory: PathBuf,
}

impl Backup {
    async fn make() -> Self {
        let server = Server::start();
        server.sql("postgres", "CREATE DATABASE orders");
        server.sql("orders", SAMPLE);
        // Random text does not compress: about 9 MiB.
        let wide = "CREATE TABLE wide AS SELECT n, string_agg(md5(random()::text), '') AS t
                    FROM generate_series(1, 4000) n, generate_series(1, 130) GROUP BY n";
        server.sql("orders", wide);
        let place = Place::new();
        let directory = place.capture(vec![server.info("orders")]).await.unwrap().directory;
        Self { place, directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    async fn refuse(&self) -> Stop {
        let stop = self.place.verify().await.unwrap_err();
        assert_eq!(stop.reason, Reason::ArtifactRefused, "{stop}");
        stop
    }

    /// Damages a file, expects a refusal that names it, and puts it back.
    async fn damaged(&self, name: &str, damage: impl FnOnce(&Path)) -> String {
        let (path, kept) = (self.path(name), self.path("kept"));
        std::fs::rename(&path, &kept).unwrap();
        std::fs::copy(&kept, &path).unwrap();
        damage(&path);
        let message = self.refuse().await.message;
        assert!(message.contains(name.trim_end_matches(".minisig")), "{name}: {message}");
        if path.symlink_metadata().is_ok() {
            std::fs::remove_file(&path).unwrap();
        }
        std::fs::rename(&kept, &path).unwrap();
        message
    }

    fn manifest(&self) -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(self.path("manifest.json")).unwrap()).unwrap()
    }

    fn sign(&self, manifest: &serde_json::Value) {
        let key = SigningKey::load(&self.place.directory.path().join("backup.key"), None).unwrap();
        let json = serde_json::to_vec(manifest).unwrap();
        std::fs::write(self.path("manifest.json"), &json).unwrap();
        std::fs::write(self.path("manifest.json.minisig"), key.sign_detached(&json, "edited").unwrap()).unwrap();
    }
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = at.min(bytes.len() - 1);
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_damage_is_refused_and_named() {
    let backup = Backup::make().await;
    backup.place.verify().await.unwrap();
    let names: Vec<String> = std::fs::read_dir(&backup.directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names.len(), 9, "{names:?}");
    for name in &names {
        // The first line of a signature is minisign's untrusted comment, which means nothing.
        backup.damaged(name, |path| flip(path, 100)).await;
    }
    let message = backup.damaged("orders.dump", |path| flip(path, 5_000_000)).await;
    assert!(message.contains("bytes 4,194,304 to 8,388,608 differ"), "{message}");

    for name in ["orders.dump", "globals.sql", "baseline-0.jsonl", "manifest.json", "manifest.json.minisig"] {
        let message = backup.damaged(name, |path| std::fs::remove_file(path).unwrap()).await;
        assert!(message.contains("does not exist"), "{message}");
        backup
            .damaged(name, |path| {
                std::fs::remove_file(path).unwrap();
                symlink("kept", path).unwrap();
            })
            .await;
        backup
            .damaged(name, |path| {
                std::fs::remove_file(path).unwrap();
                let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
                rustix::fs::mkfifoat(rustix::fs::CWD, path, mode).unwrap();
            })
            .await;
        let extra = |path: &Path| {
            let mut bytes = std::fs::read(path).unwrap();
            bytes.push(b'\n');
            std::fs::write(path, bytes).unwrap();
        };
        if name != "manifest.json.minisig" {
            backup.damaged(name, extra).await;
        }
    }
    backup.place.verify().await.unwrap();

    // The side file only locates: without it the same damage is found, and not where.
    std::fs::remove_file(backup.path("orders.dump.chunks")).unwrap();
    backup.place.verify().await.unwrap();
    let message = backup.damaged("orders.dump", |path| flip(path, 5_000_000)).await;
    assert!(message.contains("expected") && message.contains("found"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_manifest_is_still_checked() {
    let backup = Backup::make().await;
    let original = backup.manifest();
    let edits: [(&str, serde_json::Value, &str); 8] = [
        ("/parts/0/files/0/path", "../orders.dump".into(), "not a plain relative path"),
        ("/globals/path", "/etc/passwd".into(), "not a plain relative path"),
        ("/globals/path", "orders.dump".into(), "listed twice"),
        ("/version", 9.into(), "version is 9"),
        ("/globals/size", 1.into(), "the manifest says 1"),
        ("/parts/0/database", "other".into(), "the dump is of database `orders`, and the manifest says `other`"),
        ("/source/version", "15.99".into(), "15.99"),
        ("/snapshotTime", "2026-01-01T00:00:00Z".into(), "from the snapshot's"),
    ];
    for (pointer, value, said) in edits {
        let mut manifest = original.clone();
        *manifest.pointer_mut(pointer).unwrap() = value;
        backup.sign(&manifest);
        let message = backup.refuse().await.message;
        assert!(message.contains(said), "{pointer}: {message}");
    }
    backup.sign(&original);
    backup.place.verify().await.unwrap();

    // Valid, and signed by somebody else.
    generate(&backup.place.directory.path().join("other"), None).unwrap();
    let source = Source::Manifest {
        path: "orders/latest/manifest.json".to_owned(),
        trusted_keys: vec![TrustedKey::File("other.pub".to_owned())],
        fallbacks: Vec::new(),
        exercise: drill::spec::Exercise::First,
    };
    let refused = FileArtifacts.open(&source, backup.place.directory.path()).await;
    let stop = refused.err().unwrap();
    assert!(stop.message.contains("trusted is only other.pub"), "{stop}");
    assert_eq!(stop.reason, Reason::ArtifactRefused);
    let unreadable = Source::Manifest {
        path: "orders/latest/manifest.json".to_owned(),
        trusted_keys: vec![TrustedKey::File("absent.pub".to_owned())],
        fallbacks: Vec::new(),
        exercise: drill::spec::Exercise::First,
    };
    let stop = FileArtifacts.open(&unreadable, backup.place.directory.path()).await.err().unwrap();
    assert_eq!(stop.reason, Reason::Internal, "a missing key says nothing about the backup");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_backup_behind_latest_is_refused() {
    let backup = Backup::make().await;
    let older = backup.place.out().join("20200101T000000Z");
    copy(&backup.directory, &older);
    let latest = backup.place.out().join("latest");
    std::fs::remove_file(&latest).unwrap();
    symlink("20200101T000000Z", &latest).unwrap();
    let stop = backup.refuse().await;
    let newest = backup.directory.file_name().unwrap().to_str().unwrap();
    assert!(stop.message.contains(newest) && stop.message.contains("not the newest"), "{stop}");
    // Whoever names the old one means it.
    FileBackup::open(&older.join("manifest.json"), &backup.place.trust()).unwrap();
    // What is being made is no newer backup.
    std::fs::create_dir(backup.place.out().join("20990101T000000Z")).unwrap();
    std::fs::remove_file(&latest).unwrap();
    symlink(newest, &latest).unwrap();
    backup.place.verify().await.unwrap();
    std::fs::remove_file(&latest).unwrap();
    symlink("gone", &latest).unwrap();
    assert!(backup.refuse().await.message.contains("leads nowhere"));
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Swaps `latest`, and changes a file, as soon as the first bytes were read.
struct Meddler(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Progress for Meddler {
    fn set(&self, _: u64, _: Option<u64>, _: &str) {
        if let Some(meddle) = self.0.lock().unwrap().take() {
            meddle();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_staged_is_what_was_opened() {
    let backup = Backup::make().await;
    let source = Source::Manifest {
        path: "orders/latest/manifest.json".to_owned(),
        trusted_keys: vec![TrustedKey::File("backup.pub".to_owned())],
        fallbacks: Vec::new(),
        exercise: drill::spec::Exercise::First,
    };
    let opened = FileArtifacts.open(&source, backup.place.directory.path()).await.unwrap();
    assert_eq!(opened.vouched.key(), Some("backup.pub"));
    assert_eq!(Path::new(&opened.location), backup.directory);
    let latest = backup.place.out().join("latest");
    let elsewhere = backup.place.directory.path().join("elsewhere");
    copy(&backup.directory, &elsewhere);
    flip(&elsewhere.join("orders.dump"), 9);
    let meddler = Meddler(Mutex::new(Some(Box::new(move || {
        std::fs::remove_file(&latest).unwrap();
        symlink(elsewhere, &latest).unwrap();
    }))));
    let staging = tempfile::tempdir().unwrap();
    opened.artifact.stage(staging.path(), &meddler).await.unwrap();
    assert!(meddler.0.lock().unwrap().is_none(), "the link was swapped");
    for file in opened.manifest.files() {
        let staged = std::fs::read(staging.path().join(&file.path)).unwrap();
        assert_eq!(staged, std::fs::read(backup.path(&file.path)).unwrap(), "{}", file.path);
    }
    // Nothing that was staged before is ever written again.
    let stop = opened.artifact.stage(staging.path(), &Silent).await.unwrap_err();
    assert_eq!(stop.reason, Reason::Internal, "{stop}");
    let manifest: Manifest = serde_json::from_value(backup.manifest()).unwrap();
    assert_eq!(manifest, opened.manifest);
}
