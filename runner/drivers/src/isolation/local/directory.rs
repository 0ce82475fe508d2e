//! The run's own directory: who owns it, what is in it, and what muster calls the run's processes and cgroups.
//!
//! `runs/<run>/` is 0700 and belongs to the run's own user id. In it: `data/` (writable inside), `conf/`, `backup/` and `etc/`
//! (read-only inside), `staging/` and `socket/` (seen by no sandbox of the database).
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use drill::id::{RunId, Sha256Digest};
use drill::port::InputFile;
use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;
use rustix::fs::{FlockOperation, Mode};

use super::inside::users;
use super::{LocalConfig, process, tree};

/// The state directory, seen from the isolation driver.
#[derive(Debug, Clone)]
pub(super) struct Root {
    path: PathBuf,
    /// Tells sandboxes of one state directory from those of another, in names of processes and cgroups.
    tag: String,
    uids: std::ops::RangeInclusive<u32>,
}

impl Root {
    pub(super) fn open(config: &LocalConfig) -> Result<Self, Stop> {
        let tried = || format!("making the state directory {}", config.state_root.display());
        if *config.uids.start() == 0 || config.uids.is_empty() {
            return Err(Stop::new(Reason::SandboxUnfit, "the range of user ids for sandboxes is empty or holds 0")
                .advise("name a range of unused user ids, such as 61184-65519"));
        }
        for (path, mode) in [("", 0o711), ("runs", 0o711), ("cache", 0o711)] {
            let path = config.state_root.join(path);
            DirBuilder::new().recursive(true).mode(mode).create(&path).or_stop(Reason::Internal, tried())?;
            let metadata = std::fs::symlink_metadata(&path).or_stop(Reason::Internal, tried())?;
            if metadata.uid() == rustix::process::geteuid().as_raw() && metadata.is_dir() {
                let mode = std::fs::Permissions::from_mode(mode);
                std::fs::set_permissions(&path, mode).or_stop(Reason::Internal, tried())?;
            }
        }
        let path = config.state_root.canonicalize().or_stop(Reason::Internal, tried())?;
        let tag = Sha256Digest::of(path.as_os_str().as_encoded_bytes()).hex()[..12].to_owned();
        Ok(Self { path, tag, uids: config.uids.clone() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn runs(&self) -> PathBuf {
        self.path.join("runs")
    }

    pub(super) fn cache(&self) -> PathBuf {
        self.path.join("cache")
    }

    pub(super) fn run(&self, run: &RunId) -> RunDirectory {
        RunDirectory { path: self.runs().join(run.as_str()) }
    }

    pub(super) fn tag(&self) -> &str {
        &self.tag
    }

    /// What bubblewrap of this run is called in the process list.
    pub(super) fn process_name(&self, kind: &str, run: &RunId) -> String {
        format!("muster-{kind}:{run}:{}", self.tag)
    }

    /// Whether a sandbox of this state directory could run under `uid`.
    pub(super) fn may_own(&self, uid: u32) -> bool {
        let own = rustix::process::geteuid();
        if own.is_root() { self.uids.contains(&uid) } else { uid == own.as_raw() }
    }

    /// Makes the run's directory. As root it is given to a user id that nobody has.
    pub(super) fn make_run(&self, run: &RunId) -> Result<(RunDirectory, u32), Stop> {
        let directory = self.run(run);
        let tried = || format!("making the run's directory {}", directory.path.display());
        let lock = OpenOptions::new().create(true).append(true).mode(0o600).open(self.path.join("runs.lock"));
        let lock = lock.or_stop(Reason::Internal, tried())?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).or_stop(Reason::Internal, tried())?;
        let own = rustix::process::geteuid();
        let uid = if own.is_root() { self.unused_uid(run)? } else { own.as_raw() };
        self.must_be_reachable(uid)?;
        DirBuilder::new().mode(0o700).create(&directory.path).or_stop(Reason::Internal, tried())?;
        for name in ["data", "conf", "backup", "staging", "socket", "etc"] {
            DirBuilder::new().mode(0o700).create(directory.path.join(name)).or_stop(Reason::Internal, tried())?;
        }
        for name in ["data", "conf", "backup", "socket", "etc", "."] {
            let fd = File::open(directory.path.join(name)).or_stop(Reason::Internal, tried())?;
            tree::give(fd.as_fd(), Mode::RWXU, uid).or_stop(Reason::Internal, tried())?;
        }
        Ok((directory, uid))
    }

    /// No process has it, nothing in `runs/` belongs to it, and it has no name.
    fn unused_uid(&self, run: &RunId) -> Result<u32, Stop> {
        let tried = "looking for an unused user id";
        let mut used = process::uids_in_use().or_stop(Reason::Internal, tried)?;
        for entry in std::fs::read_dir(self.runs()).or_stop(Reason::Internal, tried)? {
            used.insert(entry.and_then(|entry| entry.metadata()).or_stop(Reason::Internal, tried)?.uid());
        }
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        used.extend(passwd.lines().filter_map(|line| line.split(':').nth(2)?.parse::<u32>().ok()));
        // Two state directories do not know of each other; so each run starts looking somewhere else.
        let size = self.uids.end() - self.uids.start() + 1;
        let seed = Sha256Digest::of(format!("{run}{}", self.tag).as_bytes());
        let seed = u32::from_be_bytes([0, 0, seed.as_bytes()[0], seed.as_bytes()[1]]);
        let free = (0..size).map(|step| self.uids.start() + (seed + step) % size).find(|uid| !used.contains(uid));
        free.ok_or_else(|| {
            let (first, last) = (self.uids.start(), self.uids.end());
            Stop::new(Reason::SandboxUnfit, format!("every user id from {first} to {last} is in use"))
                .advise("run `muster reap`, or name a wider range of user ids for sandboxes")
        })
    }

    fn must_be_reachable(&self, uid: u32) -> Result<(), Stop> {
        match self.path.ancestors().find(|path| !enterable(path, uid)) {
            None => Ok(()),
            Some(closed) => Err(Stop::new(
                Reason::SandboxUnfit,
                format!(
                    "{} cannot be entered by a sandbox's user id: the state directory lies beneath it",
                    closed.display()
                ),
            )
            .advise("name another state directory, such as MUSTER_STATE_DIR=/var/lib/muster")),
        }
    }

    /// Where the sandbox's user finds muster's own program: where it is, or a copy where that is out of its reach.
    pub(super) fn reachable_program(&self, program: &Path, uid: u32) -> Result<PathBuf, Stop> {
        let tried = || format!("reading muster's own program {}", program.display());
        let program = program.canonicalize().or_stop(Reason::SandboxUnfit, tried())?;
        let metadata = std::fs::metadata(&program).or_stop(Reason::SandboxUnfit, tried())?;
        let executable = metadata.mode() & 0o005 == 0o005 || metadata.uid() == uid;
        if executable && program.ancestors().skip(1).all(|path| enterable(path, uid)) {
            return Ok(program);
        }
        let (dev, ino) = (metadata.dev(), metadata.ino());
        let name = format!("program-{dev}-{ino}-{}-{}-{}", metadata.mtime(), metadata.mtime_nsec(), metadata.size());
        let copy = self.cache().join(name);
        if !copy.exists() {
            let temporary = self.cache().join(format!(".tmp-program-{}", std::process::id()));
            std::fs::copy(&program, &temporary).or_stop(Reason::Internal, tried())?;
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(&temporary, mode).or_stop(Reason::Internal, tried())?;
            std::fs::rename(&temporary, &copy).or_stop(Reason::Internal, tried())?;
        }
        Ok(copy)
    }
}

fn enterable(path: &Path, uid: u32) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| {
        let bit = if metadata.uid() == uid { 0o100 } else { 0o001 };
        metadata.mode() & bit != 0
    })
}

