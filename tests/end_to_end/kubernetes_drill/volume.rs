//! A backup that lies on a volume of the cluster: looked at there, restored from there, and left as it was.
use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

#[test]
fn a_backup_on_a_volume_is_looked_at_there_and_restored_and_the_volume_is_free_again() {
    let Some(world) = World::new() else { return };
    let volume = Volume::new(&world, "Retain");
    volume.put("shop/latest");
    // The dumps are on the volume alone.
    for file in ["dump", "globals.sql"] {
        fs::remove_file(world.backup_file(file)).unwrap();
    }
    let before = volume.contents();
    let run = world.run_text(&volume.drill("shop/latest")).expect(0);
    assert_eq!(run.result()["reason"], "proven", "{}", run.result());
    let phases: Vec<Value> = run.events("phase-started").iter().map(|event| event["phase"].clone()).collect();
    let at = |phase: &str| phases.iter().position(|one| *one == phase).unwrap_or_else(|| panic!("{phase}: {phases:?}"));
    assert!(at("verify") < at("sandbox"), "{phases:?}");
    let said = run.events("released").iter().map(Value::to_string).collect::<String>();
    assert!(said.contains(&format!("volume {} free again", volume.name)), "{said}");
    volume.assert_free_and(&before);
    // The next one finds it as the first did.
    world.run_text(&volume.drill("shop/latest")).expect(0);
    volume.assert_free_and(&before);
    world.assert_nothing_left();
}

/// What somebody does to a backup's directory.
type Damage<'a> = (&'a str, &'a str, &'a dyn Fn(&Path));

#[test]
fn what_is_wrong_on_the_volume_is_refused_before_the_database_is_there() {
    let Some(world) = World::new() else { return };
    let volume = Volume::new(&world, "Retain");
    let fifo = |path: &Path| {
        let mode = rustix::fs::Mode::from_raw_mode(0o644);
        rustix::fs::mkfifoat(rustix::fs::CWD, path.join("pipe"), mode).unwrap();
    };
    let damages: [Damage; 6] = [
        ("flipped", "is not the file that was backed up", &flip),
        ("unlisted", "`123.dat` is a file that the manifest does not list", &|path| {
            fs::write(path.join("123.dat"), "x").unwrap();
        }),
        ("link", "`link` is a symbolic link that the manifest does not list", &|path| {
            symlink("/etc/passwd", path.join("link")).unwrap();
        }),
        ("pipe", "`pipe` is a pipe that the manifest does not list", &fifo),
        ("lacking", "`globals.sql`: it does not exist", &|path| fs::remove_file(path.join("globals.sql")).unwrap()),
        ("shortened", "bytes, and the manifest says", &|path| {
            let dump = file_of(path, ".dump");
            let length = fs::metadata(&dump).unwrap().len();
            fs::OpenOptions::new().write(true).open(&dump).unwrap().set_len(length - 1).unwrap();
        }),
    ];
    for (what, said, damage) in damages {
        damage(&volume.put(what));
        let run = world.run_text(&volume.drill(what)).expect(1);
        let result = run.result();
        assert_eq!(
            (&result["reason"], &result["leftovers"]),
            (&json!("artifact-refused"), &json!("none")),
            "{what}: {result}"
        );
        let message = result["message"].as_str().unwrap();
        assert!(message.contains(said) && message.contains(&volume.name), "{what}: {message}");
        let phases = run.events("phase-started");
        assert!(!phases.iter().any(|event| event["phase"] == "sandbox"), "{what}: {phases:?}");
        assert_eq!(run.events("quarantined").len(), 1, "{what}");
        // The place is condemned, and no other: the next run of it does not look again.
        let again = world.run_text(&volume.drill(what)).expect(2);
        assert_eq!(again.result()["reason"], "quarantined", "{what}: {}", again.result());
    }
    volume.put("whole");
    world.run_text(&volume.drill("whole")).expect(0);
    volume.assert_free();
    world.assert_nothing_left();
}

