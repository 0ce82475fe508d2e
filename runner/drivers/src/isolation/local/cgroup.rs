//! cgroups: version 1 as root, version 2 where muster was started in a delegated subtree.
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;
use serde::{Deserialize, Serialize};

use super::limits::Bounds;

const V1_CONTROLLERS: [&str; 2] = ["memory", "pids"];
/// The leaf that muster moves itself to: version 2 has no processes beside children that have controllers.
const OWN_LEAF: &str = "muster-runner";

/// What of cgroups this process may use.
#[derive(Debug, Clone)]
pub(super) enum Cgroups {
    /// The directory that holds the controllers' own.
    V1 {
        root: PathBuf,
    },
    /// The delegated directory.
    V2 {
        base: PathBuf,
    },
    None {
        why: String,
    },
}

impl Cgroups {
    pub(super) fn detect() -> Self {
        let root = Path::new("/sys/fs/cgroup");
        let v1 = V1_CONTROLLERS.iter().all(|controller| root.join(controller).join("cgroup.procs").exists());
        if v1 {
            if rustix::process::geteuid().is_root() && writable(&root.join("memory")) && writable(&root.join("pids")) {
                return Self::V1 { root: root.to_owned() };
            }
            return Self::none("this machine has cgroup version 1, which only root may use");
        }
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let Some(own) = own.lines().find_map(|line| line.strip_prefix("0::/")) else {
            return Self::none("this machine has no cgroups");
        };
        match delegated(&root.join(own)) {
            Ok(base) => Self::V2 { base },
            Err(error) => Self::none(format!("muster was not started in a delegated cgroup ({error})")),
        }
    }

    pub(super) fn none(why: impl Into<String>) -> Self {
        Self::None { why: why.into() }
    }

    pub(super) fn name(&self) -> Option<&'static str> {
        match self {
            Self::V1 { .. } => Some("cgroup v1"),
            Self::V2 { .. } => Some("cgroup v2"),
            Self::None { .. } => None,
        }
    }

    pub(super) fn advice(&self) -> String {
        let why = match self {
            Self::None { why } => why.as_str(),
            Self::V1 { .. } | Self::V2 { .. } => "cgroups are in use",
        };
        format!(
            "{why}: add `Delegate=yes` to the [Service] section of muster's systemd unit, or start it with \
             `systemd-run --user --scope -p Delegate=yes muster run …`; or set `enforcement: best-effort`"
        )
    }

    /// Directories of `name`, one a controller. They need not exist.
    fn directories(&self, name: &str) -> Vec<PathBuf> {
        match self {
            Self::V1 { root } => V1_CONTROLLERS.iter().map(|one| root.join(one).join("muster").join(name)).collect(),
            Self::V2 { base } => vec![base.join(format!("muster-{name}"))],
            Self::None { .. } => vec![],
        }
    }

    /// Makes the group; the limits hold before anything joins.
    pub(super) fn make(&self, name: &str, bounds: &Bounds) -> Result<Group, Stop> {
        let group = Group { directories: self.directories(name) };
        for directory in &group.directories {
            let tried = || format!("making the cgroup {}", directory.display());
            // Whoever removes the last group removes its parent too; so making both may take a second try.
            let made = std::fs::create_dir_all(directory).or_else(|_| std::fs::create_dir_all(directory));
            made.or_stop(Reason::SandboxUnfit, tried())?;
            self.limit(directory, bounds).or_stop(Reason::SandboxUnfit, tried())?;
        }
        Ok(group)
    }

    fn limit(&self, directory: &Path, bounds: &Bounds) -> io::Result<()> {
        let set = |file: &str, value: &str| std::fs::write(directory.join(file), value);
        let (memory, swap) = match self {
            Self::V1 { .. } => ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
            Self::V2 { .. } | Self::None { .. } => ("memory.max", "memory.swap.max"),
        };
        if directory.join(memory).exists()
            && let Some(bytes) = bounds.memory
        {
            set(memory, &bytes.to_string())?;
            if directory.join(swap).exists() {
                set(swap, &if matches!(self, Self::V1 { .. }) { bytes.to_string() } else { "0".to_owned() })?;
            }
        }
        if directory.join("pids.max").exists() {
            set("pids.max", &bounds.tasks.to_string())?;
        }
        Ok(())
    }

    /// A group that was made before, perhaps by a process that is gone.
    pub(super) fn find(&self, name: &str) -> Group {
        let directories = self.directories(name).into_iter().filter(|path| path.exists()).collect();
        Group { directories }
    }

    /// Names of every group that ends in `suffix`.
    pub(super) fn names(&self, suffix: &str) -> Vec<String> {
        let (parents, prefix): (Vec<PathBuf>, &str) = match self {
            Self::V1 { root } => (V1_CONTROLLERS.iter().map(|one| root.join(one).join("muster")).collect(), ""),
            Self::V2 { base } => (vec![base.clone()], "muster-"),
            Self::None { .. } => (vec![], ""),
        };
        let mut names = std::collections::BTreeSet::new();
        for entry in parents.iter().filter_map(|parent| std::fs::read_dir(parent).ok()).flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(name) = name.strip_prefix(prefix).filter(|name| name.ends_with(suffix)) {
                names.insert(name.to_owned());
            }
        }
        names.into_iter().collect()
    }
}

