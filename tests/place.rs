use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A plain user that owns nothing: `nobody`.
pub(crate) const NOBODY: u32 = 65534;
/// Not the user's number, because a system user's group often has another one.
const GROUP: u32 = 65533;

/// A directory for one test, removed when the test ends, and the user that muster runs as in it.
///
/// It can be walked through by others, because as root muster drops to a user that must reach its own state directory.
pub struct Place {
    directory: tempfile::TempDir,
    user: User,
    host: Vec<Option<Vec<u8>>>,
}

/// What nothing in a test may change.
const HOST: [&str; 3] = ["/etc/passwd", "/etc/group", "/proc/sys/kernel/core_pattern"];

fn look_at_host() -> Vec<Option<Vec<u8>>> {
    HOST.iter().map(|path| fs::read(path).ok()).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum User {
    /// Whoever runs the tests.
    Myself,
    /// Root's tests run as a plain user too.
    Nobody,
}

impl Place {
    pub fn new() -> Self {
        Self::of(User::Myself)
    }

    /// As a plain user, whoever runs the tests.
    pub fn of_a_plain_user() -> Self {
        Self::of(if is_root() { User::Nobody } else { User::Myself })
    }

    fn of(user: User) -> Self {
        let directory = tempfile::Builder::new().prefix("muster-test-").tempdir_in("/var/tmp").expect("a directory");
        fs::set_permissions(directory.path(), Permissions::from_mode(0o711)).expect("it is ours");
        let place = Self { directory, user, host: look_at_host() };
        let state = place.path("state");
        fs::create_dir(&state).expect("it is new");
        fs::set_permissions(&state, Permissions::from_mode(0o711)).expect("it is ours");
        place.give_to_user(place.directory.path());
        place.give_to_user(&state);
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("the place can be written");
        self.give_to_user(&path);
        path
    }

    /// A command of the place's user, in the place, with nothing of the tests' own environment.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = match self.user {
            User::Myself => Command::new(program),
            User::Nobody => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid=65534", "--regid=65533", "--clear-groups", "--"]).arg(program);
                command
            }
        };
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.directory.path())
            .env("MUSTER_STATE_DIR", self.state())
            .current_dir(self.directory.path())
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn give_to_user(&self, path: &Path) {
        if self.user == User::Nobody {
            std::os::unix::fs::lchown(path, Some(NOBODY), Some(GROUP)).expect("root may");
        }
    }

    pub(crate) fn give_tree_to_user(&self, path: &Path) {
        self.give_to_user(path);
        if path.is_dir() && !path.is_symlink() {
            for entry in fs::read_dir(path).expect("it is ours") {
                self.give_tree_to_user(&entry.expect("an entry").path());
            }
        }
    }

    /// Nothing under muster's names is left: no run directory, no process, no mount of this place; and the host is as it was.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        let runs = self.state().join("runs");
        let left: Vec<_> =
            fs::read_dir(&runs).into_iter().flatten().map(|entry| entry.expect("an entry").path()).collect();
        assert!(left.is_empty(), "run directories are left: {left:?}");
        let processes = self.processes();
        assert!(processes.is_empty(), "processes are left: {processes:?}");
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("/proc is there");
        let here = self.directory.path().to_str().expect("a plain path");
        assert!(!mounts.contains(here), "a mount is left");
        for ((path, before), now) in HOST.iter().zip(&self.host).zip(look_at_host()) {
            assert!(*before == now, "{path} is not as it was");
        }
    }

    /// Processes that name this place in their arguments or hold its files: found by what they have mapped or opened.
    pub fn processes(&self) -> Vec<String> {
        let here = self.directory.path().to_str().expect("a plain path");
        let me = std::process::id().to_string();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").expect("/proc is there").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name == me || !name.bytes().all(|byte| byte.is_ascii_digit()) {
                continue;
            }
            let read = |file: &str| {
                fs::read(entry.path().join(file)).map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " "))
            };
            let arguments = read("cmdline").unwrap_or_default();
            let mounts = read("mountinfo").unwrap_or_default();
            if arguments.contains(here) || mounts.contains(here) {
                found.push(format!("{name}: {arguments}"));
            }
        }
        found
    }
}

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