#[test]
fn a_volume_that_cannot_be_borrowed_is_refused_and_stays() {
    let Some(world) = World::new() else { return };
    let volume = Volume::new(&world, "Delete");
    volume.put("whole");
    let before = volume.contents();
    let refused = |said: &str| {
        let run = world.run_text(&volume.drill("whole")).expect(2);
        let result = run.result();
        assert_eq!(result["reason"], "sandbox-unfit", "{result}");
        assert!(result["message"].as_str().unwrap().contains(said), "{result}");
        assert!(run.events("intended").is_empty(), "nothing was made");
    };
    refused("its reclaim policy is Delete");
    let patch = |change: &str| world.cluster.kubectl(&["patch", "pv", &volume.name, "--type=merge", "-p", change]);
    patch(
        r#"{"spec": {"persistentVolumeReclaimPolicy": "Retain", "claimRef": {"namespace": "production", "name": "theirs"}}}"#,
    );
    refused("claim `theirs` of namespace `production` has it");
    patch(r#"{"spec": {"claimRef": null, "accessModes": ["ReadWriteOnce"]}}"#);
    refused("it is not offered as ReadOnlyMany");
    assert_eq!(volume.contents(), before);
    world.assert_nothing_left();
}

#[test]
fn a_killed_run_gives_the_volume_back() {
    let Some(world) = World::new() else { return };
    let volume = Volume::new(&world, "Retain");
    volume.put("whole");
    let before = volume.contents();
    let drill = volume.drill("whole");
    let reap = || {
        world.muster(&["reap"]).expect(0);
        volume.assert_free_and(&before);
        world.assert_nothing_left();
    };
    // While the volume is looked at, or claimed for it.
    let running = world.start_text(&drill);
    within(60, "the volume is claimed", || (volume.field("{.spec.claimRef.name}") == "backup").then_some(()));
    running.signal(Signal::KILL);
    running.wait();
    reap();
    for resource in ["sandbox", "lease"] {
        let (running, _) = world.until_acquired_of(&drill, resource);
        running.signal(Signal::KILL);
        running.wait();
        reap();
    }
    // Somebody was quicker, and the namespace has gone without muster.
    let (running, run) = world.until_acquired_of(&drill, "sandbox");
    running.signal(Signal::KILL);
    running.wait();
    world.cluster.kubectl(&["delete", "namespace", &format!("dr-sandbox-{run}"), "--timeout=120s"]);
    assert_eq!(volume.field("{.status.phase}"), "Released");
    reap();
}

#[test]
fn a_volume_that_would_go_with_its_claim_by_then_is_not_let_go() {
    let Some(world) = World::new() else { return };
    let volume = Volume::new(&world, "Retain");
    volume.put("whole");
    let before = volume.contents();
    let policy = |policy: &str| {
        let change = format!(r#"{{"spec": {{"persistentVolumeReclaimPolicy": "{policy}"}}}}"#);
        world.cluster.kubectl(&["patch", "pv", &volume.name, "--type=merge", "-p", &change]);
    };
    let (mut running, _) = world.until_acquired_of(&volume.drill("whole"), "agent");
    policy("Delete");
    while running.next_event().is_some() {}
    let run = running.wait().expect(4);
    assert!(run.stdout.contains("became Delete: it is not let go"), "{}", run.stdout);
    policy("Retain");
    world.muster(&["reap"]).expect(0);
    volume.assert_free_and(&before);
    world.assert_nothing_left();
}

#[test]
fn what_is_written_to_the_volume_after_the_first_look_is_no_verdict_on_the_backup() {
    let Some(world) = World::new() else { return };
    let volume = Volume::new(&world, "Retain");
    let damages: [Damage; 2] = [
        // A restore that fails for it, and one that does not.
        ("flipped", "is not the file that was backed up", &flip),
        ("unlisted", "`123.dat` is a file that the manifest does not list", &|path| {
            fs::write(path.join("123.dat"), "x").unwrap();
        }),
    ];
    for (what, said, damage) in damages {
        let directory = volume.put(what);
        let (mut running, _) = world.until_acquired_of(&volume.drill(what), "agent");
        damage(&directory);
        while running.next_event().is_some() {}
        let run = running.wait().expect(2);
        let result = run.result();
        assert_eq!(result["reason"], "artifact-changed", "{what}: {result}");
        assert!(result["message"].as_str().unwrap().contains(said), "{what}: {result}");
        assert!(run.events("check-ended").is_empty(), "{what}: no check counts");
        volume.assert_free();
    }
    world.assert_nothing_left();
}

/// One byte in the middle of the dump.
fn flip(directory: &Path) {
    let dump = file_of(directory, ".dump");
    let mut bytes = fs::read(&dump).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    // In place, as whoever has the file open sees it.
    fs::write(&dump, bytes).unwrap();
}

fn file_of(directory: &Path, suffix: &str) -> PathBuf {
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut named = files.filter(|path| path.to_str().unwrap().ends_with(suffix));
    named.next().unwrap_or_else(|| panic!("no {suffix} in {}", directory.display()))
}

impl World {
    fn backup_file(&self, suffix: &str) -> PathBuf {
        file_of(&self.place.path("backups/shop/latest"), suffix)
    }
}

/// A volume of the node, without an owner; gone when dropped.
struct Volume<'a> {
    world: &'a World,
    name: String,
    directory: PathBuf,
}

impl<'a> Volume<'a> {
    fn new(world: &'a World, policy: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("muster-test-backups-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = world.cluster.volumes().join(&name);
        fs::create_dir_all(&directory).unwrap();
        world.cluster.apply(&format!(
            "apiVersion: v1\nkind: PersistentVolume\nmetadata: {{ name: {name} }}\nspec:\n  storageClassName: backups\n  \
             capacity: {{ storage: 1Gi }}\n  accessModes: [ReadOnlyMany]\n  persistentVolumeReclaimPolicy: {policy}\n  \
             local: {{ path: {} }}\n  nodeAffinity: {{ required: {{ nodeSelectorTerms: [{{ matchExpressions: \
             [{{ key: kubernetes.io/hostname, operator: Exists }}] }}] }} }}\n",
            directory.display()
        ));
        let volume = Self { world, name, directory };
        within(30, "the volume is there", || (volume.field("{.status.phase}") == "Available").then_some(()));
        volume
    }

    /// The backup, at this path of it.
    fn put(&self, path: &str) -> PathBuf {
        let to = self.directory.join(path);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        let from = fs::canonicalize(self.world.place.path("backups/shop/latest")).unwrap();
        assert!(std::process::Command::new("cp").arg("-r").arg(from).arg(&to).status().unwrap().success());
        let mut open = std::process::Command::new("chmod");
        assert!(open.args(["-R", "a+rX"]).arg(&self.directory).status().unwrap().success());
        to
    }

    fn drill(&self, path: &str) -> String {
        format!("{}      artifact: {{ volume: {{ name: {}, path: {path} }} }}\n", self.world.drill_text(), self.name)
    }

    fn field(&self, path: &str) -> String {
        let shown = self.world.cluster.try_kubectl(&["get", "pv", &self.name, "-o", &format!("jsonpath={path}")], "");
        String::from_utf8_lossy(&shown.stdout).into_owned()
    }

    #[track_caller]
    fn assert_free(&self) {
        assert_eq!(self.field("{.status.phase} {.spec.claimRef}"), "Available ");
    }

    #[track_caller]
    fn assert_free_and(&self, before: &BTreeMap<PathBuf, Vec<u8>>) {
        self.assert_free();
        assert_eq!(self.contents().keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
        assert!(self.contents() == *before, "files of the volume were written");
    }

    /// Each file and what is in it.
    fn contents(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut ahead = vec![self.directory.clone()];
        while let Some(directory) = ahead.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    ahead.push(path);
                } else {
                    files.insert(path.clone(), fs::read(&path).unwrap());
                }
            }
        }
        files
    }
}

impl Drop for Volume<'_> {
    fn drop(&mut self) {
        let gone = ["delete", "pv", &self.name, "--ignore-not-found", "--timeout=30s"];
        self.world.cluster.try_kubectl(&gone, "");
        let _ = fs::remove_dir_all(&self.directory);
    }
}
