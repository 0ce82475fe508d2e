//! Data directories that are made once and copied for each run.
use std::fs::{DirBuilder, File};
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::Duration;

use drill::port::{Exec, ExitStatus, Template};
use drill::stop::{OrStop, Stop};
use drill::verdict::Reason;
use rustix::fs::{CWD, Mode};

use super::sandbox::Start;
use super::tree::{self, Durable};
use super::{exec, spawn};

const MAKE: Duration = Duration::from_mins(2);
const END: Duration = Duration::from_secs(30);

/// Fills the run's `data/`: from the cache, or by making what belongs there first.
pub(super) async fn fill(start: &Start<'_>, template: &Template, programs: Option<PathBuf>) -> Result<(), Stop> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if template.key.is_empty() || template.key.len() > 100 || !template.key.chars().all(plain) {
        return Err(Stop::internal(format!("`{}` is no key of a template", template.key)));
    }
    let cached = start.shared.root.cache().join(format!("template-{}", template.key));
    if !cached.is_dir() {
        make(start, template, programs, cached.clone()).await?;
    }
    let (data, uid) = (start.directory.join("data"), start.uid);
    let copy = move || -> std::io::Result<()> {
        let from = tree::open_directory(CWD, &cached)?;
        let to = tree::open_directory(CWD, &data)?;
        tree::copy(from.as_fd(), to.as_fd(), uid, Durable::No)
    };
    let tried = "copying the data directory's template";
    tokio::task::spawn_blocking(copy).await.or_stop(Reason::Internal, tried)?.or_stop(Reason::Internal, tried)
}

/// In a sandbox of the same kind, under the run's own name, so that whatever cleans up after the run cleans up after this.
async fn make(start: &Start<'_>, template: &Template, programs: Option<PathBuf>, cached: PathBuf) -> Result<(), Stop> {
    let tried = format!("making the data directory's template `{}`", template.key);
    let data = start.directory.join("template");
    DirBuilder::new().mode(0o700).create(&data).or_stop(Reason::Internal, &tried)?;
    let fd = File::open(&data).or_stop(Reason::Internal, &tried)?;
    tree::give(fd.as_fd(), Mode::RWXU, start.uid).or_stop(Reason::Internal, &tried)?;

    let started = start.with_init(start.data("template", programs), "template.sock", 1).await?;
    let mut command = Exec::new(template.argv.clone());
    command.deadline = MAKE;
    let output = exec::exec(&started.control, command).await?;
    if output.status != ExitStatus::Code(0) {
        let said = exec::clean(String::from_utf8_lossy(&output.stderr).trim());
        return Err(Stop::new(Reason::SandboxUnfit, format!("{tried}: it ended with {:?}: {said}", output.status)));
    }
    let runs_own = start.shared.root.cache().join(format!(".tmp-{}", start.run));
    let keep = move || -> Result<(), Stop> {
        started.running.first.kill();
        spawn::seen_ended(&started.running.first, END)?;
        publish(&data, &runs_own, &cached).or_stop(Reason::Internal, tried)
    };
    tokio::task::spawn_blocking(keep).await.or_stop(Reason::Internal, "keeping the template")?
}

/// Whole or not at all, and on the disk before it has its name: a torn template would spoil every later run. Whoever comes second
/// finds the name taken, which is as good.
fn publish(made: &PathBuf, temporary: &PathBuf, cached: &PathBuf) -> std::io::Result<()> {
    DirBuilder::new().mode(0o700).create(temporary)?;
    let from = tree::open_directory(CWD, made)?;
    let to = tree::open_directory(CWD, temporary)?;
    let own = rustix::process::geteuid().as_raw();
    tree::copy(from.as_fd(), to.as_fd(), own, Durable::Yes)?;
    let renamed = std::fs::rename(temporary, cached);
    let go_on = || true;
    let remove = |path: &PathBuf| -> std::io::Result<u64> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(0) };
        let name = std::ffi::CString::new(name.as_encoded_bytes())?;
        tree::remove(File::open(parent)?.as_fd(), &name, &go_on)
    };
    remove(made)?;
    match renamed {
        Err(_) if cached.is_dir() => remove(temporary).map(drop),
        other => other,
    }
}
