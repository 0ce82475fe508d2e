//! What is asked of a sandbox's limits, what holds each, and what a person must do where nothing does.
use std::path::Path;

use drill::port::Survey;
use drill::proof::LimitInForce;
use drill::spec::{Enforcement, Limits};
use drill::stop::{OrStop, Stop};
use drill::unit;
use drill::verdict::Reason;
use rustix::fs::StatVfs;
use rustix::process::{Resource, Rlimit};

use super::cgroup::Cgroups;
use super::process;

/// Threads of muster's own init: two for each relayed connection, and a few more. They count as the sandbox's.
pub(super) const OWN_TASKS: u64 = 2 * super::inside::MAX_CONNECTIONS as u64 + 16;
const DESCRIPTORS: u64 = 4096;
const AGENT_PROCESSES: u64 = 128;
const AGENT_MEMORY: u64 = 2 << 30;
/// Free space, in percent of the file system, below which the watchdog ends a sandbox.
pub(super) const FREE_PERCENT: u64 = 10;

/// The limits of one boundary, as numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) memory: Option<u64>,
    pub(super) tasks: u64,
    file_size: Option<u64>,
}

impl Bounds {
    pub(super) fn database(limits: &Limits) -> Self {
        Self { memory: limits.memory, tasks: u64::from(limits.processes) + OWN_TASKS, file_size: limits.disk }
    }

    pub(super) fn agent(limits: &Limits) -> Self {
        let memory = limits.memory.map(|memory| memory.max(AGENT_MEMORY));
        Self { memory, tasks: AGENT_PROCESSES, file_size: Some(1 << 30) }
    }

    /// Per process, and for processes per user id: the second lock where there are cgroups, the only one elsewhere.
    pub(super) fn rlimits(&self, uid: u32) -> Result<Vec<(Resource, Rlimit)>, Stop> {
        let others = process::tasks_of(uid).or_stop(Reason::Internal, "counting processes")?;
        let both = |value| Rlimit { current: Some(value), maximum: Some(value) };
        let ours = |resource, value: u64| {
            // A plain user cannot raise what was lowered for it.
            let maximum = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
            (resource, both(value.min(maximum)))
        };
        let mut list = vec![
            ours(Resource::Nproc, others + self.tasks),
            ours(Resource::Nofile, DESCRIPTORS),
            ours(Resource::Core, 0),
        ];
        list.extend(self.file_size.map(|size| ours(Resource::Fsize, size)));
        Ok(list)
    }
}

/// Bytes of `/dev/shm` and `/tmp`: from the memory that was asked for, so that they are the same for every run of a drill.
pub(super) fn tmpfs_sizes(limits: &Limits) -> (u64, u64) {
    let memory = limits.memory.unwrap_or(4 << 30);
    (memory.div_ceil(4).max(16 << 20), memory.div_ceil(16).max(16 << 20))
}

/// What less than [`FREE_PERCENT`] is free of. Some file systems have no number of inodes.
pub(super) fn is_full(file_system: &StatVfs) -> Option<&'static str> {
    let less = |free, all| all > 0 && free < all / 100 * FREE_PERCENT;
    if less(file_system.f_bavail, file_system.f_blocks) {
        return Some("the state directory's file system");
    }
    less(file_system.f_favail, file_system.f_files).then_some("the inodes of the state directory's file system")
}

pub(super) fn survey(limits: &Limits, cgroups: &Cgroups, state_root: &Path) -> Result<Survey, Stop> {
    let tried = "looking at the state directory's file system";
    let disk = rustix::fs::statvfs(state_root).or_stop(Reason::Internal, tried)?;
    let free_disk = disk.f_bavail * disk.f_frsize;
    let mut warnings = Vec::new();
    if let Some(what) = is_full(&disk) {
        return Err(Stop::new(
            Reason::SandboxUnfit,
            format!("less than {FREE_PERCENT} % of {what} is free, beneath {}", state_root.display()),
        )
        .advise("make room, or name a state directory on another file system"));
    }
    let in_force = in_force(limits, cgroups, &mut warnings);
    if limits.enforcement == Enforcement::Required
        && let Some(open) = in_force.iter().find(|limit| !limit.total && limit.what != "descriptors")
    {
        return Err(Stop::new(
            Reason::SandboxUnfit,
            format!("nothing bounds the {} of a sandbox as a whole, and the drill requires it", open.what),
        )
        .advise(cgroups.advice()));
    }
    Ok(Survey { limits: in_force, free_disk, free_memory: free_memory()?, warnings })
}

