//! A throwaway server to capture from: on a socket in a directory of its own, gone when dropped.
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use drill::id::Sha256Digest;
use drill::manifest::{ChunkTree, DumpFormat, Extension, FileEntry, Kind, Locale, Manifest, Part, Source};
use drivers::engine::postgresql::install::{Install, installs};

use crate::host::Host;

pub(crate) struct SourceServer {
    host: Arc<Host>,
    pub(crate) install: Install,
    server: tokio::task::JoinHandle<()>,
}

/// A backup in memory.
pub(crate) struct Backup {
    pub(crate) manifest: Manifest,
    pub(crate) files: Vec<(String, Vec<u8>)>,
}

impl Drop for SourceServer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl SourceServer {
    pub(crate) async fn start() -> Self {
        let install = installs().into_iter().next().expect("PostgreSQL is installed");
        let host = Arc::new(Host::new());
        let words = |program: &str, arguments: &[&str]| {
            let mut argv = vec![install.program(program)];
            argv.extend(arguments.iter().map(|argument| (*argument).to_owned()));
            argv
        };
        let initdb = words("initdb", &["-D", "/data", "-U", "postgres", "-A", "trust", "-N", "--locale=C.UTF-8"]);
        let template = crate::shared().join("source");
        if !template.exists() {
            checked(host.exec(&initdb).await);
            copy(&host.path("data"), &template);
        }
        std::fs::remove_dir_all(host.path("data")).expect("removed");
        copy(&template, &host.path("data"));
        let listen =
            ["-D", "/data", "-k", "/tmp", "-c", "listen_addresses=", "-c", "fsync=off", "-c", "wal_level=logical"];
        let serve = words("postgres", &listen);
        let inside = Arc::clone(&host);
        let server = tokio::spawn(async move {
            inside.exec(&serve).await;
        });
        let source = Self { host, install, server };
        for _ in 0..200 {
            let ready = source.tool("psql", &["-d", "postgres", "-c", "SELECT 1"]).await;
            if ready.status.success() {
                return source;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the source server did not start");
    }

    async fn tool(&self, program: &str, arguments: &[&str]) -> Output {
        let mut argv = vec![self.install.program(program), "-h".to_owned(), "/tmp".to_owned()];
        argv.extend(["-U", "postgres", "-p", "5432"].map(str::to_owned));
        argv.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self.host.exec(&argv).await
    }

    /// Runs a script; `\connect` is allowed.
    pub(crate) async fn sql(&self, script: &str) {
        self.host.put("tmp/script.sql", script.as_bytes());
        checked(
            self.tool("psql", &["-d", "postgres", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", "/tmp/script.sql"]).await,
        );
    }

    /// A plain dump.
    pub(crate) async fn script(&self, arguments: &[&str]) -> String {
        String::from_utf8(checked(self.tool("pg_dump", arguments).await).stdout).expect("text")
    }

    pub(crate) async fn dump(&self, databases: &[&str], extensions: &[&str]) -> Backup {
        let globals =
            checked(self.tool("pg_dumpall", &["--globals-only", "--no-role-passwords", "--no-tablespaces"]).await);
        let mut files = vec![("globals.sql".to_owned(), globals.stdout)];
        let mut parts = Vec::new();
        for database in databases {
            let path = format!("{database}.dump");
            checked(self.tool("pg_dump", &["-Fc", "-f", "/tmp/out.dump", database]).await);
            files.push((path.clone(), std::fs::read(self.host.path("tmp/out.dump")).expect("the dump")));
            parts.push(Part {
                database: (*database).to_owned(),
                format: DumpFormat::Custom,
                files: vec![entry(&path)],
                baseline: None,
                schema: None,
                blocks: None,
                row_digests: None,
                locale: Some(Locale {
                    encoding: "UTF8".to_owned(),
                    collate: "C.UTF-8".to_owned(),
                    ctype: "C.UTF-8".to_owned(),
                    provider: "libc".to_owned(),
                    icu_locale: None,
                }),
                extensions: extensions
                    .iter()
                    .map(|name| Extension {
                        name: (*name).to_owned(),
                        version: self.install.extensions[*name].clone(),
                        schema: "public".to_owned(),
                    })
                    .collect(),
            });
        }
        let manifest = Manifest {
            version: 1,
            kind: Kind::Logical,
            name: "test".to_owned(),
            snapshot_time: Some(jiff::Timestamp::now()),
            snapshot_time_from: drill::manifest::SnapshotTimeFrom::Capture,
            source: Source {
                engine: "postgresql".to_owned(),
                version: self.install.version.clone(),
                version_number: self.install.major * 10_000 + self.install.minor,
                tool: format!("pg_dump (PostgreSQL) {}", self.install.version),
            },
            globals: Some(entry("globals.sql")),
            parts,
        };
        Backup { manifest, files }
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status().expect("cp");
    assert!(copied.success());
}

pub(crate) fn entry(path: &str) -> FileEntry {
    let nothing = Sha256Digest::of(b"");
    FileEntry { path: path.to_owned(), size: 0, sha256: nothing, tree: ChunkTree { chunk_size: 1, root: nothing } }
}

fn checked(output: Output) -> Output {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}