/// The directories of one sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Group {
    pub(super) directories: Vec<PathBuf>,
}

impl Group {
    /// What a child writes `0` to, to join; opened by whoever may.
    pub(super) fn doors(&self) -> io::Result<Vec<File>> {
        self.directories.iter().map(|path| OpenOptions::new().write(true).open(path.join("cgroup.procs"))).collect()
    }

    /// How often the kernel ended a process for want of memory.
    pub(super) fn out_of_memory(&self) -> u64 {
        let counters = ["memory.oom_control", "memory.events"];
        let read = |path: &PathBuf| counters.iter().find_map(|name| std::fs::read_to_string(path.join(name)).ok());
        let count = |text: String| text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
        self.directories.iter().filter_map(read).filter_map(count).max().unwrap_or(0)
    }

    /// Ends what is in it and removes it. Blocks; at most for `patience`.
    pub(super) fn remove(&self, patience: Duration) -> io::Result<()> {
        let deadline = Instant::now() + patience;
        for directory in &self.directories {
            loop {
                match std::fs::remove_dir(directory) {
                    Ok(()) => break,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                    Err(error) if Instant::now() > deadline => return Err(error),
                    Err(_) => kill_members(directory),
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            if let Some(parent) = directory.parent().filter(|parent| parent.ends_with("muster")) {
                // Refused while another run has a group in it.
                let _ = std::fs::remove_dir(parent);
            }
        }
        Ok(())
    }
}

fn kill_members(directory: &Path) {
    if std::fs::write(directory.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    let members = std::fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    for pid in members.lines().filter_map(|line| line.parse().ok()) {
        if let Ok(process) = super::process::Process::open(pid) {
            process.kill();
        }
    }
}

fn writable(directory: &Path) -> bool {
    rustix::fs::access(directory, rustix::fs::Access::WRITE_OK).is_ok()
}

/// The directory beneath which groups can be made. Moves this process to a leaf of it first, which only works where nobody else
/// is in it: then it is ours. A leaf of that name whose parent is not ours is a group like another.
fn delegated(own: &Path) -> io::Result<PathBuf> {
    if own.file_name().is_some_and(|name| name == OWN_LEAF)
        && let Some(base) = own.parent()
        && writable(base)
    {
        controllers(base)?;
        return Ok(base.to_owned());
    }
    let members = std::fs::read_to_string(own.join("cgroup.procs"))?;
    let me = std::process::id().to_string();
    if members.lines().any(|line| line != me) {
        return Err(io::Error::other("other processes are in it"));
    }
    let leaf = own.join(OWN_LEAF);
    std::fs::create_dir_all(&leaf)?;
    std::fs::write(leaf.join("cgroup.procs"), &me)?;
    if let Err(error) = controllers(own) {
        let _ = std::fs::write(own.join("cgroup.procs"), &me);
        let _ = std::fs::remove_dir(&leaf);
        return Err(error);
    }
    Ok(own.to_owned())
}

fn controllers(base: &Path) -> io::Result<()> {
    let enabled = std::fs::read_to_string(base.join("cgroup.subtree_control"))?;
    if V1_CONTROLLERS.iter().all(|one| enabled.split_whitespace().any(|name| name == *one)) {
        return Ok(());
    }
    std::fs::write(base.join("cgroup.subtree_control"), "+memory +pids")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_2_group_is_limited_before_anything_joins() {
        let base = tempfile::tempdir().expect("a directory");
        let directory = base.path().join("muster-run.tag");
        std::fs::create_dir(&directory).expect("made");
        for file in ["memory.max", "memory.swap.max", "pids.max"] {
            std::fs::write(directory.join(file), "max").expect("written");
        }
        let cgroups = Cgroups::V2 { base: base.path().to_owned() };
        let limits = drill::spec::Limits {
            memory: Some(1 << 30),
            disk: None,
            processes: 10,
            enforcement: drill::spec::Enforcement::Required,
        };
        let bounds = Bounds::database(&limits);
        let group = cgroups.make("run.tag", &bounds).expect("made");
        let read = |file: &str| std::fs::read_to_string(directory.join(file)).expect("read");
        assert_eq!((read("memory.max").as_str(), read("memory.swap.max").as_str()), ("1073741824", "0"));
        assert_eq!(read("pids.max"), bounds.tasks.to_string());
        std::fs::write(directory.join("memory.events"), "oom 3\noom_kill 2\n").expect("written");
        assert_eq!((group.out_of_memory(), cgroups.names(".tag")), (2, vec!["run.tag".to_owned()]));
    }
}