#[derive(Debug, Clone)]
pub(super) struct RunDirectory {
    pub(super) path: PathBuf,
}

impl RunDirectory {
    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The user id that the run was given in `prepare`.
    pub(super) fn owner(&self) -> Result<u32, Stop> {
        let tried = format!("reading the run's directory {}", self.path.display());
        let metadata = std::fs::symlink_metadata(&self.path).or_stop(Reason::Internal, &tried)?;
        if !metadata.is_dir() || metadata.uid() == 0 {
            return Err(Stop::internal(format!("{tried}: it is no directory of a sandbox's user")));
        }
        Ok(metadata.uid())
    }

    pub(super) fn open(&self, name: &str) -> io::Result<OwnedFd> {
        Ok(tree::open_directory(rustix::fs::CWD, self.join(name))?)
    }

    /// Writes `/conf`, and the `/etc/passwd` and `/etc/group` that let programs find a name for their user id.
    pub(super) fn write_inputs(&self, files: &[InputFile], uid: u32) -> Result<(), Stop> {
        for (name, contents) in users() {
            let name = Path::new("etc").join(name);
            self.write(&name, contents.as_bytes(), 0o644, uid)
                .or_stop(Reason::Internal, format!("writing {} of the sandbox", name.display()))?;
        }
        for file in files {
            let name = Path::new(&file.name);
            let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
            if file.name.is_empty() || !name.components().all(plain) {
                return Err(Stop::internal(format!("`{}` is not a path beneath /conf", file.name)));
            }
            let mode = if file.secret { 0o600 } else { 0o644 };
            self.write(&Path::new("conf").join(name), &file.contents, mode, uid)
                .or_stop(Reason::Internal, format!("writing /conf/{} of the sandbox", file.name))?;
        }
        Ok(())
    }

