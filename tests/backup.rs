use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::{Place, Server, muster};

/// Rows in the largest table of the sample.
const ROWS: u64 = 2_000;

/// A backup of the sample shop in a place, and the key that signed it.
pub struct Backup<'a> {
    place: &'a Place,
    /// The directory that holds `latest`.
    pub name: String,
}

/// A copy of the sample backup, in `place` as `backups/<name>`, with `backup.pub` and `backup.key` beside it. It is captured
/// once for all tests, because only a few are about capturing.
pub fn sample<'a>(place: &'a Place, name: &str) -> Backup<'a> {
    let original = original();
    let backups = place.path("backups");
    fs::create_dir_all(&backups).expect("the place is ours");
    copy(&original.join("backups/shop"), &backups.join(name));
    for key in ["backup.pub", "backup.key"] {
        fs::copy(original.join(key), place.path(key)).expect("the key is there");
        place.give_to_user(&place.path(key));
    }
    place.give_tree_to_user(&backups);
    Backup { place, name: name.to_owned() }
}

/// A backup of a database of its own, made by `sql`.
pub fn captured<'a>(place: &'a Place, name: &str, sql: &str) -> Backup<'a> {
    captured_from(&Server::start(), place, name, sql)
}

/// The same from a server that is there.
pub fn captured_from<'a>(server: &Server, place: &'a Place, name: &str, sql: &str) -> Backup<'a> {
    server.psql("postgres", &format!("CREATE DATABASE {name}"));
    server.psql(name, sql);
    if !place.path("backup.key").exists() {
        muster(place, &["key", "generate", "backup"]).expect(0);
    }
    let (out, conninfo) = (format!("backups/{name}"), server.conninfo(name));
    let arguments = ["capture", "--name", name, "--key", "backup.key", "--out", &out, "--database", &conninfo];
    muster(place, &arguments).expect(0);
    Backup { place, name: name.to_owned() }
}

impl Backup<'_> {
    /// The directory that `latest` leads to.
    pub fn directory(&self) -> PathBuf {
        fs::canonicalize(self.place.path("backups").join(&self.name).join("latest")).expect("latest leads somewhere")
    }

    /// The first file of the backup whose name ends so.
    pub fn file(&self, suffix: &str) -> PathBuf {
        let mut files: Vec<PathBuf> =
            fs::read_dir(self.directory()).expect("it is there").map(|entry| entry.expect("an entry").path()).collect();
        files.sort();
        files
            .into_iter()
            .find(|file| file.to_str().is_some_and(|name| name.ends_with(suffix)))
            .expect("the backup has such a file")
    }

    /// The smallest drill of this backup.
    pub fn drill(&self) -> String {
        self.drill_with("")
    }

    /// With more keys under `spec`.
    pub fn drill_with(&self, more: &str) -> String {
        let name = &self.name;
        let text = format!(
            "apiVersion: muster.dev/v1\nkind: Drill\nmetadata: {{ name: {name} }}\nspec:\n  source: {{ manifest: backups/{name}/latest/manifest.json, trustedKeys: [{{ file: backup.pub }}] }}\n{more}"
        );
        self.place.write(&format!("{name}.yaml"), &text);
        format!("{name}.yaml")
    }

    /// Makes the manifest agree with the files again, so that only a check can notice what was changed.
    pub fn sign_again(&self) {
        let directory = self.directory().display().to_string();
        muster(self.place, &["manifest", "sign", &directory, "--key", "backup.key"]).expect(0);
    }
}

fn original() -> &'static Path {
    static ORIGINAL: OnceLock<PathBuf> = OnceLock::new();
    ORIGINAL.get_or_init(|| {
        let place = Place::new();
        let server = Server::start();
        server.psql("postgres", "CREATE DATABASE shop");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/sample.sql");
        server.psql_file("shop", &script, &[&format!("rows={ROWS}")]);
        muster(&place, &["key", "generate", "backup"]).expect(0);
        let conninfo = server.conninfo("shop");
        let arguments =
            ["capture", "--name", "shop", "--key", "backup.key", "--out", "backups/shop", "--database", &conninfo];
        muster(&place, &arguments).expect(0);

        // Part of what the build leaves, like the test binary itself; made anew by each run of the tests.
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tmp/sample-backup");
        let _ = fs::remove_dir_all(&kept);
        fs::create_dir_all(&kept).expect("the build directory is ours");
        copy(&place.path("backups"), &kept.join("backups"));
        for key in ["backup.pub", "backup.key"] {
            fs::copy(place.path(key), kept.join(key)).expect("the key was made");
        }
        kept
    })
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg("--no-target-directory").args([from, to]).status().expect("cp runs");
    assert!(status.success(), "cp -a {} {}", from.display(), to.display());
}
