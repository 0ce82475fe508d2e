//! The arguments of bubblewrap: what a sandbox sees, as a list that can be read, and that the evidence holds a digest of.
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use drill::spec::Limits;

use super::limits;
use super::seccomp;

pub(super) use drill::port::PROGRAM;
/// What a command finds in its environment before its own variables.
pub(in crate::isolation) const ENVIRONMENT: [(&str, &str); 3] =
    [("PATH", "/usr/local/bin:/usr/bin:/bin"), ("HOME", "/tmp"), ("LANG", "C.UTF-8")];

/// Which of the two boundaries.
#[derive(Debug, Clone)]
pub(super) enum Inside {
    Database { data: PathBuf, conf: PathBuf, backup: PathBuf, programs: Option<PathBuf> },
    Agent { socket: PathBuf },
}

impl Inside {
    /// The user id inside. Never 0: a server refuses to run as root.
    pub(super) fn uid(&self) -> u32 {
        match self {
            Self::Database { .. } => 70,
            Self::Agent { .. } => 71,
        }
    }

    fn hostname(&self) -> &'static str {
        match self {
            Self::Database { .. } => "sandbox",
            Self::Agent { .. } => "agent",
        }
    }

    /// Bytes of `/dev/shm` and `/tmp`.
    fn tmpfs(&self, limits: &Limits) -> (u64, u64) {
        match self {
            Self::Database { .. } => limits::tmpfs_sizes(limits),
            Self::Agent { .. } => (16 << 20, 64 << 20),
        }
    }
}

/// What both boundaries are made of outside.
pub(super) struct Outside {
    pub(super) program: PathBuf,
    pub(super) passwd: PathBuf,
    pub(super) group: PathBuf,
}

/// Numbers of descriptors that bubblewrap itself reads or writes.
#[derive(Debug, Clone)]
pub(super) struct Descriptors {
    pub(super) seccomp: [String; 2],
    pub(super) info: String,
}

/// Everything up to the command. The order matters: what lies under a mount is made after it, and read-only comes last.
pub(super) fn arguments(inside: &Inside, outside: &Outside, fds: &Descriptors, limits: &Limits) -> Vec<OsString> {
    let uid = inside.uid().to_string();
    let (shm, tmp) = inside.tmpfs(limits);
    let mut list = Arguments::default();
    list.add(["--unshare-all", "--unshare-user", "--unshare-cgroup", "--disable-userns"]);
    list.add(["--uid", &uid, "--gid", &uid, "--hostname", inside.hostname(), "--cap-drop", "ALL"]);
    list.add(["--die-with-parent", "--new-session", "--clearenv"]);
    for (name, value) in ENVIRONMENT {
        list.add(["--setenv", name, value]);
    }
    list.add(["--add-seccomp-fd", &fds.seccomp[0], "--add-seccomp-fd", &fds.seccomp[1], "--info-fd", &fds.info]);
    list.read_only(Path::new("/usr"), Path::new("/usr"));
    for (target, link) in [("usr/bin", "/bin"), ("usr/sbin", "/sbin"), ("usr/lib", "/lib"), ("usr/lib64", "/lib64")] {
        list.add(["--symlink", target, link]);
    }
    list.read_only(&outside.passwd, Path::new("/etc/passwd"));
    list.read_only(&outside.group, Path::new("/etc/group"));
    list.add(["--proc", "/proc", "--dev", "/dev"]);
    list.add(["--size", &shm.to_string(), "--tmpfs", "/dev/shm", "--size", &tmp.to_string(), "--tmpfs", "/tmp"]);
    match inside {
        Inside::Database { data, conf, backup, programs } => {
            list.bind("--bind", data, Path::new("/data"));
            list.read_only(conf, Path::new("/conf"));
            list.read_only(backup, Path::new("/backup"));
            if let Some(programs) = programs {
                list.read_only(programs, programs);
            }
        }
        Inside::Agent { socket } => list.read_only(socket, Path::new("/db.sock")),
    }
    list.read_only(&outside.program, Path::new(PROGRAM));
    list.add(["--remount-ro", "/proc", "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp"]);
    list.0
}

/// The same for every run: paths and descriptors are placeholders.
pub(super) fn template(limits: &Limits) -> String {
    let outside = Outside { program: "PROGRAM".into(), passwd: "RUN/etc/passwd".into(), group: "RUN/etc/group".into() };
    let fds = Descriptors { seccomp: ["LISTED".into(), "ABSENT".into()], info: "INFO".into() };
    let database = Inside::Database {
        data: "RUN/data".into(),
        conf: "RUN/conf".into(),
        backup: "RUN/backup".into(),
        programs: None,
    };
    let agent = Inside::Agent { socket: "RUN/socket/db.sock".into() };
    let mut text = String::from("local isolation 2\n");
    for (name, inside) in [("database", database), ("agent", agent)] {
        text.push_str(name);
        text.push_str(": bwrap");
        for argument in arguments(&inside, &outside, &fds, limits) {
            text.push(' ');
            text.push_str(&argument.to_string_lossy());
        }
        text.push('\n');
    }
    text.push_str("environment: empty\nsession keyring: new and empty\numask: 077\n");
    text.push_str(&seccomp::in_words());
    text
}

#[derive(Default)]
struct Arguments(Vec<OsString>);

impl Arguments {
    fn add<const N: usize>(&mut self, arguments: [&str; N]) {
        self.0.extend(arguments.map(OsString::from));
    }

    fn read_only(&mut self, from: &Path, to: &Path) {
        self.bind("--ro-bind", from, to);
    }

    fn bind(&mut self, how: &str, from: &Path, to: &Path) {
        self.0.extend([how.into(), from.into(), to.into()]);
    }
}

#[cfg(test)]
mod tests {
    use drill::spec::Enforcement;

    use super::*;

    #[test]
    fn the_template_is_stable_and_knows_no_run() {
        let limits = Limits { memory: None, disk: None, processes: 200, enforcement: Enforcement::BestEffort };
        let text = template(&limits);
        assert_eq!(text, template(&limits));
        for needed in
            ["--unshare-user", "--disable-userns", "--clearenv", "--cap-drop ALL", "everything else", "clone3"]
        {
            assert!(text.contains(needed), "{needed}");
        }
        assert!(!text.contains("/proc/self") && !text.contains("/var/"));
    }

    #[test]
    fn the_agent_sees_the_socket_and_no_data() {
        let limits = Limits { memory: None, disk: None, processes: 1, enforcement: Enforcement::BestEffort };
        let text = template(&limits);
        let agent = text.lines().find(|line| line.starts_with("agent:")).expect("the agent's line");
        assert!(agent.contains("/db.sock") && !agent.contains("/data") && !agent.contains("/conf"));
    }
}