    fn write(&self, name: &Path, contents: &[u8], mode: u32, uid: u32) -> io::Result<()> {
        let path = self.path.join(name);
        if let Some(parent) = path.parent().filter(|parent| !parent.is_dir()) {
            DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
            let below = parent.strip_prefix(&self.path).map_err(io::Error::other)?;
            for directory in below.ancestors().filter(|part| !part.as_os_str().is_empty()) {
                let fd = File::open(self.path.join(directory))?;
                tree::give(fd.as_fd(), Mode::RWXU, uid)?;
            }
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(contents)?;
        tree::give(file.as_fd(), Mode::from_raw_mode(mode), uid)
    }

    /// Moves everything from `staging/` to `backup/`, readable by the sandbox's user and writable by nobody.
    pub(super) fn deliver(&self, uid: u32) -> io::Result<()> {
        let (staging, backup) = (self.open("staging")?, self.open("backup")?);
        close_to_writers(&staging, uid, 0)?;
        for entry in rustix::fs::Dir::read_from(&staging)? {
            let entry = entry?;
            let name = entry.file_name();
            if !matches!(name.to_bytes(), b"." | b"..") {
                rustix::fs::renameat(&staging, name, &backup, name)?;
                // Moving a directory writes to it, so a plain user may close it only now.
                if let Ok(moved) = tree::open_directory(&backup, name) {
                    tree::give(moved.as_fd(), Mode::RUSR | Mode::XUSR, uid)?;
                }
            }
        }
        tree::give(backup.as_fd(), Mode::RUSR | Mode::XUSR, uid)
    }
}

fn close_to_writers(directory: &OwnedFd, uid: u32, depth: usize) -> io::Result<()> {
    if depth > 16 {
        return Err(io::Error::other("the staged backup is more than 16 directories deep"));
    }
    for entry in rustix::fs::Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let flags = rustix::fs::OFlags::RDONLY
            | rustix::fs::OFlags::NOFOLLOW
            | rustix::fs::OFlags::NONBLOCK
            | rustix::fs::OFlags::CLOEXEC;
        let fd = rustix::fs::openat(directory, name, flags, Mode::empty())?;
        match rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) {
            rustix::fs::FileType::Directory => {
                close_to_writers(&fd, uid, depth + 1)?;
                let mode = if depth == 0 { Mode::RWXU } else { Mode::RUSR | Mode::XUSR };
                tree::give(fd.as_fd(), mode, uid)?;
            }
            rustix::fs::FileType::RegularFile => tree::give(fd.as_fd(), Mode::RUSR, uid)?,
            other => {
                let name = name.to_string_lossy();
                return Err(io::Error::other(format!("`{name}` in the staged backup is a {other:?}")));
            }
        }
    }
    Ok(())
}