fn in_force(limits: &Limits, cgroups: &Cgroups, warnings: &mut Vec<String>) -> Vec<LimitInForce> {
    let limit = |what: &str, value, enforced_by: &str, total| LimitInForce {
        what: what.to_owned(),
        value,
        enforced_by: enforced_by.to_owned(),
        total,
    };
    let bounds = Bounds::database(limits);
    let mut list = Vec::new();
    let by_cgroup = cgroups.name();
    match (bounds.memory, by_cgroup) {
        (Some(memory), Some(name)) => list.push(limit("memory", memory, name, true)),
        (Some(memory), None) => {
            warnings.push(format!(
                "nothing bounds the memory of the sandbox ({} asked for): {}",
                unit::size(memory),
                cgroups.advice()
            ));
            list.push(limit("memory", memory, "none", false));
        }
        (None, _) => {}
    }
    match by_cgroup {
        Some(name) => list.push(limit("processes", bounds.tasks, name, true)),
        None => list.push(limit("processes", bounds.tasks, "rlimit (per user id)", false)),
    }
    if let Some(disk) = limits.disk {
        list.push(limit("disk", disk, "watchdog", true));
    }
    list.push(limit("descriptors", DESCRIPTORS, "rlimit (per process)", false));
    list
}

fn free_memory() -> Result<u64, Stop> {
    let text = std::fs::read_to_string("/proc/meminfo").or_stop(Reason::Internal, "reading /proc/meminfo")?;
    let available = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.split_whitespace().next());
    let kib: Option<u64> = available.and_then(|number| number.parse().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| Stop::internal("/proc/meminfo has no MemAvailable"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: Limits =
        Limits { memory: Some(1 << 30), disk: Some(1 << 30), processes: 100, enforcement: Enforcement::Required };

    #[test]
    fn a_file_system_is_full_without_bytes_or_without_inodes() {
        let root = rustix::fs::statvfs("/").expect("stat");
        let with = |blocks: (u64, u64), inodes: (u64, u64)| {
            is_full(&StatVfs { f_bavail: blocks.0, f_blocks: blocks.1, f_favail: inodes.0, f_files: inodes.1, ..root })
        };
        assert_eq!(with((100, 1000), (100, 1000)), None);
        assert_eq!(with((99, 1000), (100, 1000)), Some("the state directory's file system"));
        assert_eq!(with((100, 1000), (99, 1000)), Some("the inodes of the state directory's file system"));
        assert_eq!(with((100, 1000), (0, 0)), None, "it counts no inodes");
    }

    #[test]
    fn rlimits_alone_do_not_satisfy_what_is_required() {
        let stop = survey(&ASKED, &Cgroups::none("no cgroup"), Path::new("/")).expect_err("memory is unbounded");
        assert_eq!(stop.reason, Reason::SandboxUnfit);
        assert!(stop.advice.is_some_and(|advice| advice.contains("Delegate=yes")));
    }

    #[test]
    fn best_effort_warns_and_says_that_nothing_holds_it() {
        let asked = Limits { enforcement: Enforcement::BestEffort, ..ASKED };
        let survey = survey(&asked, &Cgroups::none("no cgroup"), Path::new("/")).expect("it is only a warning");
        assert_eq!(survey.warnings.len(), 1);
        assert!(survey.limits.iter().any(|limit| limit.what == "memory" && limit.enforced_by == "none"));
        assert!(survey.free_memory > 0 && survey.free_disk > 0);
    }
}
